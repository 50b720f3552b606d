//! Three relays with a network of their own each, three brokers, a database with a standby, writers and a reader.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::Runtime;

use super::fault::Kind;
use super::healing::Under;
use super::watcher::Watcher;
use super::windows::Windows;
use super::{SOON, Settings};
use crate::checker::Violation;
use crate::stage::{Stage, accept_address};
use crate::support::clock::Clock;
use crate::support::kafka::{Proxied, TRANSACTION_PARTITIONS};
use crate::support::{
    Daemon, DaemonOptions, Kafka, KafkaOptions, PgBouncer, Postgres, PostgresOptions, Proxy, Version, Weather, eventually,
    eventually_get, let_pass,
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
    /// How often a topic has got more partitions.
    pub grown: usize,
    /// What lasts at present.
    pub under: VecDeque<(Kind, Under)>,
    /// What relays logged.
    pub windows: Windows,
    /// What must not be, beside what a checker finds.
    pub wrong: Vec<String>,
    /// Between a relay and the database, when it is its turn.
    pub pooler: PgBouncer,
    /// Behind the pooler.
    pooled: Proxy,
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
    pub fn start(settings: &Settings) -> World {
        let postgres = lasting(Postgres::start(Version::V18, database_options()));
        let kafka = lasting(Kafka::start_three(KafkaOptions { proxied: NAMES.len(), ..KafkaOptions::default() }));
        let lines: Vec<Proxy> = NAMES.iter().map(|_| Proxy::before(postgres.port())).collect();
        let (writers, replication) = (Proxy::before(postgres.port()), Proxy::before(postgres.port()));
        let pooled = Proxy::before(postgres.port());
        let pooler = PgBouncer::start_before(pooled.port());
        // so that an hour, most of which goes by in outages, has some millions of them
        let habits = Habits { events_per_second: 1200.0, ..Habits::default() };
        let mut stage = Stage::with("chaos", settings.mark(), postgres, kafka, habits, |options, name| {
            let url = format!("postgres://outboxd@{}/{name}", lines[0].address());
            // failing over takes a broker's session timeout and more
            let options = options.set("database.url", &url).set("kafka.transaction_timeout", "10s").set("relay.lease", "2s");
            options.set("database.statement_timeout", "3s").set("database.connect_timeout", "2s")
        });
        stage.writers_way = Some(writers.address());
        for port in [lines[1].port(), lines[2].port(), pooler.port()] {
            accept_address(postgres, &stage.database, &format!("127.0.0.1:{port}/{}", stage.database));
        }
        let standby = lasting(postgres.start_standby(replication.port()));
        let relays = NAMES.iter().zip(lines).map(|(name, line)| Relay::start(&stage, kafka, name, line)).collect();
        let watcher = Some(Watcher::start(kafka, &stage.topics));
        World {
            stage,
            relays,
            chance: Rng::with_seed(settings.seed),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
            broker_down: None,
            database_down: false,
            lost_some: false,
            grown: 0,
            under: VecDeque::new(),
            windows: Windows::new(settings.report.as_ref().map(|folder| folder.join(format!("chaos-{}.logs", settings.seed)))),
            wrong: Vec::new(),
            pooler,
            pooled,
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
        self.windows.read(NAMES[number], &relay.daemon.log());
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
        primary.remove_data();
        let lines = self.relays.iter().map(|relay| &relay.line).chain([&self.writers, &self.replication, &self.pooled]);
        lines.for_each(|line| line.turn_to(standby.port()));
        self.replication.set(Weather::Pass);
        if !synchronous {
            self.stage.stop_writing();
            self.stage.write();
        }
        self.standby = Some(lasting(standby.start_standby(self.replication.port())));
        true
    }

    /// Waits until `count` batches more are marked, also while the database comes and goes.
    pub fn wait_for_batches(&self, count: u64) {
        let newest = || {
            let newest = "SELECT coalesce(max(n), 0) FROM outboxd_applied";
            let found = self.stage.postgres.try_sql(&self.stage.database, newest).ok();
            // each question is a process: not too many of them
            let_pass(Duration::from_millis(100));
            found?.parse::<u64>().ok()
        };
        let until = eventually_get("the database answers", SOON, newest) + count;
        eventually(&format!("{count} batches are published and marked"), SOON, || newest().is_some_and(|newest| newest >= until));
    }

    /// Reads what the relays that are at work have logged so far: once, at the end.
    pub fn read_logs(&mut self) {
        self.relays.iter().zip(NAMES).for_each(|(relay, name)| self.windows.read(name, &relay.daemon.log()));
    }

    /// Relays that left by themselves, and whatever else must not be.
    pub fn ended_relays(&mut self) -> Vec<String> {
        let gone = self.relays.iter().zip(NAMES).filter(|(relay, _)| !relay.daemon.is_running());
        let gone: Vec<String> = gone.map(|(_, name)| format!("relay {name} has left")).collect();
        self.wrong.drain(..).chain(gone).collect()
    }

    /// What the reader saw on the way and what is not there in the end.
    pub fn vanished(&mut self) -> Vec<Violation> {
        let watcher = self.watcher.take().expect("the reader is asked once");
        watcher.vanished(self.stage.places())
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
