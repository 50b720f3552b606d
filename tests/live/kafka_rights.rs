//! Each right on Kafka taken away in turn: only the topic it is about waits, or nothing does, and the right has a name.

use std::sync::OnceLock;
use std::time::Duration;

use outboxd::config::{Brokers, Delivery, SaslMechanism, Secret, Security};
use outboxd::event::{BatchBuilder, BatchLimits, Pushed};
use outboxd::fault::Fault;
use outboxd::journal::Applied;
use outboxd::sink::{Publisher, Sink};
use outboxd::source::Pins;

use crate::history;
use crate::kafka_world::KafkaWorld;
use crate::sink_conformance::{self as suite, SinkWorld, batch};
use crate::stage::{Mark, Stage, status};
use crate::support::acl::{self, DESCRIBE, READ, Right, TOPIC, TRANSACTIONAL_ID, WRITE};
use crate::support::kafka::USER;
use crate::support::{Kafka, Postgres, Version, eventually};

const SOON: Duration = Duration::from_secs(60);

/// A broker that allows nothing by itself.
fn strict() -> &'static Kafka {
    static STRICT: OnceLock<Kafka> = OnceLock::new();
    STRICT.get_or_init(|| Kafka::start_one(acl::strict()))
}

/// An outbox whose relay comes as [`USER`], with every right it needs on the journal and its transactional id.
async fn world() -> KafkaWorld {
    let mut world = KafkaWorld::on(strict()).await;
    let kafka = &mut world.settings.kafka;
    kafka.brokers = Brokers(vec![world.kafka.secure_brokers("SASL_PLAINTEXT")]);
    (kafka.security, kafka.sasl_mechanism) = (Security::SaslPlaintext, Some(SaslMechanism::Plain));
    (kafka.username, kafka.password) = (Some(USER.0.to_owned()), Some(Secret::new(USER.1)));
    let (journal, id) = (world.sink().journal_topic().to_owned(), format!("outboxd-{}", world.settings.name));
    for right in [(TOPIC, &*journal, READ), (TOPIC, &*journal, WRITE), (TRANSACTIONAL_ID, &*id, WRITE)] {
        world.kafka.give(right);
    }
    world
}

/// One batch after a claim, as the relay does it.
async fn attempt(world: &KafkaWorld, topic: &str) -> Result<u64, Fault> {
    world.sink().look(suite::OUTBOX, Applied::default()).await?;
    let (mut publisher, view, _) = suite::claim_from(world, 1, Applied::default()).await?;
    let next = 1 + 10 * view.last.n as i64;
    suite::publish(&mut publisher, &batch(topic, next, next + 4)).await.map(|_| view.last.n + 1)
}

/// Takes `rights`, gives `instead`, and says what becomes of a batch; then puts all back and sees that it goes on.
async fn without(world: &KafkaWorld, topic: &str, rights: &[Right<'_>], instead: &[Right<'_>]) -> Fault {
    rights.iter().for_each(|right| world.kafka.take(*right));
    instead.iter().for_each(|right| world.kafka.give(*right));
    let fault = attempt(world, topic).await.expect_err("a right is missing");
    println!("{fault}");
    instead.iter().for_each(|right| world.kafka.take(*right));
    rights.iter().for_each(|right| world.kafka.give(*right));
    attempt(world, topic).await.expect("every right is there again");
    fault
}

fn is_outage(fault: &Fault, right: &str) {
    assert!(matches!(fault, Fault::Unavailable { code: "not_authorised", .. }), "{fault:?}");
    assert!(fault.to_string().contains(right), "{right}: {fault}");
    assert_eq!(fault.culprit(), None, "nothing is held or parked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_is_named() {
    let world = world().await;
    let topic = world.topic().await;
    let (journal, id) = (world.sink().journal_topic().to_owned(), format!("outboxd-{}", world.settings.name));
    let write = (TOPIC, &*topic, WRITE);
    world.kafka.give(write);
    assert_eq!(attempt(&world, &topic).await.expect("nothing else is needed"), 1);
    for (instead, right) in [(vec![(TOPIC, &*topic, DESCRIBE)], "WRITE"), (vec![], "DESCRIBE")] {
        let fault = without(&world, &topic, &[write], &instead).await;
        let Fault::Topic(ailing) = &fault else { panic!("{fault:?}") };
        assert_eq!((&*ailing.topic, ailing.code), (&*topic, "not_authorised"));
        assert!(ailing.detail.contains(&format!("{right} on topic {topic}")), "{fault}");
    }
    let (read, append) = ((TOPIC, &*journal, READ), (TOPIC, &*journal, WRITE));
    is_outage(&without(&world, &topic, &[append], &[]).await, &format!("WRITE on topic {journal}"));
    is_outage(&without(&world, &topic, &[read], &[]).await, &format!("READ on topic {journal}"));
    is_outage(&without(&world, &topic, &[read, append], &[]).await, &format!("DESCRIBE on topic {journal}"));
    let own = (TRANSACTIONAL_ID, &*id, WRITE);
    is_outage(&without(&world, &topic, &[own], &[]).await, "transactional id");
    is_outage(&without(&world, &topic, &[own], &[(TRANSACTIONAL_ID, &id, DESCRIBE)]).await, "transactional id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_in_the_middle_concerns_its_topic_alone() {
    for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
        let mut world = world().await;
        world.settings.kafka.delivery = delivery;
        let (good, bad) = (world.topic().await, world.topic().await);
        [&good, &bad].into_iter().for_each(|topic| world.kafka.give((TOPIC, topic, WRITE)));
        let mut builder = BatchBuilder::new(BatchLimits { events: 100, bytes: 1 << 20 });
        for (topic, from) in [(&good, 11), (&bad, 21)] {
            batch(topic, from, from + 4).events().for_each(|event| assert_eq!(builder.push(&event), Pushed::Kept));
        }
        let both = std::sync::Arc::new(builder.build().expect("ten events"));
        let (mut publisher, ..) = suite::claim(&world, 1).await;
        let pins = suite::inspect(&mut publisher, &both, &Pins::new()).await.expect("all is well");
        world.kafka.take((TOPIC, &bad, WRITE));
        world.kafka.give((TOPIC, &bad, DESCRIBE));
        let fault = publisher.publish(both, &pins).await.map(drop).expect_err("one topic may not be written to");
        let Fault::Topic(ailing) = &fault else { panic!("{delivery:?}: {fault:?}") };
        assert_eq!((&ailing.topic, ailing.code), (&bad, "not_authorised"), "{delivery:?}: {fault}");
        if delivery == Delivery::ExactlyOnce {
            let (_, view, _) = suite::claim(&world, 2).await;
            assert_eq!((view.last.n, world.read_count(&good, suite::PARTITIONS)), (0, 0), "nothing of it is published");
        }
    }
}

/// The relay comes as [`USER`], with what it needs on journal and transactional id, and no right on a topic of events.
fn comes_as_user(stage: &mut Stage<'_>) {
    let (kafka, journal, id) = (stage.kafka, stage.journal(), format!("outboxd-{}", stage.name));
    let rights = [(TOPIC, &*journal, READ), (TOPIC, &*journal, WRITE), (TRANSACTIONAL_ID, &*id, WRITE)];
    rights.into_iter().for_each(|right| kafka.give(right));
    let options = stage.options.clone().set("kafka.brokers", &kafka.secure_brokers("SASL_PLAINTEXT"));
    let options = options.set("kafka.security", "sasl_plaintext").set("kafka.sasl_mechanism", "PLAIN");
    stage.options = options.set("kafka.username", USER.0).set("kafka.password", USER.1);
}

#[test]
fn rights_on_several_topics_that_are_taken_under_load_hold_those_alone() {
    let kafka = strict();
    let mut stage = Stage::new("revoked", Mark::Row, Postgres::shared(Version::V18), kafka);
    comes_as_user(&mut stage);
    let topics: Vec<String> = stage.topics.keys().cloned().collect();
    topics.iter().for_each(|topic| kafka.give((TOPIC, topic, WRITE)));
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(5, SOON);
    // of one it may still see that it is there, of the other not even that
    let [seen, hidden, good] = topics.as_slice() else { panic!("three topics: {topics:?}") };
    kafka.give((TOPIC, seen, DESCRIBE));
    [seen, hidden].into_iter().for_each(|topic| kafka.take((TOPIC, topic, WRITE)));
    eventually("both are held", SOON, || status(&stage.options)["held_topics"] == 2);
    daemon.wait_log(&format!("WRITE on topic {seen} is not granted"));
    daemon.wait_log(&format!("DESCRIBE on topic {hidden} is not granted"));
    let used = || history::used_offsets(kafka, good, stage.topics[good]);
    let before = used();
    eventually("the third goes on", SOON, || used() > before + 50);
    assert!(status(&stage.options)["parked_events"] == 0 && status(&stage.options)["halted"].is_null());
    [seen, hidden].into_iter().for_each(|topic| kafka.give((TOPIC, topic, WRITE)));
    eventually("both go on by themselves", SOON, || status(&stage.options)["held_topics"] == 0);
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    stage.prove();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_without_the_right_to_write_waits_alone_and_goes_on_with_it() {
    let kafka = strict();
    let mut stage = Stage::new("unauthorised", Mark::Row, Postgres::shared(Version::V18), kafka);
    let (good, bad) = (format!("{}-of-1", stage.name), format!("{}-of-3", stage.name));
    comes_as_user(&mut stage);
    kafka.give((TOPIC, &good, WRITE));
    kafka.give((TOPIC, &bad, DESCRIBE));
    let insert = |from: u32| {
        let rows = format!("unnest(ARRAY['{good}', '{bad}']) t, generate_series({from}, {}) n", from + 49);
        let sql = format!("INSERT INTO outbox (topic, key, payload) SELECT t, 'k', n::text::json FROM {rows}");
        stage.postgres.sql(&stage.database, &sql);
    };
    // who may not even look at a topic cannot tell whether it is there
    let hidden = format!("{}-of-12", stage.name);
    let (code, stdout, stderr) = stage.options.run_command(&["migrate", "--plan", "--topics", &format!("{hidden}:12")]);
    assert!(code == 77 && stderr.contains(&format!("DESCRIBE on topic {hidden} is not granted")), "{code} {stdout}{stderr}");
    insert(1);
    let daemon = stage.start("one");
    eventually("the others are published", SOON, || stage.pending() == 50);
    daemon.wait_log(&format!("WRITE on topic {bad} is not granted"));
    insert(51);
    eventually("the others go on", SOON, || stage.pending() == 100);
    assert_eq!((&status(&stage.options)["held_topics"], &status(&stage.options)["parked_events"]), (&1.into(), &0.into()));
    kafka.give((TOPIC, &bad, WRITE));
    eventually("it goes on by itself", SOON, || stage.pending() == 0);
    // and taken from the running relay
    kafka.take((TOPIC, &bad, WRITE));
    insert(101);
    eventually("the others are published", SOON, || stage.pending() == 50);
    eventually("it is held", SOON, || status(&stage.options)["held_topics"] == 1);
    insert(151);
    eventually("the others go on", SOON, || stage.pending() == 100);
    assert_eq!(history::read(kafka, &good, 1).len(), 200);
    assert_eq!(history::read(kafka, &bad, 3).len(), 100);
    assert_eq!(daemon.metric("outboxd_parked_events"), 0.0);
}
