//! A log with transactions in memory: the twin of Kafka for tests. Fencing by epoch, markers that take offsets, a journal, and faults
//! on demand. Readers see committed records only.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::{Commit, Fence, Fenced, Inspection, Noted, Published, Publisher, Sink};
use crate::event::{Batch, Event};
use crate::fault::{Cause, Fault};
use crate::journal::{Applied, Checksum, Entry, History, Reading, Record, View, Writer};
use crate::park::{Ailing, SetAside, Unfit};
use crate::source::{Pin, Pins};

/// Partitions a topic has unless a test says otherwise.
const PARTITIONS: i32 = 2;

/// What goes wrong with a publish.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nothing is committed.
    Before(Fault),
    /// It is committed, but the answer got lost.
    After(Fault),
    /// It is committed, late.
    Late,
    /// Somebody else appends to the journal first.
    JournalMoved,
}

/// A committed event as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Event id; the twins in memory know only uuids.
    pub id: Uuid,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub payload: Option<Vec<u8>>,
}

/// Everything the log holds.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Committed events by topic, in order of publishing.
    pub topics: BTreeMap<String, Vec<Read>>,
    /// Next offset of each topic partition.
    ends: HashMap<(String, i32), i64>,
    /// Journal records with their offsets.
    pub journal: Vec<(i64, Vec<u8>)>,
    /// First offset of the journal.
    pub journal_start: i64,
    /// Next offset of the journal.
    pub journal_end: i64,
    /// Where somebody's open transaction on the journal begins.
    pub journal_blocked: Option<i64>,
    /// Fences raised so far.
    pub epoch: u64,
    /// Faults of the next publishes; `None`: that one succeeds.
    pub failures: VecDeque<Option<Failure>>,
    /// Faults of the next fences.
    pub fence_failures: VecDeque<Fault>,
    /// Numbers of events that a look finds unfit.
    pub unfit: BTreeSet<i64>,
    /// Numbers of events that are refused when they are sent.
    pub refused: BTreeSet<i64>,
    /// Topics that a look finds well, and that refuse what is sent.
    pub refused_topics: BTreeMap<String, Ailing>,
    /// Topics that a look finds missing.
    pub missing: BTreeSet<String>,
    /// Whether the log is about to let go of the newest journal record by itself.
    pub fading: bool,
    /// How long a batch takes.
    pub publish_takes: std::time::Duration,
    /// How long a fence takes.
    pub fence_takes: std::time::Duration,
    /// Faults of the next looks.
    pub look_failures: VecDeque<Fault>,
}

/// A handle to one log; clones see the same one.
#[derive(Clone, Debug, Default)]
pub struct MemorySink(Arc<Mutex<Log>>);

impl MemorySink {
    /// The log itself, to look at it or to do it harm.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self, outbox: Uuid, base: Applied) -> Result<(View, Vec<(Record, Applied)>), Fault> {
        let log = self.log();
        let mut reading = Reading::start(outbox, base, log.journal_start);
        let from = reading.from(log.journal_start);
        let stable = log.journal_blocked.unwrap_or(log.journal_end);
        let mut records = Vec::new();
        for (offset, bytes) in log.journal.iter().filter(|(offset, _)| (from..stable).contains(offset)) {
            if let Some(record) = reading.accept(*offset, bytes)? {
                let checksum = Record::decode(bytes).map(|(_, checksum)| checksum).unwrap_or_default();
                let at = Applied { n: record.n, offset: *offset, checksum };
                records.push((record, at));
            }
        }
        Ok((reading.finish(log.journal_end, stable)?, records))
    }
}

impl Sink for MemorySink {
    type Fenced = MemoryFenced;

    async fn look(&self, outbox: Uuid, base: Applied) -> Result<View, Fault> {
        if let Some(fault) = self.log().look_failures.pop_front() {
            return Err(fault);
        }
        self.view(outbox, base).map(|(view, _)| view)
    }

    async fn fence(&self) -> Result<MemoryFenced, Fault> {
        let takes = self.log().fence_takes;
        tokio::time::sleep(takes).await;
        let mut log = self.log();
        if let Some(fault) = log.fence_failures.pop_front() {
            return Err(fault);
        }
        log.epoch += 1;
        Ok(MemoryFenced { sink: self.clone(), epoch: log.epoch, fence: Fence::raised() })
    }

    async fn trim(&self, keep_from: i64) -> Result<i64, Fault> {
        let mut log = self.log();
        log.journal_start = log.journal_start.max(keep_from);
        let start = log.journal_start;
        log.journal.retain(|(offset, _)| *offset >= start);
        Ok(start)
    }
}

/// A fenced [`MemorySink`].
#[derive(Debug)]
pub struct MemoryFenced {
    sink: MemorySink,
    epoch: u64,
    fence: Fence,
}

impl Fenced for MemoryFenced {
    type Publisher = MemoryPublisher;
    type History = MemoryHistory;

    fn fence(&self) -> &Fence {
        &self.fence
    }

    async fn recover(self, writer: Writer, base: Applied) -> Result<(MemoryPublisher, View, MemoryHistory), Fault> {
        let (view, records) = self.sink.view(writer.outbox, base)?;
        if view.stable < view.end {
            let evidence = format!("an open transaction begins at offset {}", view.stable);
            return Err(crate::fault::Halt::new(crate::fault::HaltCode::JournalBlocked, evidence).into());
        }
        let publisher = MemoryPublisher {
            sink: self.sink,
            epoch: self.epoch,
            writer,
            n: view.last.n,
            previous: view.last.checksum,
            expected: view.end,
        };
        Ok((publisher, view, MemoryHistory(records.into())))
    }
}

/// The records above the base.
#[derive(Debug)]
pub struct MemoryHistory(VecDeque<(Record, Applied)>);

impl History for MemoryHistory {
    async fn next(&mut self) -> Result<Option<(Record, Applied)>, Fault> {
        Ok(self.0.pop_front())
    }
}

/// Publishes into a [`MemorySink`].
#[derive(Debug)]
pub struct MemoryPublisher {
    sink: MemorySink,
    epoch: u64,
    writer: Writer,
    n: u64,
    previous: Checksum,
    expected: i64,
}

impl MemoryPublisher {
    /// Appends events and record in one step, as a committed transaction would.
    fn append(&mut self, log: &mut Log, batch: &Batch, pins: &Pins) -> Applied {
        let mut entries = Vec::with_capacity(batch.len());
        for (position, event) in batch.events().enumerate() {
            let count = pins.get(event.topic).map_or(PARTITIONS, |pin| pin.partitions);
            let partition = event.key.map_or(0, |key| key.iter().map(|byte| i32::from(*byte)).sum::<i32>() % count);
            let end = log.ends.entry((event.topic.to_owned(), partition)).or_default();
            let offset = *end;
            *end += 1;
            let (key, payload) = (event.key.map(Into::into), event.payload.map(Into::into));
            let read = Read { partition, offset, id: event.id.uuid().unwrap_or_default(), key, payload };
            log.topics.entry(event.topic.to_owned()).or_default().push(read);
            let topic = batch.topic_index(position) as u32;
            entries.push(Entry { seq: event.seq, fingerprint: event.fingerprint(), topic, partition, offset });
        }
        let topics = batch.topics().iter().map(ToString::to_string).collect();
        log.ends.values_mut().for_each(|end| *end += 1);
        self.record(log, topics, entries)
    }

    fn record(&mut self, log: &mut Log, topics: Vec<String>, entries: Vec<Entry>) -> Applied {
        let record = Record { writer: self.writer.clone(), n: self.n + 1, previous: self.previous, topics, entries };
        let (bytes, checksum) = record.encode();
        let at = Applied { n: record.n, offset: log.journal_end, checksum };
        log.journal.push((at.offset, bytes));
        log.journal_end += 2;
        (self.n, self.previous, self.expected) = (at.n, checksum, at.offset + 2);
        at
    }
}

fn unfit(event: &Event<'_>, code: &'static str) -> Unfit {
    Unfit { seq: event.seq, id: event.id.into(), code, detail: "on demand".into() }
}

impl Publisher for MemoryPublisher {
    async fn inspect(&mut self, batch: &Arc<Batch>, pins: &Pins) -> Result<Inspection, Fault> {
        let topics: BTreeSet<String> = batch.topics().iter().map(ToString::to_string).collect();
        let ailing = self.ailing(&topics, pins).await?;
        let log = self.sink.log();
        let unfit = batch.events().filter(|event| log.unfit.contains(&event.seq)).map(|event| unfit(&event, "malformed_headers"));
        let set_aside = SetAside { unfit: unfit.collect(), ailing };
        let new = topics.into_iter().filter(|topic| !pins.contains_key(topic) && !log.missing.contains(topic));
        Ok(Inspection { set_aside, pins: new.map(|topic| (topic, Pin::of(PARTITIONS))).collect() })
    }

    async fn ailing(&mut self, topics: &BTreeSet<String>, _pins: &Pins) -> Result<Vec<Ailing>, Fault> {
        let log = self.sink.log();
        let missing = topics.intersection(&log.missing);
        Ok(missing.map(|topic| Ailing { topic: topic.clone(), code: "topic_missing", detail: "on demand".into() }).collect())
    }

    async fn refresh(&mut self) -> Result<Option<Noted>, Fault> {
        let sink = self.sink.clone();
        let mut log = sink.log();
        if log.epoch != self.epoch {
            return Err(Fault::Fenced { detail: "a newer fence".into() });
        }
        let fading = std::mem::take(&mut log.fading);
        Ok(fading.then(|| Noted::committed(self.record(&mut log, Vec::new(), Vec::new()))))
    }

    async fn publish(&mut self, batch: Arc<Batch>, pins: &Pins) -> Result<Published, Fault> {
        // a turn of the other tasks, as the network would give it
        tokio::task::yield_now().await;
        let takes = self.sink.log().publish_takes;
        tokio::time::sleep(takes).await;
        let sink = self.sink.clone();
        let mut log = sink.log();
        if log.epoch != self.epoch {
            return Err(Fault::Fenced { detail: "a newer fence".into() });
        }
        if let Some(event) = batch.events().find(|event| log.refused.contains(&event.seq)) {
            return Err(unfit(&event, "too_large").into());
        }
        if let Some(ailing) = batch.topics().iter().find_map(|topic| log.refused_topics.get(&**topic)) {
            return Err(ailing.clone().into());
        }
        let failure = log.failures.pop_front().flatten();
        match &failure {
            Some(Failure::Before(fault)) => return Err(fault.clone()),
            Some(Failure::JournalMoved) => log.journal_end += 2,
            Some(Failure::After(_) | Failure::Late) | None => {}
        }
        if log.journal_end != self.expected {
            let detail = format!("expected offset {}, found {}", self.expected, log.journal_end);
            return Err(Fault::in_doubt(Cause::JournalMoved, detail));
        }
        let at = self.append(&mut log, &batch, pins);
        match failure {
            Some(Failure::After(fault)) => Err(fault),
            Some(Failure::Late) => Ok(Published::committed(batch, Some(at), Commit::Late)),
            Some(Failure::Before(_) | Failure::JournalMoved) | None => Ok(Published::committed(batch, Some(at), Commit::Prompt)),
        }
    }
}
