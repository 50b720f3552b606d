//! The relay's loop over a file and a log in memory: the whole way, but for Kafka.

use std::collections::HashMap;
use std::sync::Arc;

use outboxd::event::BatchLimits;
use outboxd::fault::Cause;
use outboxd::metrics::Metrics;
use outboxd::relay::{End, Relay, Until};
use outboxd::sink::memory::MemorySink;
use outboxd::source::{Lease, Leases, Takeover};
use outboxd::stop::{self, Stop, Stopper, Stopping};
use outboxd::waits::Waits;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;

/// Polls back off to this in steps of a small part of it, each longer than the patience of these tests.
const IDLE: Duration = Duration::from_secs(36_000);
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    stopper: Stopper,
    task: JoinHandle<End>,
    metrics: Metrics,
}

/// Takes the lease and starts a relay whose polls are far apart when it is idle.
async fn start(world: &World, sink: &MemorySink, idle: Duration) -> Running {
    let source = world.source();
    let Lease::Held { epoch } = source.take("a", 1, Takeover::OwnInstance).await.expect("asked") else { panic!("taken") };
    let waits =
        Waits { went_back: Duration::from_millis(50), ..Waits::new(Duration::from_secs(60), Duration::from_millis(1), idle) };
    let limits = BatchLimits { events: 3, bytes: 1 << 20 };
    let settings = outboxd::relay::Settings { waits, limits, instance: "a".into(), start: 1, until: Until::Stopped };
    let metrics = Metrics::new("test");
    let mut relay = Relay::new(Arc::new(source), Arc::new(sink.clone()), settings, metrics.clone(), fastrand::Rng::with_seed(1));
    let (stopper, mut stop): (Stopper, Stop) = stop::pair();
    Running { task: tokio::spawn(async move { relay.run(epoch, &mut stop).await }), stopper, metrics }
}

impl Running {
    fn has_claimed(&self, cause: Cause) -> bool {
        let sample = format!("outboxd_claims_total{{cause=\"{}\",outbox=\"test\"}} ", cause.name());
        self.metrics.text().lines().any(|line| line.strip_prefix(&sample).is_some_and(|count| count != "0"))
    }

    async fn stop(self) {
        self.stopper.stop(Stopping::Drain);
        assert!(matches!(self.task.await.expect("it does not panic"), End::Stopped));
    }
}

async fn drained(world: &World) {
    let until = Instant::now() + PATIENCE;
    while !world.unsent().await.is_empty() {
        assert!(Instant::now() < until, "nothing is published any more");
        sleep(Duration::from_millis(5)).await;
    }
}

/// How often each payload was committed.
fn published(sink: &MemorySink) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    for event in sink.log().topics.values().flatten() {
        let payload = event.payload.clone().unwrap_or_default();
        *times.entry(String::from_utf8(payload).expect("text")).or_default() += 1;
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_relay_is_woken_by_a_commit() {
    let (world, sink) = (World::fresh(Setup::default()).await, MemorySink::default());
    let relay = start(&world, &sink, IDLE).await;
    for payload in ["1", "2", "3"] {
        // long enough for the polls to be far apart
        sleep(Duration::from_millis(300)).await;
        world.insert(&[payload]).await;
        drained(&world).await;
    }
    relay.stop().await;
    assert_eq!(published(&sink).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_the_file_each_event_is_published_once() {
    let (world, sink) = (World::fresh(Setup::default()).await, MemorySink::default());
    let relay = start(&world, &sink, Duration::from_millis(20)).await;
    world.insert(&["1", "2", "3", "4", "5"]).await;
    drained(&world).await;
    let copy = world.copy("older.db").await;
    world.insert(&["lost 1", "lost 2", "lost 3", "lost 4"]).await;
    drained(&world).await;
    std::fs::rename(copy, world.file()).expect("an older file takes its place");
    world.insert(&["6", "7", "8", "9"]).await;
    drained(&world).await;
    let copy = world.copy("unmarked.db").await;
    world.insert(&["10"]).await;
    drained(&world).await;
    past::put_back(&world, &copy).await;
    world.insert(&["11", "12"]).await;
    drained(&world).await;
    assert!(relay.has_claimed(Cause::FileChanged) && relay.has_claimed(Cause::TokenMissing));
    relay.stop().await;
    let published = published(&sink);
    assert_eq!((published.len(), published.values().max()), (5 + 4 + 4 + 1 + 2, Some(&1)), "{published:?}");
}
