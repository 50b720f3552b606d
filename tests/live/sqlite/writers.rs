//! Services that write into the same file: transactions of several events that bump a version per key; they know what became of each.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use uuid::Uuid;

use crate::truth::{Fate, KIND, MARKER, Written};

const KEYS: usize = 100;
const WRITERS: usize = 3;
/// Between two transactions of one writer, at most.
const PAUSE_MS: u64 = 20;

/// What the services keep beside the outbox.
pub const TABLES: &str = "CREATE TABLE aggregate (key TEXT PRIMARY KEY, version INTEGER NOT NULL);
    CREATE TABLE ledger (transaction_number INTEGER PRIMARY KEY);";

const BUMP: &str = "INSERT INTO aggregate VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET version = version + 1 RETURNING version";
const INSERT: &str = "INSERT INTO outbox (id, topic, key, type, payload, headers) VALUES (?, ?, ?, ?, ?, ?)";

/// Writers at work.
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

struct Shared {
    file: PathBuf,
    topics: Vec<Arc<str>>,
    generation: i64,
    stop: AtomicBool,
    transactions: AtomicI64,
    committed: AtomicUsize,
    written: Mutex<Vec<Written>>,
}

/// A connection as a service has it: it waits for others that write.
pub async fn connect(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(Duration::from_secs(30))
        .connect()
        .await
        .expect("the file can be opened")
}

/// Runs something on a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

impl Writers {
    pub fn start(file: &Path, topics: &[String], generation: i64) -> Self {
        let shared = Arc::new(Shared {
            file: file.to_owned(),
            topics: topics.iter().map(|topic| topic.as_str().into()).collect(),
            generation,
            stop: AtomicBool::new(false),
            transactions: AtomicI64::new(generation * 1_000_000_000),
            committed: AtomicUsize::new(0),
            written: Mutex::default(),
        });
        let writer = |number| {
            let shared = shared.clone();
            std::thread::spawn(move || block_on(shared.run(number)))
        };
        Self { threads: (0..WRITERS).map(writer).collect(), shared }
    }

    pub fn committed(&self) -> usize {
        self.shared.committed.load(Ordering::Relaxed)
    }

    pub fn finish(self) -> Vec<Written> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("writers do not panic"));
        std::mem::take(&mut *self.shared.written.lock().expect("nobody panicked"))
    }
}

impl Shared {
    async fn run(&self, number: usize) {
        let mut connection = connect(&self.file).await;
        while !self.stop.load(Ordering::Relaxed) {
            let mut written = self.transaction(&mut connection, number).await.expect("the file can be written");
            let committed = written.iter().filter(|event| event.fate == Fate::Committed).count();
            self.written.lock().expect("nobody panicked").append(&mut written);
            self.committed.fetch_add(committed, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..PAUSE_MS))).await;
        }
        connection.close().await.expect("closed");
    }

    /// One transaction; one in ten is rolled back, and some take their time.
    async fn transaction(&self, connection: &mut SqliteConnection, writer: usize) -> Result<Vec<Written>, sqlx::Error> {
        let transaction = self.transactions.fetch_add(1, Ordering::Relaxed);
        let mut written = Vec::new();
        connection.execute("BEGIN IMMEDIATE").await?;
        sqlx::query("INSERT INTO ledger VALUES (?)").bind(transaction).execute(&mut *connection).await?;
        for _ in 0..fastrand::usize(1..8) {
            written.push(self.insert(connection, transaction, writer).await?);
        }
        if fastrand::u8(0..50) == 0 {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(50..300))).await;
        }
        let fate = if fastrand::u8(0..10) == 0 { Fate::RolledBack } else { Fate::Committed };
        connection.execute(if fate == Fate::Committed { "COMMIT" } else { "ROLLBACK" }).await?;
        written.iter_mut().for_each(|event| event.fate = fate);
        Ok(written)
    }

    async fn insert(&self, connection: &mut SqliteConnection, transaction: i64, writer: usize) -> Result<Written, sqlx::Error> {
        let key = (fastrand::u8(0..20) > 0).then(|| format!("{MARKER}-{}", fastrand::usize(0..KEYS)));
        let version = match &key {
            Some(key) => sqlx::query_scalar(BUMP).bind(key).fetch_one(&mut *connection).await?,
            None => 0,
        };
        let event = Written {
            id: Uuid::new_v4(),
            topic: self.topics[fastrand::usize(0..self.topics.len())].clone(),
            key,
            version,
            generation: self.generation,
            transaction,
            writer,
            filler: fastrand::usize(0..200),
            fate: Fate::Unknown,
        };
        let id = if fastrand::bool() { event.id.to_string() } else { event.id.to_string().to_uppercase() };
        let insert = sqlx::query(INSERT).bind(id).bind(event.topic.to_string()).bind(event.key.clone()).bind(KIND);
        insert.bind(event.payload()).bind(event.headers()).execute(connection).await?;
        Ok(event)
    }
}
