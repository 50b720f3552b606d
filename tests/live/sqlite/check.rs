//! `outboxd check` beside a living relay of a file.

use std::collections::BTreeSet;

use super::scene::{SOON, Scene};
use crate::check::Checked;
use crate::stage::{Mark, answer};
use crate::support::eventually;

fn titles(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|title| (*title).to_owned()).collect()
}

#[test]
fn a_file_is_told_what_it_is_promised_and_its_relay_is_not_disturbed() {
    let scene = Scene::new("file-check", Mark::Row);
    let topic = scene.topics.keys().next().expect("three").clone();
    let daemon = scene.start("one");
    daemon.wait_log("\"claimed\"");
    answer(&scene.options, &["send", "--topic", &topic, "--key", "k", "{}", "--wait"]);
    eventually("it is marked", SOON, || scene.pending() == 0);
    let claim = || scene.ask("SELECT CAST(claim AS TEXT) FROM outboxd_state");
    let before = claim();
    let checked = Checked::of(&scene.options);
    assert_eq!((checked.code, checked.titles("failed")), (0, titles(&[])), "{}", checked.shown());
    // one broker alone keeps one replica of everything
    let lone = ["brokers", "transaction-log", "journal-replicas", "journal-in-sync"];
    let of_topic = ["topic-replicas", "topic-in-sync"].map(|finding| format!("{finding}({topic})"));
    let expected = titles(&[&lone[..], &["one-writer"], &of_topic.each_ref().map(String::as_str)].concat());
    assert_eq!(checked.titles("warning"), expected, "{}", checked.shown());
    let verdicts = ["exactly-once", "order-per-key", "no-loss", "writers-never-wait", "copies-detected"];
    let expected = ["holds_if", "holds", "holds_if", "does_not_hold", "holds"];
    assert_eq!(verdicts.map(|promise| checked.verdict(promise)), expected, "{}", checked.shown());
    scene.sql("DROP INDEX outbox_unsent; CREATE TRIGGER keeper BEFORE UPDATE ON outbox BEGIN SELECT 1; END");
    let warned = Checked::of(&scene.options).titles("warning");
    assert!(warned.contains("unsent-index") && warned.contains("triggers"), "{warned:?}");
    assert_eq!((before, daemon.log().matches("\"claimed\"").count()), (claim(), 1), "nobody was fenced: {}", daemon.log());
    let copy = scene.copy();
    let moved = Checked::of(&scene.options.clone().set("database.url", &format!("sqlite://{}", copy.display())));
    assert_eq!((moved.code, moved.titles("failed")), (1, titles(&["identity"])), "{}", moved.shown());
}
