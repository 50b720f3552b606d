//! The reader of the demo: a plain consumer that reads everything back while it runs, on a thread of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;
use uuid::Uuid;

use super::account::{Account, Record};
use super::broker::{PARTITIONS, TOPIC};
use super::trouble::Trouble;

/// So soon a reader without records notices that it should leave.
const STEP: Duration = Duration::from_millis(50);
/// How long the records that are there at the end may take to arrive.
const TAIL_MOST: Duration = Duration::from_secs(15);
/// How long a question about offsets may take.
const ASK_MOST: Duration = Duration::from_secs(5);

/// An account that is kept by several.
pub type Shared = Arc<Mutex<Account>>;

/// The account, whoever panicked while holding it.
pub fn lock(account: &Shared) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A reader at work.
pub struct Reader {
    leave: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), KafkaError>>>,
}

impl Reader {
    /// Reads the topic from its beginning on, into the account.
    pub fn start(address: &str, account: &Shared) -> Result<Self, Trouble> {
        let consumer = consumer(address)?;
        let leave = Arc::new(AtomicBool::new(false));
        let (asked, account) = (Arc::clone(&leave), Arc::clone(account));
        let work = move || Reading { consumer, account, next: BTreeMap::new() }.run(&asked);
        let thread = thread::Builder::new().name("demo-reader".into()).spawn(work)?;
        Ok(Self { leave, thread: Some(thread) })
    }

    /// Whether it has ended, which it never does by itself unless something failed.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Reads what is there by now to its end, then leaves. To be called when nobody publishes any more.
    pub async fn finish(&mut self) -> Result<(), Trouble> {
        self.leave.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match joined {
            Ok(Ok(read)) => Ok(read?),
            // a panic has been told where it happened
            Ok(Err(_)) | Err(_) => Err(Trouble::Broker(KafkaError::MessageConsumptionFatal(Code::Fail))),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
    }
}

fn consumer(address: &str) -> Result<BaseConsumer, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "outboxd-demo")
        .set("enable.auto.commit", "false")
        // anything else would jump over what is gone
        .set("auto.offset.reset", "error")
        // this broker answers an empty fetch only after that time, whatever arrives meanwhile
        .set("fetch.wait.max.ms", "10")
        .create()?;
    let mut lanes = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        lanes.add_partition_offset(TOPIC, partition, Offset::Offset(0))?;
    }
    consumer.assign(&lanes)?;
    Ok(consumer)
}

/// State of the thread.
struct Reading {
    consumer: BaseConsumer,
    account: Shared,
    /// The offset that comes next, by partition.
    next: BTreeMap<i32, i64>,
}

impl Reading {
    fn run(mut self, leave: &AtomicBool) -> Result<(), KafkaError> {
        while !leave.load(Ordering::Relaxed) {
            self.step()?;
        }
        let (ends, until) = (self.ends()?, Instant::now() + TAIL_MOST);
        while ends.iter().any(|(partition, end)| self.at(*partition) < *end) {
            if Instant::now() > until {
                return Err(KafkaError::MessageConsumption(Code::OperationTimedOut));
            }
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), KafkaError> {
        let Some(read) = self.consumer.poll(STEP) else { return Ok(()) };
        let message = match read {
            Ok(message) => message,
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (at, partition, offset) = (Instant::now(), message.partition(), message.offset());
        let record = record(&message);
        drop(message);
        let gone = offset - self.at(partition);
        self.next.insert(partition, offset + 1);
        let mut account = lock(&self.account);
        account.skipped(gone.max(0).unsigned_abs());
        match record {
            Some(record) => account.read(record, at),
            None => account.foreign(),
        }
        Ok(())
    }

    fn at(&self, partition: i32) -> i64 {
        self.next.get(&partition).copied().unwrap_or(0)
    }

    fn ends(&self) -> Result<Vec<(i32, i64)>, KafkaError> {
        let end = |partition| Ok((partition, self.consumer.fetch_watermarks(TOPIC, partition, ASK_MOST)?.1));
        (0..PARTITIONS).map(end).collect()
    }
}

/// The broker lives in this process: whatever else fails will not get better.
fn is_passing(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::BrokerTransportFailure | Code::AllBrokersDown))
}

/// What the shop's payload says.
#[derive(Deserialize)]
struct Payload {
    version: u64,
}

/// The record as the account wants it; nothing when it is none of the shop's.
fn record(message: &BorrowedMessage<'_>) -> Option<Record> {
    let header = message.headers()?.iter().find(|header| header.key == "id")?;
    let id = Uuid::parse_str(str::from_utf8(header.value?).ok()?).ok()?;
    let key = str::from_utf8(message.key()?).ok()?.to_owned();
    let Payload { version } = serde_json::from_slice(message.payload()?).ok()?;
    Some(Record { id, key, version })
}
