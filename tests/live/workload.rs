//! Concurrent services that write events as real ones do: transactions of several events that bump a version per key under a
//! row lock, rollbacks, savepoints, long and prepared transactions; and that know afterwards what the database took.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};
use tokio::runtime::Runtime;

use crate::support::Postgres;
use crate::truth::{MARKER, Written};

mod plan;
mod writer;

pub use plan::Habits;

/// What the services keep beside the outbox: their aggregates, and which transactions the database holds.
const TABLES: &str = "CREATE TABLE aggregate (key text PRIMARY KEY, version bigint NOT NULL);
    CREATE TABLE ledger (transaction bigint PRIMARY KEY);
    GRANT SELECT, INSERT, UPDATE ON aggregate, ledger TO shop;
    GRANT INSERT ON outbox TO shop;";

/// Writers at work. They go on through every restart of the database until [`Workload::finish`].
pub struct Workload {
    shared: Arc<Shared>,
    runtime: Runtime,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

/// What all writers of a workload look at.
struct Shared {
    url: String,
    habits: Habits,
    topics: Vec<Arc<str>>,
    generation: i64,
    stop: AtomicBool,
    transactions: AtomicI64,
    committed: AtomicUsize,
    written: Mutex<Vec<Written>>,
}

impl Workload {
    /// Makes the services' own tables, after `outboxd migrate` has made the outbox.
    pub fn prepare(postgres: &Postgres, database: &str, habits: &Habits) {
        postgres.sql(database, TABLES);
        let fill = format!("INSERT INTO aggregate SELECT '{MARKER}-' || n, 0 FROM generate_series(1, {}) AS n", habits.keys);
        postgres.sql(database, &fill);
    }

    /// Starts the writers. `url` is the services' way to the database; `generation` grows with each workload on one outbox.
    pub fn start(url: &str, topics: &[String], habits: Habits, generation: i64) -> Workload {
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            topics: topics.iter().map(|topic| topic.as_str().into()).collect(),
            generation,
            stop: AtomicBool::new(false),
            transactions: AtomicI64::new(generation * 1_000_000_000),
            committed: AtomicUsize::new(0),
            written: Mutex::default(),
            habits,
        });
        // A runtime of its own: tests may block their thread as they like.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let writers = (0..shared.habits.writers).map(|number| runtime.spawn(writer::run(shared.clone(), number))).collect();
        Workload { shared, runtime, writers }
    }

    /// How many events were acknowledged so far.
    pub fn committed(&self) -> usize {
        self.shared.committed.load(Ordering::Relaxed)
    }

    /// Asks the writers to stop, without waiting for that.
    pub fn ask_to_stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Stops the writers, ends what is prepared still, and returns what they wrote, to be settled by [`crate::truth::settle`].
    pub fn finish(self) -> Vec<Written> {
        self.ask_to_stop();
        for writer in self.writers {
            self.runtime.block_on(writer).expect("writers do not panic");
        }
        self.runtime.block_on(end_all_prepared(&self.shared.url)).expect("the database answers");
        std::mem::take(&mut *self.shared.written.lock().unwrap())
    }
}

/// Ends what is prepared still, one way or the other.
async fn end_all_prepared(url: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    for row in sqlx::query(prepared).fetch_all(&mut connection).await? {
        writer::end_prepared(&mut connection, row.get("gid"), fastrand::bool()).await?;
    }
    Ok(())
}

/// How long a writer waits before it tries a database again that went away.
const RETRY: Duration = Duration::from_millis(100);
