//! An outbox with all that belongs to it: database, topics, configuration, writers; and the proof in the end that all went well.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::account::{self, Tables};
use crate::checker::{Checking, Kind, Place, Seen, Violation};
use crate::history;
use crate::support::{Daemon, DaemonOptions, Kafka, Postgres, eventually, eventually_get};
use crate::truth::{self, Written};
use crate::workload::{Habits, Workload};

/// How long the relay may take to publish what is left when the writers have stopped and everything is healed.
const DRAIN: Duration = Duration::from_secs(60);

/// Partitions of the event topics.
const PARTITIONS: [i32; 3] = [1, 3, 12];

/// Events that a person gave up.
const DISCARDED: &str = "SELECT (detail->>'id')::uuid AS id FROM outboxd_audit WHERE action = 'parked discard'";

/// Whether tests may take their time.
pub fn is_long() -> bool {
    std::env::var_os("OUTBOXD_TEST_LONG").is_some()
}

/// What becomes of published rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// They are marked.
    Row,
    /// They are deleted.
    Delete,
}

/// One outbox on its servers.
pub struct Stage<'a> {
    pub postgres: &'a Postgres,
    pub kafka: &'a Kafka,
    pub name: String,
    pub database: String,
    pub topics: BTreeMap<String, i32>,
    /// For every daemon of the outbox, and for commands with the relay's rights; instances differ by [`Stage::start`].
    pub options: DaemonOptions,
    /// By which `host:port` the writers reach the database, if not directly.
    pub writers_way: Option<String>,
    habits: Habits,
    mark: Mark,
    /// Whether there is a journal to check.
    journalled: bool,
    generation: i64,
    workload: Option<Workload>,
    written: Vec<Written>,
    places: Vec<Place>,
}

impl<'a> Stage<'a> {
    /// Prepares everything, with a short lease and a short transaction timeout.
    pub fn new(name: &str, mark: Mark, postgres: &'a Postgres, kafka: &'a Kafka) -> Stage<'a> {
        Stage::with(name, mark, postgres, kafka, Habits::default(), |options, _| options)
    }

    /// [`Stage::new`] with other habits of the writers, and with other options, which may depend on the database's name.
    pub fn with(
        name: &str,
        mark: Mark,
        postgres: &'a Postgres,
        kafka: &'a Kafka,
        habits: Habits,
        adapt: impl FnOnce(DaemonOptions, &str) -> DaemonOptions,
    ) -> Stage<'a> {
        let database = postgres.create_database(&name.replace('-', "_"));
        let name = kafka.unique_topic(name);
        let topics: BTreeMap<String, i32> = PARTITIONS.iter().map(|count| (format!("{name}-of-{count}"), *count)).collect();
        let options = DaemonOptions::new(&name, &postgres.url(&database, "outboxd"), &kafka.brokers());
        let options = options.set("relay.lease", "1s").set("kafka.transaction_timeout", "4s");
        let options = adapt(options.set("outbox.mark", if mark == Mark::Row { "row" } else { "delete" }), &database);
        let listed: Vec<String> = topics.iter().map(|(topic, count)| format!("{topic}:{count}")).collect();
        // the relay has the rights that are printed for it, and no other
        let owner = options.of_role("postgres");
        answer(&owner, &["migrate", "--topics", &listed.join(",")]);
        answer(&owner, &["migrate", "--roles", "--writer", "shop", "--relay", "outboxd", "--apply"]);
        Workload::prepare(postgres, &database, &habits);
        let written = Vec::new();
        Stage {
            postgres,
            kafka,
            name,
            database,
            topics,
            options,
            writers_way: None,
            habits,
            mark,
            journalled: true,
            generation: 0,
            workload: None,
            written,
            places: Vec::new(),
        }
    }

    /// Says that the outbox works without a journal.
    pub fn without_journal(mut self) -> Stage<'a> {
        self.journalled = false;
        self
    }

    /// Starts a daemon named `instance`.
    pub fn start(&self, instance: &str) -> Daemon {
        self.options.clone().set("relay.instance", instance).start()
    }

    /// Starts the writers.
    pub fn write(&mut self) {
        self.generation += 1;
        let topics: Vec<String> = self.topics.keys().cloned().collect();
        let url = match &self.writers_way {
            Some(way) => format!("postgres://shop@{way}/{}", self.database),
            None => self.postgres.url(&self.database, "shop"),
        };
        let workload = Workload::start(&url, &topics, self.habits.clone(), self.generation);
        let before = self.workload.replace(workload);
        assert!(before.is_none(), "the writers write already");
    }

    /// What becomes of published rows.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Whether the writers were started and not stopped.
    pub fn is_writing(&self) -> bool {
        self.workload.is_some()
    }

    /// Asks the writers to stop, without waiting for that: the database may be about to go.
    pub fn ask_writers_to_stop(&self) {
        self.workload.iter().for_each(Workload::ask_to_stop);
    }

    /// What was written, settled by [`Stage::violations`].
    pub fn written(&self) -> &[Written] {
        &self.written
    }

    /// Stops the writers.
    pub fn stop_writing(&mut self) {
        let workload = self.workload.take().expect("the writers write");
        self.written.extend(workload.finish());
    }

    /// How many events the database acknowledged.
    pub fn committed(&self) -> usize {
        let of_workload = self.workload.as_ref().map_or(0, Workload::committed);
        of_workload + self.written.iter().filter(|event| event.fate == truth::Fate::Committed).count()
    }

    /// Waits until the writers have committed `count` events more.
    pub fn wait_for_writers(&self, count: usize) {
        let until = self.committed() + count;
        eventually("the writers write", DRAIN, || self.committed() >= until);
    }

    /// Rows that wait to be published.
    pub fn pending(&self) -> u64 {
        self.count("SELECT count(*) FROM outbox WHERE sent_at IS NULL")
    }

    /// Process ids of the relay's backends.
    pub fn relay_backends(&self) -> Vec<i32> {
        let query = format!("SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND usename = 'outboxd'", self.database);
        self.postgres.sql("postgres", &query).lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Newest batch whose rows are marked.
    pub fn applied(&self) -> u64 {
        self.count("SELECT coalesce(max(n), 0) FROM outboxd_applied")
    }

    /// Waits until the outbox is halted, for exactly this reason, and says so everywhere.
    pub fn wait_halted(&self, daemon: &Daemon, code: &str) {
        wait_halted(&self.options, daemon, code);
    }

    /// Waits until `count` batches more are marked.
    pub fn wait_for_batches(&self, count: u64, within: Duration) {
        let until = self.applied() + count;
        eventually(&format!("{count} batches are published and marked"), within, || self.applied() >= until);
    }

    fn count(&self, query: &str) -> u64 {
        self.postgres.sql(&self.database, query).parse().expect("a number")
    }

    /// Stops the writers, waits until the daemons have drained the table, and checks everything.
    ///
    /// # Panics
    /// If anything is wrong.
    pub fn prove(self) {
        self.prove_as(false);
    }

    /// [`Stage::prove`] after the database was put back to an older state.
    pub fn prove_after_restore(self) {
        self.prove_as(true);
    }

    fn prove_as(mut self, went_back: bool) {
        let name = self.name.clone();
        let violations = self.violations(went_back);
        let shown: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{name}: {} violations:\n{}", violations.len(), shown.join("\n"));
    }

    /// Stops the writers, waits until the table is drained, and returns everything that is wrong.
    pub fn violations(&mut self, went_back: bool) -> Vec<Violation> {
        if self.workload.is_some() {
            self.stop_writing();
        }
        eventually("the table is drained", DRAIN, || self.pending() == 0);
        self.settle(went_back);
        let mut violations = self.look();
        let journal = if self.journalled { history::read(self.kafka, &self.journal(), 1) } else { Vec::new() };
        if self.journalled {
            let account = account::decode(&journal);
            violations.extend(account::check_places(&account, self.places.iter().cloned()));
            let committed = self.written.iter().filter(|event| event.fate == truth::Fate::Committed).count() as u64;
            let rows = if self.mark == Mark::Row { committed } else { 0 };
            violations.extend(account::check_tables(&account, &self.tables(), rows));
        }
        println!(
            "{}: {} written, {} seen, {} batches, {} violations",
            self.name,
            self.written.len(),
            self.places.len(),
            journal.len(),
            violations.len()
        );
        violations
    }

    /// Reads all topics and holds them against what was written; keeps where everything lies.
    fn look(&mut self) -> Vec<Violation> {
        let mut checking = Checking::new(&self.written, &self.topics);
        let mut places = Vec::new();
        for (topic, partitions) in &self.topics {
            let topic: Arc<str> = topic.as_str().into();
            history::each(self.kafka, &topic, *partitions, |message| {
                let record = history::record(message);
                checking.see(&record);
                places.push(Place { topic: topic.clone(), ..record.place() });
            });
        }
        let violations = checking.finish();
        self.places = places;
        violations
    }

    /// Where all events lay when [`Stage::violations`] looked.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Replaces what the writers believe by what the database says.
    fn settle(&mut self, went_back: bool) {
        let ledger = self.postgres.sql(&self.database, "SELECT transaction FROM ledger");
        let kept: HashSet<i64> = ledger.lines().map(|line| line.parse().unwrap()).collect();
        truth::settle(&mut self.written, &kept, went_back);
        let discarded = self.postgres.sql(&self.database, &format!("SELECT id FROM ({DISCARDED}) d"));
        let discarded: HashSet<Uuid> = discarded.lines().map(|id| id.parse().unwrap()).collect();
        let given_up = self.written.iter_mut().filter(|event| discarded.contains(&event.id));
        given_up.for_each(|event| event.fate = truth::Fate::RolledBack);
    }

    /// Says that the database has these events too, beside those of the writers.
    pub fn know(&mut self, events: Vec<Written>) {
        self.written.extend(events);
    }

    /// Of a relay that is halted: everything that is wrong with what was published until then. What is not published must be unsent.
    pub fn violations_while_halted(&mut self) -> Vec<Violation> {
        self.settle(false);
        let unsent = self.postgres.sql(&self.database, "SELECT id FROM outbox WHERE sent_at IS NULL");
        let unsent: HashSet<&str> = unsent.lines().collect();
        let mut violations = self.look();
        violations.retain(|wrong| wrong.kind != Kind::Lost || !unsent.contains(&wrong.what[..36]));
        violations
    }

    /// How many offsets of all topics of the outbox are used, of the journal as well.
    pub fn used_offsets(&self) -> i64 {
        let journal = self.journal();
        let topics = self.topics.iter().map(|(topic, count)| (topic, *count)).chain([(&journal, 1)]);
        topics.map(|(topic, count)| history::used_offsets(self.kafka, topic, count)).sum()
    }

    /// Everything that readers of committed records see in the event topics.
    pub fn seen(&self) -> Vec<Seen> {
        self.topics.iter().flat_map(|(topic, partitions)| history::read(self.kafka, topic, *partitions)).collect()
    }

    /// The journal's topic.
    pub fn journal(&self) -> String {
        format!("outboxd.{}.journal", self.name)
    }

    fn tables(&self) -> Tables {
        // what the audit says was discarded is marked, and must not be published
        let kept = format!("FROM outbox WHERE id NOT IN ({DISCARDED})");
        let marked = self.postgres.sql(&self.database, &format!("SELECT seq || ' ' || id {kept} AND sent_at IS NOT NULL"));
        let row = |line: &str| {
            let (seq, id) = line.split_once(' ').expect("two columns");
            (seq.parse().expect("a number"), id.parse().expect("a uuid"))
        };
        Tables {
            rows: self.count(&format!("SELECT count(*) {kept}")),
            marked: marked.lines().map(row).collect(),
            newest: self.count("SELECT coalesce(max(n), 0) FROM outboxd_applied"),
            missing: self.count("SELECT coalesce(max(n) - min(n) + 1 - count(*), 0) FROM outboxd_applied"),
        }
    }
}

/// Runs a command that must succeed; returns its stdout.
#[track_caller]
pub fn answer(options: &DaemonOptions, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = options.run_command(arguments);
    assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
    stdout
}

/// What `outboxd status --json` says to somebody with these options.
pub fn status(options: &DaemonOptions) -> serde_json::Value {
    let (code, stdout, stderr) = options.run_command(&["status", "--json"]);
    assert_eq!(code, 0, "status: {stderr}");
    serde_json::from_str(&stdout).expect("status prints JSON")
}

/// Waits until an outbox is halted, for exactly this reason, and says so everywhere.
pub fn wait_halted(options: &DaemonOptions, daemon: &Daemon, code: &str) {
    let halted = || status(options)["halted"]["code"].as_str().map(str::to_owned);
    let found = eventually_get("the outbox is halted", DRAIN, halted);
    assert_eq!(found, code, "{}", status(options));
    let metric = "outboxd_halted{";
    eventually("the metric shows the halt", DRAIN, || {
        let text = daemon.get("/metrics").map(|(_, text)| text).unwrap_or_default();
        let label = format!("code=\"{code}\"");
        text.lines().any(|line| line.starts_with(metric) && line.contains(&label) && line.ends_with(" 1"))
    });
    assert_eq!(daemon.get("/readyz").map(|(status, _)| status), Some(200), "a halt does not take the pod out of service");
}

/// Lets the outbox be published from another address of the same database.
pub fn accept_address(postgres: &Postgres, database: &str, address: &str) {
    let accept = format!("UPDATE outboxd_state SET accepted_addresses = array_append(accepted_addresses, '{address}')");
    postgres.sql(database, &accept);
}
