//! `outboxd verify` beside a relay that works, and of breaches that are planted by hand on real servers: each is found by its name.

use std::time::{Duration, Instant};

use outboxd::event::Fingerprint;
use outboxd::journal::{Applied, Entry, Record};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::Value;
use uuid::Uuid;

use crate::history;
use crate::stage::{Mark, Stage, answer};
use crate::support::{DaemonOptions, Kafka, Postgres, Version, eventually, eventually_get};

const SOON: Duration = Duration::from_secs(30);

/// Exit code and report.
fn verify(options: &DaemonOptions, arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, stderr) = options.run_command(&[&["verify", "--json"], arguments].concat());
    let report = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("exit code {code}: {stdout}{stderr}"));
    (code, report)
}

/// What is wrong, as `topic kind count`.
fn wrong(report: &Value) -> Vec<String> {
    let topics = report["topics"].as_array().unwrap().iter();
    let found = topics.flat_map(|topic| topic["found"].as_array().unwrap().iter().map(move |found| (topic, found)));
    let wrong = found.filter(|(_, found)| found["is_breach"] == true);
    wrong
        .map(|(topic, found)| {
            format!("{} {} {}", topic["topic"].as_str().unwrap(), found["kind"].as_str().unwrap(), found["count"])
        })
        .collect()
}

fn sum(report: &Value, field: &str) -> u64 {
    report["topics"].as_array().unwrap().iter().map(|topic| topic[field].as_u64().unwrap()).sum()
}

/// An event of a planted batch.
#[derive(Clone, Copy)]
struct Planted {
    seq: i64,
    id: Uuid,
    offset: i64,
}

/// Writes what no relay would write, in its place.
struct Hand<'a> {
    stage: &'a Stage<'a>,
    producer: ThreadedProducer<DefaultProducerContext>,
    last: (Record, Applied),
}

impl<'a> Hand<'a> {
    fn new(stage: &'a Stage<'a>) -> Self {
        let mut config = stage.kafka.client();
        let producer: ThreadedProducer<_> = config.set("transactional.id", format!("{}-hand", stage.name)).create().unwrap();
        producer.init_transactions(SOON).unwrap();
        let journal = history::read(stage.kafka, &stage.journal(), 1);
        let last = journal.last().expect("something was published");
        let (record, checksum) = Record::decode(last.payload.as_deref().unwrap()).unwrap();
        let applied = Applied { n: record.n, offset: last.offset, checksum };
        Hand { stage, producer, last: (record, applied) }
    }

    /// An unsent row.
    fn row(&self, topic: &str, offset: i64) -> Planted {
        let insert = format!("INSERT INTO outbox (topic, key, payload) VALUES ('{topic}', 'k', '{{}}') RETURNING seq || ' ' || id");
        let row = self.stage.postgres.sql(&self.stage.database, &insert);
        let (seq, id) = row.lines().next().unwrap().split_once(' ').unwrap();
        Planted { seq: seq.parse().unwrap(), id: id.parse().unwrap(), offset }
    }

    /// One transaction with these records in partition 0, in this order, and a journal record that names those others.
    fn publish(&mut self, topic: &str, records: &[Planted], named: &[Planted]) {
        self.producer.begin_transaction().unwrap();
        records.iter().for_each(|event| self.send(topic, event));
        if !named.is_empty() {
            let (last, applied) = &self.last;
            let entry = |event: &Planted| Entry {
                seq: event.seq,
                fingerprint: Fingerprint::of(event.id),
                topic: 0,
                partition: 0,
                offset: event.offset,
            };
            let entries = named.iter().map(entry).collect();
            let next = Record { n: last.n + 1, previous: applied.checksum, topics: vec![topic.into()], entries, ..last.clone() };
            let (bytes, checksum) = next.encode();
            let journal = self.stage.journal();
            let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(&journal).partition(0).payload(&bytes);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
            self.last = (next, Applied { checksum, ..*applied });
        }
        self.producer.flush(SOON).unwrap();
        self.producer.commit_transaction(SOON).unwrap();
    }

    fn send(&self, topic: &str, event: &Planted) {
        let id = event.id.to_string();
        let headers = OwnedHeaders::new().insert(Header { key: "id", value: Some(&id) });
        let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).partition(0).key("k").payload("{}").headers(headers);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_working_relay_is_clean_and_each_planted_breach_has_its_name() {
    let mut stage = Stage::new("verified", Mark::Row, Postgres::shared(Version::V15), Kafka::shared());
    let planted = ["swapped", "torn", "twice", "lost"].map(|what| format!("{}-{what}", stage.name));
    for topic in &planted {
        stage.kafka.create_topic(topic, 1, &[]).await;
    }
    tokio::task::block_in_place(|| {
        let daemon = stage.start("one");
        stage.write();
        stage.wait_for_batches(20, SOON);
        // beside the relay and its writers, again and again
        for _ in 0..3 {
            let (code, report) = verify(&stage.options, &[]);
            assert_eq!((code, wrong(&report)), (0, vec![]), "{report:#}");
            assert!(sum(&report, "published") > 0 && report["journal"]["broken"] == 0, "{report:#}");
        }
        stage.stop_writing();
        eventually("the table is drained", SOON, || stage.pending() == 0);
        daemon.sigterm();
        assert_eq!(daemon.wait_exit(SOON), 0);
        let (code, report) = verify(&stage.options, &[]);
        assert_eq!((code, sum(&report, "waiting"), sum(&report, "not_marked_yet")), (0, 0, 0), "{report:#}");
        assert_eq!(sum(&report, "published"), sum(&report, "rows"), "{report:#}");
        assert_eq!(sum(&report, "records"), sum(&report, "rows"), "{report:#}");
        assert!(report["topics"].as_array().unwrap().iter().all(|topic| topic["not_checkable"].as_array().unwrap().is_empty()));
        in_the_table(&stage);
        in_the_topics(&stage, &planted);
        of_an_auditor(&stage);
    });
}

/// Breaches in the database, each taken back.
fn in_the_table(stage: &Stage<'_>) {
    let sql = |statements: &str| stage.postgres.sql(&stage.database, statements);
    let (topic, seq) = {
        let first = sql("SELECT topic || ' ' || seq FROM outbox ORDER BY seq LIMIT 1");
        let (topic, seq) = first.split_once(' ').unwrap();
        (topic.to_owned(), seq.to_owned())
    };
    let audit = |of: &str| {
        format!(
            "INSERT INTO outboxd_audit (name, action, detail) SELECT '{}', 'parked discard', \
             jsonb_build_object('seq', seq, 'id', id, 'topic', topic, 'code', 'x') FROM outbox WHERE {of}",
            stage.name
        )
    };
    let of_seq = format!("seq = {seq}");
    let forged = format!("INSERT INTO outbox (topic, key, payload, sent_at) VALUES ('{topic}', 'forged', '{{}}', now())");
    let [forged_discard, meant_discard] = [&of_seq, "key = 'forged'"].map(audit);
    let plants = [
        (
            "unmarked",
            format!("UPDATE outbox SET sent_at = NULL WHERE {of_seq}"),
            format!("UPDATE outbox SET sent_at = now() WHERE {of_seq}"),
        ),
        (
            "phantom",
            format!("CREATE TABLE kept AS SELECT * FROM outbox WHERE {of_seq}; DELETE FROM outbox WHERE {of_seq}"),
            "INSERT INTO outbox OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept".to_owned(),
        ),
        ("phantom", forged_discard, "DELETE FROM outboxd_audit WHERE action = 'parked discard'".to_owned()),
        ("lost", forged.replace("now()", "'infinity'"), "DELETE FROM outbox WHERE key = 'forged'".to_owned()),
        ("lost", forged, String::new()),
    ];
    for (kind, plant, undo) in &plants {
        sql(plant);
        let (code, report) = verify(&stage.options, &[]);
        assert_eq!((code, wrong(&report)), (3, vec![format!("{topic} {kind} 1")]), "{plant}: {report:#}");
        if !undo.is_empty() {
            sql(undo);
        }
    }
    // the marked row that nobody published, with an entry in the audit: that is what a discard looks like
    sql(&meant_discard);
    let (code, report) = verify(&stage.options, &["--since", "1h"]);
    assert_eq!((code, sum(&report, "discarded")), (0, 1), "{report:#}");
}

/// Breaches in Kafka, each in a topic of its own.
fn in_the_topics(stage: &Stage<'_>, topics: &[String; 4]) {
    let [swapped, torn, twice, lost] = topics;
    let of_one = stage.topics.keys().next().unwrap();
    let mut hand = Hand::new(stage);
    let (one, two) = (hand.row(swapped, 1), hand.row(swapped, 0));
    hand.publish(swapped, &[two, one], &[one, two]);
    let (there, gone) = (hand.row(torn, 0), hand.row(torn, 1));
    hand.publish(torn, &[there], &[there, gone]);
    let again = hand.row(twice, 0);
    hand.publish(twice, &[again], &[again]);
    hand.publish(twice, &[again], &[]);
    let never = hand.row(lost, 0);
    hand.publish(lost, &[], &[never]);
    // in a partition that the journal knows: a record of somebody else, and one of an event that no journal record names
    let stranger = Planted { seq: 0, id: Uuid::new_v4(), offset: 0 };
    hand.publish(of_one, &[stranger], &[]);
    let (code, report) = verify(&stage.options, &["--topic", of_one]);
    let found = &report["topics"][0]["found"];
    let foreign = found.as_array().unwrap().iter().find(|found| found["kind"] == "foreign").unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!((code, &foreign["count"]), (0, &1.into()), "{report:#}");
    let unnamed = hand.row(of_one, 0);
    hand.publish(of_one, &[unnamed], &[]);
    let (code, report) = verify(&stage.options, &[]);
    let mut expected = [(swapped, "reordered"), (torn, "torn"), (twice, "duplicated"), (lost, "lost"), (of_one, "torn")]
        .map(|(topic, kind)| format!("{topic} {kind} 1"));
    expected.sort();
    assert_eq!((code, wrong(&report)), (3, expected.to_vec()), "{report:#}");
    assert_eq!(report["breaches"], 5);
    let (code, stdout, _) = stage.options.run_command(&["verify", "--topic", twice]);
    assert_eq!(code, 3, "{stdout}");
    assert!(stdout.contains(&format!("    {twice}-0@2: its topic has this event before")), "{stdout}");
    let (code, _, stderr) = stage.options.run_command(&["verify", "--topic", "nobody-knows"]);
    assert_eq!((code, stderr.trim()), (3, "neither table nor journal knows the topic nobody-knows"));
}

/// Reading is enough, and each right that is missing is named.
fn of_an_auditor(stage: &Stage<'_>) {
    let tables = ["outbox", "outboxd_state", "outboxd_applied", "outboxd_audit"];
    let role = format!("auditor_{}", stage.database);
    stage.postgres.sql(&stage.database, &format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON {} TO {role}", tables.join(", ")));
    let auditor = stage.options.of_role(&role);
    assert_eq!(verify(&auditor, &["--since", "1h"]).0, 3, "what was planted in Kafka is still there");
    for table in tables {
        stage.postgres.sql(&stage.database, &format!("REVOKE SELECT ON {table} FROM {role}"));
        let (code, _, stderr) = auditor.run_command(&["verify"]);
        assert!(code == 77 && stderr.contains(&format!("permission denied for table {table}")), "{code}: {stderr}");
        stage.postgres.sql(&stage.database, &format!("GRANT SELECT ON {table} TO {role}"));
    }
}

#[test]
fn what_topic_and_journal_let_go_of_is_told_and_not_held_against_anybody() {
    let stage = Stage::new("forgetful", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    let topic = stage.topics.keys().next().unwrap().clone();
    let daemon = stage.start("one");
    for _ in 0..5 {
        answer(&stage.options.of_role("postgres"), &["send", "--topic", &topic, "--key", "k", "--wait", "{}"]);
    }
    let offset =
        eventually_get("five records", SOON, || history::read(stage.kafka, &topic, stage.topics[&topic]).into_iter().nth(4));
    drop(daemon);
    trim(&stage, &topic, offset.partition, offset.offset);
    let (code, report) = verify(&stage.options, &[]);
    assert_eq!(code, 0, "{report:#}");
    let told = report["topics"].as_array().unwrap().iter().find(|found| found["topic"] == *topic).unwrap();
    assert_eq!(told["not_checkable"], serde_json::json!([{ "reason": "trimmed", "events": 4 }]), "{report:#}");
}

#[tokio::main(flavor = "current_thread")]
async fn trim(stage: &Stage<'_>, topic: &str, partition: i32, start: i64) {
    let mut range = rdkafka::TopicPartitionList::new();
    range.add_partition_offset(topic, partition, rdkafka::Offset::Offset(start)).unwrap();
    let deleted = stage.kafka.admin().delete_records(&range, &rdkafka::admin::AdminOptions::new()).await.unwrap();
    deleted.elements()[0].error().unwrap();
}

#[test]
fn without_a_journal_loss_is_told_and_repetition_is_counted() {
    let adapt = |options: DaemonOptions, _: &str| options.set("kafka.delivery", "at_least_once");
    let habits = crate::workload::Habits::default();
    let mut stage =
        Stage::with("journalless", Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), habits, adapt).without_journal();
    let daemon = stage.start("one");
    stage.write();
    stage.wait_for_writers(200);
    let (code, report) = verify(&stage.options, &[]);
    assert_eq!((code, report["journal"].is_null()), (0, true), "{report:#}");
    stage.stop_writing();
    eventually("the table is drained", SOON, || stage.pending() == 0);
    drop(daemon);
    let again = "UPDATE outbox SET sent_at = NULL WHERE seq = (SELECT min(seq) FROM outbox) RETURNING topic";
    let topic = stage.postgres.sql(&stage.database, again).lines().next().unwrap().to_owned();
    let daemon = stage.start("one");
    eventually("it is published again", SOON, || stage.pending() == 0);
    drop(daemon);
    let (code, report) = verify(&stage.options, &["--topic", &topic]);
    let found = &report["topics"][0]["found"][0];
    assert_eq!((code, &found["kind"], &found["count"]), (0, &"duplicated".into(), &1.into()), "{report:#}");
    let forged = format!("INSERT INTO outbox (topic, key, payload, sent_at) VALUES ('{topic}', 'forged', '{{}}', now())");
    stage.postgres.sql(&stage.database, &forged);
    let (code, report) = verify(&stage.options, &[]);
    assert_eq!((code, wrong(&report)), (3, vec![format!("{topic} lost 1")]), "{report:#}");
}

/// Issue 6: a million events in at most a minute and 256 MiB.
#[test]
#[ignore = "takes a quiet machine and a minute: cargo test --locked --release --test live -- --ignored verified_million --nocapture"]
fn verified_million() {
    const EVENTS: u64 = 1_000_000;
    let stage = Stage::new("million", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    let topic = stage.topics.keys().find(|topic| topic.ends_with("-of-12")).unwrap();
    let fill = format!(
        "INSERT INTO outbox (topic, key, payload) SELECT '{topic}', 'order-' || n % 10000, \
         json_build_object('total', n, 'note', repeat('x', 270)) FROM generate_series(1, {EVENTS}) AS n"
    );
    stage.postgres.sql(&stage.database, &fill);
    stage.postgres.sql(&stage.database, "VACUUM ANALYZE outbox");
    answer(&stage.options, &["run", "--once"]);
    let start = Instant::now();
    let mut command = stage.options.command(&["verify", "--json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut peak_kib = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak_kib = peak_kib.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = start.elapsed();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{EVENTS} events verified in {:.1} s, peak RSS {} MiB", took.as_secs_f64(), peak_kib / 1_024);
    assert_eq!((output.status.code(), sum(&report, "published")), (Some(0), EVENTS), "{report:#}");
    assert!(took <= Duration::from_secs(60) && peak_kib <= 256 * 1_024);
}
