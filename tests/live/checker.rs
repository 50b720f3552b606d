//! Holds what readers see against what the writers know. Shares no code with the program under test.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::truth::{Fate, KIND, Written};

#[cfg(test)]
mod tests;

/// One record as a reader of committed records gets it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Kafka topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes.
    pub payload: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.iter().find(|(found, _)| found == name)?.1.as_deref()?;
        std::str::from_utf8(value).ok()
    }

    /// The event id in its header.
    pub fn id(&self) -> Option<Uuid> {
        self.header("id")?.parse().ok()
    }

    /// What is kept of it.
    pub fn place(&self) -> Place {
        Place { topic: self.topic.as_str().into(), partition: self.partition, offset: self.offset, id: self.id() }
    }
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Committed, and not published.
    Lost,
    /// Published more than once.
    Duplicated,
    /// An older version of a key behind a newer one.
    Reordered,
    /// Not in the partition that a Java producer would choose.
    WrongPartition,
    /// A key in two partitions of a topic.
    SplitKey,
    /// Published although it was rolled back.
    Phantom,
    /// Key, payload, headers or topic differ from the row.
    Corrupt,
    /// Nobody wrote it.
    Stranger,
    /// A reader saw it while everything went on, and it is not there in the end.
    Vanished,
    /// The journal is not an exact account of what is published.
    Journal,
    /// The tables are not an exact account of what is published.
    Table,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What sort.
    pub kind: Kind,
    /// Where, for a person.
    pub what: String,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 11] = [
        Kind::Lost,
        Kind::Duplicated,
        Kind::Reordered,
        Kind::WrongPartition,
        Kind::SplitKey,
        Kind::Phantom,
        Kind::Corrupt,
        Kind::Stranger,
        Kind::Vanished,
        Kind::Journal,
        Kind::Table,
    ];
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.kind, self.what)
    }
}

/// Where a record of which event lies: what is kept of it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Kafka topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// The event id in its header.
    pub id: Option<Uuid>,
}

/// Everything that is wrong with `seen`, the complete topics in offset order, given what was written and how many partitions each
/// topic has.
pub fn check(written: &[Written], seen: &[Seen], partitions: &BTreeMap<String, i32>) -> Vec<Violation> {
    let mut checking = Checking::new(written, partitions);
    seen.iter().for_each(|record| checking.see(record));
    checking.finish()
}

/// Of a lane: its partition, and its newest version, after the generation.
type Newest = (i32, (i64, i64));

/// [`check`] of records that come one by one, so that a long history need not be held in memory.
pub struct Checking<'a> {
    written: &'a [Written],
    partitions: &'a BTreeMap<String, i32>,
    /// Of each event, how often it was seen.
    by_id: HashMap<Uuid, (&'a Written, usize)>,
    /// Of each topic and key the partition and the newest version.
    lanes: HashMap<(&'a str, &'a str), Newest>,
    violations: Vec<Violation>,
    disorder: Vec<Violation>,
}

impl<'a> Checking<'a> {
    /// Nothing is seen yet.
    pub fn new(written: &'a [Written], partitions: &'a BTreeMap<String, i32>) -> Checking<'a> {
        let by_id = written.iter().map(|event| (event.id, (event, 0))).collect();
        Checking { written, partitions, by_id, lanes: HashMap::new(), violations: Vec::new(), disorder: Vec::new() }
    }

    /// The next record of a topic's partition.
    pub fn see(&mut self, record: &Seen) {
        let Some((event, times)) = record.id().and_then(|id| self.by_id.get_mut(&id)) else {
            self.violations.push(Violation { kind: Kind::Stranger, what: place(record) });
            return;
        };
        *times += 1;
        let (event, is_first) = (*event, *times == 1);
        let mut found = |kind: Kind, what: String| self.violations.push(Violation { kind, what });
        if event.fate == Fate::RolledBack {
            found(Kind::Phantom, format!("{} {}", event.id, place(record)));
        }
        if let Some(difference) = difference(event, record) {
            found(Kind::Corrupt, format!("{difference} of {} {}", event.id, place(record)));
        }
        if let Some(expected) = event.key.as_ref().map(|key| partition_of(key.as_bytes(), self.partitions[&record.topic]))
            && expected != record.partition
        {
            found(Kind::WrongPartition, format!("{} {}, not {expected}", event.id, place(record)));
        }
        // repetitions are not held against the order: they are found as duplicates
        if is_first {
            self.put_in_order(event, record);
        }
    }

    fn put_in_order(&mut self, event: &'a Written, record: &Seen) {
        let Some(key) = event.key.as_deref() else { return };
        let Some((topic, _)) = self.partitions.get_key_value(&record.topic) else { return };
        let version = (event.generation, event.version);
        let (partition, newest) = self.lanes.entry((topic, key)).or_insert((record.partition, (i64::MIN, 0)));
        if *partition != record.partition {
            let what = format!("{key}: first in partition {partition}, then {}", place(record));
            self.disorder.push(Violation { kind: Kind::SplitKey, what });
        } else if version <= *newest {
            let what = format!("{key} version {version:?} behind {newest:?} {}", place(record));
            self.disorder.push(Violation { kind: Kind::Reordered, what });
        }
        *newest = version.max(*newest);
    }

    /// Everything was seen: what is wrong.
    pub fn finish(self) -> Vec<Violation> {
        let mut violations = self.violations;
        let mut found = |kind: Kind, what: String| violations.push(Violation { kind, what });
        for event in self.written {
            match self.by_id[&event.id].1 {
                0 if event.fate == Fate::Committed => found(Kind::Lost, format!("{} {}", event.id, event.topic)),
                0 | 1 => {}
                times => found(Kind::Duplicated, format!("{} {times} times", event.id)),
            }
        }
        violations.extend(self.disorder);
        violations
    }
}

fn place(record: &Seen) -> String {
    format!("in {} partition {} offset {}", record.topic, record.partition, record.offset)
}

/// What of a record differs from its row.
fn difference(event: &Written, record: &Seen) -> Option<&'static str> {
    let names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
    let is_time = |time: &str| time.len() >= 20 && time.starts_with("20") && &time[10..11] == "T" && time.ends_with('Z');
    let checks = [
        ("topic", *record.topic == *event.topic),
        ("key", record.key.as_deref() == event.key.as_ref().map(String::as_bytes)),
        ("payload", record.payload.as_deref() == Some(event.payload().as_bytes())),
        ("header names", names == ["id", "type", "time", "trace"]),
        ("header type", record.header("type") == Some(KIND)),
        ("header time", record.header("time").is_some_and(is_time)),
        ("header trace", record.header("trace") == Some(&event.trace())),
    ];
    checks.into_iter().find(|(_, is_right)| !is_right).map(|(name, _)| name)
}

/// The partition that the Java client's default partitioner chooses.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions
}

/// MurmurHash2, 32 bits, with the seed of Kafka's Java client.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        let mut k = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        rest.iter().enumerate().for_each(|(i, byte)| hash ^= u32::from(*byte) << (8 * i));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}
