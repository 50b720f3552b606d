//! SIGKILL at random moments under load: nothing is lost, nothing comes twice; and the control without transactions, in which
//! the checker must find what it looks for.

use std::collections::HashSet;
use std::time::Duration;

use crate::checker::{Kind, Seen};
use crate::history;
use crate::stage::{Mark, Stage, is_long};
use crate::support::{Daemon, Kafka, Postgres, Version, eventually, let_pass};
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

/// Starts, kills and starts again, until there were enough kills and each window was hit; leaves the last daemon running.
fn kill_again_and_again(stage: &Stage<'_>, kills: usize, is_enough: impl Fn(&Tally) -> bool) -> (Daemon, Tally) {
    let mut tally = Tally::default();
    let mut daemon = stage.start("one");
    while tally.kills < kills || (!is_enough(&tally) && tally.kills < 4 * kills) {
        wait_for_a_moment(&daemon);
        daemon.sigkill();
        tally.kills += 1;
        let open: usize = stage.topics.iter().map(|(topic, count)| history::open_partitions(stage.kafka, topic, *count)).sum();
        tally.publishing += usize::from(open > 0);
        tally.claiming += usize::from(!daemon.log().contains("\"claimed\""));
        let marked = stage.applied();
        daemon = stage.start("one");
        if fastrand::u8(0..8) > 0 {
            daemon.wait_log("\"claimed\"");
            tally.settled += usize::from(first_batch(&daemon) > marked);
        }
    }
    (daemon, tally)
}

/// Any moment; sometimes the one after a commit, when the mark is on its way.
pub fn wait_for_a_moment(daemon: &Daemon) {
    let_pass(Duration::from_millis(fastrand::u64(100..900)));
    if fastrand::bool() && daemon.log().contains("\"claimed\"") {
        let before = daemon.metric("outboxd_batches_total");
        eventually("another batch is published", Duration::from_secs(30), || daemon.metric("outboxd_batches_total") > before);
    }
}

/// The batch number that the daemon's first claim found in the journal.
pub fn first_batch(daemon: &Daemon) -> u64 {
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
    // Of each kind in proportion: a run of kills that hit nothing proves nothing.
    let share = kills() / 10;
    let (daemon, tally) = kill_again_and_again(&stage, kills(), |tally| tally.publishing >= share && tally.settled >= share);
    println!("{mark:?}: {tally:?}");
    assert!(tally.publishing >= share, "some kills hit between the first event and the commit: {tally:?}");
    assert!(tally.settled >= share, "some kills hit between the commit and its mark: {tally:?}");
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

/// Kills while somebody holds the state row: a mark waits for it, unless the relay gave up its lease before.
fn kill_before_the_mark(stage: &Stage<'_>, daemon: Daemon) -> Daemon {
    daemon.wait_log("\"claimed\"");
    let sessions = |which: &str| {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {which}");
        stage.postgres.sql(&stage.database, &count) != "0"
    };
    std::thread::scope(|scope| {
        let hold = "BEGIN; SELECT FROM outboxd_state FOR UPDATE; SELECT pg_sleep(5.5); COMMIT";
        let holder = scope.spawn(|| stage.postgres.sql(&stage.database, hold));
        let marking = "wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%' AND query NOT LIKE '%pg_sleep(5.5)%'";
        eventually("a mark waits, or the row is free again", Duration::from_secs(60), || sessions(marking) || holder.is_finished());
        daemon.sigkill();
    });
    stage.start("one")
}

/// Whether an event was published more than once, by its bare id: this is not the checker's judgement.
fn has_twins(seen: &[Seen]) -> bool {
    let mut ids = HashSet::new();
    seen.iter().any(|event| !ids.insert(event.id()))
}

#[test]
fn at_least_once_shows_duplicates_and_loses_nothing() {
    let (postgres, kafka) = (Postgres::shared(Version::V15), Kafka::shared());
    let lesser = |options: crate::support::DaemonOptions, _: &str| options.set("kafka.delivery", "at_least_once");
    let mut stage = Stage::with("lesser", Mark::Row, postgres, kafka, Habits::default(), lesser).without_journal();
    stage.write();
    let (mut daemon, tally) = kill_again_and_again(&stage, kills(), |_| true);
    // The kills at random may all miss the moment between publishing and mark.
    for _ in 0..5 {
        daemon = kill_before_the_mark(&stage, daemon);
        if has_twins(&stage.seen()) {
            break;
        }
    }
    let violations = stage.violations(false);
    let count = |kind: Kind| violations.iter().filter(|violation| violation.kind == kind).count();
    println!("at least once: {tally:?}, {} duplicates", count(Kind::Duplicated));
    assert!(count(Kind::Duplicated) > 0, "a checker that finds no duplicates here is blind");
    for kind in [Kind::Lost, Kind::Phantom, Kind::Corrupt, Kind::WrongPartition, Kind::SplitKey, Kind::Stranger] {
        assert_eq!(count(kind), 0, "{kind:?}");
    }
}
