//! Reads topics as a consumer with `isolation.level=read_committed` does, from the beginning to the end.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::checker::Seen;
use crate::support::Kafka;

/// How long an open transaction may keep a partition from being read to its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// All committed records of the partitions 0 to `partitions` - 1 of a topic, in offset order within each.
///
/// # Panics
/// If a partition cannot be read to its end: then somebody's transaction is open for ever.
pub fn read(kafka: &Kafka, topic: &str, partitions: i32) -> Vec<Seen> {
    let mut seen = Vec::new();
    each(kafka, topic, partitions, |message| seen.push(record(message)));
    seen
}

/// Shows each of the records that [`read`] returns.
///
/// # Panics
/// As [`read`] does.
pub fn each(kafka: &Kafka, topic: &str, partitions: i32, mut show: impl FnMut(&BorrowedMessage<'_>)) {
    let mut config = kafka.client();
    config.set("group.id", "checker").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "error").set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer = config.create().unwrap();
    (0..partitions).for_each(|partition| each_of_partition(&consumer, topic, partition, &mut show));
}

fn each_of_partition(consumer: &BaseConsumer, topic: &str, partition: i32, show: &mut impl FnMut(&BorrowedMessage<'_>)) {
    let start = Instant::now();
    let (low, _) = loop {
        match consumer.fetch_watermarks(topic, partition, Duration::from_secs(5)) {
            Ok(marks) => break marks,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{topic} {partition}: {error}"),
        }
    };
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(low)).unwrap();
    consumer.assign(&assignment).unwrap();
    let (mut shown, mut since) = (0, Instant::now());
    loop {
        assert!(since.elapsed() < PATIENCE, "{topic} {partition} stands still after {shown} records");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                show(&message);
                shown += 1;
                since = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(_))) if is_at_end(consumer, topic, partition, low) => return,
            // Anything else passes: a leader that moves, or an open transaction before the end.
            Some(Err(_)) | None => {}
        }
    }
}

/// Whether the position is the true end of the partition, behind every open transaction.
fn is_at_end(consumer: &BaseConsumer, topic: &str, partition: i32, low: i64) -> bool {
    let position = match consumer.position().unwrap().find_partition(topic, partition).map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => low,
    };
    let (mut first, mut end) = (0, 0);
    let name = std::ffi::CString::new(topic).unwrap();
    // SAFETY: the handle is alive, the name ends with a zero, both numbers are written by the call.
    let code = unsafe {
        rdkafka::bindings::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            name.as_ptr(),
            partition,
            &mut first,
            &mut end,
        )
    };
    code == rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && position >= end
}

/// How many partitions of a topic have records of a transaction that has not ended.
pub fn open_partitions(kafka: &Kafka, topic: &str, partitions: i32) -> usize {
    let reader = |isolation: &str| -> BaseConsumer { kafka.client().set("isolation.level", isolation).create().unwrap() };
    let (committed, all) = (reader("read_committed"), reader("read_uncommitted"));
    let end =
        |consumer: &BaseConsumer, partition| consumer.fetch_watermarks(topic, partition, PATIENCE).expect("the broker answers").1;
    (0..partitions).filter(|&partition| end(&committed, partition) < end(&all, partition)).count()
}

/// How many offsets of a topic are used, by whatever: a topic that nobody writes to keeps this number.
pub fn used_offsets(kafka: &Kafka, topic: &str, partitions: i32) -> i64 {
    let consumer: BaseConsumer = kafka.client().set("isolation.level", "read_uncommitted").create().unwrap();
    let end = |partition| consumer.fetch_watermarks(topic, partition, PATIENCE).expect("the broker answers").1;
    (0..partitions).map(end).sum()
}

/// A record as the checker takes it.
pub fn record(message: &BorrowedMessage<'_>) -> Seen {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Seen {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
    }
}
