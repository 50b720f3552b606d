//! A disk is full to the last bytes, the database's or Kafka's: nothing is parked, and when there is room again everything is published
//! once.

use std::io::Write;
use std::time::Duration;

use crate::stage::{Mark, Stage};
use crate::support::{Kafka, Postgres, Version, eventually, let_pass};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_full_disk_of_the_database_loses_nothing() {
    let started = Postgres::start_on_disk(Version::V18, 400);
    let Some((postgres, disk)) = mounted("a_full_disk_of_the_database_loses_nothing", started) else { return };
    let habits = Habits { events_per_second: 400.0, large_bytes: 300_000, ..Habits::default() };
    let mut stage = Stage::with("crammed", Mark::Row, &postgres, Kafka::shared(), habits, |options, _| options);
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(5, SOON);
    // what fits into pages and log files that are there already goes on: not every full disk is met by the relay
    let mut met = false;
    for kilobytes in [64, 0, 64, 0, 64, 0] {
        let (before, failures) = (daemon.log().len(), refusals(&postgres));
        disk.fill(kilobytes);
        eventually("the disk is full", SOON, || refusals(&postgres) > failures || !postgres.is_running());
        met |= (0..50).any(|_| {
            let_pass(Duration::from_millis(200));
            daemon.log()[before..].contains("OBX201")
        });
        disk.empty();
        // a server that could not write its log has ended; a person starts it when there is room
        if !postgres.is_running() {
            postgres.start_again();
        }
        postgres.wait_ready();
        stage.wait_for_batches(5, SOON);
        if met && kilobytes == 0 {
            break;
        }
    }
    assert!(met, "the relay never met the full disk");
    assert!(daemon.is_running(), "{}", daemon.log());
    let aside = "SELECT (SELECT count(*) FROM outboxd_parked), (SELECT count(*) FROM outboxd_held)";
    assert_eq!(postgres.sql(&stage.database, aside), "0|0");
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    stage.prove();
}

/// Where nobody may mount there is no small disk.
fn mounted<T>(test: &str, started: Result<T, String>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(error) => {
            // past the capture of the test's output: whoever runs it must know
            let mut stderr = std::io::stderr();
            writeln!(stderr, "{test}: NOT RUN: cannot mount: {error}").unwrap();
            None
        }
    }
}

#[test]
fn a_full_disk_of_kafka_loses_nothing() {
    let Some((kafka, disk)) = mounted("a_full_disk_of_kafka_loses_nothing", Kafka::start_on_disk(300)) else { return };
    let habits = Habits { events_per_second: 300.0, ..Habits::default() };
    let mut stage = Stage::with("crowded", Mark::Row, Postgres::shared(Version::V18), &kafka, habits, |options, _| options);
    let daemon = stage.start("one");
    stage.write();
    stage.wait_for_batches(5, SOON);
    stage.stop_writing();
    eventually("the table is drained", SOON, || stage.pending() == 0);
    // nothing is on its way: a lone broker that dies in the middle of a commit may lose the end of a transaction, which is a halt of its
    // own. It keeps notes of its own all the time, and leaves when it cannot
    disk.fill(0);
    eventually("the broker met the full disk", SOON, || kafka.has_ended(0));
    stage.write();
    stage.wait_for_writers(200);
    daemon.wait_log("OBX301");
    let aside =
        || stage.postgres.sql(&stage.database, "SELECT (SELECT count(*) FROM outboxd_parked), (SELECT count(*) FROM outboxd_held)");
    assert!(daemon.is_running() && stage.pending() >= 100 && aside() == "0|0", "{} {}\n{}", stage.pending(), aside(), daemon.log());
    disk.empty();
    kafka.start_after_its_end(0);
    stage.wait_for_batches(5, SOON);
    assert_eq!((aside().as_str(), daemon.metric("outboxd_rescued_events_total")), ("0|0", 0.0));
    stage.prove();
}

/// How often the server could not write.
fn refusals(postgres: &Postgres) -> usize {
    postgres.log().matches("No space left on device").count()
}
