//! The file is another one, or of another time, while the relay runs.

use super::scene::{SOON, Scene};
use crate::stage::Mark;
use crate::support::eventually;

/// Publishes for a while, copies the file somewhere in the middle, publishes on; then leaves the service still.
fn with_a_copy(scene: &mut Scene) -> std::path::PathBuf {
    scene.write();
    scene.wait_for_writers(300);
    let copy = scene.copy();
    scene.wait_for_writers(600);
    scene.stop_writing();
    scene.drained();
    copy
}

#[test]
fn an_older_file_that_is_put_in_place_under_a_running_relay_is_settled_from_the_journal() {
    let mut scene = Scene::new("file-replaced", Mark::Row);
    let daemon = scene.start("one");
    daemon.wait_log("\"claimed\"");
    let copy = with_a_copy(&mut scene);
    let before = scene.applied();
    scene.put_in_place(&copy);
    assert!(scene.applied() < before, "the copy is older");
    let claims = || daemon.metric_of("outboxd_claims_total", "cause=\"file_changed\"");
    eventually("the relay claims the other file", SOON, || claims() >= 1.0 && scene.applied() >= before);
    scene.write();
    scene.wait_for_writers(300);
    scene.prove(true);
}

/// The same file with what it held before: claim number and token are those that still hold.
#[test]
fn a_file_that_goes_back_in_place_under_a_running_relay_is_settled_from_the_journal() {
    let mut scene = Scene::new("file-back", Mark::Row);
    let daemon = scene.start("one");
    daemon.wait_log("\"claimed\"");
    let copy = with_a_copy(&mut scene);
    let before = scene.applied();
    let tables = ["outbox", "aggregate", "ledger", "outboxd_state", "outboxd_applied", "outboxd_token", "sqlite_sequence"];
    let copied = tables.map(|table| format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM old.{table};"));
    scene.sql(&format!("ATTACH '{}' AS old; BEGIN IMMEDIATE; {} COMMIT;", copy.display(), copied.concat()));
    let claims = || daemon.metric_of("outboxd_claims_total", "cause=\"token_missing\"");
    // on a machine so slow that the lease was lost after the copy was made, the file brings back another lease, too
    let sees = || claims() >= 1.0 || daemon.log().contains("the database went back in time");
    eventually("the relay sees that the file went back", SOON, || sees() && scene.applied() >= before);
    scene.write();
    scene.wait_for_writers(300);
    scene.prove(true);
}
