//! What was published already, as the topics tell it, for when the journal cannot. Pure but for the temporary file of what does not fit
//! into memory.
//!
//! Each unsent row is looked for in its topic, by its whole identity. It lies there: it was published, and is to be marked. It does not,
//! and the topic must still have everything that was published since the row was inserted: it was not published, and is left to be. It does
//! not, and the topic is trimmed, compacted or not readable to its end, or may be another one than was published to: nothing tells. Such a
//! row is left to be published too, so it may come twice and never gets lost, but only after a person has said so.
//!
//! A topic that was deleted and made anew never had what the old one had. It is the one that was published to if it has the id that is
//! pinned. Where no id is pinned (nothing was published to it from this past of the database, or the brokers tell none), it was there at
//! least since its first event.
//!
//! The order of the calls is that of the types: [`Unsent`] takes the rows, [`Searching`] the topics, and ends in a [`Finding`].

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use crate::config::TopicPattern;
use crate::event::{EventId, Fingerprint};
use crate::journal::Entry;
use crate::sink::kafka::Scanned;
use crate::source::Pins;
use crate::source::desk::UnsentRow;
use crate::verify::spill::{Sorted, Sorter, number, word};
use crate::verify::{CLOCKS_MS, Extent, Holes, Ids, Unchecked, event_of};

#[cfg(test)]
mod tests;

/// Rows that are marked at once.
const CHUNK: usize = 5_000;

/// Topic, identity in two halves, number, when it was inserted in microseconds since 1970.
type RowItem = [u64; 5];
/// Topic, identity in two halves, partition, offset.
type RecordItem = [u64; 5];
/// Number, fingerprint, topic, partition, offset.
type FoundItem = [u64; 5];

/// Takes the rows that are looked for.
pub struct Unsent {
    ids: Ids,
    pattern: TopicPattern,
    pins: Pins,
    folder: PathBuf,
    numbers: HashMap<String, u32>,
    topics: Vec<Topic>,
    rows: Sorter<5>,
    sieve: Sieve,
}

/// A topic while it is searched.
struct Topic {
    in_table: String,
    finding: TopicFinding,
    /// Since when everything that was published must still be there, in milliseconds since 1970.
    whole_since_ms: i64,
    /// Its id, if it was pinned.
    pinned: Option<String>,
    /// Whether it has that id.
    is_pinned_one: bool,
    /// When the first event was published that any partition has left.
    first_ms: Option<i64>,
    /// Why nothing can be told from an event's absence.
    unsure: Option<Unchecked>,
}

/// What was found of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFinding {
    /// Its name in Kafka.
    pub topic: String,
    /// Unsent rows.
    pub rows: u64,
    /// Of these, how many lie in the topic.
    pub found: u64,
    /// How many were certainly not published.
    pub unpublished: u64,
    /// How many nothing is known of, and why.
    pub undecided: BTreeMap<Unchecked, u64>,
}

impl Unsent {
    /// Nothing was read yet. The temporary file is made in `folder`, if one is needed.
    pub fn new(ids: Ids, pattern: TopicPattern, pins: Pins, folder: PathBuf) -> Self {
        let (numbers, topics, rows) = (HashMap::new(), Vec::new(), Sorter::new(folder.clone()));
        Self { ids, pattern, pins, folder, numbers, topics, rows, sieve: Sieve::new() }
    }

    /// Takes an unsent row.
    pub fn row(&mut self, row: &UnsentRow<'_>) -> io::Result<()> {
        let topic = self.topic(row.topic);
        let [fingerprint, rest] = match (self.ids, Uuid::parse_str(row.id)) {
            (Ids::Uuid, Ok(id)) => of_uuid(id),
            (Ids::Uuid | Ids::Content, _) => [row.fingerprint.0, hash(row.id)],
        };
        self.sieve.add(fingerprint, rest);
        self.rows.push([topic.into(), fingerprint, rest, word(row.seq), word(row.created_us.unwrap_or(i64::MIN))])
    }

    fn topic(&mut self, in_table: &str) -> u32 {
        if let Some(&number) = self.numbers.get(in_table) {
            self.topics[number as usize].finding.rows += 1;
            return number;
        }
        let number = u32::try_from(self.topics.len()).expect("a table has fewer topics than rows");
        let topic = self.pattern.apply(in_table);
        let finding = TopicFinding { topic, rows: 1, found: 0, unpublished: 0, undecided: BTreeMap::new() };
        self.numbers.insert(in_table.to_owned(), number);
        let pinned = self.pins.get(in_table).and_then(|pin| pin.id.clone());
        let in_table = in_table.to_owned();
        let (whole_since_ms, is_pinned_one, first_ms, unsure) = (i64::MIN, false, None, None);
        self.topics.push(Topic { in_table, finding, whole_since_ms, pinned, is_pinned_one, first_ms, unsure });
        number
    }

    /// The topics in Kafka that are to be read, by number.
    pub fn topics(&self) -> Vec<String> {
        self.topics.iter().map(|topic| topic.finding.topic.clone()).collect()
    }

    /// Goes on to the topics.
    pub fn search(self) -> Searching {
        let Self { ids, folder, topics, rows, sieve, pins: _, numbers: _, pattern: _ } = self;
        Searching { ids, topics, rows, sieve, records: Sorter::new(folder.clone()), folder, here: None }
    }
}

/// Takes the topics, partition by partition, each to its end.
pub struct Searching {
    ids: Ids,
    topics: Vec<Topic>,
    rows: Sorter<5>,
    sieve: Sieve,
    records: Sorter<5>,
    folder: PathBuf,
    here: Option<Here>,
}

/// The partition that is being read.
struct Here {
    topic: usize,
    partition: i32,
    start: i64,
    /// When the first event that is left was published.
    first_ms: Option<i64>,
}

impl Searching {
    /// Says that a topic is not there.
    pub fn no_topic(&mut self, topic: usize) {
        self.topics[topic].unsure = Some(Unchecked::NoTopic);
    }

    /// Says which topic of its name the cluster has now, where the cluster tells.
    pub fn is_topic(&mut self, topic: usize, id: Option<&str>) {
        let topic = &mut self.topics[topic];
        topic.is_pinned_one = id.is_some() && topic.pinned.as_deref() == id;
        if id.is_some() && topic.pinned.is_some() && !topic.is_pinned_one {
            topic.unsure = Some(Unchecked::Recreated);
        }
    }

    /// Begins a partition of the topic with this number.
    pub fn begin(&mut self, topic: usize, partition: i32, extent: Extent) {
        let unsure = match extent.holes {
            Holes::Never => None,
            Holes::Compacted => Some(Unchecked::Compacted),
            Holes::Untold => Some(Unchecked::Untold),
        };
        let known = &mut self.topics[topic].unsure;
        *known = known.or(unsure);
        self.here = Some(Here { topic, partition, start: extent.start, first_ms: None });
    }

    /// Says that the partition begins later by now than when it was begun.
    pub fn begins_later(&mut self, start: i64) {
        if let Some(here) = &mut self.here {
            (here.start, here.first_ms) = (start, None);
        }
    }

    /// Says that readers do not come to the end: a transaction stays open before it.
    pub fn stops_short(&mut self) {
        if let Some(here) = &self.here {
            let known = &mut self.topics[here.topic].unsure;
            *known = known.or(Some(Unchecked::Hidden));
        }
    }

    /// Takes the next record of the partition.
    pub fn record(&mut self, seen: &Scanned<'_>) -> io::Result<()> {
        let Some(here) = &mut self.here else { return Ok(()) };
        let event = event_of(self.ids, Some(&self.topics[here.topic].in_table), seen);
        let Some([fingerprint, rest]) = event.map(whole) else { return Ok(()) };
        here.first_ms = here.first_ms.or(seen.time_ms);
        if !self.sieve.lets_through(fingerprint, rest) {
            return Ok(());
        }
        let partition = here.partition.cast_unsigned().into();
        self.records.push([here.topic as u64, fingerprint, rest, partition, word(seen.offset)])
    }

    /// Ends the partition.
    pub fn end(&mut self) {
        let Some(here) = self.here.take() else { return };
        let topic = &mut self.topics[here.topic];
        topic.first_ms = [topic.first_ms, here.first_ms].into_iter().flatten().min();
        if here.start > 0 {
            topic.whole_since_ms = topic.whole_since_ms.max(here.first_ms.unwrap_or(i64::MAX));
        }
    }

    /// Compares rows and records.
    pub fn finish(self) -> io::Result<Finding> {
        let Self { mut topics, rows, records, folder, .. } = self;
        let (mut rows, mut records, mut found) = (rows.sorted()?, records.sorted()?, Sorter::new(folder));
        while let Some(row) = rows.next()? {
            while records.next_if(|record| record[..3] < row[..3])?.is_some() {}
            let topic = &mut topics[row[0] as usize];
            match records.peek().filter(|record| record[..3] == row[..3]) {
                Some(record) => {
                    topic.finding.found += 1;
                    found.push(found_item(&row, &record))?;
                }
                None => topic.absent(number(row[4])),
            }
        }
        Ok(Finding { topics: topics.into_iter().map(|topic| topic.finding).collect(), found: found.sorted()? })
    }
}

fn found_item(row: &RowItem, record: &RecordItem) -> FoundItem {
    [row[3], row[1], row[0], record[3], record[4]]
}

impl Topic {
    /// An event that was inserted at this moment, and is not there.
    fn absent(&mut self, created_us: i64) {
        let is_after = |ms: i64| created_us / 1_000 > ms.saturating_add(CLOCKS_MS);
        let is_whole = self.whole_since_ms == i64::MIN || is_after(self.whole_since_ms);
        let is_this_one = self.is_pinned_one || self.first_ms.is_some_and(is_after);
        let unsure = match (is_whole, is_this_one) {
            (false, _) => Some(Unchecked::Trimmed),
            (true, false) => Some(Unchecked::Unpinned),
            (true, true) => None,
        };
        match self.unsure.or(unsure) {
            Some(why) => *self.finding.undecided.entry(why).or_default() += 1,
            None => self.finding.unpublished += 1,
        }
    }
}

/// What was found.
pub struct Finding {
    topics: Vec<TopicFinding>,
    found: Sorted<5>,
}

impl Finding {
    /// The topics, in the order in which rows name them.
    pub fn topics(&self) -> &[TopicFinding] {
        &self.topics
    }

    /// Rows that nothing is known of.
    pub fn undecided(&self) -> u64 {
        self.topics.iter().flat_map(|topic| topic.undecided.values()).sum()
    }

    /// Rows that were published.
    pub fn published(&self) -> u64 {
        self.topics.iter().map(|topic| topic.found).sum()
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for TopicFinding { topic, rows, found, unpublished, undecided } in &self.topics {
            let topic = crate::check::printable(topic);
            lines.push(format!("{topic}: {rows} unsent rows; {found} of them lie in the topic, {unpublished} were not published"));
            lines.extend(undecided.iter().map(|(why, count)| format!("  {count} undecided: {}", why.sentence())));
        }
        if self.topics.is_empty() {
            lines.push("no row is unsent".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

/// The rows that were published, in order of their numbers, some at once.
impl Iterator for Finding {
    type Item = io::Result<Vec<Entry>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut entries = Vec::new();
        while entries.len() < CHUNK {
            match self.found.next() {
                Ok(Some([seq, fingerprint, topic, partition, offset])) => entries.push(Entry {
                    seq: number(seq),
                    fingerprint: Fingerprint(fingerprint),
                    topic: topic as u32,
                    partition: (partition as u32).cast_signed(),
                    offset: number(offset),
                }),
                Ok(None) => break,
                Err(error) => return Some(Err(error)),
            }
        }
        (!entries.is_empty()).then_some(Ok(entries))
    }
}

/// All 128 bits: a row that is taken for another one here would never be published.
fn of_uuid(id: Uuid) -> [u64; 2] {
    [Fingerprint::of(id).0, id.as_u64_pair().0]
}

/// What tells an event from every other one of its topic.
fn whole(event: EventId<'_>) -> [u64; 2] {
    match event {
        EventId::Uuid(id) => of_uuid(id),
        EventId::Text { text, fingerprint } => [fingerprint.0, hash(text)],
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Keeps out most of what is not looked for, so that a large topic takes no room: 16 MiB, one bit an identity.
struct Sieve(Vec<u64>);

impl Sieve {
    const BITS: u32 = 27;

    fn new() -> Self {
        Self(vec![0; 1 << (Self::BITS - 6)])
    }

    fn place(fingerprint: u64, rest: u64) -> (usize, u64) {
        // golden ratio: spreads identities that count upwards
        let at = (fingerprint ^ rest.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::BITS);
        ((at / 64) as usize, 1 << (at % 64))
    }

    fn add(&mut self, fingerprint: u64, rest: u64) {
        let (word, bit) = Self::place(fingerprint, rest);
        self.0[word] |= bit;
    }

    fn lets_through(&self, fingerprint: u64, rest: u64) -> bool {
        let (word, bit) = Self::place(fingerprint, rest);
        self.0[word] & bit != 0
    }
}
