//! What a person does with the real binary on real servers: parked events, held topics, pause, adopt, repin.

use std::time::Duration;

use serde_json::Value;

use crate::history;
use crate::stage::{Mark, Stage, answer, status};
use crate::support::{Daemon, Kafka, Postgres, Version, eventually, let_pass};

const SOON: Duration = Duration::from_secs(60);

fn stage(name: &str) -> Stage<'static> {
    Stage::new(name, Mark::Row, Postgres::shared(Version::V18), Kafka::shared())
}

/// Runs a command; returns its exit code and what it prints as JSON.
fn ask(stage: &Stage<'_>, arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, stderr) = stage.options.run_command(&[arguments, &["--json"]].concat());
    (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}{stderr}")))
}

/// Payloads of a topic with one partition, in order.
fn payloads(stage: &Stage<'_>, topic: &str) -> Vec<String> {
    let seen = history::read(stage.kafka, topic, 1);
    seen.into_iter().map(|record| String::from_utf8(record.payload.expect("a value")).expect("text")).collect()
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Inserts events with the payloads `range` and one key.
fn insert(stage: &Stage<'_>, topic: &str, key: &str, range: std::ops::RangeInclusive<u32>) {
    let (low, high) = (range.start(), range.end());
    let sql = "INSERT INTO outbox (topic, key, payload)";
    stage
        .postgres
        .sql(&stage.database, &format!("{sql} SELECT '{topic}', '{key}', n::text::json FROM generate_series({low}, {high}) n"));
}

fn metric_is(daemon: &Daemon, name: &str, value: f64) {
    eventually(&format!("{name} is {value}"), SOON, || (daemon.metric(name) - value).abs() < 0.5);
}

/// One kind of poison: how it gets into the table as payload 3 of five, and the code it is parked with.
fn poison(stage: &Stage<'_>, kind: &str, topic: &str) -> &'static str {
    let row = |columns: &str, values: &str| {
        stage
            .postgres
            .sql(&stage.database, &format!("INSERT INTO outbox (topic, key, payload{columns}) VALUES ('{topic}', 'k', {values})"));
    };
    match kind {
        "large" => {
            row("", "to_json(repeat('x', 2000000))");
            "too_large"
        }
        "malformed" => {
            row(", headers", "'3', '[1]'");
            "malformed_headers"
        }
        "reserved" => {
            row(", headers", "'3', '{\"outboxd-x\": \"y\"}'");
            "reserved_header"
        }
        _ => {
            let key = "repeat('k', 2000000)";
            stage
                .postgres
                .sql(&stage.database, &format!("INSERT INTO outbox (topic, key, payload) VALUES ('{topic}', {key}, '3')"));
            "too_large"
        }
    }
}

#[test]
fn only_the_poison_event_and_its_key_wait_whatever_is_wrong_with_it() {
    let stage = stage("poison");
    let topic = format!("{}-of-1", stage.name);
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    for (kind, at) in [("large", 0), ("malformed", 100), ("reserved", 200)] {
        insert(&stage, &topic, "k", at + 1..=at + 2);
        let code = poison(&stage, kind, &topic);
        insert(&stage, &topic, "k", at + 4..=at + 5);
        insert(&stage, &topic, "other", at + 6..=at + 9);
        eventually("all others are published", SOON, || stage.pending() == 3);
        let (_, listed) = ask(&stage, &["parked", "list"]);
        let event = &listed["events"][0];
        assert_eq!((&event["code"], &event["waiting_behind"], &listed["parked"]), (&code.into(), &2.into(), &1.into()), "{listed}");
        metric_is(&daemon, "outboxd_parked_events", 1.0);
        metric_is(&daemon, "outboxd_blocked_events", 2.0);
        metric_is(&daemon, "outboxd_pending_events", 0.0);
        let id = event["id"].as_str().expect("an id").to_owned();
        assert_eq!(ask(&stage, &["parked", "show", &id]).1["id"], *id);
        let reasons = stage.postgres.sql(&stage.database, "SELECT string_agg(reason, ' ' ORDER BY seq) FROM outbox_pending");
        assert_eq!(reasons, "parked blocked blocked");
        assert_eq!(ask(&stage, &["parked", "discard", &id, "--dry-run"]).1["events"], 1);
        assert_eq!(stage.options.run_command(&["parked", "discard", &id]).0, 2, "a reason is required");
        if kind == "malformed" {
            // corrected, it comes before those that waited behind it
            stage.postgres.sql(&stage.database, &format!("UPDATE outbox SET headers = NULL WHERE id = '{id}'"));
            assert_eq!(ask(&stage, &["parked", "retry", "--all", "--reason", "corrected"]), (0, retried("parked retry")));
        } else {
            let discard = ["parked", "discard", &id, "--reason", "it's wrong"];
            assert_eq!(ask(&stage, &discard), (0, retried("parked discard")));
        }
        eventually("nothing waits", SOON, || stage.pending() == 0);
        assert_eq!(ask(&stage, &["parked", "retry", "--all"]).0, 3, "there is none any more");
    }
    // "3" of the corrected event is the number 103 of the whole
    let all = payloads(&stage, &topic);
    assert!(all.contains(&"3".to_owned()), "{all:?}");
    let key: Vec<&String> = all.iter().filter(|payload| ["101", "102", "3", "104", "105"].contains(&&***payload)).collect();
    assert_eq!(key, ["101", "102", "3", "104", "105"]);
    assert_eq!(all.len(), 4 * 3 + 4 * 3 + 1, "{all:?}");
    let audit = "SELECT string_agg(action || ':' || reason, '|' ORDER BY n) FROM outboxd_audit";
    let audit = stage.postgres.sql(&stage.database, audit);
    assert_eq!(audit, "parked discard:it's wrong|parked retry:corrected|parked discard:it's wrong");
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
}

fn retried(action: &str) -> Value {
    serde_json::json!({ "action": action, "events": 1, "dry_run": false })
}

#[tokio::test]
async fn small_events_of_a_small_topic_pass_and_the_large_one_is_found_among_them() {
    let stage = stage("small");
    let topic = stage.kafka.unique_topic("small-topic");
    answer(&stage.options, &["migrate", "--topics", &format!("{topic}:1")]);
    stage.kafka.alter_topic(&topic, "max.message.bytes", "10000").await;
    // only the broker can tell: what is compressed may fit
    let daemon = stage.options.clone().argument("--set").argument("kafka.properties.compression.type=gzip").start();
    daemon.wait_log("claimed");
    // half of it random, so that the large one stays too large when it is compressed
    let fill = format!(
        "INSERT INTO outbox (topic, key, payload) SELECT '{topic}', n::text, to_json(CASE WHEN n = 500 THEN \
         (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 2000)) ELSE md5(n::text) END) FROM generate_series(1, 1000) n"
    );
    stage.postgres.sql(&stage.database, &fill);
    eventually("all but the large one are published", SOON, || stage.pending() == 1);
    let (_, listed) = ask(&stage, &["parked", "list"]);
    assert_eq!((&listed["parked"], &listed["events"][0]["seq"]), (&1.into(), &500.into()), "{listed}");
    assert!(daemon.metric("outboxd_claims_total") <= 6.0, "{} claims", daemon.metric("outboxd_claims_total"));
    assert_eq!(payloads(&stage, &topic).len(), 999);
    // and one of two megabytes, which no topic here takes, in the middle of a batch of a thousand
    let usual = format!("{}-of-1", stage.name);
    let fill = format!(
        "INSERT INTO outbox (topic, key, payload) SELECT '{usual}', n::text, to_json(CASE WHEN n = 500 THEN repeat('x', 2000000) \
         ELSE md5(n::text) END) FROM generate_series(1, 1000) n"
    );
    stage.postgres.sql(&stage.database, &fill);
    eventually("all but the large ones are published", SOON, || stage.pending() == 2);
    let (_, listed) = ask(&stage, &["parked", "list", "--topic", &usual]);
    assert_eq!((&listed["parked"], &listed["events"][0]["seq"]), (&1.into(), &1_500.into()), "{listed}");
    assert_eq!(payloads(&stage, &usual).len(), 999);
}

#[tokio::test]
async fn a_missing_topic_waits_alone_and_goes_on_when_it_is_made() {
    let stage = stage("absent");
    let (topic, absent) = (format!("{}-of-1", stage.name), stage.kafka.unique_topic("absent-topic"));
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    insert(&stage, &absent, "k", 1..=50);
    insert(&stage, &topic, "k", 1..=50);
    eventually("the others are published", SOON, || stage.pending() == 50);
    assert!(!stage.kafka.topics().contains(&absent), "it is not made by sending");
    daemon.wait_log("topic held");
    assert_eq!((&status(&stage.options)["held_topics"], &status(&stage.options)["parked_events"]), (&1.into(), &0.into()));
    insert(&stage, &topic, "k", 51..=60);
    eventually("the others go on", SOON, || stage.pending() == 50);
    answer(&stage.options, &["migrate", "--topics", &format!("{absent}:1")]);
    eventually("it goes on by itself", SOON, || stage.pending() == 0);
    assert_eq!((payloads(&stage, &absent), payloads(&stage, &topic)), (numbers(1..=50), numbers(1..=60)));
    // deleted under the running relay, and made anew
    stage.kafka.delete_topic(&absent).await;
    eventually("it is gone", SOON, || !stage.kafka.topics().contains(&absent));
    insert(&stage, &absent, "k", 51..=60);
    insert(&stage, &topic, "k", 61..=70);
    eventually("the others are published", SOON, || stage.pending() == 10);
    assert_eq!(status(&stage.options)["parked_events"], 0, "an outage of a topic parks nothing");
    answer(&stage.options, &["migrate", "--topics", &format!("{absent}:1")]);
    // of another id: nobody but a person can tell what that means to its consumers
    daemon.wait_log("topic_recreated");
    insert(&stage, &topic, "k", 71..=80);
    eventually("the others go on", SOON, || stage.pending() == 10);
    drop(daemon);
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    insert(&stage, &topic, "k", 81..=90);
    eventually("the others go on", SOON, || stage.pending() == 10);
    assert_eq!(payloads(&stage, &absent).len(), 0, "nothing is published to it");
    let shown = answer(&stage.options, &["repin", &absent, "--dry-run"]);
    assert!(shown.contains("published to with the id") && shown.contains("made anew"), "{shown}");
    answer(&stage.options, &["repin", &absent, "--reason", "its consumers begin anew"]);
    eventually("it goes on", SOON, || stage.pending() == 0);
    assert_eq!(payloads(&stage, &absent), numbers(51..=60));
    assert_eq!((daemon.metric("outboxd_truncated_topics"), &status(&stage.options)["alarms"]), (0.0, &serde_json::json!([])));
}

#[test]
fn a_paused_outbox_publishes_nothing_over_restarts_and_goes_on_when_resumed() {
    let mut stage = stage("pausing");
    let daemon = stage.start("one");
    stage.write();
    stage.wait_for_batches(5, SOON);
    answer(&stage.options, &["pause", "--reason", "moving"]);
    daemon.wait_log("paused: nothing is published");
    let applied = stage.applied();
    stage.wait_for_writers(500);
    assert_eq!(stage.applied(), applied);
    assert_eq!(status(&stage.options)["paused"]["reason"], "moving");
    assert!(answer(&stage.options, &["pause", "--reason", "again"]).contains("already"));
    drop(daemon);
    let daemon = stage.start("one");
    daemon.wait_log("paused: nothing is published");
    let_pass(Duration::from_secs(1));
    assert_eq!(stage.applied(), applied);
    answer(&stage.options, &["resume", "--reason", "moved"]);
    stage.wait_for_batches(5, SOON);
    assert!(answer(&stage.options, &["resume", "--reason", "again"]).contains("not paused"));
    let audit = "SELECT string_agg(concat_ws(' ', action, reason, split_part(who, ' ', 1)), '|' ORDER BY n) FROM outboxd_audit";
    let audited = stage.postgres.sql(&stage.database, audit);
    assert!(audited.starts_with("pause moving outboxd") && audited.contains("|resume moved outboxd"), "{audited}");
    assert_eq!(audited.matches('|').count(), 1, "what changes nothing leaves no row: {audited}");
    stage.prove();
}

#[test]
fn a_moved_database_is_adopted_and_goes_on() {
    let mut stage = stage("moving");
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(5, SOON);
    drop(daemon);
    let away = "UPDATE outboxd_state SET accepted_addresses = ARRAY['old:5432/shop'], accepted_systems = ARRAY['1']";
    stage.postgres.sql(&stage.database, away);
    let daemon = stage.start("one");
    stage.wait_halted(&daemon, "moved-database");
    let applied = stage.applied();
    assert_eq!(stage.options.run_command(&["adopt", "--database"]).0, 2, "a reason is required");
    let shown = answer(&stage.options, &["adopt", "--database", "--dry-run"]);
    assert!(shown.contains("old:5432/shop") && shown.contains("would be accepted"), "{shown}");
    assert_eq!(stage.applied(), applied, "nothing is published meanwhile");
    answer(&stage.options, &["adopt", "--database", "--reason", "moved to another host"]);
    stage.wait_for_batches(5, SOON);
    assert!(answer(&stage.options, &["adopt", "--database", "--reason", "again"]).contains("already"));
    assert_eq!(stage.postgres.sql(&stage.database, "SELECT action FROM outboxd_audit"), "adopt --database");
    stage.prove();
}

#[tokio::test]
async fn a_grown_topic_is_repinned_on_request() {
    let stage = stage("growing");
    let topic = stage.kafka.unique_topic("growing-topic");
    answer(&stage.options, &["migrate", "--topics", &format!("{topic}:1")]);
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    let many = |from: u32| {
        let sql = "INSERT INTO outbox (topic, key, payload) SELECT";
        let rows = format!("'{topic}', n::text, '{{}}' FROM generate_series({from}, {}) n", from + 99);
        stage.postgres.sql(&stage.database, &format!("{sql} {rows}"));
        eventually("they are published", SOON, || stage.pending() == 0);
    };
    many(1);
    stage.kafka.grow_topic(&topic, 4).await;
    many(101);
    assert_eq!(history::read(stage.kafka, &topic, 1).len(), 200, "the new partitions stay unused");
    assert!(answer(&stage.options, &["repin", &topic, "--dry-run"]).contains("with 1 partitions, it has 4"));
    answer(&stage.options, &["repin", &topic, "--reason", "grown"]);
    many(201);
    let first = history::read(stage.kafka, &topic, 1).len();
    assert!((200..260).contains(&first) && history::read(stage.kafka, &topic, 4).len() == 300, "{first}");
    assert_eq!(stage.options.run_command(&["repin", "never-used", "--reason", "x"]).0, 3);
    let audited = stage.postgres.sql(&stage.database, "SELECT action, reason, detail->>'topic' FROM outboxd_audit");
    assert_eq!(audited, format!("repin|grown|{topic}"));
}

/// One session writes all events of a key, every fortieth of which is refused, while a person corrects and releases, or gives up, what is
/// parked: whatever was written later waits for what was written earlier, also what comes in the moment of the release.
#[test]
fn a_release_beside_a_running_relay_is_never_overtaken() {
    let stage = stage("released");
    let topic = format!("{}-of-1", stage.name);
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    let write = format!(
        "DO $$ BEGIN FOR n IN 1..480 LOOP INSERT INTO outbox (topic, key, payload, headers) VALUES ('{topic}', 'k', to_json(n), \
         CASE WHEN n % 40 = 0 THEN '[7]' END::json); COMMIT; PERFORM pg_sleep(0.015); END LOOP; END $$"
    );
    let (mut released, mut given_up) = (0, Vec::new());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| stage.postgres.sql(&stage.database, &write));
        eventually("all is written, and published or given up", SOON, || {
            let parked = "SELECT p.id, o.payload FROM outboxd_parked p JOIN outbox o USING (seq)";
            let parked = stage.postgres.sql(&stage.database, parked);
            for (id, payload) in parked.lines().filter_map(|line| line.split_once('|')) {
                if payload.parse::<u32>().expect("a number") % 120 == 0 {
                    answer(&stage.options, &["parked", "discard", id, "--reason", "it is wrong"]);
                    given_up.push(payload.to_owned());
                } else {
                    stage.postgres.sql(&stage.database, &format!("UPDATE outbox SET headers = NULL WHERE id = '{id}'"));
                    answer(&stage.options, &["parked", "retry", id, "--reason", "corrected"]);
                    released += 1;
                }
            }
            writer.is_finished() && stage.pending() == 0
        });
    });
    assert_eq!((released, given_up.len()), (8, 4));
    let expected: Vec<String> = numbers(1..=480).into_iter().filter(|number| !given_up.contains(number)).collect();
    assert_eq!(payloads(&stage, &topic), expected);
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0, "{}", daemon.log());
}

#[tokio::test]
async fn an_event_without_a_key_is_found_among_the_keyed_ones_of_a_compacted_topic() {
    let stage = stage("compacted");
    let topic = stage.kafka.unique_topic("compacted-topic");
    answer(&stage.options, &["migrate", "--topics", &format!("{topic}:1")]);
    stage.kafka.alter_topic(&topic, "cleanup.policy", "compact").await;
    insert(&stage, &topic, "k", 1..=40);
    stage.postgres.sql(&stage.database, &format!("INSERT INTO outbox (topic, key, payload) VALUES ('{topic}', NULL, '41')"));
    insert(&stage, &topic, "k", 42..=80);
    let daemon = stage.start("one");
    eventually("all others are published", SOON, || stage.pending() == 1);
    let (_, listed) = ask(&stage, &["parked", "list"]);
    assert_eq!(
        (&listed["parked"], &listed["events"][0]["code"]),
        (&1.into(), &"invalid_record".into()),
        "{listed}\n{}",
        daemon.log()
    );
    let expected: Vec<String> = numbers(1..=40).into_iter().chain(numbers(42..=80)).collect();
    assert_eq!(payloads(&stage, &topic), expected);
    // deleted by hand, as the documents say: nothing is left of it, also for a relay that runs
    stage.postgres.sql(&stage.database, "DELETE FROM outbox WHERE sent_at IS NULL");
    assert_eq!(ask(&stage, &["parked", "retry", "--all"]).0, 3);
    assert_eq!(ask(&stage, &["parked", "list"]).1["parked"], 0);
    insert(&stage, &topic, "k", 81..=90);
    eventually("it goes on", SOON, || stage.pending() == 0);
}

#[test]
fn an_event_to_a_topic_that_is_not_allowed_is_parked_until_it_is() {
    let stage = stage("allowed");
    let topic = format!("{}-of-1", stage.name);
    let daemon = stage.options.clone().set("kafka.allow_topics", "other.*,*-of-3").start();
    daemon.wait_log("claimed");
    insert(&stage, &topic, "k", 1..=3);
    insert(&stage, &format!("{}-of-3", stage.name), "k", 1..=3);
    eventually("the allowed ones are published", SOON, || stage.pending() == 3);
    let (_, listed) = ask(&stage, &["parked", "list", "--code", "topic_not_allowed"]);
    assert_eq!((&listed["parked"], &listed["events"][0]["waiting_behind"]), (&1.into(), &2.into()), "{listed}");
    drop(daemon);
    let _daemon = stage.options.clone().set("kafka.allow_topics", "*").start();
    assert_eq!(ask(&stage, &["parked", "retry", "--topic", &topic]).0, 0);
    eventually("they go on in order", SOON, || stage.pending() == 0);
    assert_eq!(payloads(&stage, &topic), numbers(1..=3));
}

#[test]
fn a_status_is_watched() {
    let mut stage = stage("watched");
    let mut command = stage.options.command(&["status", "--watch", "200ms", "--json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("a pipe")));
    stage.write();
    stage.wait_for_writers(50);
    stage.stop_writing();
    let reports: Vec<Value> = lines.take(5).map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON")).collect();
    assert_eq!(reports.len(), 5);
    assert!(reports.iter().all(|report| report["outbox"] == *stage.name && report["owner"].is_null()));
    child.kill().and_then(|()| child.wait()).expect("it ends");
}

#[test]
fn without_a_journal_a_row_that_cannot_be_marked_comes_again_only_after_pauses() {
    let lesser = |options: crate::support::DaemonOptions, _: &str| options.set("kafka.delivery", "at_least_once");
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    let stage = Stage::with("unmarkable", Mark::Row, postgres, kafka, crate::workload::Habits::default(), lesser);
    let _daemon = stage.start("one");
    let trigger = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body}; END'; \
             CREATE TRIGGER refuse BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    };
    let drop = "DROP TRIGGER refuse ON outbox".to_owned();
    let obstacles = [
        ("swallowed", trigger("RETURN NULL"), drop.clone()),
        ("raised", trigger("RAISE EXCEPTION ''not today''"), drop),
        ("revoked", "REVOKE UPDATE ON outbox FROM outboxd".into(), "GRANT UPDATE ON outbox TO outboxd".into()),
    ];
    for (what, obstacle, removal) in obstacles {
        let topic = format!("{}-of-1", stage.name);
        let before = payloads(&stage, &topic).len();
        stage.postgres.sql(&stage.database, &obstacle);
        insert(&stage, &topic, "k", 1..=1);
        let_pass(Duration::from_secs(4));
        let copies = payloads(&stage, &topic).len() - before;
        assert!((2..=20).contains(&copies), "{what}: {copies} copies in four seconds");
        stage.postgres.sql(&stage.database, &removal);
        eventually("it is marked", SOON, || stage.pending() == 0);
    }
}
