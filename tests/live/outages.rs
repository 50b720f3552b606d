//! Outages that belong to no single event: a wrong clock, a cluster that is away, a wrong password. None of them parks an event, and when
//! they are over everything is published once.

use std::time::Duration;

use crate::stage::{Mark, Stage};
use crate::support::clock::Clock;
use crate::support::{Daemon, DaemonOptions, Kafka, Postgres, Version, Weather, eventually, kafka};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(60);

/// Brokers refuse records that are more than an hour ahead of them.
const SIXTY_ONE_MINUTES: i64 = 61 * 60;

fn told_since(daemon: &Daemon, before: usize, words: &[&str]) {
    eventually(&format!("the log says {words:?}"), SOON, || {
        assert!(daemon.is_running(), "{}", daemon.log());
        daemon.log()[before..].lines().any(|line| words.iter().all(|word| line.contains(word)))
    });
}

/// Waits until the outage is told by these words; while it lasts, nothing is published, though there is work.
fn stands_still(stage: &Stage<'_>, daemon: &Daemon, before: usize, words: &[&str]) {
    told_since(daemon, before, words);
    let applied = stage.applied();
    stage.wait_for_writers(100);
    assert!(stage.applied() <= applied + 1, "it goes on in spite of {words:?}");
}

/// Nothing is set aside, nor ever was.
fn nothing_aside(stage: &Stage<'_>, daemon: &Daemon) {
    let aside = "SELECT (SELECT count(*) FROM outboxd_parked), (SELECT count(*) FROM outboxd_held)";
    assert_eq!(stage.postgres.sql(&stage.database, aside), "0|0");
    assert_eq!(daemon.metric("outboxd_parked_total"), 0.0, "{}", daemon.log());
    assert!(!daemon.log().contains("topic held"), "{}", daemon.log());
}

#[test]
fn no_outage_parks_an_event() {
    let (way, mut clock) = (Kafka::shared().proxied(), None);
    let habits = Habits { events_per_second: 300.0, ..Habits::default() };
    let adapt = |options: DaemonOptions, _: &str| {
        let (right, options) = Clock::for_daemon(options.set("kafka.brokers", &way.brokers));
        clock = Some(right);
        options
    };
    let mut stage = Stage::with("outages", Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), habits, adapt);
    let clock = clock.expect("it was made");
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(3, SOON);
    // the clock jumps forward, back, and far back, under a relay that runs
    let before = daemon.log().len();
    clock.set(SIXTY_ONE_MINUTES);
    stands_still(&stage, &daemon, before, &["OBX301", "(clock)"]);
    clock.set(0);
    stage.wait_for_batches(3, SOON);
    let before = daemon.log().len();
    clock.set(-SIXTY_ONE_MINUTES);
    stage.wait_for_batches(10, SOON);
    assert!(!daemon.log()[before..].contains("backing off"), "an hour behind, it goes on: {}", daemon.log());
    clock.set(0);
    stage.wait_for_batches(3, SOON);
    // the cluster is away
    let before = daemon.log().len();
    way.nodes[0].set(Weather::Cut);
    stands_still(&stage, &daemon, before, &["OBX301"]);
    way.nodes[0].set(Weather::Pass);
    stage.wait_for_batches(3, SOON);
    nothing_aside(&stage, &daemon);
    drop(daemon);
    // a wrong password: the process stays and says so
    let secure = |password: &str| {
        let options =
            stage.options.clone().set("relay.instance", "one").set("kafka.brokers", &stage.kafka.secure_brokers("SASL_PLAINTEXT"));
        let options = options.set("kafka.security", "sasl_plaintext").set("kafka.sasl_mechanism", "PLAIN");
        options.set("kafka.username", kafka::USER.0).set("kafka.password", password).start()
    };
    let daemon = secure("mistaken");
    stands_still(&stage, &daemon, 0, &["OBX301", "(authentication)"]);
    assert!(!daemon.log().contains("mistaken"), "a password in the log");
    nothing_aside(&stage, &daemon);
    drop(daemon);
    // and it starts with a clock that is wrong
    clock.set(SIXTY_ONE_MINUTES);
    let daemon = secure(kafka::USER.1);
    stands_still(&stage, &daemon, 0, &["OBX301", "(clock)"]);
    clock.set(0);
    stage.wait_for_batches(3, SOON);
    nothing_aside(&stage, &daemon);
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    stage.prove();
}
