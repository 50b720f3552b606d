//! Kafka as outboxd meets it: partitions with open, committed and aborted records, a coordinator for each transactional id, producer
//! epochs, markers that are written later, the last stable offset. Protocol version 1, as librdkafka speaks it: an EndTxn names no
//! transaction, so a late one ends whatever is open.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::oracle;
use super::world::World;

/// Topics of events.
pub const TOPICS: [&str; 2] = ["orders", "bills"];
/// Partitions of each, at first.
pub const PARTITIONS: i32 = 2;
/// And when it has grown.
pub const GROWN: i32 = 3;
/// The journal's place among the lanes, after all partitions of all topics.
pub const JOURNAL: usize = TOPICS.len() * GROWN as usize;

/// A transaction that is open for longer is aborted, and its owner fenced.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_millis(1500);

/// A transactional id: outboxd's, or somebody else's.
pub type Tid = usize;
/// The one that all relays of an outbox share.
pub const OURS: Tid = 0;

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The event at this place in the list of all.
    Event(usize),
    /// A journal record.
    Journal(Vec<u8>),
    /// The end of a transaction.
    Marker,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Aborted,
}

/// One offset of a partition.
#[derive(Clone, Debug)]
pub struct Stored {
    pub by: Tid,
    pub content: Content,
    /// Nothing while its transaction is open.
    pub outcome: Option<Outcome>,
}

/// One partition; the offset of a record is its index.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    pub start: usize,
    pub records: Vec<Stored>,
    /// First offset of each open transaction.
    pub open: BTreeMap<Tid, usize>,
    /// The last request of a producer, by epoch and number, with its answer: a repetition is recognised.
    pub last: BTreeMap<Tid, (u32, u64, i64)>,
}

impl Partition {
    /// The last stable offset.
    pub fn stable(&self) -> usize {
        self.open.values().copied().min().unwrap_or(self.records.len())
    }

    /// A transaction ends here.
    fn finish(&mut self, tid: Tid, outcome: Outcome) {
        let first = self.open.remove(&tid).unwrap_or(self.records.len());
        let ours = self.records[first..].iter_mut().filter(|stored| stored.by == tid && stored.outcome.is_none());
        ours.for_each(|stored| stored.outcome = Some(outcome));
    }

    /// What readers of committed records see from an offset on.
    pub fn visible(&self, from: usize) -> impl Iterator<Item = (usize, &Content)> {
        self.committed(from.max(self.start))
    }

    /// The same, with what was trimmed since.
    pub fn committed(&self, from: usize) -> impl Iterator<Item = (usize, &Content)> {
        let seen = |stored: &Stored| stored.outcome == Some(Outcome::Committed) && stored.content != Content::Marker;
        let below = self.records.iter().enumerate().take(self.stable()).skip(from);
        below.filter(move |(_, stored)| seen(stored)).map(|(offset, stored)| (offset, &stored.content))
    }
}

/// What a coordinator knows of a transactional id.
#[derive(Clone, Debug, Default)]
struct Coordinator {
    epoch: u32,
    state: State,
    lanes: BTreeSet<usize>,
    /// Counts transactions, to tell whose timeout it is.
    number: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    Ongoing,
    Prepared(Outcome),
    Complete(Outcome),
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A newer producer has the transactional id, or a transaction took too long.
    Fenced,
    /// The transaction before is not over: try again.
    Concurrent,
    /// Too few replicas, or no room on the broker's disk: try again.
    NotNow,
    /// Nothing of the kind is under way.
    State,
    /// An event can never be stored.
    Event(usize),
}

/// All brokers.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub lanes: Vec<Partition>,
    coordinators: BTreeMap<Tid, Coordinator>,
    /// Topics that are not there now.
    pub missing: BTreeSet<&'static str>,
    /// Partitions that take no records, and until when: too few replicas, or no room.
    pub sick: BTreeMap<usize, Instant>,
    /// Journals that were deleted.
    pub graves: Vec<Partition>,
    /// The only broker dies at the next commit.
    pub dying: bool,
    /// Topics that have more partitions than at first.
    pub grown: BTreeSet<&'static str>,
    /// Until when a leader that lags behind answers readers, and up to which offset of the journal it knows.
    pub stale: Option<usize>,
}

impl Default for Cluster {
    fn default() -> Self {
        let (lanes, coordinators) = (vec![Partition::default(); JOURNAL + 1], BTreeMap::new());
        let (missing, grown, sick) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Self { lanes, coordinators, missing, sick, graves: Vec::new(), dying: false, grown, stale: None }
    }
}

impl World {
    fn coordinator(&mut self, tid: Tid) -> &mut Coordinator {
        self.kafka.coordinators.entry(tid).or_default()
    }

    /// InitProducerId: shuts older producers out and gives a new epoch, once no transaction of theirs is left.
    pub fn init(&mut self, tid: Tid) -> Result<u32, Refusal> {
        let coordinator = self.coordinator(tid);
        match coordinator.state {
            State::Ongoing => {
                coordinator.epoch += 1;
                self.hit("init aborted an open transaction");
                self.prepare(tid, Outcome::Aborted);
                Err(Refusal::Concurrent)
            }
            State::Prepared(_) => {
                self.hit("init waited for markers");
                Err(Refusal::Concurrent)
            }
            State::Empty | State::Complete(_) => {
                coordinator.epoch += 1;
                (coordinator.state, coordinator.lanes) = (State::Empty, BTreeSet::new());
                Ok(coordinator.epoch)
            }
        }
    }

    /// AddPartitionsToTxn: begins a transaction if there is none.
    pub fn add(&mut self, tid: Tid, epoch: u32, lanes: &BTreeSet<usize>) -> Result<(), Refusal> {
        let coordinator = self.coordinator(tid);
        if coordinator.epoch != epoch {
            return Err(Refusal::Fenced);
        }
        match coordinator.state {
            State::Prepared(_) => return Err(Refusal::Concurrent),
            State::Empty | State::Complete(_) => {
                (coordinator.state, coordinator.lanes) = (State::Ongoing, BTreeSet::new());
                coordinator.number += 1;
                let number = coordinator.number;
                self.later(TRANSACTION_TIMEOUT, move |world| world.time_out(tid, number));
            }
            State::Ongoing => {}
        }
        self.coordinator(tid).lanes.extend(lanes);
        Ok(())
    }

    fn time_out(&mut self, tid: Tid, number: u64) {
        let coordinator = self.coordinator(tid);
        if coordinator.state == State::Ongoing && coordinator.number == number {
            coordinator.epoch += 1;
            self.hit("a transaction ran into its timeout");
            self.prepare(tid, Outcome::Aborted);
        }
    }

    /// Produce: returns the offset of the first record. A repetition gets the same answer.
    pub fn produce(&mut self, tid: Tid, epoch: u32, lane: usize, number: u64, contents: Vec<Content>) -> Result<i64, Refusal> {
        let refused = |content: &Content| matches!(content, Content::Event(index) if self.happened[*index].refused);
        let refused = contents.iter().find(|content| refused(content)).cloned();
        let coordinator = self.coordinator(tid);
        if coordinator.epoch != epoch {
            self.hit("a late or fenced produce was refused");
            return Err(Refusal::Fenced);
        }
        let is_part = coordinator.state == State::Ongoing && coordinator.lanes.contains(&lane);
        let partition = &mut self.kafka.lanes[lane];
        match partition.last.get(&tid) {
            Some(&(of, last, offset)) if (of, last) == (epoch, number) => return Ok(offset),
            Some(&(of, last, _)) if of == epoch && last > number => return Err(Refusal::State),
            Some(_) | None => {}
        }
        if !is_part {
            return Err(Refusal::State);
        }
        if let Some(Content::Event(index)) = refused {
            return Err(Refusal::Event(index));
        }
        if self.kafka.sick.contains_key(&lane) {
            self.hit("a produce met a partition that takes nothing");
            return Err(Refusal::NotNow);
        }
        let partition = &mut self.kafka.lanes[lane];
        let offset = partition.records.len();
        partition.open.entry(tid).or_insert(offset);
        partition.last.insert(tid, (epoch, number, offset as i64));
        partition.records.extend(contents.into_iter().map(|content| Stored { by: tid, content, outcome: None }));
        Ok(offset as i64)
    }

    /// EndTxn.
    pub fn end(&mut self, tid: Tid, epoch: u32, outcome: Outcome) -> Result<(), Refusal> {
        let coordinator = self.coordinator(tid);
        if coordinator.epoch != epoch {
            return Err(Refusal::Fenced);
        }
        match coordinator.state {
            State::Ongoing => {
                self.prepare(tid, outcome);
                Ok(())
            }
            State::Prepared(known) if known == outcome => Err(Refusal::Concurrent),
            State::Complete(known) if known == outcome => Ok(()),
            State::Empty | State::Prepared(_) | State::Complete(_) => Err(Refusal::State),
        }
    }

    /// An EndTxn that was held back on its way.
    pub fn end_late(&mut self, tid: Tid, epoch: u32, outcome: Outcome) {
        let ongoing = self.coordinator(tid).state == State::Ongoing;
        let taken = self.end(tid, epoch, outcome);
        match taken {
            Ok(()) if ongoing => self.hit("a late EndTxn ended an open transaction"),
            Err(Refusal::Fenced) if ongoing => self.hit("a late EndTxn met a newer producer's transaction"),
            Ok(()) | Err(_) => {}
        }
    }

    /// The outcome is decided; the markers are written later, one partition after the other.
    fn prepare(&mut self, tid: Tid, outcome: Outcome) {
        let decided = self.coordinator(tid).lanes.clone();
        if self.markers_are_lost(&decided, outcome) {
            self.coordinator(tid).state = State::Complete(outcome);
            return;
        }
        self.coordinator(tid).state = State::Prepared(outcome);
        let mut lanes: Vec<usize> = self.coordinator(tid).lanes.iter().copied().collect();
        self.chance.shuffle(&mut lanes);
        let slow = !self.healed && self.chance(30);
        let mut after = Duration::ZERO;
        for lane in lanes {
            after += if slow { self.ms(1..=400) } else { self.ms(0..=1) };
            self.later(after, move |world| world.write_marker(tid, lane, outcome));
        }
    }

    /// The last one ends the transaction. A partition that takes nothing takes no markers either.
    fn write_marker(&mut self, tid: Tid, lane: usize, outcome: Outcome) {
        if let Some(until) = self.kafka.sick.get(&lane).copied() {
            self.hit("a marker waited for a partition that takes nothing");
            return self.later(until - self.now, move |world| world.write_marker(tid, lane, outcome));
        }
        let partition = &mut self.kafka.lanes[lane];
        partition.finish(tid, outcome);
        if lane == JOURNAL {
            self.kafka.graves.iter_mut().for_each(|grave| grave.finish(tid, outcome));
        }
        let partition = &mut self.kafka.lanes[lane];
        partition.records.push(Stored { by: tid, content: Content::Marker, outcome: Some(outcome) });
        if lane == JOURNAL && outcome == Outcome::Committed {
            oracle::count_unmarked(self);
        }
        let coordinator = self.coordinator(tid);
        coordinator.lanes.remove(&lane);
        if coordinator.lanes.is_empty() {
            coordinator.state = State::Complete(outcome);
        }
    }

    /// A partition takes nothing for a while.
    pub fn sicken(&mut self, lane: usize, lasts: Duration) {
        let until = self.now + lasts;
        self.kafka.sick.insert(lane, until);
        self.later(lasts, move |world| {
            let over = world.now;
            world.kafka.sick.retain(|_, until| *until > over);
        });
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: &str) -> i32 {
        if self.kafka.grown.contains(topic) { GROWN } else { PARTITIONS }
    }

    /// Whether a transaction is open, or being ended.
    pub fn transactions_are_over(&self) -> bool {
        let busy = |one: &Coordinator| matches!(one.state, State::Ongoing | State::Prepared(_));
        !self.kafka.coordinators.values().any(busy)
    }
}
