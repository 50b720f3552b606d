//! SIGKILL at random moments under load: nothing is lost, nothing comes twice; and the control without transactions, in which
//! the checker must find what it looks for.

use std::time::Duration;

use crate::checker::Kind;
use crate::history;
use crate::stage::{Mark, Stage, is_long};
use crate::support::{Daemon, Kafka, Postgres, Version, let_pass};
use crate::workload::Habits;

/// Kills of one run: enough to hit every step of the loop, in a long run many times.
fn kills() -> usize {
    if is_long() { 100 } else { 20 }
}

/// What a run of kills saw.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Kills that left an open transaction behind.
    publishing: usize,
    /// Claims that found batches in the journal whose rows were not marked.
    settled: usize,
    /// Kills before the claim was complete.
    claiming: usize,
}

/// Starts, kills and starts again, for as often as a run has it; leaves the last daemon running.
fn kill_again_and_again(stage: &Stage<'_>, kills: usize) -> (Daemon, Tally) {
    let mut tally = Tally::default();
    let mut daemon = stage.start("one");
    while tally.kills < kills {
        // Mostly after the claim, sometimes into it.
        let_pass(Duration::from_millis(fastrand::u64(100..1200)));
        daemon.sigkill();
        tally.kills += 1;
        let open: usize = stage.topics.iter().map(|(topic, count)| history::open_partitions(stage.kafka, topic, *count)).sum();
        tally.publishing += usize::from(open > 0);
        tally.claiming += usize::from(!daemon.log().contains("\"claimed\""));
        let marked = stage.applied();
        daemon = stage.start("one");
        daemon.wait_log("claimed");
        tally.settled += usize::from(first_batch(&daemon) > marked);
    }
    (daemon, tally)
}

/// The batch number that the daemon's first claim found in the journal.
fn first_batch(daemon: &Daemon) -> u64 {
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("claimed")).expect("it has claimed");
    let line: serde_json::Value = serde_json::from_str(line).expect("the log is JSON");
    let fields = if line["fields"].is_object() { &line["fields"] } else { &line };
    fields["batch"].as_u64().expect("the claim tells its batch")
}

fn survives_kills(mark: Mark) {
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    // No pauses between transactions: most of the time one is under way.
    let habits = Habits { events_per_second: 1200.0, ..Habits::default() };
    let mut stage = Stage::with("killed", mark, postgres, kafka, habits, |options, _| options.set("relay.linger", "0ms"));
    stage.write();
    let (daemon, tally) = kill_again_and_again(&stage, kills());
    println!("{mark:?}: {tally:?}");
    assert!(tally.publishing >= tally.kills / 8, "some kills hit between the first event and the commit: {tally:?}");
    assert!(tally.settled > 0, "some kills hit between the commit and its mark: {tally:?}");
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    stage.prove();
}

#[test]
fn killed_while_it_marks_rows_it_publishes_exactly_once() {
    survives_kills(Mark::Row);
}

#[test]
fn killed_while_it_deletes_rows_it_publishes_exactly_once() {
    survives_kills(Mark::Delete);
}

#[test]
fn at_least_once_shows_duplicates_and_loses_nothing() {
    let (postgres, kafka) = (Postgres::shared(Version::V15), Kafka::shared());
    let lesser = |options: crate::support::DaemonOptions, _: &str| options.set("kafka.delivery", "at_least_once");
    let mut stage = Stage::with("lesser", Mark::Row, postgres, kafka, Habits::default(), lesser).without_journal();
    stage.write();
    let (_daemon, tally) = kill_again_and_again(&stage, kills());
    let violations = stage.violations(false);
    let count = |kind: Kind| violations.iter().filter(|violation| violation.kind == kind).count();
    println!("at least once: {tally:?}, {} duplicates", count(Kind::Duplicated));
    assert!(count(Kind::Duplicated) > 0, "a checker that finds no duplicates here is blind");
    for kind in [Kind::Lost, Kind::Phantom, Kind::Corrupt, Kind::WrongPartition, Kind::SplitKey, Kind::Stranger] {
        assert_eq!(count(kind), 0, "{kind:?}");
    }
}
