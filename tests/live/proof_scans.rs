//! The proof scan, which shows whether the cursor has missed something, comes once a minute: too seldom to prove anything in a test.
//! Here the relay runs inside the test, on real servers and under concurrent writers, and scans many times a second.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use outboxd::config::{self, Delivery, Sources};
use outboxd::cursor::{Form, Listing};
use outboxd::daemon::signals::Signal;
use outboxd::daemon::{self, Chores, Daemon, Outcome};
use outboxd::event::BatchLimits;
use outboxd::fault::{Fault, Halt};
use outboxd::heartbeat::Heartbeat;
use outboxd::journal::{History, Owner};
use outboxd::metrics::Metrics;
use outboxd::park::{Done, SetAside};
use outboxd::relay::{self, Relay, Until};
use outboxd::sink::kafka::{self, KafkaSink};
use outboxd::sink::{Fence, Noted, Published};
use outboxd::source::postgres::{self, Postgres as Database};
use outboxd::source::{ClaimNumber, Fetched, Marker, Pins, Query, Reader, Source, Standing, Tenure};
use outboxd::waits::Waits;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::stage::{Mark, Stage, is_long};
use crate::support::{Kafka, Postgres, Version, eventually};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(60);

/// What the relay asked of its source.
#[derive(Default)]
struct Counts {
    /// Whether the cursor has run since the last claim: then a fetch in full form is a proof scan.
    runs: AtomicBool,
    scans: AtomicU64,
    /// Proof scans that found rows.
    full_scans: AtomicU64,
    /// Proof scans while a batch was fetched and not marked.
    hasty_scans: AtomicU64,
    cursor_fetches: AtomicU64,
    in_flight: AtomicI64,
}

/// A source that counts.
struct Watched<T> {
    inner: T,
    counts: Arc<Counts>,
}

impl<T> Watched<T> {
    fn with<U>(&self, inner: U) -> Watched<U> {
        Watched { inner, counts: self.counts.clone() }
    }
}

impl Source for Watched<Arc<Database>> {
    type Tenure = Watched<<Database as Source>::Tenure>;

    async fn look(&self) -> Result<Standing, Fault> {
        self.inner.look().await
    }

    async fn claim(&self, owner: &Owner, claim: ClaimNumber, fence: &Fence) -> Result<Self::Tenure, Fault> {
        Ok(self.with(self.inner.claim(owner, claim, fence).await?))
    }

    async fn halt(&self, halt: &Halt, seen: &Standing) -> Result<bool, Fault> {
        self.inner.halt(halt, seen).await
    }
}

impl<T: Tenure> Tenure for Watched<T> {
    type Reader = Watched<T::Reader>;
    type Marker = Watched<T::Marker>;

    fn standing(&self) -> &Standing {
        self.inner.standing()
    }

    async fn settle<H: History>(self, history: H) -> Result<(Self::Reader, Self::Marker), Fault> {
        let (reader, marker) = self.inner.settle(history).await?;
        let counts = self.counts;
        counts.runs.store(false, Ordering::Relaxed);
        counts.in_flight.store(0, Ordering::Relaxed);
        Ok((Watched { inner: reader, counts: counts.clone() }, Watched { inner: marker, counts }))
    }
}

impl<T: Reader> Reader for Watched<T> {
    fn allows_cursor(&self) -> bool {
        self.inner.allows_cursor()
    }

    async fn positions(&mut self) -> Result<Listing, Fault> {
        self.inner.positions().await
    }

    async fn fetch(&mut self, query: &Query) -> Result<Fetched, Fault> {
        let (counts, in_flight) = (self.counts.clone(), self.counts.in_flight.load(Ordering::Relaxed));
        let fetched = self.inner.fetch(query).await?;
        let found = fetched.batch.is_some();
        let add = |counter: &AtomicU64, is_so: bool| counter.fetch_add(u64::from(is_so), Ordering::Relaxed);
        match query.form {
            Form::Cursor => {
                counts.runs.store(true, Ordering::Relaxed);
                add(&counts.cursor_fetches, true);
            }
            Form::Full if counts.runs.load(Ordering::Relaxed) => {
                add(&counts.scans, true);
                add(&counts.full_scans, found);
                add(&counts.hasty_scans, in_flight > 0);
            }
            Form::Full => {}
        }
        counts.in_flight.fetch_add(i64::from(found), Ordering::Relaxed);
        Ok(fetched)
    }
}

impl<T: Marker> Marker for Watched<T> {
    async fn mark(&mut self, published: &Published) -> Result<(), Fault> {
        self.inner.mark(published).await?;
        self.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    async fn note(&mut self, noted: &Noted) -> Result<(), Fault> {
        self.inner.note(noted).await
    }

    async fn pin(&mut self, pins: &Pins) -> Result<(), Fault> {
        self.inner.pin(pins).await
    }

    async fn set_aside(&mut self, what: &SetAside) -> Result<Done, Fault> {
        self.inner.set_aside(what).await
    }

    async fn let_go(&mut self, topics: &BTreeSet<String>) -> Result<(), Fault> {
        self.inner.let_go(topics).await
    }
}

/// Neither prunes nor trims.
struct Idle;

impl Chores for Idle {
    async fn run(&self) -> Infallible {
        std::future::pending().await
    }
}

/// A daemon inside the test.
struct Inside {
    runtime: Runtime,
    running: JoinHandle<Outcome>,
    signals: mpsc::Sender<Signal>,
    metrics: Metrics,
    counts: Arc<Counts>,
}

impl Inside {
    /// Relays the stage's outbox with a proof scan that often.
    fn start(stage: &Stage<'_>, proof_scan: Duration) -> Inside {
        let flags = [
            ("database.url", stage.postgres.url(&stage.database, "outboxd")),
            ("outbox.name", stage.name.clone()),
            ("kafka.brokers", stage.kafka.brokers()),
            ("kafka.transaction_timeout", "4s".to_owned()),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value)).into();
        let config = config::load(&Sources { flags, ..Sources::default() }).expect("a configuration").config;
        let lease = Duration::from_secs(5);
        let waits = Waits { proof_scan, ..Waits::new(lease, config.relay.linger, config.relay.idle_interval) };
        let (name, instance, start, until) = (stage.name.clone(), "inside".to_owned(), 7, Until::Stopped);
        let (database, outbox) = (config.database, config.outbox);
        let source = Arc::new(Database::new(postgres::Settings { database, outbox, delivery: Delivery::ExactlyOnce, lease }));
        let sink = Arc::new(
            KafkaSink::new(kafka::Settings { name, source: None, kafka: config.kafka, signs: Heartbeat::new() }).expect("a sink"),
        );
        let (metrics, counts) = (Metrics::new(&stage.name), Arc::<Counts>::default());
        let watched = Arc::new(Watched { inner: source.clone(), counts: counts.clone() });
        let limits = BatchLimits { events: 5_000, bytes: 4 << 20 };
        let settings = relay::Settings { waits, limits, instance: instance.clone(), start, until };
        let relay = Relay::new(watched, sink, settings, metrics.clone(), fastrand::Rng::new());
        let (silence, shutdown_grace) = (Duration::from_secs(300), Duration::from_secs(20));
        let settings = daemon::Settings { waits, instance, start, until, silence, shutdown_grace };
        let daemon = Daemon::new(source, relay, Idle, settings, metrics.clone(), Heartbeat::new());
        let (signals, received) = mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let running = runtime.spawn(daemon.run(received));
        Inside { runtime, running, signals, metrics, counts }
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.filter(|rest| rest.starts_with(['{', ' '])).map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    fn stop(self) {
        self.signals.try_send(Signal::Terminate).expect("it listens");
        let outcome = self.runtime.block_on(self.running).expect("it does not panic");
        assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn frequent_proof_scans_under_concurrent_writers_rescue_nothing() {
    // Many commit late, so that there are gaps to be wrong about.
    let habits = Habits { events_per_second: 500.0, long_percent: 10, prepared_percent: 5, ..Habits::default() };
    let postgres = Postgres::shared(Version::V18);
    let mut stage = Stage::with("scanned", Mark::Row, postgres, Kafka::shared(), habits, |options, _| options);
    let inside = Inside::start(&stage, Duration::from_millis(150));
    let counts = inside.counts.clone();
    stage.write();
    let least = if is_long() { 300 } else { 50 };
    eventually("there were enough proof scans", SOON * 8, || read(&counts.full_scans) >= least);
    stage.stop_writing();
    eventually("the table is drained", SOON, || stage.pending() == 0);
    let (scans, full_scans, by_cursor) = (read(&counts.scans), read(&counts.full_scans), read(&counts.cursor_fetches));
    println!("{scans} proof scans, {full_scans} of them with rows, between {by_cursor} fetches by cursor");
    assert!(by_cursor > full_scans, "the cursor does the work");
    assert_eq!(read(&counts.hasty_scans), 0, "nothing is in flight while the full form is read");
    assert_eq!(inside.metric("outboxd_rescued_events_total"), 0.0);
    assert_eq!(inside.metric("outboxd_claims_total"), 1.0);
    inside.stop();
    stage.prove();
}

#[test]
fn a_row_that_somebody_set_back_is_rescued_and_counted() {
    let mut stage = Stage::new("set-back", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    let inside = Inside::start(&stage, Duration::from_millis(150));
    stage.write();
    stage.wait_for_batches(5, SOON);
    stage.stop_writing();
    eventually("the table is drained", SOON, || stage.pending() == 0);
    let scans = || read(&inside.counts.scans);
    let wait_for_scans = || {
        let until = scans() + 3;
        eventually("three proof scans more", SOON, || scans() >= until);
    };
    wait_for_scans();
    assert_eq!(inside.metric("outboxd_rescued_events_total"), 0.0);
    let set_back = "UPDATE outbox SET sent_at = NULL WHERE seq = (SELECT seq FROM outbox ORDER BY seq LIMIT 1 OFFSET 7)";
    stage.postgres.sql(&stage.database, set_back);
    wait_for_scans();
    assert_eq!(inside.metric("outboxd_rescued_events_total"), 1.0);
    assert_eq!(stage.pending(), 0);
    inside.stop();
}
