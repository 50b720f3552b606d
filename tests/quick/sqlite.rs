//! The outbox in a SQLite file passes what every source must pass, and what only a file can do to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outboxd::config::{self, Delivery, Mark, OnPoison, Retention, Sources};
use outboxd::source::sqlite::{Settings, Sqlite};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row, SqliteConnection};

use crate::source_conformance::{Setup, SourceWorld};

mod checkup;
mod commands;
mod evidence;
mod page;
mod past;
mod relayed;
mod running;
mod ways_out;

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("outboxd-sqlite-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a new folder");
        Self(folder)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the folder is ours");
    }
}

/// An outbox in a file of its own.
pub struct World {
    pub folder: Folder,
    pub settings: Settings,
}

/// Settings of an outbox in a file.
pub fn settings(file: &Path) -> Settings {
    let flags = [("database.url", format!("sqlite://{}", file.display())), ("outbox.name", "test".into())];
    let flags = flags.map(|(key, value)| (key.to_owned(), value)).into();
    let config = config::load(&Sources { flags, ..Sources::default() }).expect("a configuration").config;
    let (database, outbox, lease) = (config.database, config.outbox, Duration::from_secs(60));
    Settings { file: file.to_owned(), database, outbox, delivery: Delivery::ExactlyOnce, lease }
}

/// A connection of the service.
pub async fn connect(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).connect().await.expect("the file can be opened")
}

impl World {
    pub fn file(&self) -> &Path {
        &self.settings.file
    }

    /// Runs statements as somebody else.
    pub async fn sql(&self, statements: &str) {
        let done = connect(self.file()).await.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await;
        done.unwrap_or_else(|e| panic!("{statements}: {e}"));
    }

    pub async fn numbers(&self, query: &str) -> Vec<i64> {
        let rows =
            connect(self.file()).await.fetch_all(sqlx::raw_sql(AssertSqlSafe(query.to_owned()))).await.expect("the query works");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// A copy of the file as it is now.
    pub async fn copy(&self, name: &str) -> PathBuf {
        let copy = self.folder.file(name);
        self.sql(&format!("VACUUM INTO '{}'", copy.display())).await;
        copy
    }
}

async fn insert(connection: &mut SqliteConnection, key: &str, payload: &str) -> i64 {
    let sql = "INSERT INTO outbox (topic, key, type, payload) VALUES ('orders', ?, 'Placed', ?) RETURNING seq";
    sqlx::query_scalar(sql).bind(key).bind(payload).fetch_one(connection).await.expect("inserted")
}

impl SourceWorld for World {
    type Source = Sqlite;
    type Open = SqliteConnection;

    async fn fresh(setup: Setup) -> Self {
        let folder = Folder::new();
        let mut settings = settings(&folder.file("shop.db"));
        settings.outbox.mark = if setup.delete { Mark::Delete } else { Mark::Row };
        settings.outbox.retention = Retention::For(setup.retention);
        settings.outbox.on_poison = if setup.park_event { OnPoison::ParkEvent } else { OnPoison::ParkKey };
        settings.delivery = if setup.at_least_once { Delivery::AtLeastOnce } else { Delivery::ExactlyOnce };
        let world = Self { folder, settings };
        world.source().migrate().await.expect("migrated");
        world.source().prepare().await.expect("an outbox that can be relayed");
        world
    }

    fn source(&self) -> Sqlite {
        Sqlite::new(self.settings.clone())
    }

    async fn insert(&self, payloads: &[&str]) -> Vec<i64> {
        let (mut service, mut seqs) = (connect(self.file()).await, Vec::new());
        for payload in payloads {
            seqs.push(insert(&mut service, "k", payload).await);
        }
        seqs
    }

    async fn insert_with_key(&self, key: &str, payload: &str) -> i64 {
        insert(&mut connect(self.file()).await, key, payload).await
    }

    async fn open(&self, payload: &str) -> (SqliteConnection, i64) {
        let mut service = connect(self.file()).await;
        service.execute("BEGIN IMMEDIATE").await.expect("begins");
        let seq = insert(&mut service, "k", payload).await;
        (service, seq)
    }

    async fn commit(&self, mut open: SqliteConnection) {
        open.execute("COMMIT").await.expect("commits");
    }

    async fn roll_back(&self, mut open: SqliteConnection) {
        open.execute("ROLLBACK").await.expect("rolls back");
    }

    async fn unsent(&self) -> Vec<i64> {
        self.numbers("SELECT seq FROM outbox WHERE sent_at IS NULL ORDER BY seq").await
    }

    async fn rows(&self) -> Vec<i64> {
        self.numbers("SELECT seq FROM outbox ORDER BY seq").await
    }

    async fn remove(&self, seq: i64) {
        self.sql(&format!("DELETE FROM outbox WHERE seq = {seq}")).await;
    }

    async fn replace(&self, seq: i64) {
        let id = uuid::Uuid::new_v4();
        self.sql(&format!("UPDATE outbox SET id = '{id}', sent_at = NULL WHERE seq = {seq}")).await;
    }

    async fn refuse_mark(&self, seq: i64) {
        for verb in ["UPDATE", "DELETE"] {
            let when = format!("BEFORE {verb} ON outbox FOR EACH ROW WHEN OLD.seq = {seq}");
            self.sql(&format!("CREATE TRIGGER refuse_{verb} {when} BEGIN SELECT RAISE(IGNORE); END")).await;
        }
    }

    async fn age(&self, by: Duration) {
        let back = format!("strftime('%Y-%m-%dT%H:%M:%fZ', sent_at, '-{} seconds')", by.as_secs());
        self.sql(&format!("UPDATE outbox SET sent_at = {back} WHERE sent_at IS NOT NULL")).await;
    }

    async fn lose_token(&self) {
        self.sql("DELETE FROM outboxd_token").await;
    }

    async fn replace_files(&self) {
        let copy = self.copy("replacement.db").await;
        std::fs::rename(copy, self.file()).expect("the new file takes the place of the old one");
    }

    async fn expire_lease(&self) {
        let past = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-0.001 seconds')";
        self.sql(&format!("UPDATE outboxd_state SET lease_until = {past} WHERE lease_until IS NOT NULL")).await;
    }

    async fn halted(&self) -> Option<String> {
        sqlx::query_scalar("SELECT halted_code FROM outboxd_state").fetch_one(&mut connect(self.file()).await).await.expect("a row")
    }
}

mod suite {
    use super::World;
    use crate::source_conformance as source;

    source::source_conformance!(World);
    source::source_conformance!(beyond_memory World);
}
