//! One writer: a connection, and one transaction after the other. It records the fate of each event it inserted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};
use tokio::time::Instant;
use uuid::Uuid;

use super::plan::{Draft, Ending, Plan, Planner, Spoilt};
use super::{RETRY, Shared};
use crate::truth::{Fate, KIND, MARKER, Written};

/// Bumps the version of an aggregate and so holds its lock; what is inserted later has a later number.
const BUMP: &str = "UPDATE aggregate SET version = version + 1 WHERE key = $1 RETURNING version";

const INSERT: &str =
    "INSERT INTO outbox (id, topic, key, type, payload, headers) VALUES ($1, $2, $3, $4, $5::text::json, $6::text::json)";

/// Writes until the workload is stopped.
pub(super) async fn run(shared: Arc<Shared>, number: usize) {
    let planner = Planner::new(&shared.habits, shared.topics.len(), fastrand::u64(..));
    let mut writer = Writer { number, planner, in_doubt: None, due: Instant::now(), shared };
    while !writer.is_stopped() {
        if let Err(error) = writer.work().await {
            assert!(is_outage(&error), "writer {number}: {error}");
            tokio::time::sleep(RETRY).await;
        }
    }
}

struct Writer {
    number: usize,
    shared: Arc<Shared>,
    planner: Planner,
    /// The prepared transaction whose end was not confirmed: its locks may be held still.
    in_doubt: Option<String>,
    /// When the next transaction may start.
    due: Instant,
}

impl Writer {
    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Works on one connection until it breaks or the workload stops.
    async fn work(&mut self) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.shared.url).await?;
        if let Some(gid) = self.in_doubt.clone() {
            let is_there = sqlx::query("SELECT 1 FROM pg_prepared_xacts WHERE gid = $1").bind(&gid);
            if is_there.fetch_optional(&mut connection).await?.is_some() {
                end_prepared(&mut connection, &gid, self.planner.chance.bool()).await?;
            }
            self.in_doubt = None;
        }
        while !self.is_stopped() {
            tokio::time::sleep_until(self.due).await;
            let plan = self.planner.draw();
            let seconds = plan.events.len() as f64 * self.shared.habits.writers as f64 / self.shared.habits.events_per_second;
            // What an outage or a long transaction kept it from is not made up for.
            self.due = self.due.max(Instant::now() - Duration::from_secs(1)) + Duration::from_secs_f64(seconds);
            self.transaction(&mut connection, &plan).await?;
        }
        connection.close().await
    }

    /// One transaction, recorded whatever becomes of it.
    async fn transaction(&mut self, connection: &mut PgConnection, plan: &Plan) -> Result<(), sqlx::Error> {
        let transaction = self.shared.transactions.fetch_add(1, Ordering::Relaxed);
        let mut written = Vec::with_capacity(plan.events.len());
        let mut result = self.body(connection, plan, transaction, &mut written).await;
        let mut fate = Fate::RolledBack;
        if result.is_ok() {
            (fate, result) = self.end(connection, plan.ending, transaction).await;
        }
        written.iter_mut().filter(|event| event.fate == Fate::Unknown).for_each(|event| event.fate = fate);
        let committed = written.iter().filter(|event| event.fate == Fate::Committed).count();
        self.shared.written.lock().unwrap().append(&mut written);
        self.shared.committed.fetch_add(committed, Ordering::Relaxed);
        result
    }

    /// Everything up to the end of the transaction. Events whose fate depends on that end are `Unknown` so far.
    async fn body(
        &self,
        connection: &mut PgConnection,
        plan: &Plan,
        transaction: i64,
        written: &mut Vec<Written>,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("BEGIN").execute(&mut *connection).await?;
        sqlx::query("INSERT INTO ledger VALUES ($1)").bind(transaction).execute(&mut *connection).await?;
        for (position, draft) in plan.events.iter().enumerate() {
            if plan.undone.as_ref().is_some_and(|undone| undone.start == position) {
                sqlx::query("SAVEPOINT doubt").execute(&mut *connection).await?;
            }
            self.insert(connection, draft, transaction, written).await?;
            if let Some(undone) = plan.undone.as_ref().filter(|undone| undone.end == position + 1) {
                sqlx::query("ROLLBACK TO SAVEPOINT doubt").execute(&mut *connection).await?;
                written[undone.clone()].iter_mut().for_each(|event| event.fate = Fate::RolledBack);
            }
        }
        if let Some(pause) = plan.pause {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        draft: &Draft,
        transaction: i64,
        written: &mut Vec<Written>,
    ) -> Result<(), sqlx::Error> {
        let key = draft.key.map(|number| format!("{MARKER}-{}", number + 1));
        let version = match &key {
            Some(key) => sqlx::query(BUMP).bind(key).fetch_one(&mut *connection).await?.get("version"),
            None => 0,
        };
        let event = Written {
            id: Uuid::new_v4(),
            topic: self.shared.topics[draft.topic].clone(),
            key,
            version,
            generation: self.shared.generation,
            transaction,
            writer: self.number,
            filler: draft.filler,
            fate: Fate::Unknown,
        };
        let query = sqlx::query(INSERT).bind(event.id).bind(&*event.topic).bind(&event.key).bind(KIND);
        let headers = match draft.spoilt {
            None => event.headers(),
            Some(Spoilt::Malformed) => "[7]".to_owned(),
            Some(Spoilt::Reserved) => "{\"outboxd-own\": \"7\"}".to_owned(),
        };
        let query = query.bind(event.payload()).bind(headers);
        // Recorded before it is tried: what fails was rolled back, and must not be published either.
        written.push(event);
        query.execute(&mut *connection).await.map(drop)
    }

    /// Ends the transaction. After an error the outcome is unknown where the database may have taken it.
    async fn end(&mut self, connection: &mut PgConnection, ending: Ending, transaction: i64) -> (Fate, Result<(), sqlx::Error>) {
        match ending {
            Ending::Commit => match sqlx::query("COMMIT").execute(connection).await {
                Ok(_) => (Fate::Committed, Ok(())),
                Err(error) => (Fate::Unknown, Err(error)),
            },
            Ending::Rollback => (Fate::RolledBack, sqlx::query("ROLLBACK").execute(connection).await.map(drop)),
            Ending::PrepareCommit | Ending::PrepareRollback => {
                let gid = format!("service-{transaction}");
                self.in_doubt = Some(gid.clone());
                let is_commit = ending == Ending::PrepareCommit;
                let result = prepare_and_end(connection, &gid, is_commit).await;
                if let Err(error) = result {
                    return (Fate::Unknown, Err(error));
                }
                self.in_doubt = None;
                (if is_commit { Fate::Committed } else { Fate::RolledBack }, Ok(()))
            }
        }
    }
}

async fn prepare_and_end(connection: &mut PgConnection, gid: &str, is_commit: bool) -> Result<(), sqlx::Error> {
    simple(connection, format!("PREPARE TRANSACTION '{gid}'")).await?;
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
    end_prepared(connection, gid, is_commit).await
}

/// Commits or rolls back a prepared transaction.
pub(super) async fn end_prepared(connection: &mut PgConnection, gid: &str, is_commit: bool) -> Result<(), sqlx::Error> {
    let verb = if is_commit { "COMMIT" } else { "ROLLBACK" };
    simple(connection, format!("{verb} PREPARED '{gid}'")).await
}

/// A statement that cannot take parameters.
async fn simple(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

/// Whether the database went away, instead of refusing a statement.
fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        // 57: operator intervention, 53: too many connections, 08: connection; 25P02 cannot happen without another error before.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["57", "53", "08"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut => true,
        _ => false,
    }
}
