//! An outbox gets another name under load.

use std::time::Duration;

use crate::stage::{Mark, Stage, answer};
use crate::support::{Kafka, Postgres, Version};

const SOON: Duration = Duration::from_secs(60);
const WHY: [&str; 2] = ["--reason", "two services now"];

fn with_reason<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &WHY].concat()
}

#[test]
fn an_outbox_is_renamed_after_a_crash_and_nothing_is_lost_or_repeated() {
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    let mut stage = Stage::new("renamed", Mark::Row, postgres, kafka);
    let (old, new) = (stage.name.clone(), format!("{}-anew", stage.name));
    let before = stage.options.clone();
    let after = before.clone().set("outbox.name", &new);
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(5, SOON);
    assert!(answer(&after, &["adopt", "--name", &old, "--dry-run"]).contains(&format!("goes on as {new}")));
    let (code, _, told) = after.run_command(&with_reason(&["adopt", "--name", &old]));
    assert!(code == 75 && told.contains("is being relayed"), "a living relay is not shut out: {code} {told}");
    stage.wait_for_batches(5, SOON);
    // killed while it publishes: what it left is settled under the old name
    daemon.sigkill();
    answer(&after, &with_reason(&["adopt", "--name", &old]));
    assert_eq!(after.run_command(&with_reason(&["adopt", "--name", &old])).0, 3, "it has that name now");
    assert_eq!(stage.start("left-behind").wait_exit(SOON), 78, "nobody relays under the old name");
    let (code, _, told) = before.run_command(&["migrate"]);
    assert!(code == 78 && told.contains(&format!("is outbox {new} already")), "{told}");
    stage.options = after.clone();
    let _daemon = stage.start("two");
    stage.wait_for_batches(5, SOON);
    let audited = stage.postgres.sql(&stage.database, "SELECT name, action, reason, detail->>'old' FROM outboxd_audit");
    assert_eq!(audited, format!("{new}|adopt --name|two services now|{old}"));
    stage.without_journal().prove();
}

#[test]
fn a_name_whose_journal_belongs_to_somebody_else_is_refused() {
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    let mut theirs = Stage::new("their-name", Mark::Row, postgres, kafka);
    theirs.write();
    let _their_daemon = theirs.start("one");
    theirs.wait_for_batches(2, SOON);
    let mut ours = Stage::new("our-name", Mark::Row, postgres, kafka);
    let taken = ours.options.clone().set("outbox.name", &theirs.name);
    let (code, _, told) = taken.run_command(&with_reason(&["adopt", "--name", &ours.name]));
    assert!(code == 1 && told.contains("belongs to outbox") && told.contains("Nothing was renamed"), "{code} {told}");
    ours.write();
    let _daemon = ours.start("one");
    ours.wait_for_batches(2, SOON);
    ours.prove();
    theirs.prove();
}
