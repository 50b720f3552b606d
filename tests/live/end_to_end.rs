//! The real binary without faults: from the first insert ever to a clean end, and the ways in which it leaves.

use std::time::{Duration, Instant};

use crate::stage::{Mark, Stage};
use crate::support::{DaemonOptions, Kafka, Postgres, PostgresOptions, Proxy, Version, Weather, eventually, let_pass};

const SOON: Duration = Duration::from_secs(30);

fn drains_at_the_end(mut stage: Stage<'_>) {
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    stage.write();
    stage.wait_for_writers(1500);
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    let (published, batches) = (daemon.metric("outboxd_events_published_total"), daemon.metric("outboxd_batches_total"));
    println!("{}: {published} events in {batches} batches", stage.name);
    daemon.sigterm();
    assert_eq!(daemon.wait_exit(SOON), 0, "{}", daemon.log());
    stage.stop_writing();
    // What came after the signal is left for the next one.
    let once = stage.options.clone().argument("--once").start();
    assert_eq!(once.wait_exit(SOON), 0, "{}", once.log());
    stage.prove();
}

#[test]
fn a_relay_that_is_there_before_the_first_insert_misses_nothing() {
    drains_at_the_end(Stage::new("first", Mark::Row, Postgres::shared(Version::V15), Kafka::shared()));
}

#[test]
fn rows_are_deleted_as_soon_as_they_are_published() {
    drains_at_the_end(Stage::new("deleting", Mark::Delete, Postgres::shared(Version::V18), Kafka::shared()));
}

/// While it marks the relay holds every lock that it ever holds.
#[test]
fn writers_wait_for_no_mark() {
    for mark in [Mark::Row, Mark::Delete] {
        let stage = Stage::new("waits", mark, Postgres::shared(Version::V18), Kafka::shared());
        let topic = stage.topics.keys().next().expect("the stage has topics");
        let sql = |statements: &str| stage.postgres.sql(&stage.database, statements);
        sql("CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;
             CREATE TRIGGER linger AFTER UPDATE OR DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION linger()");
        let insert = format!("SET lock_timeout = '500ms'; INSERT INTO outbox (topic, key, payload) VALUES ('{topic}', 'k', '1')");
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        let _daemon = stage.start("one");
        sql(&insert);
        eventually("the mark lingers", SOON, || sql(sleeping) == "1");
        sql(&insert);
        assert_eq!(sql(sleeping), "1", "it lingers still");
        eventually("all is marked", SOON, || stage.pending() == 0);
    }
}

#[test]
fn a_second_signal_ends_a_drain_that_cannot_end() {
    let way = Kafka::shared().proxied();
    let adapt = |options: DaemonOptions, _: &str| options.set("kafka.brokers", &way.brokers).set("relay.shutdown_grace", "20s");
    let mut stage = Stage::with("impatient", Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), Default::default(), adapt);
    stage.write();
    let freeze = || {
        way.nodes[0].set(Weather::Freeze);
        // under way, and nothing comes back
        eventually("events wait for Kafka", SOON, || stage.pending() > 100);
        let_pass(Duration::from_millis(500));
    };
    let daemon = stage.start("one");
    stage.wait_for_batches(3, SOON);
    freeze();
    daemon.sigterm();
    daemon.wait_log("draining");
    let_pass(Duration::from_secs(1));
    assert!(daemon.is_running(), "the drain takes its time");
    let second = Instant::now();
    daemon.sigterm();
    assert_eq!(daemon.wait_exit(SOON), 1, "not drained");
    assert!(second.elapsed() < Duration::from_secs(1), "{:?}", second.elapsed());
    way.nodes[0].set(Weather::Pass);
    // The grace alone ends it as well.
    let daemon = stage.options.clone().set("relay.shutdown_grace", "1s").start();
    daemon.wait_log("claimed");
    stage.wait_for_batches(3, SOON);
    freeze();
    let signal = Instant::now();
    daemon.sigterm();
    assert_eq!(daemon.wait_exit(SOON), 1, "not drained");
    assert!(signal.elapsed() < Duration::from_secs(3), "{:?}", signal.elapsed());
    way.nodes[0].set(Weather::Pass);
    let _last = stage.start("two");
    stage.prove();
}

#[test]
fn the_exit_code_tells_why_it_left() {
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    let stage = Stage::new("leaving", Mark::Row, postgres, kafka);
    let once = |options: DaemonOptions| options.set("database.connect_timeout", "1s").argument("--once").start().wait_exit(SOON);
    assert_eq!(once(stage.options.clone()), 0, "nothing to do");
    let nobody = crate::support::place::free_port();
    let away = format!("postgres://outboxd@127.0.0.1:{nobody}/{}", stage.database);
    assert_eq!(once(stage.options.clone().set("database.url", &away)), 69, "no database");
    let (code, _, stderr) = stage.options.clone().set("database.url", &away).run_command(&["status"]);
    assert_eq!(code, 69, "{stderr}");
    assert_eq!(once(stage.options.clone().set("kafka.brokers", &format!("127.0.0.1:{nobody}"))), 69, "no Kafka");
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    assert_eq!(once(stage.options.clone().set("relay.instance", "two")), 75, "somebody else has the lease");
    daemon.sigterm();
    assert_eq!(daemon.wait_exit(SOON), 0);
    let other_mode = stage.options.clone().set("kafka.delivery", "at_least_once").start();
    assert_eq!(other_mode.wait_exit(SOON), 78, "{}", other_mode.log());
    let (code, _, stderr) = stage.options.clone().set("relay.lease", "soon").run_command(&["run"]);
    assert_eq!(code, 78, "{stderr}");
}

#[test]
fn missing_rights_are_named_before_the_first_batch() {
    let postgres = Postgres::start(Version::V15, PostgresOptions::default());
    let stage = Stage::new("poor", Mark::Row, &postgres, Kafka::shared());
    postgres.sql(&stage.database, "REVOKE UPDATE (sent_at) ON outbox FROM outboxd");
    let daemon = stage.start("one");
    assert_eq!(daemon.wait_exit(SOON), 77, "{}", daemon.log());
    assert!(daemon.log().contains("UPDATE"), "the right is named: {}", daemon.log());
}

#[test]
fn a_half_open_connection_does_not_keep_it_from_leaving() {
    let postgres = Postgres::start(Version::V18, PostgresOptions::default());
    let way = Proxy::before(postgres.port());
    let stage = Stage::with("leaving", Mark::Row, &postgres, Kafka::shared(), Default::default(), |options, database| {
        let url = format!("postgres://outboxd@{}/{database}", way.address());
        options.set("database.url", &url).set("database.statement_timeout", "2s").set("relay.shutdown_grace", "4s")
    });
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    way.set(Weather::Freeze);
    let_pass(Duration::from_millis(300));
    let signal = Instant::now();
    daemon.sigterm();
    eventually("it leaves", SOON, || !daemon.is_running());
    assert!(signal.elapsed() < Duration::from_secs(6), "{:?}", signal.elapsed());
}
