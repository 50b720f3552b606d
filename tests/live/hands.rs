//! A person changes rows and tables by hand under a relay that runs. Each change has a named outcome; what was not deleted is published,
//! and nothing that was not un-marked comes twice.

use std::time::Duration;

use crate::account;
use crate::history;
use crate::stage::{Mark, Stage, answer, is_long};
use crate::support::kafka::Proxied;
use crate::support::proxy::api_key;
use crate::support::{Daemon, DaemonOptions, Kafka, Postgres, Version, eventually};

const SOON: Duration = Duration::from_secs(45);

/// An outbox with one topic of one partition, and what a reader must find in it.
struct Scene<'a> {
    stage: Stage<'a>,
    daemon: Daemon,
    way: Proxied,
    topic: String,
    next: u32,
    expected: Vec<String>,
}

impl Scene<'_> {
    fn sql(&self, statements: &str) -> String {
        self.stage.postgres.sql(&self.stage.database, statements)
    }

    /// Inserts ten events; returns the number in the first one's payload.
    fn insert(&mut self) -> u32 {
        let (low, high) = (self.next, self.next + 9);
        self.next += 10;
        let values = format!("SELECT '{}', 'k', n::text::json FROM generate_series({low}, {high}) n", self.topic);
        self.sql(&format!("INSERT INTO outbox (topic, key, payload) {values}"));
        self.expected.extend((low..=high).map(|n| n.to_string()));
        low
    }

    /// Inserts ten events and returns when they are published and marked.
    fn publish(&mut self) -> u32 {
        let low = self.insert();
        self.drained();
        low
    }

    fn drained(&self) {
        eventually("everything is published and marked", SOON, || {
            assert!(self.daemon.is_running(), "{}", self.daemon.log());
            self.stage.pending() == 0
        });
    }

    /// Inserts ten events, and changes something by hand when their batch is on its way: sent, and not known to be committed.
    fn change_in_flight(&mut self, change: impl FnOnce(u32) -> String) {
        let commit = self.way.nodes[0].hold_request(api_key::END_TXN);
        let low = self.insert();
        commit.wait_caught(SOON);
        self.sql(&change(low));
        commit.release();
    }

    fn expect_gone(&mut self, payload: u32) {
        let at = self.expected.iter().position(|known| *known == payload.to_string()).expect("it was expected");
        self.expected.remove(at);
    }

    fn claims(&self, cause: &str) -> f64 {
        self.daemon.metric_of("outboxd_claims_total", &format!("cause=\"{cause}\""))
    }

    /// A claim settles first and is counted then.
    fn has_claimed(&self, cause: &str, times: f64) {
        eventually(&format!("{times} claims for {cause}"), SOON, || self.claims(cause) == times);
    }

    fn length(&self) -> usize {
        self.daemon.log().len()
    }

    /// Waits until the log says all of this in one line, beyond its first `before` bytes.
    fn told(&self, before: usize, words: &[&str]) {
        let says = |line: &str| words.iter().all(|word| line.contains(word));
        eventually(&format!("the log says {words:?}"), SOON, || {
            assert!(self.daemon.is_running(), "{}", self.daemon.log());
            self.daemon.log()[before..].lines().any(says)
        });
    }

    /// While something is not as it was, everything waits, and goes on by itself afterwards.
    fn waits_while(&mut self, change: &str, words: &[&str], back: &str) {
        self.publish();
        let (before, low) = (self.length(), self.insert_before(change));
        self.told(before, words);
        self.sql(back);
        self.drained();
        self.as_expected(&format!("{change} (from {low})"));
    }

    /// Inserts ten events and makes a change in one transaction, so that the relay cannot be in between.
    fn insert_before(&mut self, change: &str) -> u32 {
        let (low, high) = (self.next, self.next + 9);
        self.next += 10;
        self.expected.extend((low..=high).map(|n| n.to_string()));
        let values = format!("SELECT '{}', 'k', n::text::json FROM generate_series({low}, {high}) n", self.topic);
        self.sql(&format!("BEGIN; INSERT INTO outbox (topic, key, payload) {values}; {change}; COMMIT"));
        low
    }

    /// Exactly the expected events are in the topic, in this order, and in the journal.
    fn as_expected(&self, after: &str) {
        let seen = history::read(self.stage.kafka, &self.topic, 1);
        let payloads: Vec<String> = seen.iter().map(|record| String::from_utf8(record.payload.clone().unwrap()).unwrap()).collect();
        assert_eq!(payloads, self.expected, "after {after}");
        let journal = account::decode(&history::read(self.stage.kafka, &self.stage.journal(), 1));
        let wrong: Vec<String> = account::check(&journal, &seen).iter().map(ToString::to_string).collect();
        assert!(wrong.is_empty(), "after {after}: {wrong:?}");
    }
}

fn scene(name: &str) -> Scene<'static> {
    let way = Kafka::shared().proxied();
    let adapt = |options: DaemonOptions, _: &str| options.set("kafka.brokers", &way.brokers);
    let stage = Stage::with(name, Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), Default::default(), adapt);
    let topic = format!("{}-of-1", stage.name);
    let daemon = stage.start("one");
    daemon.wait_log("\"claimed\"");
    Scene { stage, daemon, way, topic, next: 1, expected: Vec::new() }
}

#[test]
fn rows_that_are_changed_by_hand_have_a_named_outcome() {
    let mut scene = scene("rows");
    scene.publish();
    // deleted while nothing is fetched: they are gone, and nobody waits for them
    answer(&scene.stage.options, &["pause", "--reason", "by hand"]);
    scene.daemon.wait_log("paused: nothing is published");
    let low = scene.insert();
    scene.sql(&format!("DELETE FROM outbox WHERE payload::text IN ('{}', '{}')", low + 2, low + 9));
    scene.expect_gone(low + 2);
    scene.expect_gone(low + 9);
    // changed while nothing is fetched: what the row says then is published
    scene.sql(&format!("UPDATE outbox SET payload = '777777' WHERE payload::text = '{}'", low + 4));
    let at = scene.expected.iter().position(|known| *known == (low + 4).to_string()).unwrap();
    scene.expected[at] = "777777".into();
    scene.sql(&format!("UPDATE outbox SET topic = '{}-of-3' WHERE payload::text = '{}'", scene.stage.name, low + 5));
    scene.expect_gone(low + 5);
    // marked by hand: a person's word that it is published
    scene.sql(&format!("UPDATE outbox SET sent_at = now() WHERE payload::text = '{}'", low + 6));
    scene.expect_gone(low + 6);
    answer(&scene.stage.options, &["resume", "--reason", "done"]);
    scene.drained();
    let moved = history::read(scene.stage.kafka, &format!("{}-of-3", scene.stage.name), 3);
    assert_eq!(
        moved.iter().map(|record| record.payload.clone().unwrap()).collect::<Vec<_>>(),
        [(low + 5).to_string().into_bytes()]
    );
    // deleted on their way: published all the same, and that not all could be marked is a claim, not a fault
    let before = scene.claims("mark_count");
    scene.change_in_flight(|low| format!("DELETE FROM outbox WHERE payload::text IN ('{low}', '{}')", low + 5));
    scene.drained();
    scene.has_claimed("mark_count", before + 1.0);
    // changed on their way: what was fetched is published, once
    scene.change_in_flight(|low| format!("UPDATE outbox SET payload = '888888', key = 'l' WHERE payload::text = '{low}'"));
    scene.drained();
    assert_eq!(scene.claims("mark_count"), before + 1.0, "the same event by number and identity");
    // another identity is another event: it is published as well, as the row says
    scene.change_in_flight(|low| format!("UPDATE outbox SET id = gen_random_uuid() WHERE payload::text = '{}'", low + 9));
    let again = scene.expected.last().cloned().unwrap();
    scene.drained();
    scene.expected.push(again);
    scene.has_claimed("mark_count", before + 2.0);
    scene.publish();
    let seen = history::read(scene.stage.kafka, &scene.topic, 1).len();
    assert_eq!(seen, scene.expected.len());
    let payloads: Vec<Vec<u8>> =
        history::read(scene.stage.kafka, &scene.topic, 1).into_iter().map(|one| one.payload.unwrap()).collect();
    assert_eq!(payloads, scene.expected.iter().map(|text| text.clone().into_bytes()).collect::<Vec<_>>());
    assert_eq!(scene.sql("SELECT (SELECT count(*) FROM outboxd_parked), (SELECT count(*) FROM outboxd_held)"), "0|0");
    // un-marked: a claim reads from the bottom and publishes it again; `proof_scans` has the relay that runs on
    scene.sql("UPDATE outbox SET sent_at = NULL WHERE seq = (SELECT min(seq) FROM outbox)");
    scene.sql("UPDATE outboxd_state SET claim = claim + 1");
    scene.drained();
    scene.expected.push("1".into());
    assert_eq!(history::read(scene.stage.kafka, &scene.topic, 1).len(), scene.expected.len());
    assert_eq!(scene.daemon.metric("outboxd_rescued_events_total"), 0.0);
}

#[test]
fn tables_that_are_changed_by_hand_are_waited_for_or_read_anew() {
    let mut scene = scene("tables");
    scene.publish();
    // emptied, its numbers begun anew
    let before = scene.claims("file_changed");
    scene.sql("TRUNCATE outbox RESTART IDENTITY");
    scene.publish();
    assert!(scene.claims("file_changed") > before);
    scene.as_expected("TRUNCATE");
    // the same while a batch is on its way, and its numbers belong to other events before anybody looks
    scene.sql("TRUNCATE outbox RESTART IDENTITY");
    let insert = format!("INSERT INTO outbox (topic, key, payload) SELECT '{}', 'k', n::text::json FROM", scene.topic);
    scene.change_in_flight(|low| {
        format!("TRUNCATE outbox RESTART IDENTITY; {insert} generate_series({}, {}) n", low + 10, low + 19)
    });
    scene.expected.extend((scene.next..scene.next + 10).map(|n| n.to_string()));
    scene.next += 10;
    scene.drained();
    scene.as_expected("TRUNCATE under way");
    // the sequence set back, as by a script that empties the table and does not know of it
    let before = scene.claims("sequence_went_back");
    scene.sql("DELETE FROM outbox; SELECT setval('outbox_seq_seq', 1, false)");
    scene.has_claimed("sequence_went_back", before + 1.0);
    scene.publish();
    scene.as_expected("setval");
    refilled_before_anybody_looks(&mut scene);
    // columns that the relay does not know
    scene.sql("ALTER TABLE outbox ADD COLUMN note text");
    scene.publish();
    let before = scene.claims("file_changed");
    scene.sql("ALTER TABLE outbox ADD COLUMN drawn uuid DEFAULT gen_random_uuid()");
    scene.publish();
    assert!(scene.claims("file_changed") > before, "the table was written anew");
    scene.as_expected("ADD COLUMN");
    for (change, words, back) in [
        ("ALTER TABLE outbox RENAME payload TO body", ["OBX204", "no column payload"], "ALTER TABLE outbox RENAME body TO payload"),
        ("ALTER TABLE outbox RENAME TO outbox_away", ["OBX204", "outbox"], "ALTER TABLE outbox_away RENAME TO outbox"),
        ("ALTER TABLE outboxd_applied RENAME TO gone", ["OBX204", "outboxd_applied"], "ALTER TABLE gone RENAME TO outboxd_applied"),
        ("ALTER TABLE outboxd_token RENAME TO gone", ["OBX204", "outboxd_token"], "ALTER TABLE gone RENAME TO outboxd_token"),
        ("ALTER TABLE outboxd_state RENAME TO gone", ["OBX204", "outboxd_state"], "ALTER TABLE gone RENAME TO outboxd_state"),
        (
            "ALTER TABLE outbox DROP COLUMN source CASCADE",
            ["OBX204", "no column source"],
            "ALTER TABLE outbox ADD COLUMN source text",
        ),
    ] {
        scene.waits_while(change, &words, back);
    }
    // the books of what was applied are lost: the journal has them
    scene.sql("TRUNCATE outboxd_applied; TRUNCATE outboxd_token");
    scene.publish();
    scene.as_expected("TRUNCATE of what was applied");
    assert_eq!(scene.sql("SELECT (SELECT count(*) FROM outboxd_parked), (SELECT count(*) FROM outboxd_held)"), "0|0");
    assert_eq!(scene.daemon.metric("outboxd_rescued_events_total"), if is_long() { 10.0 } else { 0.0 });
    // without its state row there is no outbox of this name: the process says what to do, and leaves
    scene.sql("DELETE FROM outboxd_state");
    assert_eq!(scene.daemon.wait_exit(SOON), 78, "{}", scene.daemon.log());
    let log = scene.daemon.log();
    let last = log.lines().rfind(|line| line.contains("OBX204")).unwrap_or_default();
    assert!(last.contains("knows no outbox named") && last.contains("outboxd migrate"), "{log}");
}

/// The numbers are drawn again before the relay looks: only the proof scan finds those rows, within a minute.
fn refilled_before_anybody_looks(scene: &mut Scene<'_>) {
    if !is_long() {
        return;
    }
    scene.daemon.sigstop();
    scene.sql("DELETE FROM outbox; SELECT setval('outbox_seq_seq', 1, false)");
    scene.insert();
    scene.daemon.sigcont();
    eventually("the proof scan finds them", 2 * SOON, || scene.stage.pending() == 0);
    assert_eq!(scene.daemon.metric("outboxd_rescued_events_total"), 10.0);
    scene.as_expected("setval and refilled");
}
