//! Where the partitions of the topics ended when we last published there. Offsets only grow: a partition that ends lower, or takes a
//! record where it had one, has lost what was acknowledged, or is that of another topic. Both are told by the next look at the topic.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::client::lock;
use super::native::Lane;
use crate::fault::Fault;
use crate::journal::Record;

/// A partition that ends too low is asked for so often: a leader that was just elected may know less for a moment.
const ASKED: u32 = 3;
/// And so long after the time before.
const PAUSE: Duration = Duration::from_secs(1);

/// The newest record that we know of in each partition. Kept over claims; one entry for each partition that was ever used.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    newest: HashMap<Lane, Newest>,
    /// Where a partition was seen to end, or to take a record, at or below its newest one. Hardly ever any.
    contradicted: BTreeMap<Lane, i64>,
}

/// The newest record in one partition.
#[derive(Clone, Copy, Debug)]
struct Newest {
    batch: u64,
    offset: i64,
}

impl Ends {
    /// A committed batch.
    pub(super) fn learn(&self, record: &Record) {
        let mut known = lock(&self.0);
        for (_, lane, (_, offset)) in lanes(record) {
            // what was learnt before the contradiction, and is read again by a claim, does not answer it
            if known.newest.get(&lane).is_none_or(|newest| newest.batch < record.n) {
                known.contradicted.remove(&lane);
            }
            known.newest.insert(lane, Newest { batch: record.n, offset });
        }
    }

    /// Notes partitions of these topics that end below what was published there. `ask` tells where partitions end, as far as it can.
    pub(super) fn compare(&self, topics: &[&str], ask: impl Fn(&[Lane]) -> Result<HashMap<Lane, i64>, Fault>) -> Result<(), Fault> {
        let (mut low, mut told) = (self.of(topics), HashMap::new());
        for asked in 0..ASKED {
            if low.is_empty() {
                return Ok(());
            }
            thread::sleep(if asked == 0 { Duration::ZERO } else { PAUSE });
            told = ask(&low.keys().cloned().collect::<Vec<_>>())?;
            low.retain(|lane, offset| told.get(lane).is_some_and(|end| end <= offset));
        }
        told.retain(|lane, _| low.contains_key(lane));
        lock(&self.0).contradicted.extend(told);
        Ok(())
    }

    /// The newest records in partitions of these topics.
    fn of(&self, topics: &[&str]) -> HashMap<Lane, i64> {
        let known = lock(&self.0);
        let asked = |lane: &Lane| topics.contains(&&*lane.0) && !known.contradicted.contains_key(lane);
        known.newest.iter().filter(|(lane, _)| asked(lane)).map(|(lane, newest)| (lane.clone(), newest.offset)).collect()
    }

    /// Whether the acknowledged batch of `record` lies above everything that was published since the batch given for each of its topics.
    /// When it does not, the evidence is kept for the next look.
    pub(super) fn fits(&self, record: &Record, since: &[u64]) -> Result<(), String> {
        let known = &mut *lock(&self.0);
        for (topic, lane, (first, _)) in lanes(record) {
            let since = since.get(topic).copied().unwrap_or_default();
            let below = known.newest.get(&lane).filter(|newest| newest.batch > since && first <= newest.offset);
            if let Some(newest) = below {
                let evidence = told(&lane, *newest, first);
                known.contradicted.insert(lane, first);
                return Err(evidence);
            }
        }
        Ok(())
    }

    /// Evidence that a topic has lost records that were published after batch `since`.
    pub(super) fn truncated(&self, topic: &str, since: u64) -> Option<String> {
        let known = lock(&self.0);
        known.contradicted.iter().filter(|((of, _), _)| of == topic).find_map(|(lane, end)| {
            let newest = known.newest.get(lane).filter(|newest| newest.batch > since)?;
            Some(told(lane, *newest, *end))
        })
    }
}

fn told((topic, partition): &Lane, newest: Newest, end: i64) -> String {
    let Newest { batch, offset } = newest;
    format!("partition {partition} of {topic} ended at {end}, although batch {batch} was acknowledged there up to offset {offset}")
}

/// First and last offset of a batch in each partition, with the index of its topic.
fn lanes(record: &Record) -> impl Iterator<Item = (usize, Lane, (i64, i64))> {
    let mut lanes: BTreeMap<(u32, i32), (i64, i64)> = BTreeMap::new();
    for entry in &record.entries {
        let range = lanes.entry((entry.topic, entry.partition)).or_insert((entry.offset, entry.offset));
        *range = (range.0.min(entry.offset), range.1.max(entry.offset));
    }
    let named = |((topic, partition), range): ((u32, i32), _)| {
        let index = topic as usize;
        Some((index, (record.topics.get(index)?.clone(), partition), range))
    };
    lanes.into_iter().filter_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Fingerprint;
    use crate::journal::{Checksum, DatabaseIdentity, Entry, Owner, Writer};

    fn record(n: u64, places: &[(i32, i64)]) -> Record {
        let owner = Owner { instance: "a".into(), start: 1, epoch: 1 };
        let database = DatabaseIdentity { system: "s".into(), timeline: 1 };
        let writer = Writer { outbox: uuid::Uuid::nil(), owner, database };
        let entry = |&(partition, offset)| Entry { seq: offset, fingerprint: Fingerprint(0), topic: 0, partition, offset };
        Record { writer, n, previous: Checksum(0), topics: vec!["t".into()], entries: places.iter().map(entry).collect() }
    }

    #[test]
    fn a_partition_that_ends_below_what_was_acknowledged_has_lost_it() {
        let ends = Ends::default();
        ends.learn(&record(5, &[(0, 10), (0, 11), (1, 7)]));
        let answer = |places: &[(i32, i64)]| -> HashMap<Lane, i64> {
            places.iter().map(|&(partition, end)| (("t".to_owned(), partition), end)).collect()
        };
        let late = std::cell::Cell::new(6);
        let lagging = |_: &[Lane]| Ok(answer(&[(0, 13), (1, late.replace(9))]));
        ends.compare(&["t"], lagging).expect("an answer");
        assert_eq!(ends.truncated("t", 0), None, "a leader that was just elected knows less for a moment");
        ends.compare(&["t"], |_| Ok(answer(&[(0, 13)]))).expect("an answer");
        assert_eq!(ends.truncated("t", 0), None, "nothing is told of one partition");
        ends.compare(&["t"], |_| Ok(answer(&[(0, 13), (1, 7)]))).expect("an answer");
        let told = ends.truncated("t", 4).expect("evidence");
        assert_eq!(told, "partition 1 of t ended at 7, although batch 5 was acknowledged there up to offset 7");
        assert_eq!((ends.truncated("t", 5), ends.truncated("u", 0)), (None, None), "what was pinned anew begins anew");
        ends.learn(&record(6, &[(1, 8)]));
        assert_eq!(ends.truncated("t", 0), None);
    }

    #[test]
    fn a_batch_must_lie_above_those_before_it() {
        let ends = Ends::default();
        ends.learn(&record(5, &[(0, 10), (0, 11)]));
        assert_eq!(ends.fits(&record(6, &[(0, 13), (1, 0)]), &[0]), Ok(()));
        assert!(ends.fits(&record(6, &[(0, 11), (0, 12)]), &[0]).is_err());
        ends.learn(&record(5, &[(0, 10), (0, 11)]));
        assert!(ends.truncated("t", 0).is_some(), "the claim that it leads to reads the same record again");
        assert_eq!(ends.fits(&record(6, &[(0, 0)]), &[5]), Ok(()), "the topic of that name was another one");
    }
}
