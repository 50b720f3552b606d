//! Commands and a clean end, with the real binary.

use serde_json::Value;

use super::scene::{SOON, Scene};
use crate::stage::{Mark, answer, status};
use crate::support::{eventually, let_pass};

#[test]
fn a_file_is_relayed_from_its_first_event_to_a_clean_end() {
    let mut scene = Scene::new("file-end", Mark::Row);
    let daemon = scene.start("one");
    daemon.wait_log("\"claimed\"");
    scene.write();
    scene.wait_for_writers(300);
    daemon.sigterm();
    assert_eq!(daemon.wait_exit(SOON), 0, "{}", daemon.log());
    scene.stop_writing();
    let once = scene.options.clone().argument("--once").start();
    assert_eq!(once.wait_exit(SOON), 0, "{}", once.log());
    scene.prove(false);
}

#[test]
fn commands_work_on_a_file_with_and_without_a_relay() {
    let scene = Scene::new("file-commands", Mark::Row);
    let topic = scene.topics.keys().next().expect("three").clone();
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&answer(&scene.options, arguments)).expect("JSON") };
    let pending = || status(&scene.options)["pending_events"].clone();
    answer(&scene.options, &["send", "--topic", &topic, "--key", "k", "{}"]);
    assert_eq!(pending(), 1);
    let daemon = scene.start("one");
    eventually("what waited is published", SOON, || pending() == 0);
    let sent = json(&["send", "--topic", &topic, "--key", "k", "--wait", "--json", "{}"]);
    assert_eq!((&sent["seq"], &sent["published"]["topic"]), (&2.into(), &Value::from(topic.as_str())), "{sent}");
    assert_eq!(status(&scene.options)["owner"], "one");
    answer(&scene.options, &["pause", "--reason", "a look"]);
    eventually("the relay rests", SOON, || daemon.log().contains("paused: nothing is published"));
    answer(&scene.options, &["send", "--topic", &topic, "--key", "k", "{}"]);
    let_pass(std::time::Duration::from_millis(500));
    assert_eq!(pending(), 1, "nothing is published while it is paused");
    answer(&scene.options, &["resume", "--reason", "seen"]);
    eventually("it goes on", SOON, || pending() == 0);
    answer(&scene.options, &["send", "--topic", &topic, "--key", "k", "--headers", "[7]", "{}"]);
    answer(&scene.options, &["send", "--topic", &topic, "--key", "k", "{}"]);
    eventually("one is parked, one waits behind it", SOON, || {
        let status = status(&scene.options);
        status["parked_events"] == 1 && status["blocked_events"] == 1
    });
    let parked = json(&["parked", "list", "--json"]);
    assert_eq!(parked["events"][0]["code"], "malformed_headers", "{parked}");
    answer(&scene.options, &["parked", "discard", "--all", "--reason", "a test"]);
    eventually("what waited is free", SOON, || scene.pending() == 0);
    assert_eq!(answer(&scene.options, &["migrate"]), "nothing to do\n");
    assert_eq!(crate::history::read(scene.kafka, &topic, scene.topics[&topic]).len(), 4);
    let verified = json(&["verify", "--topic", &topic, "--json"]);
    let found = &verified["topics"][0];
    assert_eq!(
        (&found["published"], &found["discarded"], &found["found"]),
        (&4.into(), &1.into(), &serde_json::json!([])),
        "{verified}"
    );
}
