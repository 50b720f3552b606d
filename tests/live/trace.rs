//! `outboxd trace` names the stage at which an event is stopped, whatever stops it, with and without a relay.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::history;
use crate::stage::{Mark, Stage, answer};
use crate::support::proxy::api_key;
use crate::support::{Kafka, Postgres, Version, eventually};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(30);

/// Exit code and life of an event.
fn trace(stage: &Stage<'_>, arguments: &[&str]) -> (i32, Value) {
    let options = stage.options.clone().set("kafka.brokers", &stage.kafka.brokers());
    let (code, stdout, stderr) = options.run_command(&[&["trace", "--json"], arguments].concat());
    (code, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("exit code {code}: {stdout}{stderr}")))
}

/// Waits until the event is there.
#[track_caller]
fn stage_of(stage: &Stage<'_>, id: &str, expected: &str) -> Value {
    let mut last = Value::Null;
    eventually(&format!("{id} is {expected}"), SOON, || {
        last = trace(stage, &[id]).1;
        last["stage"] == expected
    });
    last
}

/// Inserts an event as a service does; returns its id.
fn send(stage: &Stage<'_>, topic: &str, key: &str, headers: &str) -> String {
    let id = Uuid::new_v4();
    let insert =
        format!("INSERT INTO outbox (id, topic, key, payload, headers) VALUES ('{id}', '{topic}', '{key}', '{{}}', '{headers}')");
    stage.postgres.sql(&stage.database, &insert);
    id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_event_that_waits_is_told_with_what_it_waits_for() {
    let stage = Stage::new("waiting", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    let topic = stage.topics.keys().next().unwrap().clone();
    let id = Uuid::new_v4().to_string();
    let (code, life) = trace(&stage, &[&id]);
    assert_eq!((code, &life["stage"]), (3, &"unknown".into()), "{life}");
    let mut writer = PgConnection::connect(&stage.postgres.url(&stage.database, "shop")).await.unwrap();
    let insert = format!("BEGIN; INSERT INTO outbox (id, topic, key, payload) VALUES ('{id}', '{topic}', 'k', '{{}}')");
    writer.execute(sqlx::raw_sql(AssertSqlSafe(insert))).await.unwrap();
    tokio::task::block_in_place(|| {
        let life = stage_of(&stage, &id, "uncommitted");
        assert!(life["open_writers"][0]["pid"].is_number(), "{life}");
    });
    writer.execute("COMMIT").await.unwrap();
    tokio::task::block_in_place(|| {
        let life = stage_of(&stage, &id, "pending");
        assert_eq!((&life["standstill"], &life["row"]["key"]), (&"no relay holds the lease".into(), &"k".into()), "{life}");
        let daemon = stage.start("one");
        stage_of(&stage, &id, "published");
        let culprit = send(&stage, &topic, "poison", "[7]");
        let life = stage_of(&stage, &culprit, "parked");
        assert_eq!(life["row"]["waits"]["code"], "malformed_headers", "{life}");
        let behind = send(&stage, &topic, "poison", "{}");
        let life = stage_of(&stage, &behind, "blocked");
        assert_eq!(life["row"]["waits"]["behind_id"], Value::from(culprit.as_str()), "{life}");
        let nowhere = send(&stage, &format!("{}-missing", stage.name), "k", "{}");
        let life = stage_of(&stage, &nowhere, "held");
        assert_eq!(life["row"]["waits"]["code"], "topic_missing", "{life}");
        answer(&stage.options, &["parked", "discard", &culprit, "--reason", "a test"]);
        stage_of(&stage, &culprit, "discarded");
        stage_of(&stage, &behind, "published");
        drop(daemon);
        let (code, lives) = trace(&stage, &["--key", "poison"]);
        let stages: Vec<&str> = lives["events"].as_array().unwrap().iter().map(|life| life["stage"].as_str().unwrap()).collect();
        assert_eq!((code, stages), (0, vec!["published", "discarded"]), "{lives}");
    });
}

#[test]
fn an_event_in_flight_is_told_from_a_published_and_a_consumed_one() {
    let way = Kafka::shared().proxied();
    let brokers = way.brokers.clone();
    let adapt = move |options: crate::support::DaemonOptions, _: &str| options.set("kafka.brokers", &brokers);
    let stage = Stage::with("in-flight", Mark::Row, Postgres::shared(Version::V15), Kafka::shared(), Habits::default(), adapt);
    let (topic, partitions) = stage.topics.iter().next_back().map(|(topic, count)| (topic.clone(), *count)).unwrap();
    let daemon = stage.start("one");
    let first = send(&stage, &topic, "k", "{}");
    stage_of(&stage, &first, "published");
    let held = way.nodes[0].hold_request(api_key::END_TXN);
    let id = send(&stage, &topic, "k", "{}");
    held.wait_caught(SOON);
    let life = stage_of(&stage, &id, "in_flight");
    assert!(life["in_flight"].as_str().unwrap().starts_with(&format!("{topic}-")), "{life}");
    held.release();
    stage_of(&stage, &id, "published");
    eventually("it is marked", SOON, || stage.pending() == 0);
    drop(daemon);
    let (code, life) = trace(&stage, &[&id]);
    let published = &life["published"];
    assert_eq!((code, &life["read_back"], &published["topic"]), (0, &"equal".into(), &topic.as_str().into()), "{life}");
    assert_eq!(published["key_hash"].as_i64().unwrap() % i64::from(partitions), published["partition"].as_i64().unwrap(), "{life}");
    assert!(life["groups"].as_array().unwrap().is_empty() && life["row"]["marked_at"].is_string(), "{life}");
    let seen = history::read(stage.kafka, &topic, partitions);
    let at = seen.iter().find(|record| record.id().is_some_and(|found| found.to_string() == id)).unwrap();
    assert_eq!((published["partition"].as_i64(), published["offset"].as_i64()), (Some(at.partition.into()), Some(at.offset)));
    // by its place, and of two groups one that has passed it and one that has not
    commit(&stage, "quick", &topic, at.partition, at.offset + 1);
    commit(&stage, "slow", &topic, at.partition, at.offset);
    let (code, life) = trace(&stage, &[&format!("{topic}:{}:{}", at.partition, at.offset)]);
    assert_eq!((code, &life["stage"], &life["row"]["id"]), (0, &"consumed".into(), &id.as_str().into()), "{life}");
    let groups = life["groups"].as_array().unwrap();
    let told: Vec<_> =
        groups.iter().map(|group| (group["passed"].as_bool().unwrap(), group["behind_events"].as_u64().unwrap())).collect();
    assert_eq!(told, [(true, 0), (false, 1)], "{life}");
    // its record is another one than the row says
    stage.postgres.sql(&stage.database, &format!("UPDATE outbox SET payload = '7' WHERE id = '{id}'"));
    let (code, life) = trace(&stage, &[&id]);
    assert_eq!((code, &life["stage"], &life["read_back"]), (3, &"vanished".into(), &"different".into()), "{life}");
    // and without a row the journal still knows it
    stage.postgres.sql(&stage.database, "DELETE FROM outbox");
    let (code, life) = trace(&stage, &[&id]);
    assert_eq!((code, &life["stage"], &life["read_back"]), (0, &"consumed".into(), &"same_id".into()), "{life}");
}

/// Somebody's transaction keeps readers from what comes after it; the relay and its journal do not notice.
#[test]
fn what_readers_cannot_see_for_somebodys_open_transaction_is_hidden_and_not_lost() {
    let stage = Stage::new("unseen", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    let topic = format!("{}-of-1", stage.name);
    let daemon = stage.start("one");
    let before = send(&stage, &topic, "k", "{}");
    stage_of(&stage, &before, "published");
    let mut config = stage.kafka.client();
    config.set("transactional.id", format!("{}-somebody", stage.name)).set("transaction.timeout.ms", "120000");
    let somebody: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
    somebody.init_transactions(SOON).unwrap();
    somebody.begin_transaction().unwrap();
    somebody.send(BaseRecord::<(), str>::to(&topic).partition(0).payload("open")).map_err(|(error, _)| error).unwrap();
    somebody.flush(SOON).unwrap();
    let behind = send(&stage, &topic, "k", "{}");
    eventually("it is marked", SOON, || stage.pending() == 0);
    let (code, life) = trace(&stage, &[&behind]);
    assert_eq!((code, &life["stage"], &life["read_back"]), (0, &"hidden".into(), &"hidden".into()), "{life}");
    assert_eq!(trace(&stage, &[&before]).1["stage"], "published");
    let (code, lives) = trace(&stage, &["--key", "k"]);
    let stages: Vec<&str> = lives["events"].as_array().unwrap().iter().map(|life| life["stage"].as_str().unwrap()).collect();
    assert_eq!((code, stages), (0, vec!["hidden", "published"]), "{lives}");
    // another record than the row says is none that comes into sight
    stage.postgres.sql(&stage.database, &format!("UPDATE outbox SET payload = '7' WHERE id = '{behind}'"));
    assert_eq!(trace(&stage, &[&behind]).1["stage"], "vanished");
    stage.postgres.sql(&stage.database, &format!("UPDATE outbox SET payload = '{{}}' WHERE id = '{behind}'"));
    somebody.abort_transaction(SOON).unwrap();
    stage_of(&stage, &behind, "published");
    drop(daemon);
}

/// Has a group of this outbox commit its position.
fn commit(stage: &Stage<'_>, group: &str, topic: &str, partition: i32, next: i64) {
    let mut config = stage.kafka.client();
    let consumer: BaseConsumer = config.set("group.id", format!("{}-{group}", stage.name)).create().unwrap();
    let mut places = TopicPartitionList::new();
    places.add_partition_offset(topic, partition, Offset::Offset(next)).unwrap();
    consumer.commit(&places, CommitMode::Sync).unwrap();
}
