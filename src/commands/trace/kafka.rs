//! What journal, topics and consumer groups say of events: the half of `outboxd trace` that reads Kafka.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::TopicPattern;
use crate::fault::Fault;
use crate::journal::Record;
use crate::sink::kafka::{Bounds, GroupPosition, Lane, Scan, Scanned, Scanner, hash_of_key};
use crate::source::{Pin, Pins};
use crate::trace::{Arithmetic, Consumer, Found, Journalled, Life, Sought, Stored};

/// Records that a group has not read are counted so far.
const COUNTED: u64 = 100_000;

/// Who reads a partition, and groups that may not be looked at.
type Readers = (Vec<Consumer>, Vec<String>);

/// Reads what is said of some events.
pub(super) struct Reading<'a> {
    scanner: &'a Scanner<'a>,
    pattern: TopicPattern,
    /// By name in Kafka.
    pins: BTreeMap<String, Pin>,
    readers: BTreeMap<(String, i32), Readers>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(scanner: &'a Scanner<'a>, pattern: TopicPattern, pins: Pins) -> Self {
        let pins = pins.into_iter().map(|(name, pin)| (pattern.apply(&name), pin)).collect();
        Self { scanner, pattern, pins, readers: BTreeMap::new() }
    }

    /// Adds to each event what Kafka says of it; `sought` is what the journal knows each by.
    pub(super) fn tell(&mut self, lives: &mut [Life], sought: &[Option<Sought>]) -> Result<(), Fault> {
        if lives.iter().any(|life| life.journalled) {
            search(self.scanner, lives, sought)?;
        }
        lives.iter_mut().try_for_each(|life| self.place(life))
    }

    fn place(&mut self, life: &mut Life) -> Result<(), Fault> {
        if let Some(entry) = life.entry.clone() {
            life.arithmetic = self.arithmetic(life, &entry);
            return self.read_back(life, &entry);
        }
        if let Some(row) = life.row.as_ref().filter(|row| row.marked_us.is_none() && row.waits.is_none()) {
            life.in_flight = in_flight(self.scanner, &self.pattern.apply(&row.topic), &row.id)?;
        }
        Ok(())
    }

    /// Of an event with a key that was published when as many partitions were counted as are now.
    fn arithmetic(&self, life: &Life, entry: &Journalled) -> Option<Arithmetic> {
        let key = life.row.as_ref()?.key.as_deref()?;
        let pin = self.pins.get(&entry.topic).filter(|pin| pin.partitions > 0 && entry.n > pin.since)?;
        Some(Arithmetic { hash: hash_of_key(key), partitions: pin.partitions })
    }

    /// What lies where the journal says, and who has read it.
    fn read_back(&mut self, life: &mut Life, entry: &Journalled) -> Result<(), Fault> {
        let lane = Lane { topic: &entry.topic, partition: entry.partition };
        let is_there = self.scanner.partitions(lane.topic)?.is_some_and(|count| lane.partition < count);
        let found = if is_there { self.found(life, lane, entry.offset)? } else { Found::NoTopic };
        let is_before_acceptance = self.pins.get(&entry.topic).is_some_and(|pin| entry.n <= pin.since);
        life.found = Some(if is_before_acceptance { found.before_acceptance() } else { found });
        if is_there {
            (life.consumers, life.hidden_groups) = self.readers(lane)?;
        }
        Ok(())
    }

    fn found(&self, life: &Life, lane: Lane<'_>, offset: i64) -> Result<Found, Fault> {
        let Bounds { start, stable, high } = self.scanner.bounds(lane)?;
        let compared =
            |stored: Option<Stored>| stored.map_or(Found::Nothing, |stored| stored.compare(life.row.as_ref(), &life.asked));
        if offset < start {
            return Ok(Found::Trimmed { start });
        }
        if offset < stable {
            return record_at(self.scanner, lane, offset).map(compared);
        }
        if offset >= high {
            return Ok(Found::Nothing);
        }
        record_at(&self.scanner.of_everything()?, lane, offset).map(|stored| compared(stored).out_of_sight())
    }

    /// The groups of a partition, asked once.
    fn readers(&mut self, lane: Lane<'_>) -> Result<Readers, Fault> {
        let key = (lane.topic.to_owned(), lane.partition);
        if let Some(known) = self.readers.get(&key) {
            return Ok(known.clone());
        }
        let Bounds { start, stable, .. } = self.scanner.bounds(lane)?;
        let groups = self.scanner.groups(lane)?;
        let consumer = |position: GroupPosition| consumer(self.scanner, lane, position, (start, stable));
        let consumers = groups.positions.into_iter().map(consumer).collect::<Result<Vec<_>, _>>()?;
        Ok(self.readers.entry(key).or_insert((consumers, groups.hidden)).clone())
    }
}

/// The committed record at a place, or any record, whichever the scanner sees.
pub(super) fn record_at(scanner: &Scanner<'_>, lane: Lane<'_>, offset: i64) -> Result<Option<Stored>, Fault> {
    let mut stored = None;
    scanner.read(lane, offset, offset + 1, |record| {
        let kept = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        stored = Some(Stored { id: kept(record.id), key: kept(record.key), value: kept(record.value) });
        ControlFlow::Break(())
    })?;
    Ok(stored)
}

/// Looks through the whole journal for several events at once: the newest batch that names each. A marked event that no readable record
/// names may be named by one that nobody can read yet.
fn search(scanner: &Scanner<'_>, lives: &mut [Life], sought: &[Option<Sought>]) -> Result<(), Fault> {
    let topic = scanner.journal();
    let lane = Lane { topic, partition: 0 };
    if scanner.partitions(topic)?.is_none() {
        return Ok(());
    }
    let Bounds { start, stable, high } = scanner.bounds(lane)?;
    let is_marked = |life: &Life| life.row.as_ref().is_some_and(|row| row.marked_us.is_some());
    let mut found = vec![None; lives.len()];
    let batches = named(scanner, lane, (start, stable), sought, &mut found)?;
    if stable < high && lives.iter().zip(&found).any(|(life, found)| is_marked(life) && found.is_none()) {
        let open = |(life, found): (&Life, &Option<Journalled>)| is_marked(life) && found.is_none();
        let left: Vec<bool> = lives.iter().zip(&found).map(open).collect();
        let left: Vec<Option<Sought>> = sought.iter().zip(left).map(|(sought, open)| sought.filter(|_| open)).collect();
        named(&scanner.of_everything()?, lane, (stable, high), &left, &mut found)?;
    }
    for (life, entry) in lives.iter_mut().zip(found) {
        (life.batches, life.entry) = (batches, entry);
    }
    Ok(())
}

/// What the journal's records between two offsets name of what is sought. Returns the first and the last batch.
fn named(
    scanner: &Scanner<'_>,
    lane: Lane<'_>,
    (from, to): (i64, i64),
    sought: &[Option<Sought>],
    found: &mut [Option<Journalled>],
) -> Result<Option<(u64, u64)>, Fault> {
    let mut batches: Option<(u64, u64)> = None;
    let scan = scanner.read(lane, from, to, |stored| {
        let Some((record, _)) = stored.value.and_then(|bytes| Record::decode(bytes).ok()) else { return ControlFlow::Continue(()) };
        batches = Some((batches.map_or(record.n, |(first, _)| first), record.n));
        for (sought, found) in sought.iter().zip(found.iter_mut()) {
            *found = sought.as_ref().and_then(|sought| sought.find(&record, stored.time_ms)).or(found.take());
        }
        ControlFlow::Continue(())
    })?;
    match scan {
        Scan::To(_) => Ok(batches),
        Scan::BeginsLater => Err(Fault::kafka("trimmed", format!("{} was trimmed while it was read", lane.topic))),
    }
}

fn consumer(
    scanner: &Scanner<'_>,
    lane: Lane<'_>,
    position: GroupPosition,
    (start, stable): (i64, i64),
) -> Result<Consumer, Fault> {
    let (mut behind, mut first_ms) = (0, None);
    scanner.read(lane, position.next.max(start), stable, |record| {
        behind += 1;
        first_ms = first_ms.or(record.time_ms);
        if behind > COUNTED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let behind_seconds = first_ms.map(|ms| (now - ms as f64 / 1_000.0).max(0.0));
    let (group, next, is_more) = (position.group, position.next, behind > COUNTED);
    Ok(Consumer { group, next, behind: behind.min(COUNTED), is_more, behind_seconds })
}

/// Where the event lies in a transaction that has not ended.
fn in_flight(scanner: &Scanner<'_>, topic: &str, id: &str) -> Result<Option<(String, i32, i64)>, Fault> {
    for partition in 0..scanner.partitions(topic)?.unwrap_or(0) {
        let lane = Lane { topic, partition };
        let Bounds { stable, high, .. } = scanner.bounds(lane)?;
        if stable >= high {
            continue;
        }
        let mut found = None;
        scanner.of_everything()?.read(lane, stable, high, |record: &Scanned<'_>| {
            if record.id == Some(id.as_bytes()) {
                found = Some((topic.to_owned(), partition, record.offset));
            }
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
