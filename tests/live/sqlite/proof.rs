//! What is proved of an outbox in a file: `verify`, `trace` and `reconcile`.

use serde_json::Value;

use super::scene::{SOON, Scene};
use crate::stage::{Mark, answer};

fn verify(scene: &Scene) -> (i32, Value) {
    let (code, stdout, stderr) = scene.options.run_command(&["verify", "--json"]);
    (code, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("exit code {code}: {stdout}{stderr}")))
}

fn stage_of(scene: &Scene, id: &str) -> String {
    let (_, stdout, stderr) = scene.options.run_command(&["trace", "--json", id]);
    let life: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    life["stage"].as_str().expect("a stage").to_owned()
}

/// Publishes what waits, and leaves.
fn relay(scene: &Scene) {
    let once = scene.options.clone().argument("--once").start();
    assert_eq!(once.wait_exit(SOON), 0, "{}", once.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn loss_is_told_and_a_lost_journal_doubles_nothing() {
    let (scene, topic) = tokio::task::block_in_place(|| {
        let scene = Scene::new("file-proof", Mark::Row);
        let topic = scene.topics.keys().next().expect("three").clone();
        let send = |count| (0..count).for_each(|_| drop(answer(&scene.options, &["send", "--topic", &topic, "--key", "k", "{}"])));
        send(2);
        relay(&scene);
        send(3);
        let id = scene.ask("SELECT id FROM outbox WHERE seq = 3").remove(0);
        assert_eq!(stage_of(&scene, &id), "pending");
        relay(&scene);
        assert_eq!((stage_of(&scene, &id), verify(&scene).0), ("published".to_owned(), 0));
        // a mark without a record
        scene.sql(&format!(
            "INSERT INTO outbox (topic, key, type, payload, sent_at) VALUES ('{topic}', 'k', 't', '{{}}', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
        ));
        let (code, report) = verify(&scene);
        let found = report["topics"].as_array().expect("topics").iter().find(|found| found["topic"] == *topic).expect("ours");
        assert_eq!((code, &found["found"][0]["kind"], &found["found"][0]["count"]), (3, &"lost".into(), &1.into()), "{report:#}");
        let forged = scene.ask("SELECT id FROM outbox WHERE seq = 6").remove(0);
        assert_eq!(stage_of(&scene, &forged), "unaccounted");
        scene.sql("DELETE FROM outbox WHERE seq = 6");
        assert_eq!(verify(&scene).0, 0);
        // the file went back to before the second mark, and the journal is gone; one more event was never published
        scene.sql("DELETE FROM outboxd_applied WHERE n > 1; UPDATE outbox SET sent_at = NULL WHERE seq > 2");
        send(1);
        (scene, topic)
    });
    scene.kafka.delete_topic(&scene.journal()).await;
    tokio::task::block_in_place(|| {
        answer(&scene.options, &["migrate"]);
        let told = answer(&scene.options, &["reconcile", "--dry-run"]);
        assert!(told.contains("4 unsent rows; 3 of them lie in the topic, 1 were not published"), "{told}");
        assert_eq!((scene.pending(), scene.applied()), (4, 1), "a rehearsal changes nothing");
        let told = answer(&scene.options, &["reconcile", "--reason", "it is gone"]);
        assert!(told.contains("reconciled: 3 rows are marked"), "{told}");
        assert_eq!(scene.pending(), 1);
        relay(&scene);
        let records = crate::history::read(scene.kafka, &topic, scene.topics[&topic]);
        assert_eq!((records.len(), scene.pending()), (6, 0), "each came once");
        let (code, report) = verify(&scene);
        assert_eq!(code, 0, "{report:#}");
    });
}
