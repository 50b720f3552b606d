//! The relay dies, stands still, or takes a step for failed at each point of its way (`src/failpoint.rs`), on real servers under load: in
//! the end each event is published once. Only in builds with the feature `failpoints`.

use std::collections::BTreeMap;
use std::time::Duration;

use outboxd::failpoint::{Action, Order, Plan, Point, VARIABLE};

use crate::stage::{Mark, Stage, answer, is_long};
use crate::support::{Daemon, Kafka, Postgres, Version, eventually, let_pass};

mod commits;
mod controls;
mod formats;
mod zombies;

const SOON: Duration = Duration::from_secs(60);

/// How a process ends that dies at a point, and at nothing else in these tests.
const DIED: i32 = -libc::SIGABRT;

/// An event that can never be published; nobody waits for it.
const SPOILT: &str = "INSERT INTO outbox (topic, key, payload) VALUES ('no topic', gen_random_uuid()::text, '{}')";

/// Starts a relay with a plan.
fn start(stage: &Stage<'_>, instance: &str, plan: &str) -> Daemon {
    stage.options.clone().set("relay.instance", instance).variable(VARIABLE, plan).start()
}

/// How often anything was done at a point so far, as the log tells.
fn hits(daemon: &Daemon, point: &str) -> usize {
    let point = format!("\"point\":\"{point}\"");
    daemon.log().lines().filter(|line| line.contains("\"message\":\"failpoint\"") && line.contains(&point)).count()
}

/// Starts a relay that is to die at a point, and waits until it has.
fn die(stage: &Stage<'_>, plan: &str) {
    let daemon = start(stage, "one", plan);
    assert_eq!(daemon.wait_exit(SOON), DIED, "{plan}: {}", daemon.log());
}

/// By which plans, one process after the other, a relay comes to die at this point.
fn ways_to_die(point: Point) -> Vec<String> {
    let (name, batch) = (point.name(), fastrand::u8(1..=4));
    match point {
        // there is something to settle only after a death between commit and mark
        Point::Settling | Point::SettleWritten | Point::Settled => {
            vec![format!("committed=kill@{batch}"), format!("{name}=kill")]
        }
        // some of the batch has reached the broker by then
        Point::Sending => {
            let event = fastrand::u8(2..40);
            vec![format!("sending=pause(60ms)@{event},sending=kill@{}", event + 1)]
        }
        Point::Looked | Point::Fenced | Point::Claimed | Point::Recovered | Point::Pinning | Point::Pinned => {
            vec![format!("{name}=kill")]
        }
        Point::SettingAside | Point::SetAside => vec![format!("{name}=kill")],
        // while the commit is under way, mostly
        Point::Committing => vec![format!("{name}=kill@{batch}"), format!("{name}=kill(700us)@{batch}")],
        Point::Renewing
        | Point::Fetched
        | Point::Beginning
        | Point::Sent
        | Point::Acknowledged
        | Point::Journalling
        | Point::Committed
        | Point::Marking
        | Point::MarkLocked
        | Point::MarkWritten
        | Point::Marked => vec![format!("{name}=kill@{batch}")],
    }
}

/// What was parked is given up; everything else is published.
fn give_up_what_is_spoilt(stage: &Stage<'_>) {
    let parked = || stage.postgres.sql(&stage.database, "SELECT DISTINCT code FROM outboxd_parked");
    eventually("the spoilt event is parked", SOON, || parked() == "topic_invalid");
    answer(&stage.options, &["parked", "discard", "--code", "topic_invalid", "--reason", "it was a test"]);
}

fn survives_death_everywhere(name: &str, mark: Mark, version: Version) {
    let mut stage = Stage::new(name, mark, Postgres::shared(version), Kafka::shared());
    stage.write();
    let mut deaths: BTreeMap<String, usize> = BTreeMap::new();
    let rounds = if is_long() { 10 } else { 1 };
    for round in 0..rounds {
        // topics are pinned once, by the first process that publishes
        let first = [Point::Pinning, Point::Pinned];
        let others = Point::ALL.iter().filter(|point| !first.contains(point));
        for point in first.iter().filter(|_| round == 0).chain(others) {
            if *point == Point::SettingAside {
                stage.postgres.sql(&stage.database, SPOILT);
            }
            for plan in ways_to_die(*point) {
                die(&stage, &plan);
                *deaths.entry(plan.split(['=', '@']).next().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
    }
    println!("{name}: deaths {deaths:?}");
    assert_eq!(deaths.len(), Point::ALL.len(), "{deaths:?}");
    let daemon = stage.start("one");
    give_up_what_is_spoilt(&stage);
    stage.wait_for_batches(3, SOON);
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    stage.prove();
}

#[test]
fn dead_at_every_point_it_publishes_exactly_once() {
    survives_death_everywhere("died", Mark::Row, Version::V18);
    if is_long() {
        survives_death_everywhere("died-deleting", Mark::Delete, Version::V15);
    }
}

/// At which passing each step fails: early enough that it comes soon, and each behind the one before it, so that each is met by a relay
/// at work. What comes only after a claim takes one of those that the others make.
fn failures() -> Vec<Order> {
    let mut batch = 2;
    let mut next = || {
        batch += 3;
        batch
    };
    let order = |point: Point| {
        let passing = match point {
            Point::Looked => 2,
            Point::Fenced => 3,
            Point::Claimed => 4,
            Point::Recovered => 5,
            Point::Settling | Point::Pinning | Point::Pinned | Point::SettingAside | Point::SetAside => 1,
            Point::SettleWritten | Point::Settled | Point::Renewing => 2,
            Point::Sending => 700,
            _ => next(),
        };
        Order { point, action: Action::Fail, passing: Some(passing) }
    };
    Point::ALL.iter().copied().map(order).collect()
}

#[test]
fn with_a_failure_at_every_point_it_stays_up_and_publishes_exactly_once() {
    let mut stage = Stage::new("failed", Mark::Row, Postgres::shared(Version::V15), Kafka::shared());
    stage.write();
    stage.postgres.sql(&stage.database, SPOILT);
    let failures = failures();
    let plan: Vec<String> = failures.iter().map(Order::to_string).collect();
    let daemon = start(&stage, "one", &plan.join(","));
    for failure in &failures {
        let name = failure.point.name();
        eventually(&format!("the step before {name} fails"), SOON, || {
            assert!(daemon.is_running(), "{}", daemon.log());
            hits(&daemon, name) == 1
        });
    }
    stage.wait_for_batches(5, SOON);
    println!("failed: {} steps, {} claims", failures.len(), daemon.metric("outboxd_claims_total"));
    assert!(daemon.metric("outboxd_claims_total") >= 10.0, "failures lead to claims");
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    give_up_what_is_spoilt(&stage);
    stage.prove();
}

#[test]
fn a_plan_reads_as_it_is_written() {
    let text = "committing=kill@3,marked=fail@*,sending=pause(50ms)@7,fenced=stop@1,sent=kill(2ms)@1";
    let plan: Plan = text.parse().unwrap();
    assert_eq!(plan.orders.iter().map(Order::to_string).collect::<Vec<_>>().join(","), text);
    assert_eq!("sent = fail".parse::<Plan>().unwrap_err(), "sent = fail: there is no point sent ");
    assert_eq!("fenced=stop, ".parse::<Plan>().unwrap().orders[0].passing, Some(1));
    assert_eq!("without-gaps".parse::<Plan>().unwrap().lacking.len(), 1);
    for wrong in ["sent", "sent=explode", "sent=pause", "sent=stop(1s)", "sent=kill@x", "sent=kill(soon)", "without-care"] {
        assert!(wrong.parse::<Plan>().is_err(), "{wrong}");
    }
    let names: std::collections::BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
    assert_eq!(names.len(), Point::ALL.len());
}

#[test]
fn a_plan_that_cannot_be_read_ends_the_process() {
    let stage = Stage::new("misread", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    let daemon = start(&stage, "one", "comitted=kill");
    assert_eq!(daemon.wait_exit(SOON), 2, "{}", daemon.log());
    assert!(daemon.log().contains("there is no point comitted"), "{}", daemon.log());
}

/// Lets the fault that is under way do its work.
fn a_moment() {
    let_pass(Duration::from_millis(150));
}
