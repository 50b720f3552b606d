//! One outbox on a real Kafka, for the tests of its sink.

use std::time::Duration;

use outboxd::config;
use outboxd::heartbeat::Heartbeat;
use outboxd::sink::kafka::{Created, KafkaSink, Settings};
use rdkafka::Message;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::sink_conformance::{PARTITIONS, Seen, SinkWorld};
use crate::support::Kafka;

/// So long a single call may take.
pub const SOON: Duration = Duration::from_secs(20);

/// An outbox with a journal of its own on a cluster.
pub struct KafkaWorld {
    /// Where.
    pub kafka: &'static Kafka,
    /// How its sinks are made; tests may change it.
    pub settings: Settings,
}

impl KafkaWorld {
    /// On the shared cluster, with an empty journal.
    pub async fn new() -> Self {
        Self::on(Kafka::shared()).await
    }

    /// On a cluster, with an empty journal.
    pub async fn on(kafka: &'static Kafka) -> Self {
        let world = Self::without_journal(kafka);
        let sink = world.sink();
        let plan = sink.plan_journal(5_000).await.expect("a plan");
        assert_eq!(sink.create(&plan).await.expect("a journal"), Created::New { without: vec![] });
        world
    }

    /// On a cluster, without its journal topic.
    pub fn without_journal(kafka: &'static Kafka) -> Self {
        let name = kafka.unique_topic(&format!("t{}", std::process::id()));
        let kafka_section = config::Kafka {
            brokers: config::Brokers(kafka.brokers().split(',').map(str::to_owned).collect()),
            transaction_timeout: Duration::from_secs(10),
            ..config::Kafka::default()
        };
        Self { kafka, settings: Settings { name, source: None, kafka: kafka_section, signs: Heartbeat::new() } }
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = self.kafka.client();
        config.set("group.id", "test").set("enable.partition.eof", "true").set("enable.auto.commit", "false");
        config.set("fetch.wait.max.ms", "10").set("isolation.level", "read_committed").create().unwrap()
    }

    /// Shows every committed record of a topic to `each`.
    pub fn each_record(&self, topic: &str, partitions: i32, mut each: impl FnMut(&rdkafka::message::BorrowedMessage<'_>)) {
        let consumer = self.consumer();
        let mut all = TopicPartitionList::new();
        (0..partitions).for_each(|partition| all.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
        consumer.assign(&all).unwrap();
        let mut ended = 0;
        while ended < partitions {
            match consumer.poll(SOON).expect("records or their end") {
                Ok(message) => each(&message),
                Err(KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => eprintln!("reading {topic}: {error}"),
            }
        }
    }

    /// How many committed records a topic holds.
    pub fn read_count(&self, topic: &str, partitions: i32) -> usize {
        let mut count = 0;
        self.each_record(topic, partitions, |_| count += 1);
        count
    }

    /// A transactional producer of somebody.
    pub fn producer(&self, transactional_id: &str) -> ThreadedProducer<rdkafka::producer::DefaultProducerContext> {
        let mut config = self.kafka.client();
        let producer: ThreadedProducer<_> =
            config.set("transactional.id", transactional_id).set("transaction.timeout.ms", "60000").create().unwrap();
        producer.init_transactions(SOON).unwrap();
        producer
    }

    /// Begins a transaction and sends one record each.
    pub fn send_open(&self, producer: &ThreadedProducer<rdkafka::producer::DefaultProducerContext>, records: &[(&str, &[u8])]) {
        producer.begin_transaction().unwrap();
        for (topic, bytes) in records {
            let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(0).payload(bytes);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(SOON).unwrap();
    }
}

impl SinkWorld for KafkaWorld {
    type Sink = KafkaSink;
    type Open = ThreadedProducer<rdkafka::producer::DefaultProducerContext>;

    fn sink(&self) -> KafkaSink {
        KafkaSink::new(self.settings.clone()).expect("valid settings")
    }

    async fn topic(&self) -> String {
        let topic = self.kafka.unique_topic("events");
        self.kafka.create_topic(&topic, PARTITIONS as usize, &[]).await;
        topic
    }

    async fn read(&self, topic: &str) -> Vec<Seen> {
        let mut seen = Vec::new();
        self.each_record(topic, PARTITIONS, |message| {
            let header = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "id"));
            let text = header.and_then(|header| header.value).map(|value| String::from_utf8_lossy(value).into_owned());
            seen.push(Seen {
                partition: message.partition(),
                offset: message.offset(),
                id: text.and_then(|text| Uuid::parse_str(&text).ok()).unwrap_or_default(),
                key: message.key().map(<[u8]>::to_vec),
                payload: message.payload().map(<[u8]>::to_vec),
            });
        });
        seen
    }

    async fn journal(&self) -> Vec<(i64, Vec<u8>)> {
        let mut records = Vec::new();
        let topic = self.sink().journal_topic().to_owned();
        self.each_record(&topic, 1, |message| records.push((message.offset(), message.payload().unwrap_or_default().to_vec())));
        records
    }

    async fn intrude(&self, bytes: &[u8]) {
        let producer = self.producer(&self.kafka.unique_topic("intruder"));
        self.send_open(&producer, &[(self.sink().journal_topic(), bytes)]);
        producer.commit_transaction(SOON).unwrap();
    }

    async fn block(&self) -> Self::Open {
        let producer = self.producer(&self.kafka.unique_topic("blocker"));
        self.send_open(&producer, &[(self.sink().journal_topic(), b"open")]);
        producer
    }

    async fn cut(&self, start: i64) {
        let mut range = TopicPartitionList::new();
        range.add_partition_offset(self.sink().journal_topic(), 0, Offset::Offset(start)).unwrap();
        let deleted = self.kafka.admin().delete_records(&range, &AdminOptions::new()).await.unwrap();
        deleted.elements()[0].error().unwrap();
    }

    async fn die_in_a_batch(&self, topic: &str, record: &[u8]) {
        let producer = self.producer(&format!("outboxd-{}", self.settings.name));
        self.send_open(&producer, &[(topic, b"never"), (self.sink().journal_topic(), record)]);
    }
}
