//! The account of a demo: what the shop committed and what a reader got back, event by event. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

/// So many delays, the newest ones, are what the live figures tell of.
const LATELY: usize = 1_000;

/// A record as the reader got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Header `id`.
    pub id: Uuid,
    /// Its key: the order.
    pub key: String,
    /// Which change of the order, from 1; the shop counts them under the row's lock.
    pub version: u64,
}

/// What is known of one event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// When its commit had returned.
    pub(super) committed: Option<Instant>,
    /// How often it was read.
    pub(super) copies: u32,
}

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Transactions that were committed.
    pub transactions: u64,
    /// Transactions that were rolled back on purpose.
    pub rolled_back: u64,
    /// Events of committed transactions.
    pub committed: u64,
    /// Different events that were read.
    pub read_back: u64,
    /// Records of events that had been read before.
    pub duplicated: u64,
    /// Events that were read for the first time after a later one of their key.
    pub reordered: u64,
    /// Records that the shop's relay cannot have written: another client on this machine has.
    pub foreign: u64,
    /// Records that the broker let go of before they were read.
    pub skipped: u64,
}

/// How long events took from commit to reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Half of them took no longer.
    pub p50: Duration,
    /// All but one of a hundred took no longer.
    pub p99: Duration,
}

/// All events of one demo.
#[derive(Debug, Default)]
pub struct Account {
    events: HashMap<Uuid, Known>,
    newest: HashMap<String, u64>,
    delays_us: Vec<u32>,
    tally: Tally,
}

impl Account {
    /// A transaction with these events was committed.
    pub fn committed(&mut self, events: &[Uuid], at: Instant) {
        self.tally.transactions += 1;
        self.tally.committed += events.len() as u64;
        for id in events {
            let known = self.events.entry(*id).or_default();
            known.committed = Some(at);
            if known.copies > 0 {
                // the reader was quicker than the shop's own note
                self.delays_us.push(0);
            }
        }
    }

    /// A transaction was rolled back: nothing of it may ever be read.
    pub fn rolled_back(&mut self) {
        self.tally.rolled_back += 1;
    }

    /// A record was read.
    pub fn read(&mut self, record: Record, at: Instant) {
        let known = self.events.entry(record.id).or_default();
        known.copies += 1;
        if known.copies > 1 {
            self.tally.duplicated += 1;
            return;
        }
        self.tally.read_back += 1;
        if let Some(committed) = known.committed {
            let delay = at.saturating_duration_since(committed).as_micros();
            self.delays_us.push(u32::try_from(delay).unwrap_or(u32::MAX));
        }
        let newest = self.newest.entry(record.key).or_default();
        if record.version <= *newest {
            self.tally.reordered += 1;
        }
        *newest = record.version.max(*newest);
    }

    /// A record was read that is none of the shop's.
    pub fn foreign(&mut self) {
        self.tally.foreign += 1;
    }

    /// So many records were gone before they could be read.
    pub fn skipped(&mut self, count: u64) {
        self.tally.skipped += count;
    }

    /// The counters as they stand.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How long the events that were read lately took.
    pub fn lately(&self) -> Option<Delays> {
        delays(&self.delays_us[self.delays_us.len().saturating_sub(LATELY)..])
    }

    /// How long all events took.
    pub fn overall(&self) -> Option<Delays> {
        delays(&self.delays_us)
    }

    pub(super) fn events(&self) -> &HashMap<Uuid, Known> {
        &self.events
    }
}

fn delays(us: &[u32]) -> Option<Delays> {
    let mut sorted = us.to_vec();
    sorted.sort_unstable();
    // the smallest value that at least this share of all does not exceed
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map(|&us| Duration::from_micros(us.into()))
    };
    Some(Delays { p50: at(50)?, p99: at(99)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u128, key: &str, version: u64) -> Record {
        Record { id: Uuid::from_u128(id), key: key.into(), version }
    }

    #[test]
    fn a_second_copy_is_a_duplicate_and_tells_nothing_of_order() {
        let (mut account, now) = (Account::default(), Instant::now());
        for (id, version) in [(1, 1), (2, 2), (1, 1), (2, 2), (3, 3)] {
            account.read(record(id, "a", version), now);
        }
        let tally = account.tally();
        assert_eq!((tally.read_back, tally.duplicated, tally.reordered), (3, 2, 0));
    }

    #[test]
    fn an_event_after_a_later_one_of_its_key_is_out_of_order() {
        let (mut account, now) = (Account::default(), Instant::now());
        for (id, key, version) in [(1, "a", 2), (2, "b", 1), (3, "a", 1), (4, "a", 3)] {
            account.read(record(id, key, version), now);
        }
        assert_eq!(account.tally().reordered, 1);
    }

    #[test]
    fn a_delay_runs_from_the_commit_to_the_first_copy() {
        let (mut account, start) = (Account::default(), Instant::now());
        assert_eq!(account.lately(), None);
        let ids: Vec<Uuid> = (1..=100).map(Uuid::from_u128).collect();
        account.committed(&ids, start);
        for id in 1..=100 {
            account.read(record(id, &id.to_string(), 1), start + Duration::from_millis(id as u64));
            account.read(record(id, &id.to_string(), 1), start + Duration::from_secs(9));
        }
        let (p50, p99) = (Duration::from_millis(50), Duration::from_millis(99));
        assert_eq!(account.overall(), Some(Delays { p50, p99 }));
        assert_eq!((account.tally().committed, account.tally().transactions), (100, 1));
    }

    #[test]
    fn a_record_that_is_read_before_its_commit_returned_took_no_time() {
        let (mut account, start) = (Account::default(), Instant::now());
        account.read(record(1, "a", 1), start);
        account.committed(&[Uuid::from_u128(1)], start + Duration::from_millis(5));
        assert_eq!(account.overall(), Some(Delays::default()));
    }

    #[test]
    fn only_the_newest_delays_are_told_while_it_runs() {
        let (mut account, start) = (Account::default(), Instant::now());
        let both: Vec<Uuid> = (0..2 * LATELY as u128).map(Uuid::from_u128).collect();
        account.committed(&both, start);
        for (position, id) in both.iter().enumerate() {
            let delay = if position < LATELY { Duration::from_secs(1) } else { Duration::from_millis(1) };
            account.read(Record { id: *id, key: id.to_string(), version: 1 }, start + delay);
        }
        assert_eq!(account.lately().map(|delays| delays.p99), Some(Duration::from_millis(1)));
        assert_eq!(account.overall().map(|delays| delays.p99), Some(Duration::from_secs(1)));
    }
}
