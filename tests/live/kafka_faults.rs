//! The Kafka sink while brokers die, clocks run out and callers leave.

use std::time::{Duration, Instant};

use outboxd::config::Brokers;
use outboxd::fault::{Fault, HaltCode};
use outboxd::journal::{Applied, Checksum, History, Record};
use outboxd::sink::{Commit, Publisher, Sink};
use outboxd::source::{Pin, Pins};
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::producer::Producer;

use crate::kafka_world::{KafkaWorld, SOON};
use crate::sink_conformance::{self as suite, SinkWorld, batch, publish, published};
use crate::support::kafka::Proxied;
use crate::support::proxy::api_key;
use crate::support::{Kafka, KafkaOptions, Weather};

/// A world behind a proxy of its own.
async fn proxied() -> (KafkaWorld, Proxied) {
    let mut world = KafkaWorld::new().await;
    let way = world.kafka.proxied();
    world.settings.kafka.brokers = Brokers(vec![way.brokers.clone()]);
    (world, way)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_sent_twice_cannot_end_the_next_transaction() {
    let (world, way) = proxied().await;
    let topic = world.topic().await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    published(&mut publisher, &batch(&topic, 1, 5)).await;
    let first_request = way.nodes[0].hold_request(api_key::END_TXN);
    let (events, pins) = (batch(&topic, 6, 9), Pins::from([(topic.clone(), Pin::of(suite::PARTITIONS))]));
    suite::inspect(&mut publisher, &events, &pins).await.expect("fit");
    let (late, ()) = tokio::join!(publisher.publish(events, &pins), async {
        tokio::task::block_in_place(|| first_request.wait_caught(SOON));
        first_request.cut_client();
    });
    let late = late.expect("a published batch");
    assert_eq!(late.commit(), Commit::Late);
    // The next batch is sent, all of it, and then the old request arrives.
    let record_of_the_next = way.nodes[0].hold_request(api_key::END_TXN);
    let events = batch(&topic, 10, 15);
    suite::inspect(&mut publisher, &events, &pins).await.expect("fit");
    let (next, ()) = tokio::join!(publisher.publish(events, &pins), async {
        tokio::task::block_in_place(|| record_of_the_next.wait_caught(SOON));
        first_request.release();
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(200)));
        assert_eq!(world.read(&topic).await.len(), 9, "the old request ended nothing");
        record_of_the_next.release();
    });
    let next = next.expect("a published batch");
    let (late, next) = (late.journalled().unwrap(), next.journalled().unwrap());
    assert_eq!((late.n, next.n, next.offset), (2, 3, late.offset + 2));
    assert_eq!(world.read(&topic).await.len(), 15);
    assert_eq!(world.journal().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_the_commit_is_decided_by_the_journal() {
    let (world, way) = proxied().await;
    let topic = world.topic().await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    let first = published(&mut publisher, &batch(&topic, 1, 5)).await;
    let answer = way.nodes[0].hold_answer(api_key::END_TXN);
    let events = batch(&topic, 6, 9);
    let outcome = tokio::time::timeout(Duration::from_secs(3), publish(&mut publisher, &events)).await;
    assert!(answer.is_caught() && outcome.is_err(), "the answer is held, so nobody knows yet");
    assert!(publish(&mut publisher, &events).await.is_err(), "a publisher whose future was dropped is of no use");
    drop((publisher, answer));
    let (_, view, mut history) = suite::claim_from(&world, 2, first).await.expect("a claim");
    assert_eq!(view.last.n, 2);
    assert_eq!(history.next().await.unwrap().map(|(record, _)| record.entries.len()), Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_cluster_is_an_outage_and_never_a_verdict() {
    let (world, way) = proxied().await;
    let topic = world.topic().await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    let first = published(&mut publisher, &batch(&topic, 1, 5)).await;
    let sink = world.sink();
    way.nodes[0].set(Weather::Cut);
    let started = Instant::now();
    let events = batch(&topic, 6, 9);
    let (look, fence, batch) = tokio::join!(sink.look(suite::OUTBOX, first), sink.fence(), publish(&mut publisher, &events));
    for fault in [look.map(drop).unwrap_err(), fence.map(drop).unwrap_err(), batch.map(drop).unwrap_err()] {
        assert!(matches!(fault, Fault::Unavailable { .. }), "{fault}");
        println!("{fault}");
    }
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    way.nodes[0].set(Weather::Pass);
    let (mut publisher, view, _) = suite::claim_from(&world, 2, first).await.expect("a claim");
    assert_eq!(view.last.n, 1);
    assert_eq!(published(&mut publisher, &events).await.n, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_leaves_nothing_behind() {
    let (world, way) = proxied().await;
    let topic = world.topic().await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    let first = published(&mut publisher, &batch(&topic, 1, 5)).await;
    way.nodes[0].set(Weather::Freeze);
    let sink = world.sink();
    let events = batch(&topic, 6, 9);
    let left = Duration::from_millis(300);
    let started = Instant::now();
    let look = tokio::time::timeout(left, sink.look(suite::OUTBOX, first)).await;
    let fence = tokio::time::timeout(left, sink.fence()).await;
    let publish_it = tokio::time::timeout(left, publish(&mut publisher, &events)).await;
    drop(publisher);
    assert!(look.is_err() && fence.is_err() && publish_it.is_err());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    way.nodes[0].set(Weather::Pass);
    let (mut publisher, view, _) = suite::claim_from(&world, 2, first).await.expect("a claim");
    assert_eq!(view.last.n, 1);
    assert_eq!(published(&mut publisher, &events).await.n, 2);
    assert_eq!(world.read(&topic).await.len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_was_raised_is_noticed_before_an_event_is_poison() {
    let world = KafkaWorld::new().await;
    let topic = world.topic().await;
    let sink = world.sink();
    let large = suite::batch_of(&topic, 2, 2, |_| Some("k".repeat(2_000_000)));
    let (mut publisher, ..) = recover(&sink, 1, Applied::default()).await.expect("a claim");
    published(&mut publisher, &batch(&topic, 1, 1)).await;
    let raised = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "3000000");
    world.kafka.admin().alter_configs([&raised], &AdminOptions::new()).await.unwrap().pop().unwrap().unwrap();
    published(&mut publisher, &large).await;
}

async fn recover<S: Sink>(sink: &S, epoch: u64, base: Applied) -> Result<suite::Claim<S>, Fault> {
    use outboxd::sink::Fenced;
    sink.fence().await?.recover(suite::writer(epoch), base).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_of_our_own_is_named() {
    let world = KafkaWorld::new().await;
    let record = Record { writer: suite::writer(7), n: 1, previous: Checksum(0), topics: vec![], entries: vec![] };
    // Its markers are lost, as it were: nobody else ends it.
    let producer = world.producer(&world.kafka.unique_topic("lost"));
    world.send_open(&producer, &[(world.sink().journal_topic(), &record.encode().0)]);
    let Err(Fault::Unsafe(halt)) = suite::claim_from(&world, 8, Applied::default()).await.map(drop) else { panic!("no halt") };
    assert_eq!(halt.code, HaltCode::JournalBlocked);
    assert!(halt.evidence.contains("batch 1 of this outbox, written by relay-7"), "{halt}");
}

/// A commit is answered before its markers are written: the batch may be marked while nobody can see its record yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_applied_record_that_cannot_be_seen_yet_is_waited_for() {
    let world = KafkaWorld::new().await;
    let record = Record { writer: suite::writer(7), n: 1, previous: Checksum(0), topics: vec![], entries: vec![] };
    let (bytes, checksum) = record.encode();
    let base = Applied { n: 1, offset: 0, checksum };
    let producer = world.producer(&world.kafka.unique_topic("slow"));
    world.send_open(&producer, &[(world.sink().journal_topic(), &bytes)]);
    let sink = world.sink();
    let early = tokio::time::timeout(Duration::from_secs(3), sink.look(suite::OUTBOX, base)).await;
    assert!(early.is_err(), "neither a halt nor a view before it can be seen: {early:?}");
    let Err(Fault::Unsafe(halt)) = sink.look(suite::OUTBOX, base).await else { panic!("no halt") };
    assert_eq!(halt.code, HaltCode::JournalBlocked, "{halt}");
    assert!(halt.evidence.contains("batch 1 of this outbox, written by relay-7"), "{halt}");
    let beyond = Applied { offset: 7, ..base };
    let Err(Fault::Unsafe(halt)) = sink.look(suite::OUTBOX, beyond).await else { panic!("no halt") };
    assert_eq!(halt.code, HaltCode::KafkaBehind, "what the journal does not reach is not waited for");
    producer.commit_transaction(SOON).unwrap();
    assert_eq!(sink.look(suite::OUTBOX, base).await.expect("a view").last, base);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_brokers_cost_time_and_nothing_else() {
    let kafka: &'static Kafka = Box::leak(Box::new(Kafka::start_three(KafkaOptions::default())));
    let world = KafkaWorld::on(kafka).await;
    let (topic, strict) = (world.topic().await, kafka.unique_topic("strict"));
    kafka.create_topic(&strict, 2, &[("min.insync.replicas", "3")]).await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    let mut last = published(&mut publisher, &batch(&topic, 1, 50)).await;
    let node = kafka.leader(world.sink().journal_topic(), 0);
    kafka.kill_hard(node);
    // Whatever the sink says of the batch that was under way, the journal knows, and a claim goes on. (Seen: "the journal moved by
    // one", because the coordinator writes the last marker again to the new leader.)
    let mut next = 51;
    for epoch in 2.. {
        match publish(&mut publisher, &batch(&topic, next, next + 49)).await {
            Ok(done) => last = done.journalled().expect("a record"),
            Err(fault) => println!("{:?}", fault.to_string()),
        }
        (publisher, last) = claim_patiently(&world, epoch, last).await;
        next = 1 + 50 * i64::try_from(last.n).unwrap();
        if last.n >= 4 {
            break;
        }
    }
    // One of three is down, and this topic wants all three: its transaction cannot end, and no claim either, until it is back.
    let sick = publish(&mut publisher, &batch(&strict, 1_000, 1_005)).await.map(drop).expect_err("a fault");
    assert!(matches!(&sick, Fault::Unavailable { .. }) && sick.to_string().contains("2 of 3 replicas in sync"), "{sick}");
    let sink = world.sink();
    assert!(tokio::time::timeout(Duration::from_secs(5), sink.fence()).await.is_err(), "the sick partition holds the fence up");
    kafka.spawn_again(node);
    let (mut publisher, last) = claim_patiently(&world, 100, last).await;
    assert_eq!(published(&mut publisher, &batch(&strict, 1_000, 1_005)).await.n, last.n + 1);
    assert_eq!((world.read(&topic).await.len(), world.read(&strict).await.len()), (200, 6));
}

/// Claims until it succeeds, as the relay does; gives the last batch of the journal.
async fn claim_patiently(
    world: &KafkaWorld,
    epoch: u64,
    base: Applied,
) -> (<<KafkaSinkOf as Sink>::Fenced as outboxd::sink::Fenced>::Publisher, Applied) {
    let started = Instant::now();
    loop {
        match suite::claim_from(world, epoch, base).await {
            Ok((publisher, view, _)) => return (publisher, view.last),
            Err(fault @ Fault::Unsafe(_)) => panic!("{fault}"),
            Err(fault) => println!("claim: {fault}"),
        }
        assert!(started.elapsed() < Duration::from_secs(120));
    }
}

type KafkaSinkOf = outboxd::sink::kafka::KafkaSink;
