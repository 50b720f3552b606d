//! Connections to the file: one transaction at a time, and never to another file than the path leads to.
//!
//! A connection keeps the file that it has opened, also when that is renamed or deleted and another one lies there since. So before each
//! transaction device and inode of the path are compared with those at the opening. The file itself is never opened here: closing it
//! would give up every lock that this process holds on it (POSIX).
//!
//! A connection whose transaction did not end well is closed, which rolls back.

use std::future::Future;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row, Sqlite, SqliteConnection};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::failure::{fault, unreadable, unseen};
use super::names::Sql;
use super::network;
use super::settings::Settings;
use crate::fault::{Cause, Fault, TIMEOUT};

/// Reads see one snapshot from the first statement on.
const BEGIN_READING: &str = "BEGIN";
/// Takes the one lock for writing at once: a transaction that reads first and writes later could be refused in between.
const BEGIN_WRITING: &str = "BEGIN IMMEDIATE";
const COMMIT: &str = "COMMIT";
/// What was asked for when connecting, as it came out: another build of SQLite could have its own idea.
const SETTINGS: &str = "SELECT (SELECT synchronous FROM pragma_synchronous), (SELECT encoding FROM pragma_encoding)";
/// Every connection that commits waits until the disk has it; less could lose a mark, and with it what is applied.
const SYNCHRONOUS_FULL: i64 = 2;

/// Longest wait for the lock of another writer.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Beyond the timeout of a statement: then its thread hangs, in a call to the disk perhaps.
const GRACE: Duration = Duration::from_secs(5);
/// Changes with every commit of another connection, in 14 µs.
const VERSION: &str = "PRAGMA data_version";
/// Between two looks at it: most of what an event waits for that comes while nothing else does.
const VERSION_EVERY: Duration = Duration::from_millis(10);

/// Rows that are read ahead of us.
const ROWS_AHEAD: usize = 16;

/// Which file it is, on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// How to reach the file.
#[derive(Clone)]
pub(super) struct Place(Arc<Reach>);

struct Reach {
    path: PathBuf,
    options: SqliteConnectOptions,
    connect_timeout: Duration,
    deadline: Duration,
}

impl Place {
    pub(super) fn new(settings: &Settings) -> Self {
        let (connect_timeout, statement_timeout) = (settings.database.connect_timeout, settings.database.statement_timeout);
        let options = SqliteConnectOptions::new()
            .filename(&settings.file)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(LOCK_WAIT.min(statement_timeout))
            .row_buffer_size(ROWS_AHEAD)
            .disable_statement_logging();
        Self(Arc::new(Reach { path: settings.file.clone(), options, connect_timeout, deadline: statement_timeout + GRACE }))
    }

    /// Creates the file where there is none, in WAL mode: readers and the writer do not wait for each other then. Says whether it did.
    pub(super) async fn create(&self) -> Result<bool, Fault> {
        if self.0.path.exists() {
            return Ok(false);
        }
        let options = self.0.options.clone().create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
        within(self.0.connect_timeout, options.connect()).await.map(|_| true)
    }

    /// A way to the file, whichever lies there.
    pub(super) fn link(&self) -> Link {
        Link { place: self.clone(), pinned: None, open: None }
    }

    /// The path with every symbolic link followed: what the database is recognised by.
    pub(super) fn address(&self) -> Result<String, Fault> {
        let path = self.0.path.canonicalize().map_err(|error| unseen(&self.0.path, &error))?;
        Ok(path.display().to_string())
    }

    fn id(&self) -> Result<FileId, Fault> {
        let found = std::fs::metadata(&self.0.path).map_err(|error| unseen(&self.0.path, &error))?;
        Ok(FileId { device: found.dev(), inode: found.ino() })
    }

    async fn connect(&self) -> Result<Open, Fault> {
        let id = self.id()?;
        network::refuse(&self.0.path.canonicalize().map_err(|error| unseen(&self.0.path, &error))?)?;
        let mut connection = within(self.0.connect_timeout, self.0.options.connect()).await?;
        let settings = within(self.0.deadline, connection.fetch_one(sqlx::raw_sql(SETTINGS))).await?;
        check(&settings)?;
        if self.id()? != id {
            return Err(Fault::database("file_moved", "another file was put there while it was opened"));
        }
        Ok(Open { connection, id })
    }
}

/// Text in another encoding than UTF-8 would have to be changed before it is passed on.
fn check(settings: &SqliteRow) -> Result<(), Fault> {
    let (synchronous, encoding): (i64, String) = (get(settings, 0, "synchronous")?, get(settings, 1, "encoding")?);
    if synchronous < SYNCHRONOUS_FULL {
        return Err(Fault::Misconfigured {
            detail: format!("SQLite says synchronous = {synchronous} although FULL was asked for"),
            remedy: "Use a build of outboxd with its own SQLite".into(),
        });
    }
    if encoding != "UTF-8" {
        let detail = format!("the database is encoded in {encoding}: what is passed on byte for byte must be UTF-8");
        return Err(Fault::Misconfigured { detail, remedy: "Copy it into a new file with PRAGMA encoding = 'UTF-8'".into() });
    }
    Ok(())
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Fault> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(fault),
        Err(_) => Err(Fault::database(TIMEOUT, format!("no answer within {} s", limit.as_secs_f32()))),
    }
}

struct Open {
    connection: SqliteConnection,
    id: FileId,
}

impl Open {
    /// Which commits of others this connection has seen.
    async fn version(&mut self) -> Result<i64, Fault> {
        let row = within(VERSION_EVERY * 100, self.connection.fetch_one(sqlx::raw_sql(VERSION))).await?;
        get(&row, 0, "data_version")
    }
}

/// A connection between transactions, made anew when the last one was closed.
pub(super) struct Link {
    place: Place,
    /// The only file that will do.
    pinned: Option<FileId>,
    open: Option<Open>,
}

impl Link {
    /// Two links to the file that this one has open now, and to no other one.
    pub(super) fn pinned(self) -> Result<(Self, Self), Fault> {
        let pinned = Some(self.open.as_ref().ok_or_else(|| unreadable("file"))?.id);
        Ok((Self { place: self.place.clone(), pinned, open: None }, Self { pinned, ..self }))
    }

    /// Ends when another connection has committed since `seen`, or nothing can be told: then the next transaction finds out why.
    pub(super) async fn changed(&mut self, seen: i64) {
        loop {
            sleep(VERSION_EVERY).await;
            let here = self.place.id().ok();
            // whoever drops this half way drops the connection with it, not one in the middle of an answer
            let Some(mut open) = self.open.take().filter(|open| Some(open.id) == here) else { return };
            match open.version().await {
                Ok(version) if version == seen => self.open = Some(open),
                Ok(_) | Err(_) => {
                    self.open = Some(open);
                    return;
                }
            }
        }
    }

    /// Begins a transaction that only reads.
    pub(super) async fn read(&mut self) -> Result<Work<'_>, Fault> {
        self.begin(BEGIN_READING).await
    }

    /// Begins a transaction as the only writer.
    pub(super) async fn write(&mut self) -> Result<Work<'_>, Fault> {
        self.begin(BEGIN_WRITING).await
    }

    async fn begin(&mut self, begin: &'static str) -> Result<Work<'_>, Fault> {
        let here = self.place.id()?;
        if self.pinned.is_some_and(|pinned| pinned != here) {
            return Err(Fault::in_doubt(Cause::FileChanged, "the database is another file than at the claim"));
        }
        let mut open = match self.open.take().filter(|open| open.id == here) {
            Some(open) => open,
            None => self.place.connect().await?,
        };
        if self.pinned.is_some_and(|pinned| pinned != open.id) {
            return Err(Fault::in_doubt(Cause::FileChanged, "the database became another file while it was opened"));
        }
        within(self.place.0.deadline, open.connection.execute(sqlx::raw_sql(begin))).await?;
        Ok(Work { link: self, open })
    }
}

/// A statement with its values.
pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// A statement to bind values to: `?1` and so on.
pub(super) fn statement<'q>(sql: &Sql) -> Statement<'q> {
    sqlx::query(sql.safe())
}

/// An open transaction; dropping it closes the connection, which rolls back.
pub(super) struct Work<'a> {
    link: &'a mut Link,
    open: Open,
}

impl Work<'_> {
    /// All rows.
    pub(super) async fn rows(&mut self, statement: Statement<'_>) -> Result<Vec<SqliteRow>, Fault> {
        within(self.link.place.0.deadline, statement.fetch_all(&mut self.open.connection)).await
    }

    /// The first row.
    pub(super) async fn row(&mut self, statement: Statement<'_>) -> Result<Option<SqliteRow>, Fault> {
        within(self.link.place.0.deadline, statement.fetch_optional(&mut self.open.connection)).await
    }

    /// Hands each row to `take` as it comes, until that has enough.
    pub(super) async fn each(
        &mut self,
        statement: Statement<'_>,
        mut take: impl FnMut(&SqliteRow) -> Result<ControlFlow<()>, Fault> + Send,
    ) -> Result<(), Fault> {
        let deadline = self.link.place.0.deadline;
        let mut rows = statement.fetch(&mut self.open.connection);
        let reading = async {
            while let Some(row) = rows.try_next().await.map_err(fault)? {
                if take(&row)?.is_break() {
                    break;
                }
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
        Ok(within(self.link.place.0.deadline, statement.execute(&mut self.open.connection)).await?.rows_affected())
    }

    /// Several statements without values.
    pub(super) async fn script(&mut self, sql: &str) -> Result<(), Fault> {
        let script = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        within(self.link.place.0.deadline, self.open.connection.execute(script)).await.map(drop)
    }

    /// Which commits of others this transaction sees.
    pub(super) async fn version(&mut self) -> Result<i64, Fault> {
        self.open.version().await
    }

    /// Commits, and gives the connection back.
    pub(super) async fn commit(mut self) -> Result<(), Fault> {
        within(self.link.place.0.deadline, self.open.connection.execute(sqlx::raw_sql(COMMIT))).await?;
        self.link.open = Some(self.open);
        Ok(())
    }
}

/// A connection that several callers share, one after the other.
pub(super) struct Kept(Mutex<Link>);

impl Kept {
    pub(super) fn new(place: &Place) -> Self {
        Self(Mutex::new(place.link()))
    }

    /// Waits for its turn.
    pub(super) async fn link(&self) -> tokio::sync::MutexGuard<'_, Link> {
        self.0.lock().await
    }
}

/// A column of a row.
pub(super) fn get<'r, T>(row: &'r SqliteRow, index: usize, name: &'static str) -> Result<T, Fault>
where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    row.try_get(index).map_err(|_| unreadable(name))
}
