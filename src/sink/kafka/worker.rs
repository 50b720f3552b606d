//! The thread that owns the producer. All transaction calls of librdkafka block, so the async side sends orders and awaits answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Shared;
use super::blocking::Caller;
use super::deliveries::UNKNOWN;
use super::native::Headers;
use super::pace::Pace;
use super::producer::{Producer, Stopped};
use super::topics::{Found, Known};

use super::{faults, headers, names, partition};
use crate::config::{Delivery, TopicPatterns};
use crate::event::{Batch, Event};
use crate::failpoint::{lacks, pass};
use crate::fault::{Cause, Fault};
use crate::journal::{Applied, Entry, Record, Writer};
use crate::park::Unfit;
use crate::sink::Commit;

/// A transaction begins at the earliest so long after the last commit: its markers are still being written when the commit returns,
/// and whoever comes too early waits 20 ms (p99 at one event: 27 ms without this pause, 7 ms with it).
const MARKERS: Duration = Duration::from_millis(2);
/// How long a batch may take in the mode without transactions, where no timeout of the broker bounds it.
const STREAM_MOST: Duration = Duration::from_secs(120);

/// A topic in use is looked at again after so long: it may have been deleted and made anew, or have grown.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Room for the headers of one event: four of the columns, and some of its own (`traceparent`, `tracestate`, …).
const HEADERS: usize = 8;

/// What the thread is asked for. Each answer that is a fault is its last.
pub(super) enum Command {
    /// A look at these topics, anew.
    Look { topics: Vec<String>, reply: oneshot::Sender<Result<Vec<Found>, Fault>> },
    /// A look at a batch that is to be published next, and at its topics.
    Inspect { batch: Arc<Batch>, topics: Vec<String>, reply: oneshot::Sender<Result<Inspected, Fault>> },
    /// A journal record without events.
    Note { place: Place, reply: oneshot::Sender<Result<Applied, Fault>> },
    /// A batch.
    Publish { order: Order, reply: oneshot::Sender<Result<Done, Fault>> },
}

/// A batch with all that is needed to publish it.
pub(super) struct Order {
    pub(super) batch: Arc<Batch>,
    /// Kafka's names of the batch's topics, in its order, each with the pinned partition count and the batch since which it is pinned.
    pub(super) topics: Vec<String>,
    pub(super) pins: Vec<i32>,
    pub(super) since: Vec<u64>,
    /// Where the journal ends; nothing in the mode without one.
    pub(super) place: Option<Place>,
}

/// The end of the journal.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) writer: Writer,
    pub(super) last: Applied,
    pub(super) end: i64,
}

/// A committed batch.
pub(super) struct Done {
    pub(super) journalled: Option<Applied>,
    pub(super) commit: Commit,
}

/// What a look at a batch found.
pub(super) struct Inspected {
    /// Of each of its topics.
    pub(super) topics: Vec<Found>,
    /// Events that can never be published.
    pub(super) unfit: Vec<Unfit>,
}

/// State of the thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    producer: Option<Producer>,
    pace: Pace,
    /// Topics as they were when they were looked up.
    known: HashMap<String, (Known, Instant)>,
    /// Headers of the batch that was inspected last, with the number of its last event.
    prepared: Option<(i64, Vec<Headers>)>,
    committed: Option<Instant>,
}

impl Worker {
    /// A worker whose producer has shut out every older owner.
    pub(super) fn fence(shared: Arc<Shared>, caller: &Caller<'_>) -> Result<Self, Fault> {
        let mut worker = Self { shared, producer: None, pace: Pace::new(), known: HashMap::new(), prepared: None, committed: None };
        worker.renew(caller)?;
        Ok(worker)
    }

    /// Works until the publisher is dropped, or something failed.
    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        while let Ok(command) = inbox.recv() {
            let usable = match command {
                Command::Look { topics, reply } => answer(reply, |caller| self.look(&topics, caller)),
                Command::Inspect { batch, topics, reply } => answer(reply, |caller| self.inspect(&batch, &topics, caller)),
                Command::Note { place, reply } => answer(reply, |caller| self.note(&place, caller)),
                Command::Publish { order, reply } => answer(reply, |caller| self.publish(order, caller)),
            };
            if !usable {
                return;
            }
        }
    }

    /// Makes sure that there is a producer, and that it can serve all topics: else a new one takes its place. Between two batches
    /// nothing is open, so this shuts out nobody but ourselves; if it did, the journal's end would have moved.
    fn renew(&mut self, caller: &Caller<'_>) -> Result<(), Fault> {
        let shape = self.shared.limits.shape(self.pace.backoff());
        if self.producer.as_ref().is_some_and(|producer| producer.shape() == shape) {
            return Ok(());
        }
        if let Some(old) = self.producer.take() {
            old.retire();
        }
        let producer = Producer::open(&self.shared.settings, shape)?;
        if self.shared.settings.kafka.delivery == Delivery::ExactlyOnce {
            producer.init(&self.shared, caller)?;
        }
        self.producer = Some(producer);
        Ok(())
    }

    fn producer(&mut self) -> Result<&mut Producer, Fault> {
        self.producer.as_mut().ok_or_else(|| Fault::in_doubt(Cause::Publish, "there is no producer"))
    }

    fn look(&mut self, topics: &[String], caller: &Caller<'_>) -> Result<Vec<Found>, Fault> {
        self.known.retain(|known, _| !topics.contains(known));
        self.survey(topics, caller)
    }

    /// Looks up topics that this worker has not used lately. Costs nothing when it knows them all.
    fn survey(&mut self, topics: &[String], caller: &Caller<'_>) -> Result<Vec<Found>, Fault> {
        // The producer may be gone after a late commit; any other would do to ask, but then it is needed anyway.
        self.renew(caller)?;
        let old = |topic: &&String| self.known.get(*topic).is_none_or(|(_, asked)| asked.elapsed() > LOOK_AGAIN);
        let unknown: Vec<&str> = topics.iter().filter(old).map(String::as_str).collect();
        let mut asked = if unknown.is_empty() { HashMap::new() } else { self.ask(&unknown, caller)? };
        let mut found = Vec::with_capacity(topics.len());
        for topic in topics {
            found.push(match (asked.remove(topic), self.known.get(topic)) {
                (Some(found), _) => found,
                (None, Some((known, _))) => Ok(known.clone()),
                (None, None) => return Err(Fault::kafka("kafka", format!("the cluster says nothing of topic {topic}"))),
            });
        }
        Ok(found)
    }

    /// Asks for topics, and for what depends on them: how large records may be, and whether what was published there is still there.
    fn ask(&mut self, topics: &[&str], caller: &Caller<'_>) -> Result<HashMap<String, Found>, Fault> {
        self.known.retain(|known, _| !topics.contains(&&**known));
        let shared = Arc::clone(&self.shared);
        let found: HashMap<String, Found> =
            topics.iter().copied().map(str::to_owned).zip(self.producer()?.describe(topics)?).collect();
        let well: Vec<&str> = topics.iter().copied().filter(|topic| found.get(*topic).is_some_and(Result::is_ok)).collect();
        if well.is_empty() {
            return Ok(found);
        }
        let producer = self.producer()?;
        shared.ends.compare(&well, |lanes| producer.ends(lanes))?;
        let journal = Some(&*shared.journal).filter(|_| shared.settings.kafka.delivery == Delivery::ExactlyOnce);
        shared.limits.learn(&shared.settings, well.into_iter().chain(journal))?;
        let known = found.iter().filter_map(|(topic, found)| Some((topic.clone(), (found.as_ref().ok()?.clone(), Instant::now()))));
        self.known.extend(known);
        self.renew(caller)?;
        Ok(found)
    }

    /// What of a batch cannot be published, found before anything is begun. Its headers are kept for when it is published.
    fn inspect(&mut self, batch: &Batch, topics: &[String], caller: &Caller<'_>) -> Result<Inspected, Fault> {
        self.prepared = None;
        let found = self.survey(topics, caller)?;
        let mut unfit = self.too_large(batch, topics);
        if !unfit.is_empty() {
            // they may have been raised since they were read
            self.shared.limits.refresh(&self.shared.settings, topics.iter().map(String::as_str))?;
            self.renew(caller)?;
            unfit = self.too_large(batch, topics);
        }
        let source = self.shared.settings.source.as_deref();
        let (mut prepared, mut overruled) = (Vec::with_capacity(batch.len()), 0);
        for event in batch.events() {
            let mut list = Headers::with_capacity(HEADERS);
            match headers::write(&event, source, &mut list) {
                Ok(count) => overruled += count,
                Err(bad) => unfit.push(faults::unfit(&event, bad.code, bad.detail)),
            }
            prepared.push(list);
        }
        if unfit.is_empty() && found.iter().all(Result::is_ok) {
            self.prepared = Some((batch.last_seq(), prepared));
            self.shared.overruled.fetch_add(overruled as u64, Ordering::Relaxed);
        }
        Ok(Inspected { topics: found, unfit })
    }

    /// Events that are larger than their topic takes, without counting what surrounds them. Compressed they may fit, unless they are
    /// larger than what any topic takes.
    fn too_large(&self, batch: &Batch, topics: &[String]) -> Vec<Unfit> {
        let most = self.producer.as_ref().map_or(u32::MAX, |producer| producer.shape().message_bytes);
        let compressed = self.shared.settings.kafka.properties.keys().any(|key| key.starts_with("compression"));
        let limits: Vec<u32> =
            topics.iter().map(|topic| if compressed { most } else { self.shared.limits.of(topic).min(most) }).collect();
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let events = batch.events().enumerate().filter_map(|(position, event)| {
            let index = batch.topic_index(position);
            let (size, limit) = (length(event.key) + length(event.payload), limits[index]);
            let detail = || format!("key and payload of {size} bytes; topic {} takes {limit} (max.message.bytes)", topics[index]);
            (size > limit as usize).then(|| faults::unfit(&event, "too_large", detail()))
        });
        events.collect()
    }

    fn publish(&mut self, order: Order, caller: &Caller<'_>) -> Result<Done, Fault> {
        let prepared =
            self.prepared.take().filter(|(last, headers)| (*last, headers.len()) == (order.batch.last_seq(), order.batch.len()));
        let (_, headers) = prepared.ok_or_else(|| Fault::in_doubt(Cause::Publish, "the batch was not inspected"))?;
        self.renew(caller)?;
        let partitions = partitions(&order);
        let done = match &order.place {
            Some(place) => self.transact(&order, place, &partitions, headers, caller),
            None => self.stream(&order, &partitions, headers, caller),
        };
        if done.is_ok() {
            self.shared.limits.search(false);
        }
        done.map_err(|fault| self.reconsider(fault, &order))
    }

    /// What a failure means by what the cluster says now.
    fn reconsider(&mut self, fault: Fault, order: &Order) -> Fault {
        let search = matches!(fault, Fault::InDoubt { cause: Cause::Search, .. });
        if search || fault.label() == "too_large" {
            return self.reconsider_size(fault, order, search);
        }
        if matches!(fault, Fault::InDoubt { cause: Cause::Publish, .. }) {
            self.missing_right(order).unwrap_or(fault)
        } else {
            fault
        }
    }

    /// A refusal for size counts only when it rests on the limits as they are now: they may have been raised since they were read.
    fn reconsider_size(&self, fault: Fault, order: &Order, search: bool) -> Fault {
        let topics = order.topics.iter().map(String::as_str).chain([&*self.shared.journal]);
        match self.shared.limits.refresh(&self.shared.settings, topics) {
            Ok(false) => {
                self.shared.limits.search(search);
                fault
            }
            Ok(true) => Fault::in_doubt(Cause::Publish, format!("{fault}; but max.message.bytes was changed, so once more")),
            Err(outage) => outage,
        }
    }

    /// A topic that the batch may not be written to. librdkafka does not tell: a transaction that is refused one topic fails as a whole,
    /// with all its records.
    fn missing_right(&mut self, order: &Order) -> Option<Fault> {
        let shared = Arc::clone(&self.shared);
        let mut topics: Vec<&str> = order.topics.iter().map(String::as_str).collect();
        topics.extend(order.place.as_ref().map(|_| &*shared.journal));
        let found = self.producer().and_then(|producer| producer.describe(&topics));
        let found = found.inspect_err(|error| tracing::debug!(%error, "the rights cannot be looked up")).ok()?;
        let ailing = found.into_iter().find_map(Result::err)?;
        Some(if ailing.topic == shared.journal { faults::journal_ailing(ailing) } else { ailing.into() })
    }

    /// The batch and its journal record in one transaction: events, all acknowledged; then the record, acknowledged exactly where
    /// the journal ended; then the commit.
    fn transact(
        &mut self,
        order: &Order,
        place: &Place,
        partitions: &[i32],
        headers: Vec<Headers>,
        caller: &Caller<'_>,
    ) -> Result<Done, Fault> {
        self.wait_for_markers();
        let until = Instant::now() + self.shared.settings.kafka.transaction_timeout;
        pass!(Beginning);
        let producer = self.producer()?;
        producer.begin()?;
        producer.send(&order.batch, &order.topics, partitions, headers, until)?;
        pass!(Sent);
        self.settle(order, until, caller)?;
        pass!(Acknowledged);
        let record = self.record(order, place, partitions)?;
        let (shared, length) = (Arc::clone(&self.shared), order.batch.len());
        shared.ends.fits(&record, &order.since).map_err(|evidence| Fault::in_doubt(Cause::Publish, evidence))?;
        let (bytes, checksum) = record.encode();
        let journalled = Applied { n: record.n, offset: place.end, checksum };
        self.producer()?.send_journal(&shared.journal, &bytes, length, until)?;
        pass!(Journalling);
        self.settle(order, until, caller)?;
        let found = self.producer()?.offset(length);
        if found != place.end {
            let detail =
                format!("the journal record of batch {} was to lie at offset {}, it lies at {found}", journalled.n, place.end);
            return Err(Fault::in_doubt(Cause::JournalMoved, detail));
        }
        pass!(Committing);
        let took = self.producer()?.commit()?;
        pass!(Committed);
        self.committed = Some(Instant::now());
        shared.ends.learn(&record);
        Ok(Done { journalled: Some(journalled), commit: self.judge(took) })
    }

    /// A journal record without events, in a transaction of its own, exactly where the journal ends.
    fn note(&mut self, place: &Place, caller: &Caller<'_>) -> Result<Applied, Fault> {
        self.renew(caller)?;
        self.wait_for_markers();
        let until = Instant::now() + self.shared.settings.kafka.transaction_timeout;
        let (n, previous) = (place.last.n + 1, place.last.checksum);
        let (bytes, checksum) = Record { writer: place.writer.clone(), n, previous, topics: vec![], entries: vec![] }.encode();
        let shared = Arc::clone(&self.shared);
        let producer = self.producer()?;
        producer.begin()?;
        producer.expect(1);
        producer.send_journal(&shared.journal, &bytes, 0, until)?;
        let stored = producer.settle(until, caller);
        stored.map_err(|stopped| match stopped {
            Stopped::Refused(refused) => producer.journal_refusal(refused.code, &shared.journal),
            Stopped::Late | Stopped::Abandoned => Fault::kafka("timeout", "the journal record was not acknowledged"),
        })?;
        let found = producer.offset(0);
        if found != place.end {
            let detail = format!("the journal record was to lie at offset {}, it lies at {found}", place.end);
            return Err(Fault::in_doubt(Cause::JournalMoved, detail));
        }
        let took = producer.commit()?;
        self.committed = Some(Instant::now());
        // when it was late, the next batch gets a new producer
        self.judge(took);
        Ok(Applied { n, offset: found, checksum })
    }

    /// A late commit was perhaps asked for twice, and the late request would end the next transaction of this producer.
    fn judge(&mut self, took: Duration) -> Commit {
        if !self.pace.is_late(took) || lacks!(NewProducer) {
            return Commit::Prompt;
        }
        self.pace.renew();
        if let Some(old) = self.producer.take() {
            old.retire();
        }
        Commit::Late
    }

    fn wait_for_markers(&self) {
        let passed = self.committed.map_or(MARKERS, |committed| committed.elapsed());
        thread::sleep(MARKERS.saturating_sub(passed));
    }

    /// The batch without transaction and journal.
    fn stream(&mut self, order: &Order, partitions: &[i32], headers: Vec<Headers>, caller: &Caller<'_>) -> Result<Done, Fault> {
        let until = Instant::now() + STREAM_MOST;
        self.producer()?.send(&order.batch, &order.topics, partitions, headers, until)?;
        self.settle(order, until, caller)?;
        Ok(Done { journalled: None, commit: Commit::Prompt })
    }

    /// Waits for all acknowledgements, or says why they do not come. Without a commit nothing of the batch was published, except in
    /// the mode without transactions.
    fn settle(&mut self, order: &Order, until: Instant, caller: &Caller<'_>) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let producer = self.producer()?;
        producer.settle(until, caller).map_err(|stopped| match stopped {
            Stopped::Refused(refused) => producer.refusal(refused, &order.batch, &order.topics, &shared.journal),
            Stopped::Late => {
                let fault = producer.unacknowledged(&order.batch, &order.topics, &shared.journal);
                match order.place {
                    Some(_) => fault,
                    None => Fault::in_doubt(Cause::Publish, fault.to_string()),
                }
            }
            Stopped::Abandoned => Fault::in_doubt(Cause::Publish, "nobody waits for the batch any more"),
        })
    }

    /// The journal record of an acknowledged batch.
    fn record(&mut self, order: &Order, place: &Place, partitions: &[i32]) -> Result<Record, Fault> {
        let batch = &order.batch;
        let offsets = self.producer()?.offsets(batch.len());
        if offsets.contains(&UNKNOWN) {
            return Err(Fault::in_doubt(Cause::Publish, "an event was acknowledged without its offset"));
        }
        let stored = batch.events().zip(partitions).zip(offsets).enumerate();
        let entries = stored.map(|(position, ((event, &partition), offset))| {
            let topic = batch.topic_index(position) as u32;
            Entry { seq: event.seq, fingerprint: event.fingerprint(), topic, partition, offset }
        });
        let (writer, n, previous) = (place.writer.clone(), place.last.n + 1, place.last.checksum);
        Ok(Record { writer, n, previous, topics: order.topics.clone(), entries: entries.collect() })
    }
}

/// Does the work and hands its result over. Says whether the worker can go on: not after a fault, and not when nobody took the
/// result, because then nobody knows what was published.
fn answer<T>(reply: oneshot::Sender<Result<T, Fault>>, work: impl FnOnce(&Caller<'_>) -> Result<T, Fault>) -> bool {
    let result = work(&Caller(&|| reply.is_closed()));
    let good = result.is_ok();
    reply.send(result).is_ok() && good
}

/// The partition of each event.
fn partitions(order: &Order) -> Vec<i32> {
    // Events without key go round robin by batch, wherever batches have no number by where they end.
    let n = order.place.as_ref().map_or_else(|| order.batch.last_seq().unsigned_abs(), |place| place.last.n + 1);
    let partition = |(position, event): (usize, Event<'_>)| {
        let count = order.pins[order.batch.topic_index(position)];
        event.key.map_or_else(|| partition::of_batch(n, count), |key| partition::of_key(key, count))
    };
    order.batch.events().enumerate().map(partition).collect()
}

/// Events to topics that Kafka or outboxd keep for themselves, that are not allowed, or whose names cannot be.
pub(super) fn refused_names(batch: &Batch, topics: &[String], allowed: &TopicPatterns) -> Vec<Unfit> {
    let not_allowed = |topic: &str| {
        (!allowed.allow(topic)).then(|| ("topic_not_allowed", format!("kafka.allow_topics does not allow topic {topic}")))
    };
    let named = batch.topics().iter().zip(topics);
    let refusals: Vec<_> = named.map(|(row, kafka)| names::refusal(kafka).or_else(|| not_allowed(row))).collect();
    if refusals.iter().all(Option::is_none) {
        return Vec::new();
    }
    let events = batch.events().enumerate().filter_map(|(position, event)| {
        let (code, detail) = refusals[batch.topic_index(position)].as_ref()?;
        Some(faults::unfit(&event, code, detail.clone()))
    });
    events.collect()
}
