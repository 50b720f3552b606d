//! SIGKILL at random moments under load: nothing is lost, nothing comes twice.

use super::scene::Scene;
use crate::chaos_kill::{first_batch, wait_for_a_moment};
use crate::history;
use crate::stage::{Mark, is_long};

fn survives_kills(mark: Mark) {
    let kills = if is_long() { 100 } else { 12 };
    let mut scene = Scene::new("file-killed", mark);
    scene.write();
    let (mut daemon, mut publishing, mut settled, mut killed) = (scene.start("one"), 0, 0, 0);
    // of each kind at least one in ten: a run of kills that hit nothing proves nothing
    let share = (kills / 10).max(1);
    while killed < kills || (killed < 4 * kills && (publishing < share || settled < share)) {
        wait_for_a_moment(&daemon);
        daemon.sigkill();
        killed += 1;
        let open: usize = scene.topics.iter().map(|(topic, count)| history::open_partitions(scene.kafka, topic, *count)).sum();
        publishing += usize::from(open > 0);
        let marked = scene.applied();
        daemon = scene.start("one");
        if fastrand::u8(0..8) > 0 {
            daemon.wait_log("\"claimed\"");
            settled += usize::from(first_batch(&daemon) > marked);
        }
    }
    println!("{mark:?}: {killed} kills, {publishing} while publishing, {settled} before the mark");
    assert!(publishing >= share, "some kills hit between the first event and the commit: {publishing}");
    assert!(settled >= share, "some kills hit between the commit and its mark: {settled}");
    scene.prove(false);
    drop(daemon);
}

#[test]
fn killed_while_it_marks_rows_of_a_file_it_publishes_exactly_once() {
    survives_kills(Mark::Row);
}

#[test]
fn killed_while_it_deletes_rows_of_a_file_it_publishes_exactly_once() {
    survives_kills(Mark::Delete);
}
