//! The way out of journal-version: the newer program.

use std::time::Duration;

use super::{SOON, die, start};
use crate::stage::{Mark, Stage};
use crate::support::{Kafka, Postgres, Version, let_pass};

/// Between two looks of a halted relay lies a minute; by then a relay at work has published many batches.
const A_WHILE: Duration = Duration::from_secs(3);

#[test]
fn where_an_older_program_halts_the_newer_one_goes_on_and_nothing_comes_twice() {
    let mut stage = Stage::new("older", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    stage.write();
    // what is published and not marked is what comes twice if anything does
    die(&stage, "committed=kill@5");
    let older = start(&stage, "one", "without-format");
    stage.wait_halted(&older, "journal-version");
    assert!(older.log().contains("run the newer outboxd"), "the way out is named");
    let applied = stage.applied();
    let_pass(A_WHILE);
    assert_eq!(stage.applied(), applied, "a halted relay marks nothing");
    older.sigterm();
    assert_eq!(older.wait_exit(SOON), 0);
    let _newer = stage.start("one");
    stage.wait_for_batches(5, SOON);
    stage.prove();
}
