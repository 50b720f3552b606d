//! A Kafka that lets go of what it should keep: by a retention that nobody asked for, or against its word.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::history;
use crate::stage::{Mark, Stage, answer, is_long, status};
use crate::support::{Daemon, Kafka, KafkaOptions, Postgres, Version, eventually};

const SOON: Duration = Duration::from_secs(60);

/// A broker that lets go of old records at once.
fn forgetful() -> Kafka {
    let settings = vec![
        ("log.retention.check.interval.ms", "300"),
        ("log.initial.task.delay.ms", "300"),
        ("log.segment.delete.delay.ms", "100"),
    ];
    Kafka::start_one(KafkaOptions { settings, ..KafkaOptions::default() })
}

fn insert(stage: &Stage<'_>, topic: &str, count: u32) {
    let sql = format!("SELECT '{topic}', 'k', n::text::json FROM generate_series(1, {count}) n");
    stage.postgres.sql(&stage.database, &format!("INSERT INTO outbox (topic, key, payload) {sql}"));
    eventually("they are published", SOON, || stage.pending() == 0);
}

/// First offset and end of a partition.
fn bounds(kafka: &Kafka, topic: &str) -> (i64, i64) {
    let consumer: BaseConsumer = kafka.client().create().unwrap();
    consumer.fetch_watermarks(topic, 0, SOON).unwrap()
}

fn claimed(stage: &Stage<'_>) -> Daemon {
    let daemon = stage.start("one");
    daemon.wait_log("\"claimed\"");
    daemon
}

/// One broker for both: what is trimmed by its retention must not look like what is lost.
#[tokio::test]
async fn what_a_retention_deletes_is_no_loss_and_what_is_lost_raises_the_alarm() {
    let kafka = forgetful();
    let stage = Stage::new("losses", Mark::Row, Postgres::shared(Version::V18), &kafka);
    let (topic, journal) = (format!("{}-of-1", stage.name), stage.journal());
    for (topic, retention) in [(&journal, "6000"), (&topic, "1000")] {
        kafka.configure_topic(topic, &[("retention.ms", retention), ("segment.ms", "500")]).await;
    }
    let daemon = claimed(&stage);
    insert(&stage, &topic, 100);
    // idle: without records that have no events, the journal would be empty in the end
    eventually("the journal's first records are gone", SOON, || bounds(&kafka, &journal).0 >= 2);
    answer(&stage.options, &["pause", "--reason", "a long pause"]);
    daemon.wait_log("paused");
    let second = bounds(&kafka, &journal).1;
    eventually("more of its records are gone", SOON, || bounds(&kafka, &journal).0 > second);
    answer(&stage.options, &["resume", "--reason", "over"]);
    insert(&stage, &topic, 10);
    eventually("the topic's first records are gone", SOON, || bounds(&kafka, &topic).0 > 100);
    drop(daemon);
    let daemon = claimed(&stage);
    insert(&stage, &topic, 10);
    assert_eq!(
        (status(&stage.options)["alarms"].as_array().map(Vec::len), &status(&stage.options)["halted"]),
        (Some(0), &serde_json::Value::Null)
    );
    // now it breaks its word
    kafka.alter_topic(&journal, "retention.ms", "-1").await;
    kafka.alter_topic(&topic, "retention.ms", "-1").await;
    insert(&stage, &topic, 50);
    drop(daemon);
    kafka.stop(0);
    kafka.lose_records(0, &topic, 0);
    kafka.start_again(0);
    let daemon = claimed(&stage);
    insert(&stage, &topic, 5);
    daemon.wait_log("OBX306");
    assert_eq!(history::read(&kafka, &topic, 1).len(), 5, "it goes on, and publishes nothing again");
    let alarm = &status(&stage.options)["alarms"][0];
    assert_eq!((&alarm["code"], &alarm["topic"]), (&"events-truncated".into(), &topic.clone().into()));
    assert_eq!(daemon.metric("outboxd_truncated_topics"), 1.0);
    insert(&stage, &topic, 5);
    assert_eq!(daemon.log().matches("OBX306").count(), 1, "it is told once");
    drop(daemon);
    let daemon = claimed(&stage);
    insert(&stage, &topic, 5);
    assert_eq!(
        (daemon.metric("outboxd_truncated_topics"), daemon.log().matches("OBX306").count()),
        (1.0, 0),
        "it stands until it is accepted"
    );
    assert!(answer(&stage.options, &["repin", &topic, "--reason", "sent again"]).contains("events-truncated"));
    insert(&stage, &topic, 5);
    eventually("the alarm is over", SOON, || daemon.metric("outboxd_truncated_topics") == 0.0);
    assert_eq!(status(&stage.options)["alarms"], serde_json::json!([]));
    if is_long() {
        the_journal_is_brought_back_as_it_was(&kafka, &stage, &topic, &daemon);
    }
}

/// The first way out of kafka-behind: nothing is adopted, and nothing comes twice.
fn the_journal_is_brought_back_as_it_was(kafka: &Kafka, stage: &Stage<'_>, topic: &str, daemon: &Daemon) {
    let (journal, published) = (stage.journal(), history::read(kafka, topic, 1).len());
    kafka.stop(0);
    let copy = kafka.copy_records(0, &journal, 0);
    kafka.lose_records(0, &journal, 0);
    kafka.start_again(0);
    stage.postgres.sql(&stage.database, &format!("INSERT INTO outbox (topic, key, payload) VALUES ('{topic}', 'k', '7')"));
    stage.wait_halted(daemon, "kafka-behind");
    kafka.stop(0);
    kafka.put_records_back(0, &journal, 0, &copy);
    kafka.start_again(0);
    eventually("it goes on by itself", SOON, || stage.pending() == 0);
    assert_eq!(history::read(kafka, topic, 1).len(), published + 1);
}
