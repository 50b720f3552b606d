//! An owner that stands still at a point, is replaced, and wakes up: it harms nobody.

use std::time::Duration;

use outboxd::failpoint::Point;

use super::{SOON, SPOILT, give_up_what_is_spoilt, hits, start};
use crate::stage::{Mark, Stage, is_long};
use crate::support::{Daemon, Kafka, Postgres, Version, eventually, let_pass};

/// Where an owner falls asleep, by the plan that makes it.
const SLEEPS: [(Point, &str); 14] = [
    (Point::Looked, "looked=stop"),
    (Point::Fenced, "fenced=stop"),
    (Point::Claimed, "claimed=stop"),
    (Point::Recovered, "recovered=stop"),
    (Point::Settling, "marking=fail@3,settling=stop"),
    (Point::Fetched, "fetched=stop@5"),
    (Point::SettingAside, "setting-aside=stop"),
    (Point::Sending, "sending=stop@20"),
    (Point::Acknowledged, "acknowledged=stop@3"),
    (Point::Committing, "committing=stop@3"),
    (Point::Committed, "committed=stop@3"),
    (Point::Marking, "marking=stop@3"),
    (Point::MarkLocked, "mark-locked=stop@3"),
    (Point::MarkWritten, "mark-written=stop@3"),
];

/// Waits until it has stopped itself at the point.
fn wait_asleep(daemon: &Daemon, point: Point) {
    eventually(&format!("it stands still at {}", point.name()), SOON, || {
        assert!(daemon.is_running(), "{}", daemon.log());
        daemon.is_stopped()
    });
    assert_eq!(hits(daemon, point.name()), 1, "{}", daemon.log());
}

/// One round: an owner falls asleep, another one goes on, the first one wakes up.
fn sleep_and_wake(stage: &Stage<'_>, point: Point, plan: &str) {
    let sleeper = start(stage, "sleeper", plan);
    wait_asleep(&sleeper, point);
    let successor = stage.start("successor");
    stage.wait_for_batches(3, SOON);
    assert_eq!(successor.metric("outboxd_leader"), 1.0);
    sleeper.sigcont();
    // whatever it does now, somebody leads and nobody dies of it
    stage.wait_for_batches(3, SOON);
    let leaders = || sleeper.metric("outboxd_leader") + successor.metric("outboxd_leader");
    eventually("one of them leads", SOON, || leaders() == 1.0);
    assert!(sleeper.is_running() && successor.is_running(), "{}\n{}", sleeper.log(), successor.log());
    let rescued = sleeper.metric("outboxd_rescued_events_total") + successor.metric("outboxd_rescued_events_total");
    assert_eq!(rescued, 0.0);
    [sleeper, successor].iter().for_each(Daemon::sigkill);
}

#[test]
fn an_owner_that_wakes_up_replaced_harms_nobody_wherever_it_stood() {
    let mut stage = Stage::new("asleep", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    stage.write();
    for _ in 0..if is_long() { 10 } else { 1 } {
        for (point, plan) in SLEEPS {
            if point == Point::SettingAside {
                stage.postgres.sql(&stage.database, SPOILT);
            }
            sleep_and_wake(&stage, point, plan);
        }
    }
    let _daemon = stage.start("last");
    give_up_what_is_spoilt(&stage);
    stage.prove();
}

#[test]
fn alone_and_asleep_beyond_the_transaction_timeout_it_goes_on() {
    let mut stage = Stage::new("overslept", Mark::Delete, Postgres::shared(Version::V15), Kafka::shared());
    stage.write();
    let points = [(Point::Acknowledged, "acknowledged=stop@3"), (Point::Committing, "committing=stop@3")];
    for (point, plan) in &points[..if is_long() { 2 } else { 1 }] {
        let daemon = start(&stage, "one", plan);
        wait_asleep(&daemon, *point);
        // 4 s, and what the coordinator takes to look
        let_pass(Duration::from_secs(15));
        assert!(daemon.is_stopped());
        daemon.sigcont();
        stage.wait_for_batches(5, SOON);
        assert!(daemon.metric("outboxd_claims_total") >= 2.0, "what it had begun was aborted: {}", daemon.log());
    }
    let _daemon = stage.start("one");
    stage.prove();
}
