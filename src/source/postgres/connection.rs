//! Connections: one transaction at a time, nothing kept in the session, so that a pooler in transaction mode may stand in between.
//!
//! A connection whose transaction did not end well is closed, never used again: the server rolls back at once, and whatever was half
//! read is gone with it. What is needed is connected anew.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow, PgSslMode};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Postgres};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::failure::fault;
use super::names::Sql;
use super::settings::Settings;
use crate::config::{DatabaseTls, Host};
use crate::fault::{Fault, TIMEOUT};

/// Begins every transaction, in one round trip. READ COMMITTED is said because a database may have another default; everything is
/// LOCAL because a pooler gives the session to somebody else afterwards. Parallel workers cost 10 ms a batch, and compiling a plan
/// (which the disabled nodes of `INDEXES_ONLY` would make look expensive up to version 17) hundreds. A relay that is frozen inside a
/// transaction must not keep the state row from its successor for long, hence the idle limit.
/// Rejected: `search_path`, which the service's own triggers on the outbox may need as it is.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off; \
    SET LOCAL idle_in_transaction_session_timeout = 5000; SET LOCAL statement_timeout = ";
const LOCK_TIMEOUT: &str = "; SET LOCAL lock_timeout = ";
/// Rows must come from an index in its order, whatever stale statistics say: a sequential or bitmap scan and a sort of the backlog is
/// what the planner turns to, and a hash or merge join reads the whole table for one batch.
const INDEXES_ONLY: &str = "; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_hashjoin = off; \
    SET LOCAL enable_mergejoin = off; SET LOCAL enable_sort = off; SET LOCAL work_mem = '64MB'";
const COMMIT: &str = "COMMIT";

/// Longest wait for a lock that somebody else holds: a command, another relay, or a service that locks its own rows.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// The server ends a statement at its timeout; when it says nothing for this much longer, the connection is dead.
const GRACE: Duration = Duration::from_secs(5);
/// A connection idle for longer may have been forgotten by a firewall in between, which shows only after minutes.
const IDLE: Duration = Duration::from_secs(30);

/// How to reach the server.
#[derive(Clone)]
pub(super) struct Server(Arc<Reach>);

struct Reach {
    options: PgConnectOptions,
    connect_timeout: Duration,
    deadline: Duration,
    begin: String,
}

impl Server {
    pub(super) fn new(settings: &Settings) -> Self {
        let (connect_timeout, statement_timeout) = (settings.database.connect_timeout, settings.database.statement_timeout);
        let (statement_ms, lock_ms) = (statement_timeout.as_millis(), LOCK_WAIT.min(statement_timeout).as_millis());
        Self(Arc::new(Reach {
            options: options(settings),
            connect_timeout,
            deadline: statement_timeout + GRACE,
            begin: format!("{BEGIN}{statement_ms}{LOCK_TIMEOUT}{lock_ms}"),
        }))
    }

    /// A new connection.
    pub(super) async fn link(&self) -> Result<Link, Fault> {
        let connection = Some((self.connect().await?, Instant::now()));
        Ok(Link { server: self.clone(), connection })
    }

    async fn connect(&self) -> Result<PgConnection, Fault> {
        within(self.0.connect_timeout, self.0.options.connect()).await
    }
}

/// `extra_float_digits` is left out because PgBouncer refuses startup parameters that it does not know.
fn options(settings: &Settings) -> PgConnectOptions {
    let database = &settings.database;
    let address = database.address();
    let mut options = PgConnectOptions::new_without_pgpass()
        .port(address.port)
        .database(&address.database)
        .username(&database.url.user)
        .application_name(&application_name(settings))
        .extra_float_digits(None)
        .statement_cache_capacity(0)
        .ssl_mode(match database.tls {
            DatabaseTls::Prefer => PgSslMode::Prefer,
            DatabaseTls::Require => PgSslMode::Require,
            DatabaseTls::VerifyFull => PgSslMode::VerifyFull,
        });
    options = match &address.host {
        Host::Name(name) => options.host(name),
        // who has a file has another source
        Host::Socket(folder) | Host::File(folder) => options.socket(folder),
    };
    if let Some(password) = &database.password {
        options = options.password(password.reveal());
    }
    if let Some(file) = &database.ca_file {
        options = options.ssl_root_cert(file);
    }
    options.disable_statement_logging()
}

/// What the server shows of us; the URL may say something else.
fn application_name(settings: &Settings) -> String {
    let configured = settings.database.url.application_name.clone();
    configured.unwrap_or_else(|| format!("outboxd {}", settings.name()))
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Fault> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(fault),
        Err(_) => Err(Fault::database(TIMEOUT, format!("no answer within {} s", limit.as_secs_f32()))),
    }
}

/// A connection between transactions, made anew when the last one was closed.
pub(super) struct Link {
    server: Server,
    connection: Option<(PgConnection, Instant)>,
}

impl Link {
    /// Begins a transaction.
    pub(super) async fn begin(&mut self) -> Result<Work<'_>, Fault> {
        self.begin_with("").await
    }

    /// Begins a transaction whose statements must be served by indexes in their order.
    pub(super) async fn begin_indexed(&mut self) -> Result<Work<'_>, Fault> {
        self.begin_with(INDEXES_ONLY).await
    }

    /// Begins such a transaction with a first statement, all in one round trip; returns the first row as text.
    pub(super) async fn begin_with_row(&mut self, first: &Sql) -> Result<(Work<'_>, Option<PgRow>), Fault> {
        let (work, rows) = self.begin_reading(&format!("{INDEXES_ONLY}; {}", first.text())).await?;
        Ok((work, rows.into_iter().next()))
    }

    async fn begin_with(&mut self, more: &str) -> Result<Work<'_>, Fault> {
        Ok(self.begin_reading(more).await?.0)
    }

    async fn begin_reading(&mut self, more: &str) -> Result<(Work<'_>, Vec<PgRow>), Fault> {
        let fresh = self.connection.take().filter(|(_, used)| used.elapsed() < IDLE);
        let mut connection = match fresh {
            Some((connection, _)) => connection,
            None => self.server.connect().await?,
        };
        let begin = format!("{}{more}", self.server.0.begin);
        let rows = within(self.server.0.deadline, connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(begin)))).await?;
        Ok((Work { link: self, connection }, rows))
    }
}

/// A statement with its values.
pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A statement to bind values to. Unnamed on the server, because a pooler may give the next transaction another session; that also
/// means that it is planned with its values, each time.
pub(super) fn statement<'q>(sql: &Sql) -> Statement<'q> {
    sqlx::query(sql.safe()).persistent(false)
}

/// An open transaction; dropping it closes the connection, which rolls back.
pub(super) struct Work<'a> {
    link: &'a mut Link,
    connection: PgConnection,
}

impl Work<'_> {
    /// All rows.
    pub(super) async fn rows(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, Fault> {
        within(self.link.server.0.deadline, statement.fetch_all(&mut self.connection)).await
    }

    /// The first row.
    pub(super) async fn row(&mut self, statement: Statement<'_>) -> Result<Option<PgRow>, Fault> {
        within(self.link.server.0.deadline, statement.fetch_optional(&mut self.connection)).await
    }

    /// Hands each row to `take` as it comes.
    pub(super) async fn each(
        &mut self,
        statement: Statement<'_>,
        mut take: impl FnMut(&PgRow) -> Result<(), Fault> + Send,
    ) -> Result<(), Fault> {
        let deadline = self.link.server.0.deadline;
        let mut rows = statement.fetch(&mut self.connection);
        let reading = async {
            while let Some(row) = rows.try_next().await.map_err(fault)? {
                take(&row)?;
            }
            Ok(())
        };
        match timeout(deadline, reading).await {
            Ok(done) => done,
            Err(_) => Err(Fault::database(TIMEOUT, format!("no answer within {} s", deadline.as_secs_f32()))),
        }
    }

    /// Number of rows changed.
    pub(super) async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, Fault> {
        Ok(within(self.link.server.0.deadline, statement.execute(&mut self.connection)).await?.rows_affected())
    }

    /// Several statements without values in one round trip.
    pub(super) async fn script(&mut self, sql: &str) -> Result<(), Fault> {
        within(self.link.server.0.deadline, self.connection.execute(sqlx::raw_sql(AssertSqlSafe(sql)))).await.map(drop)
    }

    /// Commits, and gives the connection back.
    pub(super) async fn commit(mut self) -> Result<(), Fault> {
        within(self.link.server.0.deadline, self.connection.execute(sqlx::raw_sql(COMMIT))).await?;
        self.link.connection = Some((self.connection, Instant::now()));
        Ok(())
    }
}

/// A connection that several callers share, one after the other.
pub(super) struct Kept {
    link: Mutex<Link>,
}

impl Kept {
    pub(super) fn new(server: Server) -> Self {
        Self { link: Mutex::new(Link { server, connection: None }) }
    }

    /// Waits for its turn.
    pub(super) async fn link(&self) -> tokio::sync::MutexGuard<'_, Link> {
        self.link.lock().await
    }
}
