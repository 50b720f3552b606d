//! The relay loop over table and log in memory, with time under the test's control: one test for each arrow of the state picture, and
//! a walk with random faults.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use outboxd::event::BatchLimits;
use outboxd::fault::{Cause, Fault, HaltCode};
use outboxd::metrics::Metrics;
use outboxd::park::Unfit;
use outboxd::phase::Phase;
use outboxd::relay::{End, Relay, Settings, Until};
use outboxd::sink::memory::{Failure, MemorySink};
use outboxd::source::memory::{Failure as TableFailure, MemorySource, Verb};
use outboxd::source::{Lease, Leases, Takeover};
use outboxd::stop::{self, Stop, Stopper, Stopping};
use outboxd::waits::Waits;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::log::Log;

#[path = "relay/halting.rs"]
mod halting;
#[path = "relay/pacing.rs"]
mod pacing;
#[path = "relay/parking.rs"]
mod parking;
#[path = "relay/pausing.rs"]
mod pausing;
#[path = "relay/refreshing.rs"]
mod refreshing;
#[path = "relay/taking_away.rs"]
mod taking_away;

const LIMITS: BatchLimits = BatchLimits { events: 10, bytes: 1 << 20 };

fn waits() -> Waits {
    Waits::new(Duration::from_secs(10), Duration::from_millis(10), Duration::from_millis(100))
}

/// One table and one log.
struct World {
    source: MemorySource,
    sink: MemorySink,
}

/// A running relay.
struct Running {
    metrics: Metrics,
    stopper: Stopper,
    task: JoinHandle<End>,
}

impl World {
    fn new() -> Self {
        Self { source: MemorySource::new(Uuid::from_u128(7)), sink: MemorySink::default() }
    }

    /// Takes the lease and starts a relay, as the daemon does.
    async fn start(&self, instance: &str, start: u64) -> Running {
        self.start_until(instance, start, Until::Stopped).await
    }

    async fn lease(&self, instance: &str, start: u64) -> u64 {
        let taken = self.source.take(instance, start, Takeover::OwnInstance).await;
        let Ok(Lease::Held { epoch }) = taken else { panic!("the lease is {taken:?}") };
        epoch
    }

    fn relay(&self, instance: &str, start: u64, until: Until) -> (Relay<MemorySource, MemorySink>, Metrics) {
        let metrics = Metrics::new("test");
        let settings = Settings { waits: waits(), limits: LIMITS, instance: instance.into(), start, until };
        let (source, sink) = (Arc::new(self.source.clone()), Arc::new(self.sink.clone()));
        (Relay::new(source, sink, settings, metrics.clone(), fastrand::Rng::with_seed(start)), metrics)
    }

    async fn start_until(&self, instance: &str, start: u64, until: Until) -> Running {
        let epoch = self.lease(instance, start).await;
        let (mut relay, metrics) = self.relay(instance, start, until);
        let (stopper, mut stop): (Stopper, Stop) = stop::pair();
        let task = tokio::spawn(async move { relay.run(epoch, &mut stop).await });
        Running { metrics, stopper, task }
    }

    fn unsent(&self) -> usize {
        self.source.database().rows.values().filter(|row| !row.sent).count()
    }

    /// Inserts events with the numbers that follow.
    fn insert(&self, topic: &str, key: &str, count: usize) {
        for n in 0..count {
            self.source.insert(topic, Some(key), &n.to_string());
        }
    }

    fn parked(&self) -> Vec<i64> {
        self.source.database().parked.keys().copied().collect()
    }

    /// Waits until every committed row is marked.
    async fn drained(&self) {
        until("everything is marked", || self.unsent() == 0).await;
    }

    /// Every committed row is in its topic exactly once, and per key in order of its number.
    fn check(&self) {
        self.check_all_but(&[]);
    }

    /// [`World::check`] of all but these, which were discarded.
    fn check_all_but(&self, discarded: &[i64]) {
        let (database, log) = (self.source.database(), self.sink.log());
        let mut seen = HashSet::new();
        for read in log.topics.values().flatten() {
            assert!(seen.insert(read.id), "event {} is there twice", read.id);
        }
        for (seq, row) in database.rows.iter().filter(|(seq, _)| !discarded.contains(seq)) {
            assert!(seen.contains(&row.id) == row.sent, "seq {seq}: marked {}, published {}", row.sent, !row.sent);
        }
        for (topic, reads) in &log.topics {
            let number = |id: Uuid| database.rows.iter().find(|(_, row)| row.id == id).map(|(seq, _)| *seq);
            for partition in 0..2 {
                let numbers: Vec<_> =
                    reads.iter().filter(|read| read.partition == partition).filter_map(|read| number(read.id)).collect();
                assert!(numbers.is_sorted(), "{topic}[{partition}] is out of order: {numbers:?}");
            }
        }
    }

    fn fences(&self) -> u64 {
        self.sink.log().epoch
    }
}

impl Running {
    async fn phase(&self, phase: Phase) {
        until(phase.name(), || self.metrics.vitals().phase == phase).await;
    }

    fn claims(&self, cause: Cause) -> f64 {
        let sample = format!("outboxd_claims_total{{cause=\"{}\",outbox=\"test\"}} ", cause.name());
        let text = self.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&sample));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no sample {sample}"))
    }

    async fn stop(self) -> End {
        self.stopper.stop(Stopping::Drain);
        self.task.await.expect("the relay does not panic")
    }
}

/// Lets simulated time pass until `condition` holds, at most an hour of it.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(3600), "never: {what}");
        sleep(Duration::from_millis(3)).await;
    }
}

fn outage() -> Fault {
    Fault::kafka("transport", "test")
}

#[tokio::test(start_paused = true)]
async fn an_event_is_published_once_and_marked() {
    let world = World::new();
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Relaying).await;
    world.source.insert("orders", Some("k"), "1");
    world.drained().await;
    world.check();
    assert!(matches!(relay.stop().await, End::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_drained_in_order_and_once() {
    let world = World::new();
    (0..95).for_each(|i| {
        world.source.insert("orders", Some("k"), &i.to_string());
    });
    let relay = world.start_until("a", 1, Until::Drained).await;
    assert!(matches!(relay.task.await, Ok(End::Stopped)));
    assert_eq!(world.unsent(), 0);
    assert_eq!(world.source.database().applied.len(), 10);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn settling_alone_marks_what_the_journal_has_and_publishes_nothing() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    world.source.fail(Verb::Mark, TableFailure::Before(Fault::Misconfigured { detail: "end".into(), remedy: String::new() }));
    let first = world.start("a", 1).await;
    assert!(matches!(first.task.await, Ok(End::Exit(_))));
    world.source.insert("orders", Some("k"), "2");
    let second = world.start_until("a", 2, Until::Settled).await;
    assert!(matches!(second.task.await, Ok(End::Stopped)));
    assert_eq!((world.unsent(), world.sink.log().topics["orders"].len()), (1, 1));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn an_outage_backs_off_and_claims_again() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    for _ in 0..3 {
        world.sink.log().failures.push_back(Some(Failure::Before(outage())));
    }
    let relay = world.start("a", 1).await;
    relay.phase(Phase::BackingOff).await;
    assert!(relay.metrics.vitals().kafka_up != Some(true));
    world.drained().await;
    assert!(relay.claims(Cause::Outage) >= 3.0);
    assert_eq!(relay.metrics.vitals().kafka_up, Some(true));
    world.check();
}

/// One event that can neither be published nor parked, and claims that take as long as real ones.
fn poisoned_world() -> World {
    let world = World::new();
    let seq = world.source.insert("orders", Some("k"), "1");
    let poison = Fault::Poison(Unfit { seq, id: Uuid::from_u128(1).into(), code: "malformed_headers", detail: "test".into() });
    let mut log = world.sink.log();
    log.fence_takes = Duration::from_millis(100);
    log.failures.extend((0..10_000).map(|_| Some(Failure::Before(poison.clone()))));
    drop(log);
    world
}

#[tokio::test(start_paused = true)]
async fn a_fault_after_each_claim_backs_off_too() {
    let world = poisoned_world();
    let relay = world.start("a", 1).await;
    sleep(Duration::from_secs(600)).await;
    assert!(world.fences() < 200, "{} claims in ten minutes", world.fences());
    relay.phase(Phase::BackingOff).await;
    assert_eq!(world.unsent(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_relay_with_an_end_in_sight_gives_up_on_what_cannot_be_published() {
    let world = poisoned_world();
    let begun = Instant::now();
    let relay = world.start_until("a", 1, Until::Drained).await;
    assert!(matches!(relay.task.await, Ok(End::GaveUp)));
    assert!(begun.elapsed() < 2 * waits().stuck);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_happened_without_an_answer_is_settled_from_the_journal() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    world.sink.log().failures.push_back(Some(Failure::After(Fault::in_doubt(Cause::Commit, "test"))));
    let relay = world.start("a", 1).await;
    world.drained().await;
    assert_eq!(relay.claims(Cause::Commit), 1.0);
    assert!(world.source.database().calls.contains(&Verb::Settle));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_did_not_happen_is_published_again() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    world.sink.log().failures.push_back(Some(Failure::Before(Fault::in_doubt(Cause::Commit, "test"))));
    let relay = world.start("a", 1).await;
    world.drained().await;
    assert_eq!(relay.claims(Cause::Commit), 1.0);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_mark_with_any_outcome_is_settled() {
    for failure in [TableFailure::Before as fn(Fault) -> TableFailure, TableFailure::After] {
        let world = World::new();
        world.source.insert("orders", Some("k"), "1");
        world.source.fail(Verb::Mark, failure(Fault::in_doubt(Cause::Mark, "test")));
        let relay = world.start("a", 1).await;
        world.drained().await;
        world.source.insert("orders", Some("k"), "2");
        world.drained().await;
        assert_eq!(relay.claims(Cause::Mark), 1.0);
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_deleted_under_way_leads_to_a_claim_and_nothing_is_published_twice() {
    let world = World::new();
    let writer = world.source.begin();
    let (first, _) = (writer.insert("orders", Some("k"), "1"), writer.insert("orders", Some("k"), "2"));
    writer.commit();
    world.source.pass(Verb::Mark);
    let relay = world.start("a", 1).await;
    until("it is published", || !world.sink.log().topics.is_empty()).await;
    world.source.database().rows.remove(&first);
    world.drained().await;
    world.source.insert("orders", Some("k"), "3");
    world.drained().await;
    drop(relay);
    let ids: HashSet<_> = world.sink.log().topics["orders"].iter().map(|read| read.id).collect();
    assert_eq!(ids.len(), world.sink.log().topics["orders"].len());
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_is_marked_as_usual() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    world.sink.log().failures.push_back(Some(Failure::Late));
    let relay = world.start("a", 1).await;
    world.drained().await;
    assert_eq!(relay.claims(Cause::SlowCommit), 1.0);
    assert_eq!(world.fences(), 1, "the publisher renews itself");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_moved_leads_to_a_claim() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    world.sink.log().failures.push_back(Some(Failure::JournalMoved));
    let relay = world.start("a", 1).await;
    world.drained().await;
    assert_eq!(relay.claims(Cause::JournalMoved), 1.0);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn another_claim_a_lost_token_and_another_file_lead_to_a_claim() {
    type Harm = fn(&MemorySource);
    let harms: [(Cause, Harm); 3] = [
        (Cause::ClaimChanged, |source| source.database().standing.claim.0 += 1),
        (Cause::TokenMissing, |source| source.database().token = None),
        (Cause::FileChanged, |source| source.database().file += 1),
    ];
    for (cause, harm) in harms {
        let world = World::new();
        let relay = world.start("a", 1).await;
        relay.phase(Phase::Relaying).await;
        harm(&world.source);
        world.source.insert("orders", Some("k"), "1");
        world.drained().await;
        assert_eq!(relay.claims(cause), 1.0, "{cause}");
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_sequence_that_went_back_leads_to_a_claim() {
    let world = World::new();
    (0..3).for_each(|i| {
        world.source.insert("orders", Some("k"), &i.to_string());
    });
    let relay = world.start("a", 1).await;
    world.drained().await;
    {
        let mut database = world.source.database();
        database.rows.clear();
        database.last_value = 0;
    }
    world.source.insert("orders", Some("k"), "again number 1");
    world.drained().await;
    assert_eq!(relay.claims(Cause::SequenceWentBack), 1.0);
    assert_eq!(world.sink.log().topics["orders"].len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_relay_claims_again_while_the_lease_is_its_own() {
    let world = World::new();
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Relaying).await;
    world.sink.log().epoch += 1;
    world.source.insert("orders", Some("k"), "1");
    world.drained().await;
    assert_eq!(relay.claims(Cause::Fenced), 1.0);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_fenced_relay_without_the_lease_steps_down() {
    let world = World::new();
    let old = world.start("a", 1).await;
    old.phase(Phase::Relaying).await;
    let young = world.start("a", 2).await;
    young.phase(Phase::Relaying).await;
    world.source.insert("orders", Some("k"), "1");
    world.drained().await;
    assert!(matches!(old.task.await, Ok(End::LeaseLost)));
    assert_eq!(world.fences(), 2, "stepping down fences nobody");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_moved_database_halts_without_fencing_and_goes_on_when_it_is_back() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    world.source.database().standing.address = "elsewhere".into();
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Halted).await;
    assert_eq!(relay.metrics.vitals().halted, Some(HaltCode::MovedDatabase));
    assert_eq!(world.source.database().halted.as_ref().map(|halt| halt.code), Some(HaltCode::MovedDatabase));
    assert_eq!((world.fences(), world.unsent()), (0, 1));
    world.source.database().standing.address = "memory".into();
    world.drained().await;
    assert_eq!(relay.claims(Cause::HaltCleared), 1.0);
    assert_eq!(relay.metrics.vitals().halted, None);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn evidence_that_is_gone_the_second_time_is_no_halt() {
    let world = World::new();
    world.source.database().standing.accepted_systems.clear();
    let relay = world.start("a", 1).await;
    sleep(waits().evidence / 2).await;
    world.source.database().standing.accepted_systems.push("1".into());
    relay.phase(Phase::Relaying).await;
    assert_eq!(world.source.database().halted, None);
}

/// Publishes one event, stops, and returns the world.
async fn world_with_history() -> World {
    let world = World::new();
    (0..3).for_each(|i| {
        world.source.insert("orders", Some("k"), &i.to_string());
    });
    let relay = world.start_until("a", 1, Until::Drained).await;
    assert!(matches!(relay.task.await, Ok(End::Stopped)));
    world
}

#[tokio::test(start_paused = true)]
async fn each_broken_journal_halts_by_its_name_before_anything_is_fenced() {
    type Harm = fn(&World);
    let harms: [(HaltCode, Harm); 5] = [
        (HaltCode::KafkaBehind, |world| {
            let mut log = world.sink.log();
            log.journal.clear();
            log.journal_end = 0;
        }),
        (HaltCode::JournalWindow, |world| {
            let mut log = world.sink.log();
            log.journal_start = log.journal_end;
            log.journal.clear();
        }),
        (HaltCode::ForeignJournal, |world| world.source.database().standing.outbox = Uuid::from_u128(8)),
        (HaltCode::JournalVersion, |world| world.sink.log().journal[0].1[0] = 99),
        (HaltCode::OldPrimary, |world| world.source.database().standing.database.timeline = 0),
    ];
    for (code, harm) in harms {
        let world = world_with_history().await;
        let fences = world.fences();
        harm(&world);
        world.source.insert("orders", Some("k"), "next");
        let relay = world.start("a", 2).await;
        relay.phase(Phase::Halted).await;
        assert_eq!(relay.metrics.vitals().halted, Some(code));
        sleep(5 * waits().halted).await;
        assert_eq!((world.fences(), world.unsent()), (fences, 1), "{}", code.name());
        assert!(matches!(relay.stop().await, End::Stopped), "a halted relay stops when asked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocked_journal_halts_after_the_fence_and_goes_on_when_it_is_free() {
    let world = world_with_history().await;
    world.source.insert("orders", Some("k"), "next");
    let end = world.sink.log().journal_end;
    world.sink.log().journal_blocked = Some(end - 1);
    world.sink.log().journal_end = end + 1;
    let relay = world.start("a", 2).await;
    relay.phase(Phase::Halted).await;
    assert_eq!(relay.metrics.vitals().halted, Some(HaltCode::JournalBlocked));
    assert_eq!(world.unsent(), 1);
    world.sink.log().journal_blocked = None;
    world.drained().await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn rows_that_cannot_be_marked_halt_the_relay() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    world.source.database().swallows_marks = true;
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Halted).await;
    assert_eq!(relay.metrics.vitals().halted, Some(HaltCode::MarkRefused));
    sleep(3 * waits().halted).await;
    assert_eq!(world.sink.log().topics["orders"].len(), 1);
    world.source.database().swallows_marks = false;
    world.drained().await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn an_outage_does_not_end_a_halt() {
    let world = world_with_history().await;
    world.sink.log().journal.clear();
    world.sink.log().journal_end = 0;
    let relay = world.start("a", 2).await;
    relay.phase(Phase::Halted).await;
    let (fences, calls) = (world.fences(), world.source.database().calls.len());
    world.sink.log().look_failures.extend((0..3).map(|_| outage()));
    sleep(4 * waits().halted).await;
    assert_eq!(relay.metrics.vitals().phase, Phase::Halted);
    assert_eq!((world.fences(), relay.claims(Cause::HaltCleared)), (fences, 0.0));
    assert!(world.source.database().calls.len() > calls, "it looked again");
}

#[tokio::test(start_paused = true)]
async fn a_copy_beside_the_living_relay_halts_and_the_living_one_goes_on_undisturbed() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "0");
    let copy = World { source: world.source.copy(), sink: world.sink.clone() };
    let living = world.start("a", 1).await;
    world.drained().await;
    let staging = copy.start("b", 9).await;
    for i in 0..60 {
        world.source.insert("orders", Some("k"), &i.to_string());
        sleep(Duration::from_secs(1)).await;
    }
    staging.phase(Phase::Halted).await;
    assert_eq!(staging.metrics.vitals().halted, Some(HaltCode::TwoDatabases));
    world.drained().await;
    assert_eq!(world.fences(), 1);
    assert_eq!(living.claims(Cause::Start), 1.0);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_copy_made_under_the_present_lease_halts_as_well() {
    let world = World::new();
    let living = world.start("a", 1).await;
    world.source.insert("orders", Some("k"), "before");
    world.drained().await;
    let copy = World { source: world.source.copy(), sink: world.sink.clone() };
    copy.source.database().lease = None;
    for i in 0..5 {
        world.source.insert("orders", Some("k"), &i.to_string());
        world.drained().await;
    }
    let staging = copy.start("b", 9).await;
    for i in 0..60 {
        world.source.insert("orders", Some("k"), &i.to_string());
        sleep(Duration::from_secs(1)).await;
    }
    staging.phase(Phase::Halted).await;
    assert_eq!(staging.metrics.vitals().halted, Some(HaltCode::TwoDatabases));
    world.drained().await;
    assert_eq!((world.fences(), living.claims(Cause::Start)), (1, 1.0));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn another_database_that_publishes_during_our_tenure_halts_us() {
    let world = World::new();
    let copy = World { source: world.source.copy(), sink: world.sink.clone() };
    world.source.insert("orders", Some("k"), "0");
    let ours = world.start("a", 1).await;
    world.drained().await;
    let fences = world.fences();
    // the copy watches, sees nobody publish, and goes on with an event of its own
    copy.source.insert("orders", Some("k"), "other");
    let theirs = copy.start("b", 9).await;
    until("the copy published", || copy.unsent() == 0).await;
    assert!(world.fences() > fences);
    world.source.insert("orders", Some("k"), "1");
    ours.phase(Phase::Halted).await;
    assert_eq!(ours.metrics.vitals().halted, Some(HaltCode::TwoDatabases));
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn batches_of_a_lease_that_a_failover_lost_are_settled_not_taken_for_another_database() {
    let world = World::new();
    let (mut patient, _) = world.relay("a", 1, Until::Stopped);
    let epoch = world.lease("a", 1).await;
    let first = tokio::spawn(async move {
        let (_stopper, mut stop) = stop::pair();
        (patient.run(epoch, &mut stop).await, patient)
    });
    world.source.insert("orders", Some("k"), "1");
    world.drained().await;
    let before_failover = world.source.copy();
    let other = world.start("a", 2).await;
    world.source.insert("orders", Some("k"), "2");
    world.drained().await;
    let Ok((End::LeaseLost, mut patient)) = first.await else { panic!("the first relay steps down") };
    // the failover loses the other one's lease, its mark, and the row
    other.task.abort();
    world.source.restore(&before_failover);
    world.source.database().lease = None;
    world.source.insert("orders", Some("k"), "3");
    let epoch = world.lease("a", 1).await;
    tokio::spawn(async move {
        let (_stopper, mut stop) = stop::pair();
        patient.run(epoch, &mut stop).await
    });
    world.drained().await;
    assert_eq!(world.source.database().halted, None);
    assert_eq!(world.sink.log().topics["orders"].len(), 3);
}

/// A failover loses the grant of an owner whose first commit is under way: it ends while the successor fences, after its look.
#[tokio::test(start_paused = true)]
async fn a_commit_under_way_in_a_failover_that_lost_its_lease_is_settled_not_taken_for_another_database() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    let before_failover = world.source.copy();
    world.sink.log().publish_takes = Duration::from_millis(200);
    let zombie = world.start("a", 1).await;
    zombie.phase(Phase::Relaying).await;
    world.source.restore(&before_failover);
    world.source.database().lease = None;
    world.sink.log().fence_takes = Duration::from_millis(500);
    let begun = Instant::now();
    let successor = world.start("b", 2).await;
    until("it is committed", || world.sink.log().journal.len() == 1).await;
    assert_eq!((world.fences(), successor.metrics.vitals().phase), (1, Phase::Claiming), "between look and fence");
    zombie.task.abort();
    world.drained().await;
    assert!(begun.elapsed() >= waits().went_back, "it watched for another publisher first");
    assert_eq!((world.source.database().halted.clone(), world.sink.log().topics["orders"].len()), (None, 1));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn another_database_that_published_while_we_fenced_it_halts_us_when_it_goes_on() {
    let world = World::new();
    let copy = World { source: world.source.copy(), sink: world.sink.clone() };
    let theirs = copy.start("b", 9).await;
    theirs.phase(Phase::Relaying).await;
    world.sink.log().fence_takes = Duration::from_millis(500);
    let ours = world.start("a", 1).await;
    ours.phase(Phase::Claiming).await;
    for n in 0..60 {
        copy.source.insert("orders", Some("k"), &n.to_string());
        sleep(Duration::from_secs(1)).await;
    }
    ours.phase(Phase::Halted).await;
    assert_eq!(ours.metrics.vitals().halted, Some(HaltCode::TwoDatabases));
    assert_eq!(ours.claims(Cause::Start), 0.0, "nothing was settled here");
    copy.drained().await;
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn a_restored_database_publishes_reused_numbers_as_new_and_nothing_twice() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "kept");
    let first = world.start_until("a", 1, Until::Drained).await;
    drop(first.task.await);
    let backup = world.source.copy();
    world.source.insert("orders", Some("k"), "lost by the restore");
    let second = world.start_until("a", 2, Until::Drained).await;
    drop(second.task.await);
    world.source.restore(&backup);
    world.source.insert("orders", Some("k"), "reuses the number");
    let begun = Instant::now();
    let third = world.start("a", 3).await;
    world.drained().await;
    assert!(begun.elapsed() >= waits().went_back, "it watched for another publisher first");
    let payloads: Vec<_> = world.sink.log().topics["orders"].iter().map(|read| read.payload.clone().unwrap_or_default()).collect();
    assert_eq!(payloads, [&b"kept"[..], b"lost by the restore", b"reuses the number"]);
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_wait() {
    let world = World::new();
    for _ in 0..40 {
        world.sink.log().fence_failures.push_back(outage());
    }
    let relay = world.start("a", 1).await;
    relay.phase(Phase::BackingOff).await;
    let asked = Instant::now();
    assert!(matches!(relay.stop().await, End::Stopped));
    assert!(asked.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_was_begun() {
    let world = World::new();
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Relaying).await;
    world.source.insert("orders", Some("k"), "1");
    until("it is published", || !world.sink.log().topics.is_empty()).await;
    assert!(matches!(relay.stop().await, End::Stopped));
    assert_eq!(world.unsent(), 0, "published means marked");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_finishes_nothing_gives_up() {
    let world = World::new();
    for _ in 0..1000 {
        world.sink.log().fence_failures.push_back(outage());
    }
    let begun = Instant::now();
    let relay = world.start("a", 1).await;
    assert!(matches!(relay.task.await, Ok(End::GaveUp)));
    assert!(begun.elapsed() >= waits().stuck && begun.elapsed() < 2 * waits().stuck);
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_ends_the_relay() {
    let world = World::new();
    let refused = Fault::Refused { detail: "UPDATE on outbox".into(), remedy: String::new() };
    world.source.fail(Verb::Look, TableFailure::Before(refused));
    let relay = world.start("a", 1).await;
    assert!(matches!(relay.task.await, Ok(End::Exit(Fault::Refused { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_standby_waits_until_it_is_the_primary() {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    for _ in 0..4 {
        world.source.fail(Verb::Look, TableFailure::Before(Fault::Standby));
    }
    let relay = world.start("a", 1).await;
    world.drained().await;
    world.check();
    drop(relay);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_timed_out_is_halved() {
    let world = World::new();
    (0..10).for_each(|i| {
        world.source.insert("orders", Some("k"), &i.to_string());
    });
    let timeout = || Failure::Before(Fault::kafka(outboxd::fault::TIMEOUT, "test"));
    world.sink.log().failures.push_back(Some(timeout()));
    world.sink.log().failures.push_back(Some(timeout()));
    let relay = world.start("a", 1).await;
    world.drained().await;
    assert_eq!(world.source.database().applied.len(), 5, "ten events in batches of two");
    world.check();
    drop(relay);
}

#[tokio::test(start_paused = true)]
async fn the_proof_scan_rescues_a_row_that_the_cursor_passed() {
    let world = World::new();
    (0..3).for_each(|i| {
        world.source.insert("orders", None, &i.to_string());
    });
    let relay = world.start("a", 1).await;
    world.drained().await;
    let late = outboxd::source::memory::Row {
        id: Uuid::from_u128(1),
        topic: "orders".into(),
        key: None,
        payload: "unmarked by hand".into(),
        sent: false,
    };
    world.source.database().rows.insert(2, late);
    sleep(2 * waits().proof_scan).await;
    assert_eq!(world.unsent(), 0);
    assert!(relay.metrics.text().contains("outboxd_rescued_events_total{outbox=\"test\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_proof_scan_comes_also_under_a_backlog_that_lasts() {
    let world = World::new();
    world.sink.log().publish_takes = Duration::from_millis(100);
    world.insert("orders", "k", 20_000);
    let relay = world.start("a", 1).await;
    until("the cursor has passed it", || world.unsent() < 19_000).await;
    if let Some(row) = world.source.database().rows.get_mut(&2) {
        (row.id, row.sent) = (Uuid::from_u128(1), false);
    }
    until("it is rescued", || relay.metrics.text().contains("outboxd_rescued_events_total{outbox=\"test\"} 1")).await;
    assert!(world.unsent() > 1_000, "in the middle of the backlog");
}

/// The cursor alone must find what commits late: no claim and no proof scan helps it here.
#[tokio::test(start_paused = true)]
async fn late_commits_are_found_without_a_claim_or_a_rescue() {
    for seed in 0..40 {
        let world = World::new();
        let relay = world.start("a", 1).await;
        relay.phase(Phase::Relaying).await;
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut open = Vec::new();
        for step in 0..200 {
            let writer = world.source.begin();
            (0..chance.usize(1..4)).for_each(|_| {
                writer.insert("orders", Some(&step.to_string()), "x");
            });
            open.push(writer);
            while open.len() > chance.usize(..6) {
                let writer = open.swap_remove(chance.usize(..open.len()));
                if chance.u8(..5) == 0 { writer.rollback() } else { writer.commit() }
            }
            sleep(Duration::from_millis(chance.u64(..40))).await;
        }
        open.drain(..).for_each(|writer| writer.commit());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(world.unsent(), 0, "seed {seed}");
        assert_eq!(world.fences(), 1);
        assert!(relay.metrics.text().contains("outboxd_rescued_events_total{outbox=\"test\"} 0"));
        world.check_numbers_per_key();
    }
}

/// Writers with late commits and rollbacks, every kind of fault at random, two processes taking the lease from each other.
#[tokio::test(start_paused = true)]
async fn random_faults_lose_double_and_reorder_nothing() {
    for seed in 0..60 {
        let world = World::new();
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut relays = Vec::new();
        let mut open = Vec::new();
        for step in 0..150_u64 {
            match chance.u8(..12) {
                0..5 => {
                    let writer = world.source.begin();
                    for _ in 0..chance.usize(1..9) {
                        // one key an open transaction: what a row lock of the service would give
                        writer.insert("orders", Some(&format!("open{step}")), "x");
                    }
                    open.push(writer);
                }
                5..8 if !open.is_empty() => open.swap_remove(chance.usize(..open.len())).commit(),
                8 if !open.is_empty() => open.swap_remove(chance.usize(..open.len())).rollback(),
                9 => misfortune(&world, &mut chance),
                10 => {
                    // the lease ran out: the older relay does not know yet
                    world.source.database().lease = None;
                    relays.push(world.start("a", step + 1).await);
                }
                _ => sleep(Duration::from_millis(chance.u64(..200))).await,
            }
            if chance.u8(..40) == 0 {
                relays.drain(..).for_each(|crashed: Running| crashed.task.abort());
            }
        }
        open.drain(..).for_each(|writer| writer.commit());
        world.source.database().lease = None;
        let last = world.start("c", 999).await;
        world.drained().await;
        world.check_numbers_per_key();
        drop(last);
    }
}

fn misfortune(world: &World, chance: &mut fastrand::Rng) {
    let doubt = Fault::in_doubt(Cause::Commit, "test");
    let mut log = world.sink.log();
    match chance.u8(..9) {
        0 => log.failures.push_back(Some(Failure::Before(outage()))),
        1 => log.failures.push_back(Some(Failure::Before(doubt))),
        2 | 3 => log.failures.push_back(Some(Failure::After(doubt))),
        4 => log.failures.push_back(Some(Failure::Late)),
        5 => log.failures.push_back(Some(Failure::JournalMoved)),
        6 => world.source.fail(Verb::Mark, TableFailure::Before(Fault::database("down", "test"))),
        7 => world.source.fail(Verb::Mark, TableFailure::After(Fault::in_doubt(Cause::Mark, "test"))),
        _ => world.source.fail(Verb::Settle, TableFailure::After(Fault::database("down", "test"))),
    }
}

impl World {
    /// As `check`, but order is judged per key: partitions mix keys whose transactions overlap.
    fn check_numbers_per_key(&self) {
        let (database, log) = (self.source.database(), self.sink.log());
        let reads: Vec<_> = log.topics.values().flatten().collect();
        let ids: HashSet<_> = reads.iter().map(|read| read.id).collect();
        assert_eq!(ids.len(), reads.len(), "an event is there twice");
        assert_eq!(ids.len(), database.rows.len(), "lost, or published although rolled back");
        let mut last = std::collections::HashMap::new();
        for read in reads {
            let (seq, _) = database.rows.iter().find(|(_, row)| row.id == read.id).expect("published rows are committed");
            assert!(last.insert(read.key.clone(), *seq).is_none_or(|before| before < *seq), "a key is out of order");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_halt_is_told_when_it_begins_when_its_evidence_changes_and_once_an_hour() {
    let (log, world) = (Log::default(), World::new());
    let _listening = log.listen();
    world.source.database().standing.address = "elsewhere".into();
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Halted).await;
    sleep(Duration::from_secs(1800)).await;
    assert_eq!(log.count("ERROR", "halted"), 1);
    world.source.database().standing.address = "yonder".into();
    sleep(2 * waits().halted).await;
    assert_eq!(log.count("ERROR", "halted"), 2, "the evidence changed");
    sleep(Duration::from_secs(3 * 3600)).await;
    let told = log.count("ERROR", "halted");
    assert!((4..=5).contains(&told), "{told}: once an hour");
    world.source.database().standing.address = "memory".into();
    relay.phase(Phase::Relaying).await;
    let told = log.count("ERROR", "halted");
    world.source.database().standing.address = "yonder".into();
    world.sink.log().failures.push_back(Some(Failure::Before(outage())));
    world.source.insert("orders", Some("k"), "1");
    relay.phase(Phase::Halted).await;
    assert_eq!(log.count("ERROR", "halted"), told + 1, "what halts it after a claim that went well is news");
    assert!(matches!(relay.stop().await, End::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_halt_that_only_a_claim_can_test_is_told_once() {
    let (log, world) = (Log::default(), World::new());
    let _listening = log.listen();
    world.source.insert("orders", Some("k"), "1");
    world.source.database().swallows_marks = true;
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Halted).await;
    sleep(20 * waits().halted).await;
    assert_eq!((log.count("ERROR", "halted"), log.count("WARN", "looking again before halting")), (1, 1));
    let told = log.count("WARN", "backing off");
    assert!(told <= 25, "{told}");
    world.source.database().swallows_marks = false;
    world.drained().await;
    world.source.database().swallows_marks = true;
    world.source.insert("orders", Some("k"), "2");
    sleep(3 * waits().halted).await;
    assert_eq!(log.count("ERROR", "halted"), 2, "what halts it after a claim that went well is news");
}
