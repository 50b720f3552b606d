//! An outbox with its topics as it should be, to plant breaches in.

use std::collections::BTreeMap;
use std::io;

use uuid::Uuid;

use crate::config::TopicPattern;
use crate::event::Fingerprint;
use crate::journal::{Applied, Checksum, DatabaseIdentity, Entry, Owner, Record, Writer};
use crate::sink::kafka::{Scanned, partition_of_key};
use crate::source::{Pin, Pins};
use crate::verify::{Books, Extent, Holes, Ids, Kept, Report, Terms};

/// When the first batch was written, in milliseconds since 1970.
pub(super) const START_MS: i64 = 1_800_000_000_000;
/// Partitions of each topic.
pub(super) const PARTITIONS: i32 = 3;

/// Topic as in the table, and partition.
pub(super) type Lane = (String, i32);

#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) seq: i64,
    pub(super) id: Uuid,
    pub(super) topic: String,
    pub(super) key: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) event: usize,
    pub(super) marked: bool,
    /// When, if not with its batch.
    pub(super) at_ms: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) offset: i64,
    /// The event; nothing for a record of somebody else.
    pub(super) event: Option<usize>,
    pub(super) id: Option<String>,
    pub(super) key: Option<String>,
    pub(super) value: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) n: u64,
    pub(super) time_ms: i64,
    /// Event, lane, offset.
    pub(super) entries: Vec<(usize, Lane, i64)>,
    /// Whether a person begins the journal anew with it.
    pub(super) adopts: bool,
}

pub(super) struct World {
    pub(super) random: fastrand::Rng,
    pub(super) events: Vec<Event>,
    pub(super) rows: Vec<Row>,
    /// Events that were given up.
    pub(super) discards: Vec<usize>,
    /// Events that were given up while rows were read.
    pub(super) discards_beside: Vec<usize>,
    pub(super) batches: Vec<Batch>,
    pub(super) records: BTreeMap<Lane, Vec<Stored>>,
    pub(super) next: BTreeMap<Lane, i64>,
    pub(super) start: BTreeMap<Lane, i64>,
    pub(super) applied: u64,
    pub(super) applied_offset_is_off_by: i64,
    /// Newest applied batch when the rows were read, if it is another one.
    pub(super) applied_by_now: Option<u64>,
    /// Where readers of a lane stop.
    pub(super) stops: BTreeMap<Lane, i64>,
    pub(super) since_ms: Option<i64>,
    pub(super) pins: Pins,
    pub(super) kept: Kept,
    pub(super) read_after_ms: i64,
    pub(super) holes: Holes,
    pub(super) journalled: bool,
    pub(super) ids: Ids,
    pub(super) only: Option<String>,
    pub(super) strange_journal_record: Option<Vec<u8>>,
}

impl World {
    fn empty(seed: u64) -> Self {
        let lanes = ["a", "b"].iter().flat_map(|topic| (0..PARTITIONS).map(|partition| ((*topic).to_owned(), partition)));
        Self {
            random: fastrand::Rng::with_seed(seed),
            events: Vec::new(),
            rows: Vec::new(),
            discards: Vec::new(),
            discards_beside: Vec::new(),
            batches: Vec::new(),
            records: lanes.map(|lane| (lane, Vec::new())).collect(),
            next: BTreeMap::new(),
            start: BTreeMap::new(),
            applied: 0,
            applied_offset_is_off_by: 0,
            applied_by_now: None,
            stops: BTreeMap::new(),
            since_ms: None,
            pins: ["a", "b"].map(|topic| (topic.to_owned(), Pin::of(PARTITIONS))).into(),
            kept: Kept::Forever,
            read_after_ms: 60_000,
            holes: Holes::Never,
            journalled: true,
            ids: Ids::Uuid,
            only: None,
            strange_journal_record: None,
        }
    }

    /// Two batches of three events each, all marked; one event that waits.
    pub(super) fn small() -> Self {
        let mut world = Self::empty(5);
        for _ in 0..2 {
            let batch = (0..3).map(|_| world.insert("a", Some("k"))).collect();
            world.publish(batch);
        }
        world.mark_up_to(2);
        world.insert("a", Some("k"));
        world
    }

    /// Any number of batches: keys, events without key, numbers left out, late commits, discards, aborted transactions, records of
    /// others, batches that are not marked yet, rows that wait.
    pub(super) fn random(seed: u64) -> Self {
        let mut world = Self::empty(seed);
        let batches = world.random.u64(4..12);
        for _ in 0..batches {
            let batch: Vec<usize> = (0..world.random.usize(2..20)).map(|_| world.insert_any()).collect();
            world.publish(batch);
            match world.random.u8(..8) {
                0 => world.publish_late(),
                1 => world.foreign_record(true),
                2 => world.abort(),
                3 => {
                    let given_up = world.insert_any();
                    world.discard(given_up);
                }
                _ => {}
            }
        }
        let underway = world.random.u64(..3);
        let last = world.batches.last().map_or(0, |batch| batch.n);
        world.mark_up_to(last - underway);
        for _ in 0..world.random.u8(1..5) {
            world.insert_any();
        }
        world
    }

    fn insert_any(&mut self) -> usize {
        let topic = if self.random.bool() { "a" } else { "b" };
        let key = (self.random.u8(..5) > 0).then(|| format!("key-{}", self.random.u8(..4)));
        self.insert(topic, key.as_deref())
    }

    /// A committed row that is not marked.
    pub(super) fn insert(&mut self, topic: &str, key: Option<&str>) -> usize {
        let last = self.events.iter().map(|event| event.seq).max().unwrap_or(0);
        let seq = last + self.random.i64(2..5);
        self.insert_at(seq, topic, key)
    }

    fn insert_at(&mut self, seq: i64, topic: &str, key: Option<&str>) -> usize {
        let id = Uuid::from_u128(self.random.u128(..));
        self.events.push(Event { seq, id, topic: topic.into(), key: key.map(str::to_owned) });
        let event = self.events.len() - 1;
        self.rows.push(Row { event, marked: false, at_ms: None });
        event
    }

    /// One batch with these events, in the order of their numbers.
    pub(super) fn publish(&mut self, mut events: Vec<usize>) {
        events.sort_by_key(|event| self.events[*event].seq);
        let n = self.batches.last().map_or(0, |batch| batch.n) + 1;
        let entries: Vec<(usize, Lane, i64)> = events
            .into_iter()
            .map(|event| {
                let lane = self.lane_of_event(event);
                let offset = self.store(&lane, event);
                (event, lane, offset)
            })
            .collect();
        self.end_transaction(&entries);
        let time_ms = START_MS + n as i64 * 10;
        self.batches.push(Batch { n, time_ms, entries, adopts: false });
    }

    /// Markers take an offset each.
    fn end_transaction(&mut self, entries: &[(usize, Lane, i64)]) {
        let lanes: std::collections::BTreeSet<Lane> = entries.iter().map(|(_, lane, _)| lane.clone()).collect();
        lanes.into_iter().for_each(|lane| *self.next.entry(lane).or_default() += 1);
    }

    /// Appends a record of the event.
    pub(super) fn store(&mut self, lane: &Lane, event: usize) -> i64 {
        let next = self.next.entry(lane.clone()).or_default();
        let offset = *next;
        *next += 1;
        let Event { id, key, .. } = self.events[event].clone();
        let value = format!("value {event}").into_bytes();
        let stored = Stored { offset, event: Some(event), id: Some(id.to_string()), key, value };
        self.records.get_mut(lane).expect("it is there").push(stored);
        offset
    }

    /// Where its key, or else its number, leads.
    pub(super) fn lane_of_event(&self, event: usize) -> Lane {
        let Event { seq, topic, key, .. } = &self.events[event];
        let partition = match key {
            Some(key) => partition_of_key(key.as_bytes(), PARTITIONS),
            None => (*seq % i64::from(PARTITIONS)) as i32,
        };
        (topic.clone(), partition)
    }

    fn mark_up_to(&mut self, n: u64) {
        self.applied = n;
        let marked: Vec<usize> =
            self.batches.iter().filter(|batch| batch.n <= n).flat_map(|batch| batch.entries.iter().map(|entry| entry.0)).collect();
        let marked: std::collections::HashSet<usize> = marked.into_iter().chain(self.discards.iter().copied()).collect();
        self.rows.iter_mut().for_each(|row| row.marked = marked.contains(&row.event));
    }

    /// An event whose transaction ended so late that one with a higher number was published before.
    pub(super) fn publish_late(&mut self) {
        let last = self.batches.last().expect("it is there").clone();
        let Some((event, ..)) = last.entries.iter().rev().find(|(event, ..)| self.events[*event].key.is_some()) else { return };
        let Event { seq, topic, key, .. } = self.events[*event].clone();
        if self.events.iter().any(|event| event.seq == seq - 1) {
            return;
        }
        let late = self.insert_at(seq - 1, &topic, key.as_deref());
        let applied = self.applied;
        self.publish(vec![late]);
        if applied > 0 {
            self.mark_up_to(applied + 1);
        }
    }

    /// A record of somebody else, with an id or without.
    pub(super) fn foreign_record(&mut self, with_id: bool) {
        let lane = self.lane_of_event(0);
        let next = self.next.entry(lane.clone()).or_default();
        let id = with_id.then(|| Uuid::from_u128(self.random.u128(..)).to_string());
        let stored = Stored { offset: *next, event: None, id, key: Some("k".into()), value: b"theirs".to_vec() };
        *next += 1;
        self.records.get_mut(&lane).expect("it is there").push(stored);
    }

    /// Offsets that nobody sees.
    fn abort(&mut self) {
        *self.next.entry(self.lane_of_event(0)).or_default() += 4;
    }

    pub(super) fn discard(&mut self, event: usize) {
        self.discards.push(event);
        self.rows.iter_mut().filter(|row| row.event == event).for_each(|row| row.marked = true);
    }

    /// The journal loses its second batch, and a person goes on from what is left.
    pub(super) fn adopt_after_losing_a_batch(&mut self) {
        let lost = self.batches.pop().expect("it is there");
        let (n, time_ms) = (lost.n + 1, lost.time_ms + 10);
        self.batches.push(Batch { n, time_ms, entries: Vec::new(), adopts: true });
        self.applied = n;
        let event = self.rows.iter().find(|row| !row.marked).expect("it is there").event;
        self.publish(vec![event]);
    }

    /// The first batch was written and marked an hour before everything else.
    pub(super) fn age_first_batch(&mut self) {
        self.batches[0].time_ms -= 3_600_000;
    }

    /// How many events the journal names.
    pub(super) fn published(&self) -> u64 {
        self.batches.iter().map(|batch| batch.entries.len() as u64).sum()
    }

    /// How many rows are neither marked nor named.
    pub(super) fn waiting(&self) -> u64 {
        let named: Vec<usize> = self.batches.iter().flat_map(|batch| batch.entries.iter().map(|entry| entry.0)).collect();
        self.rows.iter().filter(|row| !row.marked && !named.contains(&row.event)).count() as u64
    }

    fn time_of(&self, event: usize) -> i64 {
        let batch = self.batches.iter().find(|batch| batch.entries.iter().any(|entry| entry.0 == event));
        // a batch that the journal has let go of was an hour earlier
        batch.map_or(START_MS - 3_600_000, |batch| batch.time_ms)
    }

    /// The oldest batch that the table of applied ones still has.
    fn first_applied(&self) -> Option<(u64, i64)> {
        let first = self.batches.iter().find(|batch| batch.n <= self.applied)?;
        Some((first.n, first.time_ms * 1_000))
    }

    fn fingerprint(&self, event: usize) -> Fingerprint {
        let Event { id, topic, key, .. } = &self.events[event];
        match self.ids {
            Ids::Uuid => Fingerprint::of(*id),
            Ids::Content => {
                let value = format!("value {event}");
                Fingerprint::of_content(&id.to_string(), topic, key.as_deref().map(str::as_bytes), Some(value.as_bytes()))
            }
        }
    }

    fn journal(&self, outbox: Uuid) -> Vec<(i64, i64, Vec<u8>, Applied)> {
        let mut last = Checksum::default();
        let mut journal = Vec::new();
        for batch in &self.batches {
            let owner = Owner { instance: "one".into(), start: 1, epoch: 1 };
            let writer = Writer { outbox, owner, database: DatabaseIdentity { system: "1".into(), timeline: 1 } };
            let mut topics: Vec<String> = batch.entries.iter().map(|(_, lane, _)| format!("pre.{}", lane.0)).collect();
            topics.sort();
            topics.dedup();
            let entry = |(event, lane, offset): &(usize, Lane, i64)| Entry {
                seq: self.events[*event].seq,
                fingerprint: self.fingerprint(*event),
                topic: topics.iter().position(|topic| *topic == format!("pre.{}", lane.0)).expect("it is there") as u32,
                partition: lane.1,
                offset: *offset,
            };
            let entries = batch.entries.iter().map(entry).collect();
            let previous = if batch.adopts { Checksum::default() } else { last };
            let (bytes, checksum) = Record { writer, n: batch.n, previous, topics, entries }.encode();
            let offset = batch.n as i64 * 2;
            journal.push((offset, batch.time_ms, bytes, Applied { n: batch.n, offset, checksum }));
            last = checksum;
        }
        journal
    }

    /// What the oracle says.
    pub(super) fn report(&self) -> Report {
        self.ask().expect("the temporary folder is there")
    }

    fn discard_to(&self, books: &mut Books, event: usize) -> io::Result<()> {
        let Event { seq, id, topic, .. } = &self.events[event];
        books.discarded(*seq, &id.to_string(), topic)
    }

    fn ask(&self) -> io::Result<Report> {
        let outbox = Uuid::from_u128(77);
        let journal = self.journal(outbox);
        let found = journal.iter().map(|record| record.3).find(|applied| applied.n == self.applied);
        let mut applied = found.unwrap_or(Applied { n: self.applied, offset: 1, checksum: Checksum(1) });
        applied.offset += self.applied_offset_is_off_by;
        let mut books = Books::new(Terms {
            outbox,
            journalled: self.journalled,
            applied,
            first_applied: self.first_applied(),
            set_up_us: (START_MS - 7_200_000) * 1_000,
            ids: self.ids,
            kept: self.kept,
            pattern: TopicPattern { prefix: "pre.".into(), suffix: String::new() },
            pins: self.pins.clone(),
            only: self.only.clone(),
            since_us: self.since_ms.map(|since| since * 1_000),
            folder: std::env::temp_dir(),
        });
        for row in &self.rows {
            let marked_us = row.marked.then(|| row.at_ms.unwrap_or_else(|| self.time_of(row.event)) * 1_000);
            books.row(self.events[row.event].seq, self.fingerprint(row.event), &self.events[row.event].topic, marked_us)?;
        }
        self.discards.iter().try_for_each(|event| self.discard_to(&mut books, *event))?;
        books.rows_are_read((START_MS + self.read_after_ms).saturating_mul(1_000), self.applied_by_now.unwrap_or(self.applied));
        self.discards_beside.iter().try_for_each(|event| self.discard_to(&mut books, *event))?;
        if self.journalled {
            let asked = journal.iter().filter(|(_, time_ms, ..)| self.since_ms.is_none_or(|since| *time_ms >= since));
            asked.into_iter().try_for_each(|(offset, time_ms, bytes, _)| books.batch(*offset, *time_ms, bytes))?;
            self.strange_journal_record.iter().try_for_each(|bytes| books.batch(1_000_000, START_MS, bytes))?;
        }
        let topics = books.topics();
        let named: BTreeMap<Lane, i64> = self
            .records
            .keys()
            .filter_map(|lane| {
                let number = topics.iter().position(|topic| *topic == format!("pre.{}", lane.0))?;
                Some((lane.clone(), books.named(number, lane.1)?.0))
            })
            .collect();
        let mut comparing = books.compare()?;
        for (number, name) in topics.iter().enumerate() {
            for ((topic, partition), stored) in self.records.iter().filter(|((topic, _), _)| format!("pre.{topic}") == *name) {
                let lane = (topic.clone(), *partition);
                let from = if self.since_ms.is_some() { named.get(&lane).copied().unwrap_or(i64::MAX) } else { 0 };
                let (start, stop) = (self.start.get(&lane).copied().unwrap_or(0).max(from), self.stops.get(&lane).copied());
                comparing.begin(number, *partition, Extent { start, holes: self.holes })?;
                let visible = start..stop.unwrap_or(i64::MAX);
                for record in stored.iter().filter(|record| visible.contains(&record.offset)) {
                    let time_ms = Some(record.event.map_or(START_MS, |event| self.time_of(event)));
                    comparing.record(&Scanned {
                        offset: record.offset,
                        time_ms,
                        id: record.id.as_deref().map(str::as_bytes),
                        key: record.key.as_deref().map(str::as_bytes),
                        value: Some(&record.value),
                    })?;
                }
                if let Some(stop) = stop {
                    comparing.stops_at(stop);
                }
                comparing.end()?;
            }
        }
        comparing.finish()
    }
}
