//! Three relays with a network of their own each, three brokers, a database with a standby, writers and a reader.

use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::Runtime;

use super::SOON;
use super::watcher::Watcher;
use crate::checker::Violation;
use crate::stage::{Mark, Stage, accept_address};
use crate::support::clock::Clock;
use crate::support::kafka::{Proxied, TRANSACTION_PARTITIONS};
use crate::support::{
    Daemon, DaemonOptions, Kafka, KafkaOptions, Postgres, PostgresOptions, Proxy, Version, Weather, eventually, let_pass,
};
use crate::workload::Habits;

const NAMES: [&str; 3] = ["one", "two", "three"];

/// Everything that faults fall on.
pub struct World {
    pub stage: Stage<'static>,
    pub relays: Vec<Relay>,
    pub chance: Rng,
    /// For what must be awaited.
    pub runtime: Runtime,
    /// The broker that is down or stands still: never a second one at once.
    pub broker_down: Option<usize>,
    /// Whether the database is down.
    pub database_down: bool,
    /// Whether the database ever lost what it had acknowledged.
    pub lost_some: bool,
    /// Topics that have got more partitions.
    pub grown: Vec<String>,
    /// What relays logged that are not there any more.
    pub logs: Vec<String>,
    standby: Option<&'static Postgres>,
    /// Before the primary, for the standby.
    replication: Proxy,
    /// Before the primary, for the writers.
    writers: Proxy,
    watcher: Option<Watcher>,
}

/// One relay with all that belongs to it.
pub struct Relay {
    options: DaemonOptions,
    /// The wall clock it goes by.
    pub clock: Clock,
    /// Before each broker.
    pub way: Proxied,
    /// Before the database.
    pub line: Proxy,
    pub daemon: Daemon,
}

/// Servers live as long as the test process, which ends them.
fn lasting<T>(server: T) -> &'static T {
    Box::leak(Box::new(server))
}

fn database_options() -> PostgresOptions {
    let settings = vec![("wal_retrieve_retry_interval", "200ms"), ("wal_keep_size", "1GB"), ("max_wal_senders", "10")];
    PostgresOptions { settings, ..PostgresOptions::default() }
}

impl World {
    /// Everything at work, but the writers.
    pub fn start(seed: u64) -> World {
        let postgres = lasting(Postgres::start(Version::V18, database_options()));
        let kafka = lasting(Kafka::start_three(KafkaOptions { proxied: NAMES.len(), ..KafkaOptions::default() }));
        let lines: Vec<Proxy> = NAMES.iter().map(|_| Proxy::before(postgres.port())).collect();
        let (writers, replication) = (Proxy::before(postgres.port()), Proxy::before(postgres.port()));
        let habits = Habits { events_per_second: 500.0, ..Habits::default() };
        let mut stage = Stage::with("chaos", Mark::Row, postgres, kafka, habits, |options, name| {
            let url = format!("postgres://outboxd@{}/{name}", lines[0].address());
            // failing over takes a broker's session timeout and more
            let options = options.set("database.url", &url).set("kafka.transaction_timeout", "10s").set("relay.lease", "2s");
            options.set("database.statement_timeout", "3s").set("database.connect_timeout", "2s")
        });
        stage.writers_way = Some(writers.address());
        for line in &lines[1..] {
            accept_address(postgres, &stage.database, &format!("{}/{}", line.address(), stage.database));
        }
        let standby = lasting(postgres.start_standby(replication.port()));
        let relays = NAMES.iter().zip(lines).map(|(name, line)| Relay::start(&stage, kafka, name, line)).collect();
        let watcher = Some(Watcher::start(kafka, &stage.topics));
        World {
            stage,
            relays,
            chance: Rng::with_seed(seed),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
            broker_down: None,
            database_down: false,
            lost_some: false,
            grown: Vec::new(),
            logs: Vec::new(),
            standby: Some(standby),
            replication,
            writers,
            watcher,
        }
    }

    /// The relay that has the lease, or any.
    pub fn leader(&mut self) -> usize {
        let holder = "SELECT lease_instance FROM outboxd_state WHERE lease_until > clock_timestamp()";
        let holder = self.stage.postgres.try_sql(&self.stage.database, holder).unwrap_or_default();
        let leader = NAMES.iter().position(|name| *name == holder);
        leader.unwrap_or_else(|| self.chance.usize(0..NAMES.len()))
    }

    /// Kills a relay and starts it again, differently.
    pub fn start_relay(&mut self, number: usize, adapt: impl FnOnce(DaemonOptions) -> DaemonOptions) {
        let relay = &mut self.relays[number];
        relay.daemon.sigkill();
        self.logs.push(relay.daemon.log());
        relay.daemon = adapt(relay.options.clone()).start();
    }

    /// A statement as somebody with all rights, if the database takes it.
    pub fn sql(&self, statement: &str) -> bool {
        !self.database_down && self.stage.postgres.try_sql(&self.stage.database, statement).is_ok()
    }

    /// The broker that leads a partition, as long as all are there.
    pub fn broker_of(&self, topic: &str, partition: i32) -> Option<usize> {
        if self.broker_down.is_some() { None } else { self.stage.kafka.find_leader(topic, partition) }
    }

    /// The broker that coordinates the outbox's transactions.
    pub fn coordinator(&self) -> Option<usize> {
        let id = format!("outboxd-{}", self.stage.name);
        // as brokers do: the absolute value of Java's String.hashCode() over the partitions of their own topic
        let hash = id.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
        self.broker_of("__transaction_state", hash.checked_abs().unwrap_or(0) % TRANSACTION_PARTITIONS)
    }

    /// The standby takes over from a primary that is killed. Says whether there was one. Before that, commits wait for the standby, or it is
    /// kept from what comes.
    pub fn fail_over(&mut self, synchronous: bool) -> bool {
        if self.database_down || !self.stage.postgres.is_followed() {
            return false;
        }
        let Some(standby) = self.standby.take() else { return false };
        let primary = self.stage.postgres;
        let a_while = Duration::from_millis(self.chance.u64(300..1500));
        if synchronous {
            primary.wait_for_standby(true);
            let_pass(a_while);
            primary.kill_hard();
        } else {
            self.replication.set(Weather::Freeze);
            let_pass(a_while);
            // a key's versions are drawn again: what was lost and what comes must be told apart
            self.stage.ask_writers_to_stop();
            primary.kill_hard();
            self.lost_some = true;
        }
        self.replication.set(Weather::Cut);
        standby.promote();
        self.stage.postgres = standby;
        let lines = self.relays.iter().map(|relay| &relay.line).chain([&self.writers, &self.replication]);
        lines.for_each(|line| line.turn_to(standby.port()));
        self.replication.set(Weather::Pass);
        if !synchronous {
            self.stage.stop_writing();
            self.stage.write();
        }
        self.standby = Some(lasting(standby.start_standby(self.replication.port())));
        true
    }

    /// Everything that relays logged, by process.
    pub fn all_logs(&self) -> impl Iterator<Item = String> {
        self.logs.iter().cloned().chain(self.relays.iter().map(|relay| relay.daemon.log()))
    }

    /// What the reader saw on the way and what is not there in the end.
    pub fn vanished(&mut self) -> Vec<Violation> {
        let watcher = self.watcher.take().expect("the reader is asked once");
        watcher.vanished(&self.stage.seen())
    }
}

impl Relay {
    fn start(stage: &Stage<'_>, kafka: &Kafka, name: &str, line: Proxy) -> Relay {
        let way = kafka.proxied();
        let url = format!("postgres://outboxd@{}/{}", line.address(), stage.database);
        let options =
            stage.options.clone().set("relay.instance", name).set("kafka.brokers", &way.brokers).set("database.url", &url);
        let (clock, options) = Clock::for_daemon(options);
        let daemon = options.start();
        eventually("the relay is there", SOON, || daemon.get("/healthz").is_some());
        Relay { options, clock, way, line, daemon }
    }
}
