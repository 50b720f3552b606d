//! An outbox in a file with all that belongs to it, and the proof in the end that all went well.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, Row};

use super::writers::{TABLES, Writers, block_on, connect};
use crate::account::{self, Tables};
use crate::checker;
use crate::history;
use crate::stage::{Mark, answer};
use crate::support::{Daemon, DaemonOptions, Kafka, eventually, place};
use crate::truth::{self, Fate, Written};

pub const SOON: Duration = Duration::from_secs(60);

/// One outbox in its file.
pub struct Scene {
    pub folder: PathBuf,
    pub file: PathBuf,
    pub kafka: &'static Kafka,
    pub topics: BTreeMap<String, i32>,
    pub options: DaemonOptions,
    name: String,
    mark: Mark,
    generation: i64,
    writers: Option<Writers>,
    written: Vec<Written>,
}

impl Scene {
    /// Prepares everything, with a short lease and a short transaction timeout.
    pub fn new(name: &str, mark: Mark) -> Self {
        let kafka = Kafka::shared();
        let folder = place::folder("sqlite");
        let (file, name) = (folder.join("shop.db"), kafka.unique_topic(name));
        let topics: BTreeMap<String, i32> = [1, 3, 12].map(|count| (format!("{name}-of-{count}"), count)).into();
        let options = DaemonOptions::new(&name, &format!("sqlite://{}", file.display()), &kafka.brokers());
        let options = options.set("relay.lease", "1s").set("kafka.transaction_timeout", "4s").set("relay.linger", "0ms");
        let options = options.set("outbox.mark", if mark == Mark::Row { "row" } else { "delete" });
        let listed: Vec<String> = topics.iter().map(|(topic, count)| format!("{topic}:{count}")).collect();
        answer(&options, &["migrate", "--topics", &listed.join(",")]);
        let scene = Self { folder, file, kafka, topics, options, name, mark, generation: 0, writers: None, written: Vec::new() };
        scene.sql(TABLES);
        scene
    }

    /// Its journal topic.
    pub fn journal(&self) -> String {
        format!("outboxd.{}.journal", self.name)
    }

    pub fn start(&self, instance: &str) -> Daemon {
        self.options.clone().set("relay.instance", instance).start()
    }

    pub fn write(&mut self) {
        self.generation += 1;
        let topics: Vec<String> = self.topics.keys().cloned().collect();
        let before = self.writers.replace(Writers::start(&self.file, &topics, self.generation));
        assert!(before.is_none(), "the writers write already");
    }

    pub fn stop_writing(&mut self) {
        let writers = self.writers.take().expect("the writers write");
        self.written.extend(writers.finish());
    }

    /// Lets the writers commit `count` events more.
    pub fn wait_for_writers(&self, count: usize) {
        let committed = || self.writers.as_ref().map_or(0, Writers::committed);
        let until = committed() + count;
        eventually("the writers write", SOON, || committed() >= until);
    }

    /// Runs statements as somebody else; the connection is closed again.
    pub fn sql(&self, statements: &str) {
        block_on(async {
            let done = connect(&self.file).await.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await;
            done.unwrap_or_else(|error| panic!("{statements}: {error}"));
        });
    }

    /// The first column of each row, as text.
    pub fn ask(&self, query: &str) -> Vec<String> {
        let query = sqlx::raw_sql(AssertSqlSafe(query.to_owned()));
        let rows = block_on(async { connect(&self.file).await.fetch_all(query).await }).expect("the query works");
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub fn count(&self, query: &str) -> u64 {
        self.ask(&format!("SELECT CAST(({query}) AS TEXT)"))[0].parse().expect("a number")
    }

    pub fn pending(&self) -> u64 {
        self.count("SELECT count(*) FROM outbox WHERE sent_at IS NULL")
    }

    /// Newest batch whose rows are marked.
    pub fn applied(&self) -> u64 {
        self.count("SELECT coalesce(max(n), 0) FROM outboxd_applied")
    }

    pub fn drained(&self) {
        eventually("the table is drained", SOON, || self.pending() == 0);
    }

    /// A copy of the file as it is now.
    pub fn copy(&self) -> PathBuf {
        let copy = self.folder.join("copy.db");
        self.sql(&format!("VACUUM INTO '{}'", copy.display()));
        copy
    }

    /// Puts a file in the place of the outbox's, as a person does: with the files that belong to the old one taken away.
    pub fn put_in_place(&self, copy: &Path) {
        for suffix in ["-wal", "-shm"] {
            let beside = format!("{}{suffix}", self.file.display());
            let _ = std::fs::remove_file(beside);
        }
        std::fs::rename(copy, &self.file).expect("the copy takes the place of the file");
    }

    /// Stops the writers, waits until the table is drained, and checks everything. With `went_back`, the file may have lost what was
    /// acknowledged.
    #[track_caller]
    pub fn prove(mut self, went_back: bool) {
        if self.writers.is_some() {
            self.stop_writing();
        }
        self.drained();
        let ledger = self.ask("SELECT CAST(transaction_number AS TEXT) FROM ledger");
        let kept: HashSet<i64> = ledger.iter().map(|number| number.parse().expect("a number")).collect();
        truth::settle(&mut self.written, &kept, went_back);
        let seen: Vec<_> = self.topics.iter().flat_map(|(topic, count)| history::read(self.kafka, topic, *count)).collect();
        let journal = history::read(self.kafka, &self.journal(), 1);
        let account = account::decode(&journal);
        let committed = self.written.iter().filter(|event| event.fate == Fate::Committed).count() as u64;
        let mut violations = checker::check(&self.written, &seen, &self.topics);
        violations.extend(account::check(&account, &seen));
        violations.extend(account::check_tables(&account, &self.tables(), if self.mark == Mark::Row { committed } else { 0 }));
        println!("{}: {} written, {} seen, {} batches", self.name, self.written.len(), seen.len(), journal.len());
        assert!(committed > 100 && seen.len() > 100, "too little was written to prove anything");
        let shown: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{}: {} violations:\n{}", self.name, violations.len(), shown.join("\n"));
    }

    fn tables(&self) -> Tables {
        let marked = self.ask("SELECT seq || ' ' || id FROM outbox WHERE sent_at IS NOT NULL");
        let row = |line: &String| {
            let (seq, id) = line.split_once(' ').expect("two columns");
            (seq.parse().expect("a number"), id.parse().expect("a uuid"))
        };
        Tables {
            rows: self.count("SELECT count(*) FROM outbox"),
            marked: marked.iter().map(row).collect(),
            newest: self.applied(),
            missing: self.count("SELECT coalesce(max(n) - min(n) + 1 - count(*), 0) FROM outboxd_applied"),
        }
    }
}
