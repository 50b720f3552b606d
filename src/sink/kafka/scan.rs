//! Reading whole topics as a consumer of committed records does: what `verify` compares. It only needs READ and DESCRIBE.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::admin::{describe_visible, with_admin};
use super::blocking::{self, Caller, drop_aside};
use super::client::{self, Context, Sight};
use super::{KafkaSink, Shared, faults, native};
use crate::fault::Fault;

/// Errors are retried for so long: right after a leader change or a restart the first answers are wrong or missing.
const PATIENCE: Duration = Duration::from_secs(15);
/// One poll.
const STEP: Duration = Duration::from_millis(100);
/// One question to the cluster.
const ASK: Duration = Duration::from_secs(10);
/// An open transaction of a dead owner ends at `transaction_timeout`; the coordinator looks every 10 s. Beyond that it is hanging.
const MARGIN: Duration = Duration::from_secs(15);

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane<'a> {
    /// Topic in Kafka.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First offset that is left.
    pub start: i64,
    /// Below it every transaction is over.
    pub stable: i64,
    /// Behind the last record, whoever can see it.
    pub high: i64,
}

/// A committed record.
#[derive(Clone, Copy, Debug)]
pub struct Scanned<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970.
    pub time_ms: Option<i64>,
    /// Its header `id`.
    pub id: Option<&'a [u8]>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// What a reader has to know of a topic beside its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Which topic of its name it is; nothing where the cluster does not tell.
    pub id: Option<String>,
    /// Whether it is compacted; nothing where that may not be read.
    pub compacted: Option<bool>,
}

/// How a partition was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// To where it was to be read, or as far as readers can see: behind that a transaction stays open.
    To(i64),
    /// It begins later by now: what was read so far is void.
    BeginsLater,
}

/// Reads one partition after the other.
pub struct Scanner<'a> {
    pub(super) shared: Arc<Shared>,
    consumer: Option<BaseConsumer<Context>>,
    caller: &'a Caller<'a>,
}

impl KafkaSink {
    /// Runs work that reads topics, on a thread of its own. It ends early when nobody waits for it any more.
    pub async fn scan<T, W>(&self, work: W) -> Result<T, Fault>
    where
        T: Send + 'static,
        W: FnOnce(&Scanner<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        blocking::run("kafka-scan", move |caller| {
            let consumer = Some(client::scanner(&shared.settings)?);
            work(&Scanner { shared, consumer, caller })
        })
        .await
    }
}

impl Scanner<'_> {
    pub(super) fn consumer(&self) -> &BaseConsumer<Context> {
        self.consumer.as_ref().expect("only dropping takes the consumer away")
    }

    /// The same for records of open and aborted transactions too.
    pub fn of_everything(&self) -> Result<Scanner<'_>, Fault> {
        let consumer = Some(client::reader(&self.shared.settings, Sight::Everything)?);
        Ok(Scanner { shared: Arc::clone(&self.shared), consumer, caller: self.caller })
    }

    /// Name of the journal topic.
    pub fn journal(&self) -> &str {
        &self.shared.journal
    }

    /// How many partitions a topic has; nothing when it does not exist.
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>, Fault> {
        let metadata = self.retry(topic, || self.consumer().fetch_metadata(Some(topic), ASK))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| (found.error().map(Code::from), found.partitions().len())) {
            None | Some((Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic), _)) => Ok(None),
            Some((Some(Code::TopicAuthorizationFailed), _)) => Err(not_granted("DESCRIBE", topic)),
            Some((Some(code), _)) => Err(faults::unavailable(code, &format!("topic {topic} cannot be described"), None)),
            Some((None, count)) => Ok(i32::try_from(count).ok()),
        }
    }

    /// What the cluster tells of these topics, as far as they are there and may be looked at.
    pub fn traits(&self, topics: &[String]) -> Result<BTreeMap<String, Traits>, Fault> {
        let (states, _) = with_admin(&self.shared.settings, |admin| describe_visible(admin, topics))?;
        let told = states.into_iter().map(|state| {
            let compacted = state.settings.get("cleanup.policy").map(|policy| policy.contains("compact"));
            (state.name, Traits { id: state.id, compacted })
        });
        Ok(told.collect())
    }

    /// Where a partition begins and ends now.
    pub fn bounds(&self, lane: Lane<'_>) -> Result<Bounds, Fault> {
        let Lane { topic, partition } = lane;
        let (start, stable) = self.retry(topic, || self.consumer().fetch_watermarks(topic, partition, ASK))?;
        let place = (topic.to_owned(), partition);
        let ends = native::ends(self.consumer().client(), std::slice::from_ref(&place), ASK);
        let ends = ends.map_err(|failure| match failure.code {
            Code::TopicAuthorizationFailed => not_granted("DESCRIBE", topic),
            code => faults::unavailable(code, &format!("the end of {topic}-{partition} is not told"), None),
        })?;
        let high = ends.into_iter().find(|(found, _)| *found == place).map_or(stable, |(_, end)| end);
        Ok(Bounds { start, stable, high })
    }

    /// First offset of a record that was written at this moment or later; nothing when there is none.
    pub fn offset_at(&self, lane: Lane<'_>, time_ms: i64) -> Result<Option<i64>, Fault> {
        let asked = |error| faults::asked(&error, &format!("{}-{} cannot be searched by time", lane.topic, lane.partition));
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(lane.topic, lane.partition, Offset::Offset(time_ms)).map_err(asked)?;
        let found = self.consumer().offsets_for_times(times, ASK).map_err(asked)?;
        let place = found.find_partition(lane.topic, lane.partition);
        Ok(place.and_then(|place| if let Offset::Offset(offset) = place.offset() { Some(offset) } else { None }))
    }

    /// Shows the committed records from offset `from` up to below `to`, in order. A transaction that is open below `to` is waited for until
    /// it must have ended. `show` may break off: then what is said of the end means nothing.
    pub fn read(
        &self,
        lane: Lane<'_>,
        from: i64,
        to: i64,
        mut show: impl FnMut(&Scanned<'_>) -> ControlFlow<()>,
    ) -> Result<Scan, Fault> {
        if from >= to {
            return Ok(Scan::To(to));
        }
        self.assign(lane, from)?;
        let (mut trouble, mut silent, mut at_end): (Option<Instant>, Option<Instant>, bool) = (None, None, false);
        loop {
            if self.caller.is_gone() {
                return Err(Fault::kafka("kafka", "nobody waits for the topics any more"));
            }
            match self.consumer().poll(STEP) {
                Some(Ok(message)) => {
                    (trouble, silent, at_end) = (None, None, false);
                    let offset = message.offset();
                    if offset < to && show_to(&message, &mut show).is_break() || offset + 1 >= to {
                        return Ok(Scan::To(to));
                    }
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => at_end = true,
                None => {}
                Some(Err(error)) => match self.tolerate(lane, &error, trouble.get_or_insert_with(Instant::now).elapsed())? {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(()) => return Ok(Scan::BeginsLater),
                },
            }
            let position = self.position(lane, from);
            if position >= to {
                return Ok(Scan::To(to));
            }
            // only at its end does silence mean that a transaction is open
            let silence = silent.get_or_insert_with(Instant::now).elapsed();
            if at_end && silence > self.shared.settings.kafka.transaction_timeout + MARGIN {
                return Ok(Scan::To(position));
            }
            if !at_end && silence > PATIENCE {
                return Err(self.unread(lane, Code::OperationTimedOut));
            }
        }
    }

    fn assign(&self, lane: Lane<'_>, from: i64) -> Result<(), Fault> {
        let mut place = TopicPartitionList::new();
        let assigned = place
            .add_partition_offset(lane.topic, lane.partition, Offset::Offset(from))
            .and_then(|()| self.consumer().assign(&place));
        assigned.map_err(|error| faults::asked(&error, &format!("{}-{} cannot be read", lane.topic, lane.partition)))
    }

    /// Everything below is shown or passed over. Nothing is told before something was.
    fn position(&self, lane: Lane<'_>, from: i64) -> i64 {
        let places = self.consumer().position().ok();
        match places.and_then(|places| places.find_partition(lane.topic, lane.partition).map(|place| place.offset())) {
            Some(Offset::Offset(position)) => position,
            _ => from,
        }
    }

    /// Breaks where the offset that is read from is no longer there.
    fn tolerate(&self, lane: Lane<'_>, error: &KafkaError, lasting: Duration) -> Result<ControlFlow<()>, Fault> {
        match error.rdkafka_error_code().unwrap_or(Code::Unknown) {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => Ok(ControlFlow::Break(())),
            Code::TopicAuthorizationFailed => Err(not_granted("READ", lane.topic)),
            code if lasting > PATIENCE && code != Code::GroupAuthorizationFailed => Err(self.unread(lane, code)),
            _ => Ok(ControlFlow::Continue(())),
        }
    }

    fn unread(&self, lane: Lane<'_>, code: Code) -> Fault {
        let trouble = self.consumer().client().context().trouble();
        faults::unavailable(code, &format!("{}-{} cannot be read", lane.topic, lane.partition), trouble)
    }

    /// Asks again until the cluster answers.
    fn retry<T>(&self, topic: &str, ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, Fault> {
        let started = Instant::now();
        loop {
            let error = match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            if code == Code::TopicAuthorizationFailed {
                return Err(not_granted("DESCRIBE", topic));
            }
            // Nothing is read yet: a poll only brings what the client reports of its own accord.
            drop(self.consumer().poll(STEP));
            let trouble = self.consumer().client().context().trouble();
            let hopeless = trouble.as_ref().is_some_and(|trouble| faults::short(trouble.code) == "authentication");
            if hopeless || started.elapsed() > PATIENCE || self.caller.is_gone() {
                let code = trouble.as_ref().map_or(code, |trouble| trouble.code);
                return Err(faults::unavailable(code, &format!("topic {topic} cannot be looked at"), trouble));
            }
        }
    }
}

impl Drop for Scanner<'_> {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            drop_aside(consumer);
        }
    }
}

fn show_to(message: &BorrowedMessage<'_>, show: &mut impl FnMut(&Scanned<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
    let id = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "id")).and_then(|header| header.value);
    show(&Scanned {
        offset: message.offset(),
        time_ms: message.timestamp().to_millis(),
        id,
        key: message.key(),
        value: message.payload(),
    })
}

fn not_granted(right: &str, topic: &str) -> Fault {
    Fault::Refused {
        detail: format!("{right} on topic {topic} is not granted"),
        remedy: format!("Grant {right} on topic {topic} to the user of [kafka]"),
    }
}
