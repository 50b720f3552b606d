//! Kafka goes away: restarted, dead for a while, one broker of three killed hard, cut off, frozen, single answers lost.

use std::time::{Duration, Instant};

use crate::stage::{Mark, Stage, is_long, status};
use crate::support::proxy::api_key;
use crate::support::{Daemon, DaemonOptions, Kafka, KafkaOptions, Postgres, Version, Weather, eventually, let_pass};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(45);

/// For servers that several JVMs share two cores with.
fn calm() -> Habits {
    Habits { events_per_second: 400.0, ..Habits::default() }
}

#[test]
fn kafka_restarts_and_is_gone_for_a_while() {
    let kafka = Kafka::start_one(KafkaOptions::default());
    assert!((0..4).any(|_| goes_on_after_restarts(&kafka)), "markers were lost each time");
}

/// Whether it could be seen: see [`goes_on`].
fn goes_on_after_restarts(kafka: &Kafka) -> bool {
    let mut stage = Stage::with("restarted", Mark::Row, Postgres::shared(Version::V18), kafka, calm(), |options, _| options);
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(20, SOON);
    let went_on = survives_restarts(kafka, &stage, &daemon);
    if went_on {
        stage.prove();
    } else {
        stage.stop_writing();
    }
    went_on
}

fn survives_restarts(kafka: &Kafka, stage: &Stage<'_>, daemon: &Daemon) -> bool {
    kafka.stop(0);
    kafka.start_again(0);
    if !goes_on(stage, daemon) {
        return false;
    }
    kafka.stop(0);
    let_pass(Duration::from_secs(if is_long() { 120 } else { 20 }));
    kafka.spawn_again(0);
    kafka.wait_ready(0, 1);
    let (answering, before) = (Instant::now(), daemon.metric("outboxd_batches_total"));
    eventually("it publishes again", SOON, || daemon.metric("outboxd_batches_total") > before || has_halted(daemon));
    let took = answering.elapsed();
    if !goes_on(stage, daemon) {
        return false;
    }
    println!("publishing again {took:?} after Kafka answers");
    assert!(took <= Duration::from_secs(15), "{took:?}");
    true
}

fn has_halted(daemon: &Daemon) -> bool {
    daemon.log().contains("\"message\":\"halted\"")
}

/// Whether the relay goes on after a restart. A broker that stands alone can lose markers of a transaction whose commit it has answered,
/// also when it was stopped in order: then readers never see the newest batch, and the relay has to halt and to say so.
fn goes_on(stage: &Stage<'_>, daemon: &Daemon) -> bool {
    let until = stage.applied() + 20;
    eventually("it goes on or halts", 2 * SOON, || stage.applied() >= until || has_halted(daemon));
    if !has_halted(daemon) {
        return true;
    }
    let (halt, newest) = (status(&stage.options)["halted"].to_string(), format!("batch {} ", stage.applied()));
    assert!(halt.contains("journal-blocked") || halt.contains("kafka-behind"), "{halt}");
    assert!(halt.contains(&newest), "{halt}");
    println!("Kafka lost markers of {newest}: {halt}");
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_broker_of_three_is_killed_hard() {
    let kafka = Kafka::start_three(KafkaOptions::default());
    let mut stage = Stage::with("three", Mark::Delete, Postgres::shared(Version::V15), &kafka, calm(), |options, _| {
        // Failing over takes a broker's session timeout and more.
        options.set("kafka.transaction_timeout", "10s").set("relay.lease", "3s")
    });
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(20, SOON);
    for _ in 0..if is_long() { 9 } else { 3 } {
        // In turn, by chance: the journal's leader, the leader of events, the transaction coordinator.
        let node = fastrand::usize(0..3);
        kafka.kill_hard(node);
        stage.wait_for_batches(5, SOON * 2);
        kafka.start_again(node);
        kafka.wait_ready(node, 3);
        stage.wait_for_batches(5, SOON * 2);
    }
    too_few_replicas_are_waited_for(&stage, &daemon).await;
    tokio::task::block_in_place(|| stage.prove());
}

/// One topic asks for a replica more than there are: an outage, which belongs to no event and to no topic. (More than a topic has in all
/// would be ignored: brokers take the smaller number.)
async fn too_few_replicas_are_waited_for(stage: &Stage<'_>, daemon: &Daemon) {
    let topic = format!("{}-of-12", stage.name);
    stage.kafka.alter_topic(&topic, "min.insync.replicas", "3").await;
    stage.kafka.kill_hard(0);
    let before = daemon.log().len();
    eventually("the outage is told", SOON * 2, || daemon.log()[before..].contains("OBX301"));
    let applied = stage.applied();
    let_pass(Duration::from_secs(5));
    assert!(stage.applied() <= applied + 1, "it goes on with too few replicas: {}", daemon.log());
    let aside = "SELECT (SELECT count(*) FROM outboxd_parked), (SELECT count(*) FROM outboxd_held)";
    assert_eq!(stage.postgres.sql(&stage.database, aside), "0|0");
    assert!(!daemon.log().contains("topic held") && !daemon.log().contains("\"parked\""), "{}", daemon.log());
    stage.kafka.start_again(0);
    stage.kafka.wait_ready(0, 3);
    stage.wait_for_batches(5, SOON * 2);
    stage.kafka.alter_topic(&topic, "min.insync.replicas", "2").await;
}

/// A stage whose relay reaches Kafka through proxies.
fn behind(name: &str, brokers: &str) -> Stage<'static> {
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    Stage::with(name, Mark::Row, postgres, kafka, Habits::default(), |options: DaemonOptions, _| {
        options.set("kafka.brokers", brokers)
    })
}

#[test]
fn the_network_to_kafka_is_cut_and_frozen() {
    let way = Kafka::shared().proxied();
    let mut stage = behind("cut", &way.brokers);
    stage.write();
    let _daemon = stage.start("one");
    stage.wait_for_batches(10, SOON);
    let network = &way.nodes[0];
    for _ in 0..5 {
        network.cut_once();
        let_pass(Duration::from_millis(fastrand::u64(200..900)));
    }
    stage.wait_for_batches(5, SOON);
    // The last one outlives the transaction timeout of 4 s, and the lease three times.
    for (weather, seconds) in [(Weather::Cut, 3), (Weather::Freeze, 2), (Weather::DropAnswers, 3), (Weather::Freeze, 9)] {
        network.set(weather);
        let_pass(Duration::from_secs(seconds));
        network.set(Weather::Pass);
        stage.wait_for_batches(5, SOON);
    }
    stage.prove();
}

#[test]
fn answers_to_a_commit_are_lost() {
    let way = Kafka::shared().proxied();
    let mut stage = behind("unanswered", &way.brokers);
    stage.write();
    let daemon = stage.start("one");
    let claims = || daemon.metric("outboxd_claims_total");
    for _ in 0..3 {
        stage.wait_for_batches(10, SOON);
        let before = claims();
        let lost = way.nodes[0].lose_answer(api_key::END_TXN);
        lost.wait_caught(SOON);
        let_pass(Duration::from_millis(300));
        // The library never hears of it; then the connection goes too.
        way.nodes[0].cut_once();
        eventually("a commit in doubt, or a late one, makes a claim", SOON, || claims() > before);
    }
    stage.wait_for_batches(10, SOON);
    assert!(claims() >= 1.0 + 3.0, "one at the start and one a loss: {}", claims());
    stage.prove();
}

#[test]
fn a_commit_that_arrives_late_ends_no_later_transaction() {
    let way = Kafka::shared().proxied();
    let mut stage = behind("late", &way.brokers);
    stage.write();
    let daemon = stage.start("one");
    let claims = || daemon.metric("outboxd_claims_total");
    for _ in 0..3 {
        stage.wait_for_batches(10, SOON);
        let before = claims();
        // KAFKA-17754: the library sends the commit again on a new connection; the first one reaches the broker later.
        let held = way.nodes[0].hold_request(api_key::END_TXN);
        held.wait_caught(SOON);
        held.cut_client();
        let until = Instant::now() + Duration::from_secs(4);
        stage.wait_for_batches(2, SOON);
        let_pass(until.saturating_duration_since(Instant::now()) / 2);
        held.release();
        eventually("a late commit makes a new producer", SOON, || claims() > before);
    }
    stage.wait_for_batches(10, SOON);
    assert!(claims() >= 1.0 + 3.0, "one at the start and one a late commit: {}", claims());
    stage.prove();
}

#[tokio::test]
async fn where_the_broker_creates_topics_the_relay_creates_none() {
    let kafka = Kafka::start_one(KafkaOptions { auto_create_topics: true, ..KafkaOptions::default() });
    let mut stage = Stage::with("creating", Mark::Row, Postgres::shared(Version::V15), &kafka, calm(), |options, _| options);
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    let insert = "INSERT INTO outbox (topic, key, payload) VALUES ('nowhere', 'k', '{}')";
    stage.postgres.sql(&stage.database, insert);
    daemon.wait_log("topic held");
    let_pass(Duration::from_secs(3));
    assert!(!kafka.topics().contains(&"nowhere".to_owned()), "{:?}", kafka.topics());
    assert!(daemon.is_running(), "{}", daemon.log());
    kafka.create_topic("nowhere", 2, &[]).await;
    eventually("it is published when the topic is there", SOON, || stage.pending() == 0);
    assert_eq!(crate::history::read(&kafka, "nowhere", 2).len(), 1);
    let mut topics: Vec<String> = stage.topics.keys().cloned().chain([stage.journal(), "nowhere".into()]).collect();
    topics.sort();
    let mut found = kafka.topics();
    found.sort();
    assert_eq!(found, topics);
    stage.topics.clear();
}
