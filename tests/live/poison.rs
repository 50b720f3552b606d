//! Poison of every kind among good neighbours, under load, while the relay is killed again and again: in the end each event is published
//! once or was given up by a person, in order within each key, and those that nothing is wrong with never had to wait.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::stage::{Mark, Stage, answer, is_long};
use crate::support::{Daemon, Kafka, Postgres, Version, eventually, let_pass};
use crate::truth::{Fate, KIND, MARKER, Written};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(60);

/// `max.message.bytes` of the small topic.
const SMALL: usize = 20_000;
/// The same where nobody said anything.
const USUAL: usize = 1_048_588;

/// Rows that wait behind one event.
const DAM: i64 = 6_000;

/// Topics that may be published to: all but the forbidden one.
const ALLOWED: &str = "*-of-*,*-small,*-late,*-compacted";

/// What can be parked: code, and what must be true of each row that has it. (`encoding` takes a database without an encoding.)
const REASONS: [(&str, &str); 6] = [
    (
        "too_large",
        "coalesce(octet_length(o.key), 0) + octet_length(o.payload::text) > CASE WHEN o.topic LIKE '%-small' THEN {small} ELSE {usual} END",
    ),
    ("malformed_headers", "o.headers::text = '[7]'"),
    ("reserved_header", "o.headers::text LIKE '%outboxd-own%'"),
    ("topic_not_allowed", "o.topic LIKE '%-forbidden'"),
    ("topic_invalid", "o.topic = 'no topic'"),
    // only the broker tells, and of the whole batch
    ("invalid_record", "o.topic LIKE '%-compacted' AND o.key IS NULL"),
];

/// What is given up in the end; everything else is mended.
const BEYOND_HELP: [&str; 2] = ["reserved_header", "topic_invalid"];

fn event(topic: &str, key: &str, version: i64) -> Written {
    let (id, key) = (Uuid::new_v4(), Some(key.to_owned()));
    Written { id, topic: topic.into(), key, version, generation: 0, transaction: 7, writer: 99, filler: 10, fate: Fate::Committed }
}

/// Two events without a key among others, for a topic that refuses them and with them every batch that they are in; and one for a topic
/// that cannot be.
fn more_poison(compacted: &str, round: i64) -> Vec<Written> {
    let keyed = |n: i64| event(compacted, &format!("{MARKER}-{n}"), 10 * round + n);
    let without = |n: i64| Written { key: None, ..keyed(n) };
    vec![keyed(1), without(2), keyed(3), without(4), keyed(5), event("no topic", &format!("{MARKER}-none-{round}"), 1)]
}

/// Inserts events in one transaction; `first` are the headers of the first one, where they are to be refused.
async fn insert(stage: &Stage<'_>, events: &[Written], first: Option<&str>) {
    let mut connection = PgConnection::connect(&stage.postgres.url(&stage.database, "shop")).await.unwrap();
    let column = |get: fn(&Written) -> String| -> Vec<String> { events.iter().map(get).collect() };
    let mut headers = column(Written::headers);
    headers[0] = first.map_or_else(|| headers[0].clone(), str::to_owned);
    let rows = "INSERT INTO outbox (id, topic, key, type, payload, headers) \
        SELECT id, topic, key, $6, payload::json, headers::json FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) \
        WITH ORDINALITY AS r (id, topic, key, payload, headers, n) ORDER BY n";
    let query = sqlx::query(rows).bind(events.iter().map(|event| event.id).collect::<Vec<_>>());
    let query =
        query.bind(column(|event| event.topic.to_string())).bind(events.iter().map(|event| event.key.clone()).collect::<Vec<_>>());
    let query = query.bind(column(Written::payload)).bind(headers).bind(KIND);
    query.execute(&mut connection).await.unwrap();
}

/// Nothing that can go waits for long, whatever else waits.
fn nothing_starves(stage: &Stage<'_>) {
    let age =
        "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0) FROM outbox_pending WHERE reason = 'pending'";
    eventually("what can go has gone", SOON, || stage.postgres.sql(&stage.database, age).parse::<f64>().unwrap() < 3.0);
}

/// Each parked event is at fault itself, for the reason that is told.
fn only_culprits_are_parked(stage: &Stage<'_>) {
    let codes = stage.postgres.sql(&stage.database, "SELECT code, count(*) FROM outboxd_parked GROUP BY 1 ORDER BY 1");
    println!("parked: {}", codes.replace('\n', ", "));
    let found: BTreeSet<&str> = codes.lines().map(|line| line.split('|').next().unwrap()).collect();
    assert_eq!(found, REASONS.iter().map(|(code, _)| *code).collect::<BTreeSet<&str>>());
    for (code, condition) in REASONS {
        let condition = condition.replace("{small}", &SMALL.to_string()).replace("{usual}", &USUAL.to_string());
        let innocent = format!(
            "SELECT o.topic, o.key FROM outboxd_parked p JOIN outbox o USING (seq) WHERE p.code = '{code}' AND NOT ({condition})"
        );
        assert_eq!(stage.postgres.sql(&stage.database, &innocent), "", "parked for {code}");
    }
}

/// A person clears what is parked, reason by reason, until nothing is left; what waited behind one may be parked next.
fn clear(stage: &Stage<'_>) {
    eventually("everything is published or given up", 3 * SOON, || {
        nothing_starves(stage);
        let codes = stage.postgres.sql(&stage.database, "SELECT DISTINCT code FROM outboxd_parked");
        for code in codes.lines() {
            let decision = if BEYOND_HELP.contains(&code) { "discard" } else { "retry" };
            answer(&stage.options, &["parked", decision, "--code", code, "--reason", "cleared"]);
        }
        codes.is_empty() && stage.pending() == 0
    });
}

fn start(stage: &Stage<'_>, allowed: &str) -> Daemon {
    stage.options.clone().set("relay.instance", "one").set("kafka.allow_topics", allowed).start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn poison_of_every_kind_survives_kills_and_keeps_nobody_waiting() {
    let habits = Habits { events_per_second: 400.0, large_bytes: 2_000_000, spoilt_permille: 4, ..Habits::default() };
    let adapt = |options: crate::support::DaemonOptions, _: &str| options.set("relay.linger", "0ms");
    let mut stage = Stage::with("poisoned", Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), habits, adapt);
    let [small, late, forbidden, compacted] =
        ["small", "late", "forbidden", "compacted"].map(|kind| format!("{}-{kind}", stage.name));
    stage.kafka.create_topic(&small, 3, &[("max.message.bytes", &SMALL.to_string())]).await;
    stage.kafka.create_topic(&forbidden, 1, &[]).await;
    stage.kafka.create_topic(&compacted, 1, &[("cleanup.policy", "compact")]).await;
    let dam = format!("{MARKER}-dam");
    let of_one = format!("{}-of-1", stage.name);
    let mut own: Vec<Written> = (1..=DAM + 1).map(|version| event(&of_one, &dam, version)).collect();
    let long_key = format!("{MARKER}-{}", "k".repeat(100_000));
    own.extend([event(&of_one, &long_key, 1), event(&small, &long_key, 1)]);
    stage.topics.extend([(small.clone(), 3), (late.clone(), 3), (forbidden.clone(), 1)]);
    stage.postgres.sql(&stage.database, "INSERT INTO ledger VALUES (7)");
    insert(&stage, &own, Some("[7]")).await;
    stage.know(own);
    stage.write();
    // not among those that the writers draw from: each such event costs everybody two claims
    stage.topics.insert(compacted.clone(), 1);
    let kills = if is_long() { 200 } else { 22 };
    let mut daemon = start(&stage, ALLOWED);
    for kill in 1..=kills {
        // one half of the kills falls wherever it may, mostly into a claim; the other half behind one
        if kill % 2 == 0 {
            daemon.wait_log("\"claimed\"");
        }
        let_pass(Duration::from_millis(fastrand::u64(100..1200)));
        if kill % 7 == 0 {
            nothing_starves(&stage);
        }
        if kill % 5 == 0 {
            let more = more_poison(&compacted, kill.into());
            insert(&stage, &more, None).await;
            stage.know(more);
        }
        daemon.sigkill();
        if kill == kills / 2 {
            answer(&stage.options, &["migrate", "--topics", &format!("{late}:3")]);
        }
        daemon = start(&stage, ALLOWED);
    }
    nothing_starves(&stage);
    let blocked = "SELECT count(*) FROM outbox_pending WHERE reason = 'blocked'";
    let blocked: i64 = stage.postgres.sql(&stage.database, blocked).parse().unwrap();
    println!("{} committed, {} batches, {blocked} wait behind a parked one", stage.committed(), stage.applied());
    assert!(blocked >= DAM, "{blocked}");
    tokio::task::block_in_place(|| stage.stop_writing());
    nothing_starves(&stage);
    eventually("the late topic is let go", SOON, || {
        stage.postgres.sql(&stage.database, "SELECT count(*) FROM outboxd_held") == "0"
    });
    nothing_starves(&stage);
    only_culprits_are_parked(&stage);
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    drop(daemon);
    // mended: the headers that were no object, the limits, the pattern of topics
    let header = format!("'{{\"trace\": \"{MARKER}-' || (payload->>'transaction') || '\"}}'");
    stage.postgres.sql(
        &stage.database,
        &format!("UPDATE outbox SET headers = ({header})::json WHERE headers::text = '[7]' AND sent_at IS NULL"),
    );
    for topic in stage.topics.keys() {
        stage.kafka.alter_topic(topic, "max.message.bytes", "4000000").await;
    }
    let daemon = start(&stage, "*");
    clear(&stage);
    let given_up = stage.postgres.sql(&stage.database, "SELECT count(*) FROM outboxd_audit WHERE action = 'parked discard'");
    assert_ne!(given_up, "0");
    println!("{given_up} given up after {kills} kills");
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    tokio::task::block_in_place(|| stage.prove());
}
