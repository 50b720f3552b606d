//! The whole process over table and log in memory: lease, relay and chores together.

use std::sync::Arc;
use std::time::Duration;

use outboxd::daemon::signals::Signal;
use outboxd::daemon::{Daemon, Janitor, Outcome, Settings};
use outboxd::event::BatchLimits;
use outboxd::fault::Fault;
use outboxd::heartbeat::Heartbeat;
use outboxd::metrics::Metrics;
use outboxd::phase::Phase;
use outboxd::relay::{self, Relay, Until};
use outboxd::sink::memory::{Failure, MemorySink};
use outboxd::source::memory::MemorySource;
use outboxd::waits::Waits;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::log::Log;

const SECOND: Duration = Duration::from_secs(1);

struct Process {
    metrics: Metrics,
    signals: mpsc::Sender<Signal>,
    outcome: JoinHandle<Outcome>,
}

fn start(source: &MemorySource, sink: &MemorySink, instance: &str, start: u64, until: Until) -> Process {
    let waits = Waits::new(10 * SECOND, SECOND / 100, SECOND / 10);
    let (metrics, source, sink) = (Metrics::new("shop"), Arc::new(source.clone()), Arc::new(sink.clone()));
    let limits = BatchLimits { events: 10, bytes: 1 << 20 };
    let relay = relay::Settings { waits, limits, instance: instance.into(), start, until };
    let relay = Relay::new(source.clone(), sink.clone(), relay, metrics.clone(), fastrand::Rng::with_seed(start));
    let janitor = Janitor::new(source.clone(), sink, metrics.clone());
    let settings = Settings { waits, instance: instance.into(), start, until, silence: 60 * SECOND, shutdown_grace: 25 * SECOND };
    let (signals, received) = mpsc::channel(2);
    let daemon = Daemon::new(source, relay, janitor, settings, metrics.clone(), Heartbeat::new());
    Process { metrics, signals, outcome: tokio::spawn(daemon.run(received)) }
}

async fn left(process: Process) -> u8 {
    timeout(60 * SECOND, process.outcome).await.expect("it leaves").expect("it does not panic").exit_code()
}

fn world(events: usize) -> (MemorySource, MemorySink) {
    let source = MemorySource::new(Uuid::from_u128(7));
    for number in 0..events {
        source.insert("orders", Some("k"), &number.to_string());
    }
    (source, MemorySink::default())
}

fn published(sink: &MemorySink) -> usize {
    sink.log().topics.values().map(Vec::len).sum()
}

#[tokio::test(start_paused = true)]
async fn a_process_relays_prunes_and_drains() {
    let (source, sink) = world(95);
    let process = start(&source, &sink, "a", 1, Until::Stopped);
    sleep(10 * SECOND).await;
    assert_eq!((published(&sink), source.database().rows.len()), (95, 0));
    let vitals = process.metrics.vitals();
    assert!(vitals.leader && vitals.database_up && vitals.kafka_up == Some(true) && vitals.phase == Phase::Relaying, "{vitals:?}");
    let metrics = process.metrics.clone();
    process.signals.send(Signal::Terminate).await.expect("the process listens");
    assert_eq!(left(process).await, 0);
    assert_eq!((metrics.vitals().phase, source.database().lease.clone()), (Phase::Stopped, None));
}

#[tokio::test(start_paused = true)]
async fn a_standby_goes_on_where_the_leader_stopped() {
    let (source, sink) = world(20);
    let leader = start(&source, &sink, "a", 1, Until::Stopped);
    sleep(SECOND).await;
    let standby = start(&source, &sink, "b", 2, Until::Stopped);
    leader.signals.send(Signal::Interrupt).await.expect("the process listens");
    assert_eq!(left(leader).await, 0);
    source.insert("orders", Some("k"), "last");
    sleep(SECOND).await;
    assert_eq!(published(&sink), 21);
    assert!(standby.metrics.vitals().leader);
}

#[tokio::test(start_paused = true)]
async fn a_run_until_drained_publishes_all_and_leaves() {
    let (source, sink) = world(42);
    let process = start(&source, &sink, "a", 1, Until::Drained);
    assert_eq!(left(process).await, 0);
    assert_eq!((published(&sink), source.database().lease.clone()), (42, None));
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_is_told_a_few_times_and_then_once_a_minute() {
    let (log, (source, sink)) = (Log::default(), world(0));
    let _listening = log.listen();
    let outage = || Fault::kafka("transport", "test");
    sink.log().look_failures.extend((0..10_000).map(|_| outage()));
    let process = start(&source, &sink, "a", 1, Until::Stopped);
    sleep(20 * SECOND).await;
    assert_eq!(log.count("WARN", "backing off"), 3);
    sleep(580 * SECOND).await;
    let told = log.count("WARN", "backing off");
    assert!((9..=13).contains(&told), "{told} times in ten minutes");
    assert!(log.count("DEBUG", "backing off") > 100, "the others are there for whoever searches");
    sink.log().look_failures.clear();
    sleep(120 * SECOND).await;
    assert_eq!(process.metrics.vitals().phase, Phase::Relaying);
    sink.log().failures.extend((0..2).map(|_| Some(Failure::Before(outage()))));
    source.insert("orders", Some("k"), "1");
    sleep(10 * SECOND).await;
    assert_eq!(published(&sink), 1);
    assert_eq!(log.count("WARN", "backing off"), told + 1, "a new outage is news; the first try again follows without a pause");
    process.signals.send(Signal::Terminate).await.expect("the process listens");
    assert_eq!(left(process).await, 0);
}
