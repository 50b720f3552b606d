//! Kafka passes what every log must pass, and what only a real one can be asked.

use std::sync::Arc;
use std::time::Duration;

use outboxd::config::Delivery;
use outboxd::event::{Batch, BatchBuilder, BatchLimits, Event, Fingerprint, Pushed};
use outboxd::fault::{Fault, HaltCode};
use outboxd::journal::{Applied, Checksum, Entry, History, Record};
use outboxd::sink::kafka::Created;
use outboxd::sink::{Commit, Fenced, Publisher, Sink};
use outboxd::source::{Pin, Pins};
use rdkafka::Message;
use rdkafka::message::Headers;
use rdkafka::producer::Producer;

use crate::kafka_world::{KafkaWorld, SOON};
use crate::sink_conformance::{self as suite, SinkWorld, batch, publish, published};
use crate::support::{Kafka, KafkaOptions, let_pass};

macro_rules! run {
    ($name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            suite::$name(KafkaWorld::new().await).await;
        }
    };
}
suite::each!(run);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_halts() {
    suite::a_damaged_journal_halts(KafkaWorld::new().await, KafkaWorld::new).await;
}

// What only a real Kafka can be asked.

fn one_event<'a>(topic: &'a str, change: impl FnOnce(&mut Event<'a>)) -> Arc<Batch> {
    let (id, created_at_us) = (suite::id(1).into(), Some(1_700_000_000_000_000));
    let payload = Some(&b"payload"[..]);
    let mut event = Event { seq: 1, id, topic, key: None, kind: "Placed", source: None, payload, headers: None, created_at_us };
    change(&mut event);
    let mut builder = BatchBuilder::new(BatchLimits { events: 1, bytes: 1 });
    assert_eq!(builder.push(&event), Pushed::Kept);
    Arc::new(builder.build().expect("one event"))
}

/// Publishes and gives the short code of the fault.
async fn refused(publisher: &mut impl Publisher, events: &Arc<Batch>) -> (Fault, &'static str) {
    let fault = publish(publisher, events).await.map(drop).expect_err("a fault");
    let label = fault.label();
    (fault, label)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_what_the_contract_says() {
    let mut world = KafkaWorld::new().await;
    world.settings.source = Some("configured".to_owned());
    let topic = world.kafka.unique_topic("events");
    world.kafka.create_topic(&topic, 12, &[]).await;
    let sink = world.sink();
    let (mut publisher, ..) = sink.fence().await.unwrap().recover(suite::writer(1), Applied::default()).await.unwrap();
    let own = br#"{"traceparent": "00-ab", "id": "mine", "none": null, "n": 1.50}"#;
    let full = one_event(&topic, |event| {
        (event.key, event.payload, event.headers) = (Some(&b"foobar"[..]), Some(&b""[..]), Some(&own[..]));
    });
    published(&mut publisher, &full).await;
    published(&mut publisher, &one_event(&topic, |event| (event.seq, event.kind, event.payload) = (2, "", None))).await;
    let mut seen = Vec::new();
    world.each_record(&topic, 12, |message| {
        let headers = message.headers().unwrap().iter();
        let headers: Vec<_> =
            headers.map(|h| format!("{}={}", h.key, h.value.map_or("-".into(), String::from_utf8_lossy))).collect();
        seen.push((message.partition(), message.payload().map(<[u8]>::len), headers));
    });
    seen.sort_by_key(|(_, payload, _)| payload.is_none());
    let id = format!("id={}", suite::id(1));
    let time = "time=2023-11-14T22:13:20.000000Z";
    let all = [&*id, "type=Placed", "source=configured", time, "traceparent=00-ab", "none=-", "n=1.50"];
    // The Java client puts "foobar" there: (-790332482 & 0x7fffffff) % 12.
    assert_eq!(seen[0], (6, Some(0), all.map(str::to_owned).to_vec()));
    assert_eq!((seen[1].1, &seen[1].2[1..]), (None, &["source=configured".to_owned(), time.to_owned()][..]));
    assert_eq!(sink.overruled_headers(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_topics_are_named_and_not_created() {
    let kafka: &'static Kafka =
        Box::leak(Box::new(Kafka::start_one(KafkaOptions { auto_create_topics: true, ..KafkaOptions::default() })));
    let world = KafkaWorld::without_journal(kafka);
    let sink = world.sink();
    let unborn = sink.look(suite::OUTBOX, Applied::default()).await.map(drop).expect_err("no journal");
    assert_eq!(unborn.label(), "journal_missing");
    let marked = Applied { n: 1, offset: 0, checksum: Checksum(1) };
    let lost = sink.look(suite::OUTBOX, marked).await.map(drop).expect_err("no journal");
    assert!(matches!(&lost, Fault::Unsafe(halt) if halt.code == HaltCode::KafkaBehind), "{lost}");
    sink.create(&sink.plan_journal(100).await.unwrap()).await.unwrap();
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    let (fault, label) = refused(&mut publisher, &batch("nowhere", 1, 3)).await;
    assert_eq!(label, "topic_missing");
    assert!(fault.to_string().contains("outboxd migrate --topics nowhere:"), "{fault}");
    let (mut publisher, ..) = suite::claim(&world, 2).await;
    let (_, label) = refused(&mut publisher, &batch("__kept", 1, 3)).await;
    assert_eq!(label, "topic_not_allowed");
    // Pinned, so that nobody counts: sending must not create it either.
    let (mut publisher, ..) = suite::claim(&world, 3).await;
    let pinned = Pins::from([("nowhere".to_owned(), Pin::of(3))]);
    assert_eq!(
        suite::inspect(&mut publisher, &batch("nowhere", 1, 3), &pinned).await.expect_err("a fault").label(),
        "topic_missing"
    );
    let mut topics = kafka.topics();
    topics.retain(|topic| topic != sink.journal_topic());
    assert_eq!(topics, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_event_that_was_refused_alone_is_poison() {
    let world = KafkaWorld::new().await;
    let (small, large) = (world.kafka.unique_topic("small"), world.kafka.unique_topic("large"));
    world.kafka.create_topic(&small, 1, &[("max.message.bytes", "1000")]).await;
    world.kafka.create_topic(&large, 1, &[("max.message.bytes", "3000000")]).await;
    let sink = world.sink();
    let claim = async |n| {
        let fenced = sink.fence().await.unwrap();
        let last = sink.look(suite::OUTBOX, Applied::default()).await.unwrap().last;
        fenced.recover(suite::writer(n), last).await.unwrap().0
    };
    let mut publisher = claim(1).await;
    published(&mut publisher, &batch(&large, 1, 1)).await;
    // Twenty at once are larger than the topic takes as one batch: they must be sent in smaller ones.
    published(&mut publisher, &batch(&small, 2, 200)).await;
    let bytes = vec![b'x'; 5_000];
    let too_large = one_event(&small, |event| event.payload = Some(&bytes));
    let (fault, label) = refused(&mut publisher, &too_large).await;
    assert_eq!(label, "too_large", "{fault}");
    let mut publisher = claim(2).await;
    let mut builder = BatchBuilder::new(BatchLimits { events: 2, bytes: 1 << 20 });
    assert_eq!(builder.push(&batch(&large, 300, 300).event(0)), Pushed::Kept);
    assert_eq!(builder.push(&Event { seq: 301, ..too_large.event(0) }), Pushed::Kept);
    let (fault, label) = refused(&mut publisher, &Arc::new(builder.build().unwrap())).await;
    assert_eq!(label, "too_large");
    assert!(fault.to_string().contains("seq 301"), "{fault}");
    // What the largest topic takes is not refused before it is sent; what it does not take is.
    let mut publisher = claim(3).await;
    let bytes = vec![b'x'; 2_500_000];
    published(&mut publisher, &one_event(&large, |event| event.payload = Some(&bytes))).await;
    let bytes = vec![b'x'; 4_000_000];
    let (fault, label) = refused(&mut publisher, &one_event(&large, |event| event.payload = Some(&bytes))).await;
    assert_eq!(label, "too_large", "{fault}");
    let mut publisher = claim(4).await;
    let bad = one_event(&large, |event| event.headers = Some(&b"{\"a\": []}"[..]));
    assert_eq!(refused(&mut publisher, &bad).await.1, "malformed_headers");
    assert_eq!(world.read_count(&small, 1) + world.read_count(&large, 1), 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_journal_is_read_in_pieces() {
    let world = KafkaWorld::new().await;
    // Records of about 0.7 MB: 30 of them are twice what is kept at once.
    let producer = world.producer(&world.kafka.unique_topic("writer"));
    let (mut previous, mut bytes_in_all) = (Checksum(0), 0);
    for n in 1..=30 {
        let entry = |seq: i64| Entry { seq, fingerprint: Fingerprint(seq as u64), topic: 0, partition: 0, offset: seq };
        let entries = (0..60_000).map(|i| entry(n * 100_000 + i)).collect();
        let record = Record { writer: suite::writer(1), n: n as u64, previous, topics: vec!["t".into()], entries };
        let (bytes, checksum) = record.encode();
        (previous, bytes_in_all) = (checksum, bytes_in_all + bytes.len());
        world.send_open(&producer, &[(world.sink().journal_topic(), &bytes)]);
        producer.commit_transaction(SOON).unwrap();
    }
    assert!(bytes_in_all > 16 << 20, "{bytes_in_all}");
    let (_, view, mut history) = suite::claim(&world, 2).await;
    assert_eq!((view.last.n, view.last.checksum), (30, previous));
    for n in 1..=30 {
        let (record, at) = history.next().await.unwrap().expect("a record");
        assert_eq!((record.n, at.n, at.offset, record.entries[0].seq), (n, n, 2 * (n as i64 - 1), n as i64 * 100_000));
    }
    assert!(history.next().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimming_follows_the_configured_retention() {
    let mut world = KafkaWorld::new().await;
    let topic = world.topic().await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    let mut places = Vec::new();
    for n in 1..=3 {
        places.push(published(&mut publisher, &batch(&topic, n, n)).await);
    }
    assert_eq!(world.sink().trim(places[2].offset).await.expect("a trim"), 0, "nothing is two days old");
    world.settings.kafka.journal_retention = Duration::ZERO;
    assert_eq!(world.sink().trim(places[1].offset).await.expect("a trim"), places[1].offset);
    assert_eq!(world.sink().look(suite::OUTBOX, places[1]).await.expect("a look").last, places[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_database_put_back_within_the_retention_needs_is_not_trimmed() {
    let mut world = KafkaWorld::new().await;
    let topic = world.topic().await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    let mut places =
        vec![published(&mut publisher, &batch(&topic, 1, 1)).await, published(&mut publisher, &batch(&topic, 2, 2)).await];
    world.settings.kafka.journal_retention = Duration::from_secs(3);
    let_pass(Duration::from_millis(3500));
    places.push(published(&mut publisher, &batch(&topic, 3, 3)).await);
    // a second ago the newest applied batch was the second one, however old it was
    assert_eq!(world.sink().trim(places[2].offset).await.expect("a trim"), places[1].offset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_where_an_event_went() {
    let world = KafkaWorld::new().await;
    let topic = world.topic().await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    published(&mut publisher, &batch(&topic, 1, 5)).await;
    let sink = world.sink();
    let (watch, old) = (sink.watch().await.unwrap(), sink.watch().await.unwrap());
    let events = batch(&topic, 6, 9);
    let fingerprint = |seq| Fingerprint::of(suite::id(seq));
    let (place, _) = tokio::join!(watch.find(Some(8), fingerprint(8), SOON), publish(&mut publisher, &events));
    let place = place.unwrap().expect("a place");
    let seen = world.read(&topic).await.into_iter().find(|seen| seen.id == suite::id(8)).expect("the event");
    assert_eq!((place.topic, place.partition, place.offset), (topic, seen.partition, seen.offset));
    let before = old.find(None, fingerprint(1), Duration::from_millis(500)).await.unwrap();
    assert_eq!(before, None, "what was published before is not waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grown_topic_keeps_its_pins_and_a_shrunk_one_is_told() {
    let world = KafkaWorld::new().await;
    let topic = world.topic().await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    let events = batch(&topic, 1, 3);
    let id = suite::inspect(&mut publisher, &events, &Pins::new()).await.expect("a look")[&topic].id.clone();
    let one = Pin { id, ..Pin::of(1) };
    assert_eq!(suite::inspect(&mut publisher, &events, &Pins::from([(topic.clone(), one)])).await.expect("counts"), Pins::new());
    let (mut publisher, ..) = suite::claim(&world, 2).await;
    let shrunk = suite::inspect(&mut publisher, &events, &Pins::from([(topic.clone(), Pin::of(3))])).await.expect_err("a fault");
    assert_eq!(shrunk.label(), "topic_shrunk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_between_two_batches_is_not_published_to() {
    let world = KafkaWorld::new().await;
    let topic = world.topic().await;
    let (mut publisher, ..) = suite::claim(&world, 1).await;
    let events = suite::batch_of(&topic, 1, 20, |_| Some("k".to_owned()));
    let pins = suite::inspect(&mut publisher, &events, &Pins::new()).await.expect("a look");
    let first = publisher.publish(events, &pins).await.expect("a published batch").journalled().expect("a record");
    // so soon that nobody looks at it in between: only its offsets tell
    world.kafka.delete_topic(&topic).await;
    world.kafka.create_topic(&topic, suite::PARTITIONS as usize, &[]).await;
    let next = suite::batch_of(&topic, 21, 25, |_| Some("k".to_owned()));
    suite::inspect(&mut publisher, &next, &pins).await.expect("nobody has looked");
    let fault = publisher.publish(Arc::clone(&next), &pins).await.map(drop).expect_err("a fault");
    println!("{fault}");
    let (mut publisher, view, _) = suite::claim_from(&world, 2, first).await.expect("a claim");
    assert_eq!((view.last, world.read_count(&topic, suite::PARTITIONS)), (first, 0), "{fault}");
    let held = suite::inspect(&mut publisher, &next, &pins).await.expect_err("another topic");
    assert_eq!(held.label(), "topic_recreated", "{held}");
    let pins = suite::inspect(&mut publisher, &next, &Pins::new()).await.expect("accepted");
    publisher.publish(next, &pins).await.expect("a published batch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_needs_neither_journal_nor_transactions() {
    let mut world = KafkaWorld::without_journal(Kafka::shared());
    world.settings.kafka.delivery = Delivery::AtLeastOnce;
    let topic = world.topic().await;
    let sink = world.sink();
    let base = Applied { n: 7, offset: 0, checksum: Checksum(9) };
    assert_eq!(sink.look(suite::OUTBOX, base).await.expect("a look").last, base);
    for n in 0..2 {
        let (mut publisher, view, mut history) = suite::claim_from(&world, 1, base).await.expect("a claim");
        assert_eq!((view.last, history.next().await.unwrap()), (base, None));
        let done = publish(&mut publisher, &batch(&topic, 10 * n + 1, 10 * n + 5)).await.expect("a published batch");
        assert_eq!((done.journalled(), done.commit()), (None, Commit::Prompt));
    }
    assert_eq!(world.read(&topic).await.len(), 10);
    assert!(!world.kafka.topics().contains(&sink.journal_topic().to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_journal_is_compared_with_its_plan() {
    let world = KafkaWorld::without_journal(Kafka::shared());
    let sink = world.sink();
    world.kafka.create_topic(sink.journal_topic(), 2, &[("retention.ms", "1000")]).await;
    let plan = sink.plan_journal(100_000).await.unwrap();
    let Created::Exists { differences } = sink.create(&plan).await.unwrap() else { panic!("it was there") };
    let short: Vec<_> = differences.into_iter().map(|difference| difference.setting).collect();
    assert_eq!(short, ["partitions", "retention.ms", "max.message.bytes"]);
}

/// Where a platform refuses a setting, the topic is made without it. This one does not exist, which brokers refuse in the same way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_the_cluster_refuses_is_left_out_and_named() {
    let world = KafkaWorld::without_journal(Kafka::shared());
    let sink = world.sink();
    let mut plan = sink.plan_journal(100_000).await.unwrap();
    plan.settings.insert(1, ("no.such.setting", "7".to_owned()));
    assert_eq!(sink.create(&plan).await.unwrap(), Created::New { without: vec!["no.such.setting"] });
    let Created::Exists { differences } = sink.create(&plan).await.unwrap() else { panic!("it is there") };
    let left: Vec<_> = differences.into_iter().map(|difference| difference.setting).collect();
    assert_eq!(left, ["no.such.setting"], "every other setting was taken");
}
