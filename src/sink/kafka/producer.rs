//! One producer: from `init_transactions` to the commit, in the only order that is right.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer as _;

use super::blocking::{self, Caller};
use super::client::{self, Context, EventProducer, ProducerShape};
use super::deliveries::{Refused, UNKNOWN};
use super::native::{self, Failure, Headers, Lane, Message, Topic};
use super::topics::{self, Found};
use super::{Settings, Shared, faults};
use crate::event::Batch;
use crate::failpoint::pass;
use crate::fault::{Cause, Fault};

/// One step of waiting for acknowledgements: `rd_kafka_flush` returns earlier when there are none left to wait for.
const FLUSH_STEP: Duration = Duration::from_millis(20);
/// One step of waiting for `init_transactions`, which goes on in librdkafka meanwhile: so soon it is noticed that nobody waits.
const INIT_STEP: Duration = Duration::from_secs(2);
/// How long `init_transactions` is waited for. It ends when every partition of a dead owner's transaction has taken its marker, so
/// one topic below its min.insync.replicas holds it up for as long as that lasts.
const INIT_MOST: Duration = Duration::from_secs(300);
/// After so long the log says what is waited for.
const INIT_WARN: Duration = Duration::from_secs(10);
/// Without any connection it is given up much earlier.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(10);
/// How long a commit may take. After that its outcome is unknown.
const COMMIT_MOST: Duration = Duration::from_secs(30);
/// How long the cluster is asked why a topic does not take records.
const AILING_MOST: Duration = Duration::from_secs(2);
/// How long a question about a topic may take.
const METADATA_MOST: Duration = Duration::from_secs(10);

/// A producer with the topics it knows.
pub(super) struct Producer {
    /// Before the client, so that its handles go first.
    topics: HashMap<String, Topic>,
    client: EventProducer,
    shape: ProducerShape,
}

/// Why waiting for acknowledgements ended early.
pub(super) enum Stopped {
    /// A record was not stored.
    Refused(Refused),
    /// The deadline passed.
    Late,
    /// Nobody waits for the batch any more.
    Abandoned,
}

impl Producer {
    /// A producer that has not spoken to anybody yet.
    pub(super) fn open(settings: &Settings, shape: ProducerShape) -> Result<Self, Fault> {
        Ok(Self { topics: HashMap::new(), client: client::producer(settings, shape)?, shape })
    }

    pub(super) fn shape(&self) -> ProducerShape {
        self.shape
    }

    fn native(&self) -> &Client<Context> {
        self.client.client()
    }

    fn context(&self) -> &Context {
        self.native().context()
    }

    /// Shuts every older owner out and waits until all its transactions are over.
    pub(super) fn init(&self, shared: &Shared, caller: &Caller<'_>) -> Result<(), Fault> {
        let started = Instant::now();
        // Without a connection librdkafka asks for the coordinator in vain, and the next time after half a second. Any question waits
        // for one; why there is none, the loop finds out.
        drop(self.native().fetch_metadata(Some(&shared.journal), INIT_STEP));
        if caller.is_gone() {
            return Err(Fault::kafka("fence", "nobody waits for it any more"));
        }
        let mut warned = false;
        loop {
            shared.settings.signs.beat();
            let Err(error) = self.client.init_transactions(INIT_STEP) else { return Ok(()) };
            let KafkaError::Transaction(error) = error else { return Err(faults::asked(&error, "init_transactions")) };
            let trouble = self.context().trouble();
            let reported = trouble.as_ref().map(|trouble| trouble.code);
            let unreachable = started.elapsed() > UNREACHABLE_AFTER && reported.is_some_and(faults::is_no_connection);
            if let Some(code) = reported.filter(|&code| unreachable || faults::short(code) == "authentication") {
                return Err(faults::unavailable(code, "the brokers cannot be reached", trouble));
            }
            if !error.is_retriable() || started.elapsed() > INIT_MOST || caller.is_gone() {
                return Err(faults::init(&error, started.elapsed(), trouble));
            }
            if !warned && started.elapsed() > INIT_WARN {
                warned = true;
                tracing::warn!(reason = error.string(), hint = faults::INIT_HINT, "waiting for the transactions of an older owner");
            }
        }
    }

    /// What the cluster says of these topics now, in their order.
    pub(super) fn describe(&mut self, names: &[&str]) -> Result<Vec<Found>, Fault> {
        // The handles first: then the answer tells this producer too, and the first send need not wait for another one.
        names.iter().try_for_each(|name| self.topic(name))?;
        let described = native::describe_topics(self.native(), names, METADATA_MOST);
        let described = described.map_err(|failure| self.unanswered(&failure, "topics cannot be looked up"))?;
        let mut found: HashMap<String, Found> = HashMap::new();
        for one in described {
            found.insert(one.name.clone(), topics::judge(one)?);
        }
        let unanswered = |name: &&str| Fault::kafka("kafka", format!("the cluster says nothing of topic {name}"));
        names.iter().map(|name| found.remove(*name).ok_or_else(|| unanswered(name))).collect()
    }

    /// Where partitions end now, as far as that is told.
    pub(super) fn ends(&self, lanes: &[Lane]) -> Result<HashMap<Lane, i64>, Fault> {
        let ends = native::ends(self.native(), lanes, METADATA_MOST);
        let ends = ends.map_err(|failure| self.unanswered(&failure, "the ends of topics cannot be looked up"))?;
        Ok(ends.into_iter().collect())
    }

    fn unanswered(&self, failure: &Failure, what: &str) -> Fault {
        faults::unavailable(failure.code, &format!("{what}: {}", failure.text), self.context().trouble())
    }

    fn topic(&mut self, name: &str) -> Result<(), Fault> {
        if !self.topics.contains_key(name) {
            let refused = || Fault::kafka("kafka", format!("librdkafka takes no topic {name}"));
            let topic = Topic::new(self.client.client(), name).ok_or_else(refused)?;
            self.topics.insert(name.to_owned(), topic);
        }
        Ok(())
    }

    /// Begins a transaction. That it succeeds proves nothing: a fenced producer learns it from the first answer.
    pub(super) fn begin(&self) -> Result<(), Fault> {
        self.client.begin_transaction().map_err(|error| {
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            faults::transaction(code, "a transaction cannot begin", self.context().trouble())
        })
    }

    /// Queues all events of a batch, in order. A single refusal ends it: a commit would say OK without that event.
    pub(super) fn send(
        &mut self,
        batch: &Batch,
        names: &[String],
        partitions: &[i32],
        headers: Vec<Headers>,
        until: Instant,
    ) -> Result<(), Fault> {
        self.expect(batch.len() + 1);
        names.iter().try_for_each(|name| self.topic(name))?;
        let topics: Vec<&Topic> = names.iter().map(|name| &self.topics[name]).collect();
        for (position, ((event, &partition), headers)) in batch.events().zip(partitions).zip(headers).enumerate() {
            pass!(Sending);
            let index = batch.topic_index(position);
            let (topic, headers) = (topics[index], Some(headers));
            let message = Message { topic, partition, key: event.key, payload: event.payload, headers, position };
            self.queue(message, until).map_err(|code| match code {
                code if faults::is_refusal(code) => {
                    faults::poison(&event, faults::poison_code(code), format!("{code}; topic {}", names[index]))
                }
                code => self.broken(self.reason(code), &names[index]),
            })?;
        }
        Ok(())
    }

    /// Prepares for the acknowledgements of so many records. What was reported before explains nothing in what comes.
    pub(super) fn expect(&self, count: usize) {
        self.context().deliveries.expect(count);
        self.context().forget_trouble();
    }

    /// Queues the journal record. Only after all events of its batch are acknowledged.
    pub(super) fn send_journal(&mut self, topic: &str, record: &[u8], position: usize, until: Instant) -> Result<(), Fault> {
        self.topic(topic)?;
        let message =
            Message { topic: &self.topics[topic], partition: 0, key: None, payload: Some(record), headers: None, position };
        self.queue(message, until).map_err(|code| match code {
            code if faults::is_refusal(code) => faults::journal_refused(topic, record.len(), code),
            code => self.broken(code, topic),
        })
    }

    /// Queues a record; when the queue is full, after some of it was sent.
    fn queue(&self, mut message: Message<'_>, until: Instant) -> Result<(), Code> {
        loop {
            match native::produce(self.native(), message) {
                Err((Code::QueueFull, back)) if Instant::now() < until => {
                    native::flush(self.native(), FLUSH_STEP);
                    message = back;
                }
                other => return other.map_err(|(code, _)| code),
            }
        }
    }

    /// Waits until every queued record is acknowledged.
    pub(super) fn settle(&self, until: Instant, caller: &Caller<'_>) -> Result<(), Stopped> {
        loop {
            let done = native::flush(self.native(), FLUSH_STEP);
            // what was purged tells nothing: the reason comes with the reports of the others, and all of them come soon
            let refused = self.context().deliveries.refused();
            let is_late = Instant::now() > until;
            if let Some(refused) = refused.filter(|refused| done || is_late || !faults::is_consequence(refused.code)) {
                return Err(Stopped::Refused(refused));
            }
            // Also when all is well: what nobody waits for is better not committed.
            if caller.is_gone() {
                return Err(Stopped::Abandoned);
            }
            if done {
                return Ok(());
            }
            if is_late {
                return Err(Stopped::Late);
            }
        }
    }

    /// Offset of one acknowledged record.
    pub(super) fn offset(&self, position: usize) -> i64 {
        self.context().deliveries.offset(position)
    }

    /// Offsets of the first `count` records.
    pub(super) fn offsets(&self, count: usize) -> Vec<i64> {
        self.context().deliveries.offsets(count, <[i64]>::to_vec)
    }

    /// Commits, and says how long it took. Any error leaves the outcome unknown: it is not interpreted further.
    pub(super) fn commit(&self) -> Result<Duration, Fault> {
        let asked = Instant::now();
        match native::commit(self.native(), COMMIT_MOST) {
            Ok(()) => Ok(asked.elapsed()),
            Err(failure) if faults::is_fenced(failure.code) => Err(Fault::Fenced { detail: failure.text }),
            Err(failure) => Err(Fault::in_doubt(Cause::Commit, format!("{}: {}", failure.code, failure.text))),
        }
    }

    /// What it means that a record was not stored. Nothing of its batch is committed.
    pub(super) fn refusal(&self, refused: Refused, batch: &Batch, names: &[String], journal: &str) -> Fault {
        let (len, position) = (batch.len(), refused.position);
        if position >= len {
            return self.journal_refusal(refused.code, journal);
        }
        let topic = &names[batch.topic_index(position)];
        if !faults::is_refusal(refused.code) {
            self.broken(refused.code, topic)
        } else if refused.code != Code::InvalidDifferentRecord && (len == 1 || self.shape.is_single()) {
            faults::poison(&batch.event(position), faults::poison_code(refused.code), format!("{}; topic {topic}", refused.code))
        } else {
            // Records are refused as they were bundled, so which of them is at fault is not known.
            let detail = format!("one of {len} events was refused: {}; topics: {}", refused.code, names.join(", "));
            Fault::in_doubt(Cause::Search, detail)
        }
    }

    /// What it means that a journal record was not stored.
    pub(super) fn journal_refusal(&self, code: Code, journal: &str) -> Fault {
        if faults::is_refusal(code) { faults::journal_refused(journal, 0, code) } else { self.broken(code, journal) }
    }

    /// What it means that records are still not acknowledged, with the first of them.
    pub(super) fn unacknowledged(&self, batch: &Batch, names: &[String], journal: &str) -> Fault {
        let (missing, first) = self.context().deliveries.offsets(batch.len(), |offsets| {
            let missing = offsets.iter().filter(|&&offset| offset == UNKNOWN).count();
            (missing, offsets.iter().position(|&offset| offset == UNKNOWN))
        });
        let topic = first.map_or(journal, |first| &names[batch.topic_index(first)]);
        let ailing = self.ailing(topic);
        let what = format!("{missing} of {} events are not acknowledged, the first one for topic {topic}{ailing}", batch.len());
        faults::unavailable(Code::MessageTimedOut, &what, self.context().trouble())
    }

    /// Why nothing more can be sent: what was sent before is reported with its reason.
    fn reason(&self, code: Code) -> Code {
        if !faults::is_consequence(code) {
            return code;
        }
        native::flush(self.native(), FLUSH_STEP);
        self.context().deliveries.refused().map_or(code, |refused| refused.code)
    }

    /// What it means that a record could not be sent. A fatal error of the producer tells more than the record's own.
    fn broken(&self, code: Code, topic: &str) -> Fault {
        let trouble = self.context().trouble();
        if let Some((fatal, reason)) = self.native().fatal_error() {
            return faults::refused(fatal, &reason).unwrap_or_else(|| faults::transaction(fatal, &reason, None));
        }
        match code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition => faults::topic_missing(topic).into(),
            Code::TopicAuthorizationFailed => faults::not_granted("WRITE", topic).into(),
            code if faults::is_consequence(code) => faults::transaction(code, &format!("topic {topic}"), trouble),
            Code::MessageTimedOut => faults::unavailable(code, &format!("topic {topic}{}", self.ailing(topic)), trouble),
            code => faults::unavailable(code, &format!("topic {topic}"), trouble),
        }
    }

    /// Which partitions of a topic lack a leader or replicas. librdkafka retries "not enough replicas" until the time is up and then
    /// tells of the time only.
    fn ailing(&self, topic: &str) -> String {
        let Ok(metadata) = self.native().fetch_metadata(Some(topic), AILING_MOST) else { return String::new() };
        let partitions = metadata.topics().iter().flat_map(|found| found.partitions());
        let ailing = partitions.filter(|partition| partition.leader() < 0 || partition.isr().len() < partition.replicas().len());
        let told = ailing.take(5).map(|partition| match partition.leader() {
            ..0 => format!("; partition {} has no leader", partition.id()),
            _ => format!(
                "; partition {} has {} of {} replicas in sync",
                partition.id(),
                partition.isr().len(),
                partition.replicas().len()
            ),
        });
        told.collect()
    }

    /// Ends the producer without waiting for it.
    pub(super) fn retire(self) {
        blocking::drop_aside(self);
    }
}
