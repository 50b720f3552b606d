//! The database's disk is full to the last bytes: nothing is parked, and when there is room again everything is published once.

use std::io::Write;
use std::time::Duration;

use crate::stage::{Mark, Stage};
use crate::support::{Kafka, Postgres, Version, eventually, let_pass};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_full_disk_of_the_database_loses_nothing() {
    let (postgres, disk) = match Postgres::start_on_disk(Version::V18, 400) {
        Ok(started) => started,
        Err(error) => {
            // past the capture of the test's output: whoever runs it must know
            writeln!(std::io::stderr(), "a_full_disk_of_the_database_loses_nothing: NOT RUN: cannot mount: {error}").unwrap();
            return;
        }
    };
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

/// How often the server could not write.
fn refusals(postgres: &Postgres) -> usize {
    postgres.log().matches("No space left on device").count()
}
