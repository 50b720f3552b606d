//! The first half: what rows, audit and journal claim.

use std::collections::BTreeMap;
use std::io;

use super::chain::{Chain, Link};
use super::comparing::Comparing;
use super::spill::{Sorter, word};
use super::topics::Topics;
use super::{Ids, Terms, lane};
use crate::event::Fingerprint;
use crate::journal::{Entry, Record};
use uuid::Uuid;

/// Number, fingerprint, topic, when it was marked (0: it was not).
pub(super) type RowItem = [u64; 4];
/// Number, fingerprint (0: only the number is known), and whether it was given up while rows were read.
pub(super) type DiscardItem = [u64; 3];
/// When the first row was read, it was given up already.
pub(super) const BEFORE_ROWS: u64 = 0;
const BESIDE_ROWS: u64 = 1;
/// Lane, offset, number, fingerprint, batch.
pub(super) type PlaceItem = [u64; 5];
/// Number, fingerprint, batch, lane, offset, when it was written in milliseconds.
pub(super) type EntryItem = [u64; 6];

/// Takes everything but the topics.
pub struct Books {
    pub(super) terms: Terms,
    pub(super) topics: Topics,
    pub(super) rows: Sorter<4>,
    pub(super) discards: Sorter<3>,
    pub(super) places: Sorter<5>,
    pub(super) entries: Sorter<6>,
    pub(super) chain: Chain,
    pub(super) named: BTreeMap<u64, Named>,
    pub(super) rows_read_us: i64,
}

/// What the journal says of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    /// First offset that is named at all.
    first: i64,
    /// First offset from which on every event of ours is named.
    covered: Option<i64>,
    /// Behind the last one.
    until: i64,
}

impl Books {
    /// Nothing was read yet but what the terms tell.
    pub fn new(terms: Terms) -> Self {
        let mut topics = Topics::new(terms.pattern.clone(), terms.only.clone());
        for topic in terms.pins.keys() {
            topics.of_row(topic);
        }
        let chain = Chain::new(terms.outbox, terms.applied, terms.since_us.is_some());
        let folder = || terms.folder.clone();
        Self {
            topics,
            rows: Sorter::new(folder()),
            discards: Sorter::new(folder()),
            places: Sorter::new(folder()),
            entries: Sorter::new(folder()),
            chain,
            named: BTreeMap::new(),
            rows_read_us: i64::MAX,
            terms,
        }
    }

    /// Takes a row: its number, identity, topic as in the table, and when it was marked in microseconds since 1970.
    pub fn row(&mut self, seq: i64, fingerprint: Fingerprint, topic: &str, marked_us: Option<i64>) -> io::Result<()> {
        if marked_us.is_some_and(|marked| self.terms.is_long_before_since(marked)) {
            return Ok(());
        }
        let Some(number) = self.topics.of_row(topic) else { return Ok(()) };
        self.topics.report(number).rows += 1;
        self.rows.push([word(seq), fingerprint.0, number.into(), marked_us.map_or(0, word)])
    }

    /// Takes what the audit says was given up: number, identity as text, topic as in the table. What was given up before the first row is
    /// read comes before the rows, the rest after [`Books::rows_are_read`]: of that, the row may have been read unsent.
    pub fn discarded(&mut self, seq: i64, id: &str, topic: &str) -> io::Result<()> {
        if self.topics.of_row(topic).is_none() {
            return Ok(());
        }
        let known = match self.terms.ids {
            Ids::Uuid => Uuid::parse_str(id).map_or(0, |id| Fingerprint::of(id).0),
            Ids::Content => 0,
        };
        self.discards.push([word(seq), known, if self.rows_read_us == i64::MAX { BEFORE_ROWS } else { BESIDE_ROWS }])
    }

    /// Says at which moment, by the database's clock in microseconds since 1970, the last row had been read, and which batch was the newest
    /// applied one then.
    pub fn rows_are_read(&mut self, now_us: i64, applied: u64) {
        self.rows_read_us = now_us;
        self.chain.applied_by_now(applied);
    }

    /// Takes a record of the journal, in order of offsets, with the time it was written in milliseconds since 1970.
    pub fn batch(&mut self, offset: i64, time_ms: i64, bytes: &[u8]) -> io::Result<()> {
        match self.chain.accept(offset, time_ms, bytes) {
            Link::Follows(record) => self.entries_of(&record, time_ms),
            Link::Anew => {
                self.named.values_mut().for_each(|named| named.covered = None);
                Ok(())
            }
            Link::Unreadable => Ok(()),
        }
    }

    fn entries_of(&mut self, record: &Record, time_ms: i64) -> io::Result<()> {
        let numbers: Vec<Option<u32>> = record.topics.iter().map(|topic| self.topics.of_kafka(topic)).collect();
        for entry in &record.entries {
            let Some(Some(number)) = numbers.get(entry.topic as usize) else { continue };
            self.entry(entry, lane(*number, entry.partition), record.n, time_ms)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, lane: u64, n: u64, time_ms: i64) -> io::Result<()> {
        let &Entry { seq, fingerprint: Fingerprint(fingerprint), offset, .. } = entry;
        let named = self.named.entry(lane).or_insert(Named { first: offset, covered: None, until: offset });
        named.first = named.first.min(offset);
        named.covered = Some(named.covered.map_or(offset, |first| first.min(offset)));
        named.until = named.until.max(offset.saturating_add(1));
        self.places.push([lane, word(offset), word(seq), fingerprint, n])?;
        self.entries.push([word(seq), fingerprint, n, lane, word(offset), word(time_ms)])
    }

    /// Whether a journal is kept.
    pub fn is_journalled(&self) -> bool {
        self.terms.journalled
    }

    /// The topics in Kafka that are to be read, by number.
    pub fn topics(&self) -> Vec<String> {
        self.topics.reports.iter().map(|report| report.topic.clone()).collect()
    }

    /// Offsets of a partition that the journal names: the first, and the one behind the last.
    pub fn named(&self, topic: usize, partition: i32) -> Option<(i64, i64)> {
        let lane = lane(u32::try_from(topic).ok()?, partition);
        self.named.get(&lane).map(|named| (named.first, named.until))
    }

    /// Goes on to the topics: the journal is read to its end.
    pub fn compare(mut self) -> io::Result<Comparing> {
        if self.terms.journalled {
            self.chain.finish();
        }
        Comparing::new(self)
    }
}

impl Named {
    /// Whether every event of ours at this offset is named.
    pub(super) fn covers(&self, offset: i64) -> bool {
        self.covered.is_some_and(|first| offset >= first)
    }
}
