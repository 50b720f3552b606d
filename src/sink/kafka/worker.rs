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

use super::{faults, headers, names, partition};
use crate::config::Delivery;
use crate::event::Batch;
use crate::fault::{Cause, Fault};
use crate::journal::{Applied, Entry, Record, Writer};
use crate::sink::Commit;

/// A transaction begins at the earliest so long after the last commit: its markers are still being written when the commit returns,
/// and whoever comes too early waits 20 ms (p99 at one event: 27 ms without this pause, 7 ms with it).
const MARKERS: Duration = Duration::from_millis(2);
/// How long a batch may take in the mode without transactions, where no timeout of the broker bounds it.
const STREAM_MOST: Duration = Duration::from_secs(120);

/// Room for the headers of one event: four of the columns, and some of its own (`traceparent`, `tracestate`, …).
const HEADERS: usize = 8;

/// What the thread is asked for. Each answer that is a fault is its last.
pub(super) enum Command {
    /// Partition counts of these topics.
    Count { topics: Vec<String>, reply: oneshot::Sender<Result<Vec<i32>, Fault>> },
    /// A batch.
    Publish { order: Order, reply: oneshot::Sender<Result<Done, Fault>> },
}

/// A batch with all that is needed to publish it.
pub(super) struct Order {
    pub(super) batch: Arc<Batch>,
    /// Kafka's names of the batch's topics, in its order, each with the pinned partition count.
    pub(super) topics: Vec<String>,
    pub(super) pins: Vec<i32>,
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

/// What every event of a batch needs beside itself.
struct Prepared {
    partitions: Vec<i32>,
    headers: Vec<Headers>,
}

/// State of the thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    producer: Option<Producer>,
    pace: Pace,
    known: HashMap<String, i32>,
    committed: Option<Instant>,
}

impl Worker {
    /// A worker whose producer has shut out every older owner.
    pub(super) fn fence(shared: Arc<Shared>, caller: &Caller<'_>) -> Result<Self, Fault> {
        let mut worker = Self { shared, producer: None, pace: Pace::new(), known: HashMap::new(), committed: None };
        worker.renew(caller)?;
        Ok(worker)
    }

    /// Works until the publisher is dropped, or something failed.
    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        while let Ok(command) = inbox.recv() {
            let usable = match command {
                Command::Count { topics, reply } => answer(reply, |caller| self.count(&topics, caller)),
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
            producer.init(caller)?;
        }
        self.producer = Some(producer);
        Ok(())
    }

    fn producer(&mut self) -> Result<&mut Producer, Fault> {
        self.producer.as_mut().ok_or_else(|| Fault::in_doubt(Cause::Publish, "there is no producer"))
    }

    fn count(&mut self, topics: &[String], caller: &Caller<'_>) -> Result<Vec<i32>, Fault> {
        self.survey(topics, caller)?;
        Ok(topics.iter().map(|topic| self.known[topic]).collect())
    }

    /// Looks up topics that this worker has not used yet. Costs nothing when it knows them all.
    fn survey(&mut self, topics: &[String], caller: &Caller<'_>) -> Result<(), Fault> {
        let unknown: Vec<&String> = topics.iter().filter(|topic| !self.known.contains_key(*topic)).collect();
        if unknown.is_empty() {
            return self.renew(caller);
        }
        let shared = Arc::clone(&self.shared);
        let journal = Some(&*shared.journal).filter(|_| shared.settings.kafka.delivery == Delivery::ExactlyOnce);
        // The producer may be gone after a late commit; any other would do to count, but then it is needed anyway.
        self.renew(caller)?;
        for topic in &unknown {
            let partitions = self.producer()?.count_partitions(topic)?;
            self.known.insert((*topic).clone(), partitions);
        }
        shared.limits.learn(&shared.settings, unknown.iter().map(|topic| topic.as_str()).chain(journal))?;
        self.renew(caller)
    }

    fn publish(&mut self, order: Order, caller: &Caller<'_>) -> Result<Done, Fault> {
        self.survey(&order.topics, caller)?;
        let prepared = self.prepare(&order)?;
        let done = match &order.place {
            Some(place) => self.transact(&order, place, prepared, caller),
            None => self.stream(&order, prepared, caller),
        };
        done.map_err(|fault| self.reconsider(fault, &order))
    }

    /// A refusal for size counts only when it rests on the limits as they are now: they may have been raised since they were read.
    fn reconsider(&self, fault: Fault, order: &Order) -> Fault {
        if !matches!(fault.label(), "too_large" | "refused_batch") {
            return fault;
        }
        let topics = order.topics.iter().map(String::as_str).chain([&*self.shared.journal]);
        match self.shared.limits.refresh(&self.shared.settings, topics) {
            Ok(false) => fault,
            Ok(true) => Fault::in_doubt(Cause::Publish, format!("{fault}; but max.message.bytes was changed, so once more")),
            Err(outage) => outage,
        }
    }

    /// Partition and headers of every event, so that what cannot be published is found before anything was begun.
    fn prepare(&self, order: &Order) -> Result<Prepared, Fault> {
        let source = self.shared.settings.source.as_deref();
        // Events without key go round robin by batch, wherever batches have no number by where they end.
        let n = order.place.as_ref().map_or_else(|| order.batch.last_seq().unsigned_abs(), |place| place.last.n + 1);
        let length = order.batch.len();
        let mut prepared = Prepared { partitions: Vec::with_capacity(length), headers: Vec::with_capacity(length) };
        let mut overruled = 0;
        for (position, event) in order.batch.events().enumerate() {
            let count = order.pins[order.batch.topic_index(position)];
            prepared.partitions.push(event.key.map_or_else(|| partition::of_batch(n, count), |key| partition::of_key(key, count)));
            let mut list = Headers::with_capacity(HEADERS);
            overruled += headers::write(&event, source, &mut list).map_err(|bad| faults::poison(&event, bad.code, bad.detail))?;
            prepared.headers.push(list);
        }
        self.shared.overruled.fetch_add(overruled as u64, Ordering::Relaxed);
        Ok(prepared)
    }

    /// The batch and its journal record in one transaction: events, all acknowledged; then the record, acknowledged exactly where
    /// the journal ended; then the commit.
    fn transact(&mut self, order: &Order, place: &Place, prepared: Prepared, caller: &Caller<'_>) -> Result<Done, Fault> {
        self.wait_for_markers();
        let until = Instant::now() + self.shared.settings.kafka.transaction_timeout;
        let producer = self.producer()?;
        producer.begin()?;
        producer.send(&order.batch, &order.topics, &prepared.partitions, prepared.headers, until)?;
        self.settle(order, until, caller)?;
        let (record, journalled) = self.record(order, place, &prepared.partitions)?;
        let (shared, length) = (Arc::clone(&self.shared), order.batch.len());
        self.producer()?.send_journal(&shared.journal, &record, length, until)?;
        self.settle(order, until, caller)?;
        let found = self.producer()?.offset(length);
        if found != place.end {
            let detail =
                format!("the journal record of batch {} was to lie at offset {}, it lies at {found}", journalled.n, place.end);
            return Err(Fault::in_doubt(Cause::JournalMoved, detail));
        }
        let took = self.producer()?.commit()?;
        self.committed = Some(Instant::now());
        Ok(Done { journalled: Some(journalled), commit: self.judge(took) })
    }

    /// A late commit was perhaps asked for twice, and the late request would end the next transaction of this producer.
    fn judge(&mut self, took: Duration) -> Commit {
        if !self.pace.is_late(took) {
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
    fn stream(&mut self, order: &Order, prepared: Prepared, caller: &Caller<'_>) -> Result<Done, Fault> {
        let until = Instant::now() + STREAM_MOST;
        self.producer()?.send(&order.batch, &order.topics, &prepared.partitions, prepared.headers, until)?;
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

    /// The journal record of an acknowledged batch, and where it has to lie.
    fn record(&mut self, order: &Order, place: &Place, partitions: &[i32]) -> Result<(Vec<u8>, Applied), Fault> {
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
        let record = Record { writer, n, previous, topics: order.topics.clone(), entries: entries.collect() };
        let (bytes, checksum) = record.encode();
        Ok((bytes, Applied { n, offset: place.end, checksum }))
    }
}

/// Does the work and hands its result over. Says whether the worker can go on: not after a fault, and not when nobody took the
/// result, because then nobody knows what was published.
fn answer<T>(reply: oneshot::Sender<Result<T, Fault>>, work: impl FnOnce(&Caller<'_>) -> Result<T, Fault>) -> bool {
    let result = work(&Caller(&|| reply.is_closed()));
    let good = result.is_ok();
    reply.send(result).is_ok() && good
}

/// Refuses topics that Kafka or outboxd keep for themselves.
pub(super) fn refuse_names(batch: &Batch, topics: &[String]) -> Result<(), Fault> {
    let refused = topics.iter().enumerate().find_map(|(index, topic)| names::refusal(topic).map(|why| (index, why)));
    let Some((index, (code, detail))) = refused else { return Ok(()) };
    let first = (0..batch.len()).find(|&position| batch.topic_index(position) == index).unwrap_or(0);
    Err(faults::poison(&batch.event(first), code, detail))
}
