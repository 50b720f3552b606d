//! An owner dies while its commit is on the way: the answer is held back, or the request, which then arrives in the time of its successor.

use super::SOON;
use crate::chaos_kill::first_batch;
use crate::history;
use crate::stage::{Mark, Stage};
use crate::support::proxy::api_key;
use crate::support::{Kafka, Postgres, Proxy, Version, eventually};
use crate::workload::Habits;

/// A stage whose relay reaches Kafka through a proxy.
fn behind(name: &str, brokers: &str) -> Stage<'static> {
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    Stage::with(name, Mark::Row, postgres, kafka, Habits::default(), |options, _| options.set("kafka.brokers", brokers))
}

/// How many partitions have records of an open transaction.
fn open(stage: &Stage<'_>) -> usize {
    stage.topics.iter().map(|(topic, count)| history::open_partitions(stage.kafka, topic, *count)).sum()
}

/// The owner dies when the answer to its commit is on the way: the commit stands.
fn die_unanswered(stage: &Stage<'_>, network: &Proxy) {
    let daemon = stage.start("one");
    stage.wait_for_batches(3, SOON);
    let held = network.hold_answer(api_key::END_TXN);
    held.wait_caught(SOON);
    daemon.sigkill();
    let marked = stage.applied();
    drop(held);
    let next = stage.start("one");
    next.wait_log("\"claimed\"");
    assert!(first_batch(&next) > marked, "the journal knows of the batch whose commit nobody answered: {}", next.log());
    next.sigkill();
}

/// The owner dies when its commit is on the way: nothing of it stands, and when the frame arrives at last it ends nobody's transaction.
fn die_unheard(stage: &Stage<'_>, network: &Proxy) {
    let daemon = stage.start("one");
    stage.wait_for_batches(3, SOON);
    let held = network.hold_request(api_key::END_TXN);
    held.wait_caught(SOON);
    let committed = first_batch(&daemon) + daemon.metric("outboxd_batches_total") as u64;
    eventually("the batch before it is marked", SOON, || stage.applied() == committed);
    assert!(open(stage) > 0, "the commit is under way, so its transaction is open");
    daemon.sigkill();
    let next = stage.start("one");
    next.wait_log("\"claimed\"");
    assert_eq!(first_batch(&next), committed, "what was not committed is not in the journal: {}", next.log());
    stage.wait_for_batches(2, SOON);
    held.release();
    stage.wait_for_batches(5, SOON);
    next.sigkill();
}

#[test]
fn an_owner_that_dies_while_it_commits_is_settled_by_the_journal() {
    let way = Kafka::shared().proxied();
    let mut stage = behind("unheard", &way.brokers);
    stage.write();
    for _ in 0..3 {
        die_unanswered(&stage, &way.nodes[0]);
        die_unheard(&stage, &way.nodes[0]);
    }
    let _daemon = stage.start("one");
    stage.prove();
}
