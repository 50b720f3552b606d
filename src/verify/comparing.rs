//! The second half: what lies in the topics, partition by partition, beside what the journal says should lie there.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::io;

use super::books::{Books, EntryItem, Named, PlaceItem};
use super::chain::Chain;
use super::report::{Example, Kind, Report, Unchecked};
use super::spill::{Sorted, Sorter, number, word};
use super::topics::Topics;
use super::{Terms, event_of, judging, lane, of_lane};
use crate::event::{EventId, Fingerprint};
use crate::sink::kafka::{Scanned, partition_of_key};

/// Batches that are remembered as "some of it is there": 32 MiB.
const MOST_BATCHES: u64 = 1 << 28;

/// A partition as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First offset that is read: the first one that is left, or that is asked for.
    pub start: i64,
    /// Whether records can be missing in the middle.
    pub holes: Holes,
}

/// Whether a topic lets go of records in its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// It does not.
    Never,
    /// It is compacted.
    Compacted,
    /// Its settings may not be read.
    Untold,
}

impl From<Option<bool>> for Holes {
    /// From what the cluster says of a topic: whether it is compacted.
    fn from(compacted: Option<bool>) -> Self {
        match compacted {
            Some(false) => Self::Never,
            Some(true) => Self::Compacted,
            None => Self::Untold,
        }
    }
}

/// Topic, fingerprint, offset, partition and flags.
pub(super) type RecordItem = [u64; 4];
/// The journal names this event at this place.
pub(super) const NAMED: u64 = 1;
/// The journal names another event at this place.
pub(super) const DISPUTED: u64 = 2;
/// If it is ours, the journal must name it.
pub(super) const COVERED: u64 = 4;

/// Topic, fingerprint, what claims it, and of that: batch or marking, number, partition, offset.
pub(super) type ClaimItem = [u64; 7];
/// The journal, at a place where nothing lies.
pub(super) const BY_JOURNAL: u64 = 0;
/// A row that the journal does not name.
pub(super) const BY_ROW: u64 = 1;

/// Key, offset, number, batch.
type KeyItem = [u64; 4];

/// Takes the topics.
pub struct Comparing {
    pub(super) terms: Terms,
    pub(super) topics: Topics,
    pub(super) chain: Chain,
    pub(super) rows: Sorter<4>,
    pub(super) discards: Sorter<3>,
    pub(super) entries: Sorter<6>,
    pub(super) rows_read_us: i64,
    named: BTreeMap<u64, Named>,
    places: Sorted<5>,
    pub(super) records: Sorter<4>,
    pub(super) claims: Sorter<7>,
    /// Batches of which something lies where it should, from the journal's first one on.
    present: Vec<u64>,
    /// For each topic, since when everything that was published must still be there, in milliseconds since 1970.
    pub(super) whole_since_ms: Vec<i64>,
    pub(super) compacted: Vec<Holes>,
    /// Topics in which readers do not come to the end.
    pub(super) hidden: BTreeSet<u32>,
    here: Option<Here>,
}

/// The partition that is being read.
struct Here {
    topic: u32,
    partition: i32,
    extent: Extent,
    /// Readers do not come further.
    until: i64,
    keys: Sorter<4>,
    is_empty: bool,
    /// How many partitions keys are spread over, and the newest batch for which that was not so yet.
    pinned: Option<(i32, u64)>,
}

impl Comparing {
    pub(super) fn new(books: Books) -> io::Result<Self> {
        let topics = books.topics.reports.len();
        let folder = books.terms.folder.clone();
        Ok(Self {
            places: books.places.sorted()?,
            records: Sorter::new(folder.clone()),
            claims: Sorter::new(folder),
            present: Vec::new(),
            whole_since_ms: vec![i64::MIN; topics],
            compacted: vec![Holes::Never; topics],
            hidden: BTreeSet::new(),
            here: None,
            terms: books.terms,
            topics: books.topics,
            chain: books.chain,
            rows: books.rows,
            discards: books.discards,
            entries: books.entries,
            rows_read_us: books.rows_read_us,
            named: books.named,
        })
    }

    /// Begins a partition of the topic with this number. Topics and partitions come in ascending order.
    pub fn begin(&mut self, topic: usize, partition: i32, extent: Extent) -> io::Result<()> {
        let number = u32::try_from(topic).unwrap_or(u32::MAX);
        self.pass_to(lane(number, partition))?;
        self.compacted[topic] = extent.holes;
        let pin = self.topics.in_table(number).and_then(|name| self.terms.pins.get(name));
        let pinned = pin.filter(|pin| pin.partitions > 0).map(|pin| (pin.partitions, pin.since));
        let keys = Sorter::new(self.terms.folder.clone());
        self.here = Some(Here { topic: number, partition, extent, until: i64::MAX, keys, is_empty: true, pinned });
        Ok(())
    }

    /// Says that the partition begins later by now than when it was begun.
    pub fn begins_later(&mut self, start: i64) {
        if let Some(here) = &mut self.here {
            here.extent.start = here.extent.start.max(start);
            here.is_empty = true;
        }
    }

    /// Says that readers do not come further than this offset: a transaction stays open there.
    pub fn stops_at(&mut self, offset: i64) {
        if let Some(here) = &mut self.here {
            here.until = offset;
            self.hidden.insert(here.topic);
        }
    }

    /// Takes the next record of the partition, in order of offsets.
    pub fn record(&mut self, seen: &Scanned<'_>) -> io::Result<()> {
        let Some(mut here) = self.here.take() else { return Ok(()) };
        let taken = self.take(&mut here, seen);
        self.here = Some(here);
        taken
    }

    /// Ends the partition: everything up to where it was to be read was given.
    pub fn end(&mut self) -> io::Result<()> {
        let Some(here) = self.here.take() else { return Ok(()) };
        let of_here = lane(here.topic, here.partition);
        while let Some(place) = self.places.next_if(|place| place[0] == of_here)? {
            self.absent(&here, place)?;
        }
        if here.is_empty && here.extent.start > 0 {
            self.whole_since_ms[here.topic as usize] = i64::MAX;
        }
        self.order(here)
    }

    /// Ends the topics, and compares what is left.
    pub fn finish(mut self) -> io::Result<Report> {
        self.pass_to(u64::MAX)?;
        judging::judge(self)
    }

    /// What the journal names in partitions before this one, which nobody could read.
    fn pass_to(&mut self, lane: u64) -> io::Result<()> {
        while let Some(place) = self.places.next_if(|place| place[0] < lane)? {
            self.topics.report(of_lane(place[0]).0).unchecked(Unchecked::NoTopic);
        }
        Ok(())
    }

    fn take(&mut self, here: &mut Here, seen: &Scanned<'_>) -> io::Result<()> {
        let of_here = lane(here.topic, here.partition);
        self.topics.report(here.topic).records += 1;
        if std::mem::take(&mut here.is_empty) && here.extent.start > 0 {
            let since = &mut self.whole_since_ms[here.topic as usize];
            *since = (*since).max(seen.time_ms.unwrap_or(i64::MAX));
        }
        while let Some(place) = self.places.next_if(|place| (place[0], place[1]) < (of_here, word(seen.offset)))? {
            self.absent(here, place)?;
        }
        let fingerprint = self.fingerprint(here.topic, seen);
        let mut flags = self.coverage(of_here, seen);
        while let Some(place) = self.places.next_if(|place| (place[0], place[1]) == (of_here, word(seen.offset)))? {
            flags |= self.present(here, place, fingerprint, seen)?;
        }
        match fingerprint {
            Some(Fingerprint(fingerprint)) => {
                let at = u64::from(here.partition.cast_unsigned()) << 32 | flags;
                self.records.push([here.topic.into(), fingerprint, word(seen.offset), at])
            }
            None => {
                self.stranger(here, seen.offset, flags);
                Ok(())
            }
        }
    }

    /// Whether the journal must name what lies here, if it is ours.
    fn coverage(&self, lane: u64, seen: &Scanned<'_>) -> u64 {
        let by_place = self.named.get(&lane).is_some_and(|named| named.covers(seen.offset));
        let is_covered = by_place || seen.time_ms.is_some_and(|time_ms| self.chain.is_after_beginning(time_ms));
        if self.terms.journalled && is_covered { COVERED } else { 0 }
    }

    /// The event that the record says it is.
    fn fingerprint(&self, topic: u32, seen: &Scanned<'_>) -> Option<Fingerprint> {
        event_of(self.terms.ids, self.topics.in_table(topic), seen).map(EventId::fingerprint)
    }

    /// A record that no event can be.
    fn stranger(&mut self, here: &Here, offset: i64, flags: u64) {
        let report = self.topics.report(here.topic);
        if flags & COVERED == 0 {
            if self.terms.journalled {
                report.unchecked(Unchecked::BeforeJournal);
            }
        } else if flags & DISPUTED == 0 {
            report.found(Kind::Foreign, Example::new("it has no id of an event").at(here.partition, offset));
        }
    }

    /// The journal names this place, and a record lies there.
    fn present(&mut self, here: &mut Here, place: PlaceItem, found: Option<Fingerprint>, seen: &Scanned<'_>) -> io::Result<u64> {
        let [_, _, seq, fingerprint, n] = place;
        let example = |why| Example::new(why).at(here.partition, seen.offset).of_row(number(seq)).of_batch(n);
        if found != Some(Fingerprint(fingerprint)) {
            if here.is_earlier(n) {
                self.topics.report(here.topic).unchecked(Unchecked::EarlierTopic);
            } else {
                let example = example("another record lies where the journal names this event");
                self.topics.report(here.topic).found(Kind::Torn, example);
            }
            return Ok(DISPUTED);
        }
        self.topics.report(here.topic).published += 1;
        self.mark_present(n);
        if let Some(key) = seen.key {
            if here.pinned.is_some_and(|(count, since)| n > since && partition_of_key(key, count) != here.partition) {
                let example = example("it is not in the partition of its key");
                self.topics.report(here.topic).found(Kind::Reordered, example);
            }
            here.keys.push([hash(key), word(seen.offset), seq, n])?;
        }
        Ok(NAMED)
    }

    /// The journal names this place, and no record lies there.
    fn absent(&mut self, here: &Here, place: PlaceItem) -> io::Result<()> {
        let [_, offset, seq, fingerprint, n] = place;
        let why = match here.extent.holes {
            _ if number(offset) < here.extent.start => Unchecked::Trimmed,
            _ if here.is_earlier(n) => Unchecked::EarlierTopic,
            _ if number(offset) >= here.until => Unchecked::Hidden,
            Holes::Compacted => Unchecked::Compacted,
            Holes::Untold => Unchecked::Untold,
            Holes::Never => {
                let partition = here.partition.cast_unsigned().into();
                return self.claims.push([here.topic.into(), fingerprint, BY_JOURNAL, n, seq, partition, offset]);
            }
        };
        self.topics.report(here.topic).unchecked(why);
        Ok(())
    }

    fn mark_present(&mut self, n: u64) {
        let Some(at) = self.bit(n) else { return };
        let (index, bit) = ((at / 64) as usize, at % 64);
        if self.present.len() <= index {
            self.present.resize(index + 1, 0);
        }
        self.present[index] |= 1 << bit;
    }

    /// Whether something of this batch lies where it should.
    pub(super) fn is_present(&self, n: u64) -> bool {
        self.bit(n).is_some_and(|at| self.present.get((at / 64) as usize).is_some_and(|bits| bits >> (at % 64) & 1 == 1))
    }

    fn bit(&self, n: u64) -> Option<u64> {
        n.checked_sub(self.chain.report.first?).filter(|at| *at < MOST_BATCHES)
    }

    /// Holds the events of each key against the order of their numbers.
    fn order(&mut self, here: Here) -> io::Result<()> {
        let mut keys = here.keys.sorted()?;
        let mut run: Option<(KeyItem, u64, u64)> = None;
        while let Some(item) = keys.next()? {
            let [key, offset, seq, n] = item;
            // of the same key: the last one, the highest number of all, and of its batch
            let (highest, in_batch) = match run {
                Some((last, highest, in_batch)) if last[0] == key => {
                    let example = |why| Example::new(why).at(here.partition, number(offset)).of_row(number(seq)).of_batch(n);
                    let found = if n < last[3] {
                        Some((Kind::Reordered, example("a later batch of its key lies before it")))
                    } else if n == last[3] && seq < in_batch {
                        Some((Kind::Reordered, example("a later event of its key and batch lies before it")))
                    } else if seq < highest {
                        Some((Kind::Overtaken, example("an event with a higher number from an earlier batch lies before it")))
                    } else {
                        None
                    };
                    if let Some((kind, example)) = found {
                        self.topics.report(here.topic).found(kind, example);
                    }
                    (highest.max(seq), if n == last[3] { in_batch.max(seq) } else { seq })
                }
                Some(_) | None => (seq, seq),
            };
            run = Some((item, highest, in_batch));
        }
        Ok(())
    }
}

impl Here {
    /// Whether the batch belongs to an earlier topic of this name, or to another count of partitions that a person has accepted.
    fn is_earlier(&self, n: u64) -> bool {
        self.pinned.is_some_and(|(_, since)| n <= since)
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

/// Where an entry of the journal says that its event lies.
pub(super) fn entry_place(entry: &EntryItem) -> (u32, i32, i64) {
    let (topic, partition) = of_lane(entry[3]);
    (topic, partition, number(entry[4]))
}
