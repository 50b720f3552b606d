//! Reading the journal topic to its true end, as `look`, `recover` and the history need it.
//!
//! The recipe: one reader of committed records; watermarks first (which also opens the connection); assign an explicit offset; poll to
//! the end of the partition. The position there moves past markers and aborted records, so `position == high watermark` is exact,
//! while "last record + 1" never is: a marker is always last. A position below the high watermark is somebody's open transaction.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::blocking::{Caller, drop_aside};
use super::client::{self, Context, Sight};
use super::{Shared, faults, native};
use crate::fault::{Fault, Halt, HaltCode};
use crate::journal::{Applied, Checksum, Reading, Record, View};

/// Errors are retried for so long: right after a leader change or a restart the first answers are wrong or missing.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long a journal topic must be missing before that is believed.
const MISSING_AFTER: Duration = Duration::from_secs(3);
/// Where no broker can be reached, so long is enough: there is no answer that could be wrong, and whoever asked tries again.
const UNREACHED_AFTER: Duration = Duration::from_secs(4);
/// One poll, and the pause between two tries.
const STEP: Duration = Duration::from_millis(100);
/// One question to the cluster.
const ASK: Duration = Duration::from_secs(5);
/// An open transaction of a dead owner ends at `transaction_timeout`; the coordinator looks every 10 s. Beyond that it is hanging.
const MARGIN: Duration = Duration::from_secs(15);
/// Bytes of records that a recovery keeps for its history. A longer journal is read again piece by piece.
pub(super) const KEPT_BYTES: usize = 8 << 20;

/// A record of the journal as it lies there.
pub(super) struct Stored {
    pub(super) offset: i64,
    pub(super) bytes: Box<[u8]>,
}

/// A reader of one journal.
pub(super) struct Reader {
    shared: Arc<Shared>,
    consumer: Option<BaseConsumer<Context>>,
    /// Timestamp of the newest record that was read.
    written_ms: Cell<Option<i64>>,
}

/// First offset that the topic still has, and its last stable offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) start: i64,
    pub(super) stable: i64,
}

/// Where reading ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Everything below is read.
    pub(super) position: i64,
    /// True high watermark.
    pub(super) high: i64,
}

/// How far to read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// To the last stable offset: what readers can see.
    Stable,
    /// The same, but past this offset if the topic has it: an open transaction there is waited for so long.
    Past(i64, Duration),
    /// To the high watermark; an open transaction below it is waited for so long.
    End(Duration),
    /// On and on, until this moment.
    Moment(Instant),
}

/// What the journal holds above `base`, as far as readers can see it.
pub(super) fn look(shared: &Arc<Shared>, outbox: Uuid, base: Applied, caller: &Caller<'_>) -> Result<View, Fault> {
    let reader = Reader::open(shared)?;
    let bounds = reader.bounds_or_missing(base, caller)?;
    let mut reading = Reading::start(outbox, base, bounds.start);
    let from = reading.from(bounds.start);
    // A commit is answered before its markers are written: until they are, the applied record is there and cannot be seen.
    let until = if base.n > 0 { Until::Past(base.offset, patience(shared)) } else { Until::Stable };
    let end = reader.read(from, bounds, until, caller, |offset, bytes| {
        reading.accept(offset, bytes)?;
        Ok(ControlFlow::Continue(()))
    });
    finish(reading, &reader, end, outbox, base, caller)
}

/// The journal above `base` to its true end, its first records for the history, and when the newest record was written, in milliseconds
/// since 1970.
pub(super) fn recover(
    shared: &Arc<Shared>,
    outbox: Uuid,
    base: Applied,
    caller: &Caller<'_>,
) -> Result<(View, Vec<Stored>, Option<i64>), Fault> {
    let reader = Reader::open(shared)?;
    let bounds = reader.bounds_or_missing(base, caller)?;
    let mut reading = Reading::start(outbox, base, bounds.start);
    let from = reading.from(bounds.start);
    let mut kept = Kept::default();
    let until = Until::End(patience(shared));
    let end = reader.read(from, bounds, until, caller, |offset, bytes| {
        match reading.accept(offset, bytes)? {
            Some(record) => {
                shared.ends.learn(&record);
                kept.push(offset, bytes);
            }
            // the base: its rows are marked, and its events must still be there as well
            None => drop(Record::decode(bytes).map(|(record, _)| shared.ends.learn(&record))),
        }
        Ok(ControlFlow::Continue(()))
    });
    let view = finish(reading, &reader, end, outbox, base, caller)?;
    Ok((view, kept.records, reader.written_ms.get()))
}

/// The next piece of the journal: the records above `last` up to `until`, as many as are kept at once.
pub(super) fn piece(
    shared: &Arc<Shared>,
    outbox: Uuid,
    last: Applied,
    until: Applied,
    caller: &Caller<'_>,
) -> Result<Vec<Stored>, Fault> {
    let reader = Reader::open(shared)?;
    let bounds = reader.bounds_or_missing(last, caller)?;
    let mut reading = Reading::start(outbox, last, bounds.start);
    let from = reading.from(bounds.start);
    let mut kept = Kept::default();
    let end = reader.read(from, bounds, Until::Stable, caller, |offset, bytes| {
        let above = reading.accept(offset, bytes)?.is_some();
        let full = above && !kept.push(offset, bytes);
        Ok(if full || offset >= until.offset { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    finish(reading, &reader, end, outbox, last, caller)?;
    Ok(kept.records)
}

/// The end of a journal, whoever wrote it: what a person has to know who decides to go on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// First offset that the topic still has.
    pub start: i64,
    /// Its end: no transaction is open below it.
    pub end: i64,
    /// The newest record of outboxd among the last ones: its offset and what it says.
    pub newest: Option<(i64, Record)>,
}

/// Offsets before the end among which the newest record is looked for: records and markers.
const TAIL: i64 = 64;

/// Reads the end of the journal without judging it.
pub(super) fn tail(shared: &Arc<Shared>, caller: &Caller<'_>) -> Result<Tail, Fault> {
    let reader = Reader::open(shared)?;
    let bounds = reader.bounds(caller)?;
    let (from, mut newest) = (bounds.start.max(bounds.stable - TAIL), None);
    let end = reader.read(from, bounds, Until::End(patience(shared)), caller, |offset, bytes| {
        newest = Record::decode(bytes).ok().map(|(record, _)| (offset, record)).or(newest.take());
        Ok(ControlFlow::Continue(()))
    });
    let nobody = Uuid::nil();
    let view = finish(Reading::start(nobody, Applied::default(), 0), &reader, end, nobody, Applied::default(), caller)?;
    Ok(Tail { start: bounds.start, end: view.end, newest })
}

/// The record at an offset that readers of committed records do not see; nothing when they do, or when none of outboxd's is there.
pub(super) fn unseen(shared: &Arc<Shared>, offset: i64, caller: &Caller<'_>) -> Result<Option<(Record, Checksum)>, Fault> {
    let reader = Reader::open(shared)?;
    let (bounds, mut seen) = (reader.bounds(caller)?, false);
    let read = reader.read(offset, bounds, Until::Stable, caller, |at, _| {
        seen = at == offset;
        Ok(ControlFlow::Break(()))
    });
    match read {
        Ok(_) if !seen => Ok(reader.stored_at(offset).and_then(|bytes| Record::decode(&bytes).ok())),
        Ok(_) | Err(Stop::OutOfRange | Stop::Blocked(_)) => Ok(None),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

/// Offset of the newest record below `limit`; nothing when there is none.
pub(super) fn newest_below(shared: &Arc<Shared>, limit: i64, caller: &Caller<'_>) -> Result<Option<i64>, Fault> {
    let reader = Reader::open(shared)?;
    let (bounds, mut back) = (reader.bounds(caller)?, TAIL);
    loop {
        let (from, mut newest) = (bounds.start.max(limit - back), None);
        let read = reader.read(from, bounds, Until::Stable, caller, |at, _| {
            newest = Some(at).filter(|&at| at < limit).or(newest);
            Ok(if at < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        match read {
            Ok(_) if newest.is_some() || from == bounds.start => return Ok(newest),
            Ok(_) => back *= 4,
            Err(Stop::OutOfRange | Stop::Blocked(_)) => return Ok(None),
            Err(Stop::Fault(fault)) => return Err(fault),
        }
    }
}

/// How long an open transaction is waited for.
fn patience(shared: &Shared) -> Duration {
    shared.settings.kafka.transaction_timeout + MARGIN
}

/// What an outbox without a journal sees.
pub(super) fn nothing_above(base: Applied) -> View {
    View { last: base, end: base.offset, stable: base.offset, newest: None, owners_above: Vec::new() }
}

/// Records up to [`KEPT_BYTES`], at least one.
#[derive(Default)]
struct Kept {
    records: Vec<Stored>,
    bytes: usize,
    full: bool,
}

impl Kept {
    /// Whether there is room for more.
    fn push(&mut self, offset: i64, bytes: &[u8]) -> bool {
        if !self.full {
            self.bytes += bytes.len();
            self.records.push(Stored { offset, bytes: bytes.into() });
            self.full = self.bytes >= KEPT_BYTES;
        }
        !self.full
    }
}

/// Ends a reading. An offset that the topic does not have is no error of its own: the bounds tell which halt it is.
fn finish(
    reading: Reading,
    reader: &Reader,
    end: Result<End, Stop>,
    outbox: Uuid,
    base: Applied,
    caller: &Caller<'_>,
) -> Result<View, Fault> {
    match end {
        Ok(End { position, high }) => Ok(reading.finish(high, position)?),
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::Blocked(end)) => {
            let evidence = format!(
                "{} has an open transaction from offset {} on and ends at {}: {}",
                reader.topic(),
                end.position,
                end.high,
                reader.whose(end, outbox)
            );
            Err(Halt::new(HaltCode::JournalBlocked, evidence).into())
        }
        Err(Stop::OutOfRange) => {
            let bounds = reader.bounds(caller)?;
            let view = Reading::start(outbox, base, bounds.start).finish(bounds.stable, bounds.stable)?;
            let detail = format!("the journal ends at {}, below offset {}", view.end, base.offset);
            Err(Halt::new(HaltCode::KafkaBehind, detail).into())
        }
    }
}

/// Why reading stopped before its end.
pub(super) enum Stop {
    /// The topic has no such offset: it was trimmed or cut.
    OutOfRange,
    /// A transaction stayed open.
    Blocked(End),
    /// Anything else.
    Fault(Fault),
}

impl<F: Into<Fault>> From<F> for Stop {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

impl Reader {
    pub(super) fn open(shared: &Arc<Shared>) -> Result<Self, Fault> {
        let consumer = client::reader(&shared.settings, Sight::Committed)?;
        Ok(Self { shared: Arc::clone(shared), consumer: Some(consumer), written_ms: Cell::new(None) })
    }

    fn topic(&self) -> &str {
        &self.shared.journal
    }

    fn consumer(&self) -> &BaseConsumer<Context> {
        self.consumer.as_ref().expect("only dropping takes the consumer away")
    }

    /// Like [`Reader::bounds`]; a journal that does not exist is told from one that cannot be reached.
    fn bounds_or_missing(&self, base: Applied, caller: &Caller<'_>) -> Result<Bounds, Fault> {
        self.bounds(caller).map_err(|fault| match fault {
            Fault::Unavailable { code: "journal_missing", .. } if base.n > 0 || base.offset > 0 => {
                let evidence = format!(
                    "the journal topic {} does not exist; batch {} was journalled at offset {}",
                    self.topic(),
                    base.n,
                    base.offset
                );
                Halt::new(HaltCode::KafkaBehind, evidence).into()
            }
            other => other,
        })
    }

    /// Start and last stable offset of the journal. Also opens the connection that reading needs.
    pub(super) fn bounds(&self, caller: &Caller<'_>) -> Result<Bounds, Fault> {
        let started = Instant::now();
        loop {
            let error = match self.consumer().fetch_watermarks(self.topic(), 0, ASK) {
                Ok((start, stable)) => return Ok(Bounds { start, stable }),
                Err(error) => error,
            };
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            let short = faults::short(code);
            if short == "not_authorised" {
                return Err(faults::journal_ailing(faults::not_granted("DESCRIBE", self.topic())));
            }
            let missing = matches!(short, "topic_missing" | "topic_shrunk");
            if missing && started.elapsed() > MISSING_AFTER {
                self.look_for_topic()?;
            }
            // Nothing is assigned yet: a poll only brings what the client reports of its own accord.
            drop(self.consumer().poll(STEP));
            let trouble = self.consumer().client().context().trouble();
            let told = trouble.as_ref().map(|trouble| faults::short(trouble.code));
            let unreached = told == Some("unreachable") && matches!(short, "timeout" | "unreachable");
            let hopeless = told == Some("authentication") || unreached && started.elapsed() > UNREACHED_AFTER;
            if hopeless || started.elapsed() > PATIENCE || caller.is_gone() {
                let code = trouble.as_ref().map_or(code, |trouble| trouble.code);
                return Err(faults::unavailable(code, "the journal cannot be read", trouble));
            }
        }
    }

    /// A fault when the cluster says that the topic does not exist, or does not let us see it.
    fn look_for_topic(&self) -> Result<(), Fault> {
        let metadata = self.consumer().fetch_metadata(Some(self.topic()), ASK);
        let metadata = metadata.map_err(|error| faults::asked(&error, "the journal topic cannot be looked up"))?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic());
        match found.map(|found| found.error().map(Code::from)) {
            None | Some(Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => {
                let detail = format!("the journal topic {} does not exist; create it with: outboxd migrate", self.topic());
                Err(Fault::kafka("journal_missing", detail))
            }
            Some(Some(Code::TopicAuthorizationFailed)) => {
                Err(faults::journal_ailing(faults::not_granted("DESCRIBE", self.topic())))
            }
            Some(Some(_) | None) => Ok(()),
        }
    }

    /// Reads committed records from offset `from` on and shows each to `visit`, which may break off.
    pub(super) fn read(
        &self,
        from: i64,
        bounds: Bounds,
        until: Until,
        caller: &Caller<'_>,
        mut visit: impl FnMut(i64, &[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<End, Stop> {
        self.assign(from)?;
        let mut trouble: Option<Instant> = None;
        let mut blocked: Option<Instant> = None;
        loop {
            let polled = self.consumer().poll(STEP);
            if caller.is_gone() {
                return Err(Fault::kafka("kafka", "nobody waits for the journal any more").into());
            }
            match polled {
                Some(Ok(message)) => {
                    trouble = None;
                    self.shared.settings.signs.beat();
                    self.written_ms.set(message.timestamp().to_millis());
                    if visit(message.offset(), message.payload().unwrap_or_default())?.is_break() {
                        return Ok(End { position: message.offset() + 1, high: bounds.stable });
                    }
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => self.tolerate(&error, trouble.get_or_insert_with(Instant::now).elapsed())?,
            }
            let Some(end) = self.end(from, bounds) else {
                self.be_patient(trouble.get_or_insert_with(Instant::now).elapsed())?;
                continue;
            };
            match until {
                Until::Stable => return Ok(end),
                Until::Past(offset, _) if end.position > offset || end.high <= offset => return Ok(end),
                Until::Past(..) | Until::End(_) if end.position >= end.high => return Ok(end),
                Until::Past(_, patience) | Until::End(patience)
                    if blocked.get_or_insert_with(Instant::now).elapsed() > patience =>
                {
                    return Err(Stop::Blocked(end));
                }
                Until::Past(..) | Until::End(_) => {}
                Until::Moment(moment) if Instant::now() >= moment => return Ok(end),
                Until::Moment(_) => {}
            }
        }
    }

    fn assign(&self, from: i64) -> Result<(), Fault> {
        let mut place = TopicPartitionList::new();
        let assigned =
            place.add_partition_offset(self.topic(), 0, Offset::Offset(from)).and_then(|()| self.consumer().assign(&place));
        assigned.map_err(|error| faults::asked(&error, "the journal cannot be read"))
    }

    /// Where the reader is, once it stands at the end of what it may see and knows the high watermark. Not before it has passed the
    /// last stable offset of the beginning: a leader that was just elected may know less for a moment.
    fn end(&self, from: i64, bounds: Bounds) -> Option<End> {
        let high = native::high_watermark(self.consumer().client(), self.topic(), 0)?;
        let places = self.consumer().position().ok()?;
        let position = match places.find_partition(self.topic(), 0)?.offset() {
            Offset::Offset(position) => position,
            // Nothing delivered and nothing passed over.
            _ => from,
        };
        (position >= bounds.stable && high >= position).then_some(End { position, high })
    }

    /// Errors pass; what does not pass within [`PATIENCE`] is an outage, never a verdict.
    fn tolerate(&self, error: &KafkaError, lasting: Duration) -> Result<(), Stop> {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => Err(Stop::OutOfRange),
            Code::TopicAuthorizationFailed => Err(faults::journal_ailing(faults::not_granted("READ", self.topic())).into()),
            // We join no group: only its coordinator is asked for, by librdkafka itself.
            Code::GroupAuthorizationFailed => Ok(()),
            code if lasting > PATIENCE => Err(faults::unavailable(code, "the journal cannot be read", None).into()),
            _ => Ok(()),
        }
    }

    fn be_patient(&self, lasting: Duration) -> Result<(), Fault> {
        if lasting <= PATIENCE {
            return Ok(());
        }
        let trouble = self.consumer().client().context().trouble();
        let code = trouble.as_ref().map_or(Code::OperationTimedOut, |trouble| trouble.code);
        Err(faults::unavailable(code, "the end of the journal is not reached", trouble))
    }

    /// Whose transaction it is that stays open, as far as its first record on the journal tells. A lone broker that is killed while
    /// it ends a transaction can lose its markers: then it is our own.
    fn whose(&self, end: End, outbox: Uuid) -> String {
        match self.stored_at(end.position).map(|bytes| Record::decode(&bytes)) {
            Some(Ok((record, _))) if record.writer.outbox == outbox => {
                format!("its first record there is batch {} of this outbox, written by {}", record.n, record.writer.owner.instance)
            }
            Some(Ok((record, _))) => format!("its first record there belongs to outbox {}", record.writer.outbox),
            Some(Err(_)) => "its first record there is not one of outboxd".to_owned(),
            None => "its first record there cannot be read".to_owned(),
        }
    }

    /// The first record from `offset` on, committed or not.
    fn stored_at(&self, offset: i64) -> Option<Vec<u8>> {
        let consumer = client::reader(&self.shared.settings, Sight::Everything).ok()?;
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(self.topic(), 0, Offset::Offset(offset)).ok()?;
        let polled = consumer.assign(&place).ok().and_then(|()| consumer.poll(ASK));
        let bytes = polled.and_then(Result::ok).map(|message| message.payload().unwrap_or_default().to_vec());
        drop_aside(consumer);
        bytes
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            drop_aside(consumer);
        }
    }
}
