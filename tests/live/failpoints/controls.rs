//! Controls: a relay that lacks a part of the protocol does the harm which that part prevents, and the checker sees it. Each runs a second
//! time with everything in place, and then there is none.

use super::{SOON, a_moment, die, hits, start};
use crate::checker::Kind;
use crate::stage::{Mark, Stage};
use crate::support::proxy::api_key;
use crate::support::{DaemonOptions, Kafka, Postgres, Proxy, Version, eventually};
use crate::workload::Habits;

/// Stops everything and counts what is wrong; prints it by kind.
fn found(stage: &mut Stage<'_>, kind: Kind) -> (usize, usize) {
    let violations = stage.violations(false);
    let of_kind = violations.iter().filter(|violation| violation.kind == kind).count();
    println!("{}: {of_kind} {kind:?} of {} violations", stage.name, violations.len());
    (of_kind, violations.len())
}

/// A process dies between commit and mark; the next one settles, or not.
fn dies_before_the_mark(name: &str, plan: &str) -> (usize, usize) {
    let mut stage = Stage::new(name, Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    stage.write();
    die(&stage, "committed=kill@5");
    let _daemon = start(&stage, "one", plan);
    stage.wait_for_batches(5, SOON);
    found(&mut stage, Kind::Duplicated)
}

#[test]
fn without_settlement_events_come_twice() {
    assert!(dies_before_the_mark("unsettled", "without-settlement").0 > 0, "a checker that finds no duplicates here is blind");
    assert_eq!(dies_before_the_mark("settled", ""), (0, 0));
}

/// Writers whose numbers become visible in another order than they were drawn; then a claim, which reads everything that is left.
fn commits_late(name: &str, plan: &str) -> (usize, usize) {
    let mut stage = Stage::new(name, Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    let daemon = start(&stage, "one", plan);
    daemon.wait_log("\"claimed\"");
    stage.write();
    stage.wait_for_writers(4000);
    daemon.sigkill();
    let _daemon = stage.start("one");
    found(&mut stage, Kind::Reordered)
}

#[test]
fn without_gaps_late_commits_are_overtaken() {
    assert!(commits_late("gapless", "without-gaps").0 > 0, "a checker that finds no disorder here is blind");
    assert_eq!(commits_late("gapped", ""), (0, 0));
}

/// KAFKA-17754: a commit is sent again on a new connection; the first one reaches the broker while the next transaction has its events but
/// not its journal record; then the owner dies.
fn commits_twice(name: &str, network: &Proxy, brokers: &str, plan: &str) -> (usize, usize) {
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    let habits = Habits { events_per_second: 400.0, ..Habits::default() };
    let adapt = |options: DaemonOptions, _: &str| options.set("kafka.brokers", brokers).set("kafka.transaction_timeout", "10s");
    let mut stage = Stage::with(name, Mark::Row, postgres, kafka, habits, adapt);
    stage.write();
    let daemon = start(&stage, "one", &format!("acknowledged=pause(700ms)@*,{plan}"));
    stage.wait_for_batches(3, SOON);
    let held = network.hold_request(api_key::END_TXN);
    held.wait_caught(SOON);
    let before = hits(&daemon, "acknowledged");
    held.cut_client();
    eventually("the next transaction has its events", SOON, || hits(&daemon, "acknowledged") > before);
    held.release();
    a_moment();
    daemon.sigkill();
    let _daemon = stage.start("one");
    stage.wait_for_batches(3, SOON);
    found(&mut stage, Kind::Duplicated)
}

#[test]
fn without_a_new_producer_a_late_commit_ends_a_later_transaction() {
    let way = Kafka::shared().proxied();
    let (network, brokers) = (&way.nodes[0], &way.brokers);
    let harm = commits_twice("kept", network, brokers, "without-new-producer").0;
    assert!(harm > 0, "a checker that finds no duplicates here is blind");
    assert_eq!(commits_twice("renewed", network, brokers, ""), (0, 0));
}
