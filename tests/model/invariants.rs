//! What must hold in every state: the invariants I1 to I8 of docs/guarantees.md, and what readers of committed records may never see.

use crate::database::Keys;
use crate::model::{Model, NAMES};
use crate::relay::{Cursor, Halt, Phase, Relay};
use crate::rules::Rule;
use crate::state::{Database, Log, State, bit};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Marked and never published: I3, I7.
    Lost,
    /// Published twice: I7.
    Duplicate,
    /// Published after an event that it precedes: I7.
    Inverted,
    /// A later event of its key is published, and it is not: I7, I8.
    Overtaken,
    /// Of a transaction that was never committed.
    Phantom,
    /// An event of another database.
    Foreign,
    /// Discarded, and published after all.
    Discarded,
    /// The journal and the events differ: I1.
    Torn,
    /// The journal's numbers or checksums have a hole: I2.
    Unchained,
    /// Applied, and its rows are not marked: I4.
    Unmarked,
    /// What is applied is not in the journal: I5.
    Unfounded,
    /// Fetched although it is on its way already: I6.
    FetchedTwice,
    /// The cursor is past an unsent row and does not know it.
    Skipped,
    /// A halt without reason.
    FalseHalt,
    /// A relay that may not publish has shut out one that may.
    FencedByStranger,
    /// Published from a primary that was replaced, after its successor has published.
    OutOfDate,
    /// More batches are published and not marked than a relay that dies may leave.
    FarBehind,
    /// Left alone, a relay never comes to rest, or rests with work undone.
    Stuck,
    /// What the cursor remembers is never forgotten.
    Memory,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    pub class: Class,
    pub what: String,
}

/// `src/identity.rs` takes a table that is farther behind for one that went back in time.
const UNMARKED: u8 = 2;

pub fn violated<T>(class: Class, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { class, what: what.into() })
}

impl Log {
    /// Events that readers of committed records see, a bit each.
    pub fn published(&self) -> u8 {
        self.events.iter().filter(|stored| !stored.open).fold(0, |all, stored| all | bit(stored.uid))
    }

    fn place(&self, uid: u8) -> Option<usize> {
        self.events.iter().position(|stored| !stored.open && stored.uid == uid)
    }
}

impl Model {
    pub fn check(&self, state: &State) -> Result<(), Violation> {
        self.check_topic(state)?;
        if self.keeps(Rule::Journal) {
            check_journal(&state.log)?;
        }
        for database in &state.databases[..=usize::from(state.split)] {
            self.check_database(database, &state.log)?;
        }
        let went_back = self.world.budget.failovers > 0 || self.world.foreign != 0;
        let last = state.log.records().next_back().map_or(0, |(_, record)| record.n);
        if !went_back && last > state.databases[0].applied.n + UNMARKED {
            return violated(Class::FarBehind, format!("batch {last} is published, {} is applied", state.databases[0].applied.n));
        }
        (0..self.world.relays).try_for_each(|r| self.check_relay(state, r))?;
        if state.fenced_by_stranger {
            return violated(Class::FencedByStranger, "a copy has shut out the original");
        }
        Ok(())
    }

    fn check_topic(&self, state: &State) -> Result<(), Violation> {
        let published = state.log.published();
        for (at, stored) in state.log.events.iter().enumerate().filter(|(_, stored)| !stored.open) {
            let uid = stored.uid;
            if state.log.place(uid) != Some(at) {
                return violated(Class::Duplicate, format!("event {uid} is there twice"));
            }
            if uid == self.world.foreign {
                return violated(Class::Foreign, format!("event {uid} of the copy is published"));
            }
            if state.committed & bit(uid) == 0 {
                return violated(Class::Phantom, format!("event {uid} is published, its transaction was never committed"));
            }
            if state.databases[0].discarded & bit(uid) != 0 && !self.world.tolerates.contains(&Class::Discarded) {
                return violated(Class::Discarded, format!("event {uid} is discarded and published"));
            }
            if state.before[uid as usize] != 0 {
                self.check_order(state, published, at, uid)?;
            }
        }
        Ok(())
    }

    fn check_order(&self, state: &State, published: u8, at: usize, uid: u8) -> Result<(), Violation> {
        let database = &state.databases[0];
        let before = state.before[uid as usize] & !state.given_up;
        for earlier in (1..=crate::state::EVENTS as u8).filter(|earlier| before & bit(*earlier) != 0) {
            if state.log.place(earlier).is_some_and(|place| place > at) {
                return violated(Class::Inverted, format!("event {earlier} comes before {uid} and lies behind it"));
            }
            let waits = database.rows.iter().any(|row| row.entry.uid == earlier);
            if published & bit(earlier) == 0 && waits {
                return violated(Class::Overtaken, format!("event {uid} is published, {earlier} before it is not"));
            }
        }
        Ok(())
    }

    fn check_database(&self, database: &Database, log: &Log) -> Result<(), Violation> {
        let published = log.published();
        for row in database.rows.iter().filter(|row| row.sent && database.discarded & bit(row.entry.uid) == 0) {
            if published & bit(row.entry.uid) == 0 {
                return violated(Class::Lost, format!("{:?} is marked and not published", row.entry));
            }
        }
        if !self.keeps(Rule::Journal) {
            return Ok(());
        }
        let applied = database.applied;
        for (_, record) in log.records().filter(|(_, record)| record.n <= applied.n) {
            if let Some(entry) = record.batch.iter().find(|entry| database.has_unsent(**entry)) {
                return violated(Class::Unmarked, format!("batch {} is applied and {entry:?} is not marked", record.n));
            }
        }
        let is_applied = |(offset, record): (u8, &crate::state::Record)| {
            (offset, record.n, record.checksum) == (applied.offset, applied.n, applied.checksum)
        };
        if applied.n > 0 && !log.records().any(is_applied) {
            return violated(Class::Unfounded, format!("batch {} is applied and not in the journal", applied.n));
        }
        Ok(())
    }

    fn check_relay(&self, state: &State, r: usize) -> Result<(), Violation> {
        let relay = &state.relays[r];
        match relay.phase {
            Phase::Halted(halt) => self.check_halt(halt, self.home(state, r), r),
            Phase::Relay => {
                self.check_in_flight(relay, r)?;
                self.check_cursor(relay, &state.databases[self.home(state, r)], &self.world.keys, r)
            }
            _ => Ok(()),
        }
    }

    /// Some worlds give a reason to halt; two of them only to the relay of the second database.
    fn check_halt(&self, halt: Halt, home: usize, r: usize) -> Result<(), Violation> {
        let for_all = !matches!(halt, Halt::MovedDatabase | Halt::OldPrimary);
        if self.world.halts.contains(&halt) && (for_all || home == 1) {
            return Ok(());
        }
        violated(Class::FalseHalt, format!("{} halts: {halt:?}", NAMES[r]))
    }

    fn check_in_flight(&self, relay: &Relay, r: usize) -> Result<(), Violation> {
        let under_way = |uid: u8| {
            let sending = relay.sending.is_some_and(|sending| sending.batch.has(uid));
            sending || relay.unmarked.iter().any(|published| published.batch.has(uid))
        };
        match relay.next.iter().find(|entry| under_way(entry.uid)) {
            Some(entry) => violated(Class::FetchedTwice, format!("{} has fetched {entry:?} again", NAMES[r])),
            None => Ok(()),
        }
    }

    /// As long as nothing has told the relay to claim, what lies at or below head is a gap, on its way, or set aside.
    fn check_cursor(&self, relay: &Relay, database: &Database, keys: &Keys, r: usize) -> Result<(), Violation> {
        let Cursor::Running { head, gaps, .. } = &relay.cursor else { return Ok(()) };
        let valid = (database.claim, database.token, database.file) == (relay.claim, relay.claim, relay.file);
        if !valid || database.last_value < *head || relay.parking.is_some() {
            return Ok(());
        }
        let known = |seq: u8, uid: u8| gaps.iter().any(|gap| gap.seq == seq) || relay.has_under_way(uid);
        let mut below = database.pending(keys, self.rules).filter(|entry| entry.seq <= *head);
        match below.find(|entry| !known(entry.seq, entry.uid)) {
            Some(entry) => violated(Class::Skipped, format!("the cursor of {} is past {entry:?}", NAMES[r])),
            None => Ok(()),
        }
    }
}

fn check_journal(log: &Log) -> Result<(), Violation> {
    let (mut journalled, mut n, mut checksum, mut timeline) = (0, 0, 0, 0);
    for (offset, record) in log.records() {
        if record.n != n + 1 || record.previous != checksum {
            return violated(Class::Unchained, format!("record {} at {offset} does not follow {n}", record.n));
        }
        if record.timeline < timeline {
            return violated(Class::OutOfDate, format!("record {} is of an older timeline than {n}", record.n));
        }
        (n, checksum, timeline) = (record.n, record.checksum, record.timeline);
        journalled = record.batch.iter().fold(journalled, |all, entry| all | bit(entry.uid));
    }
    if journalled != log.published() {
        return violated(Class::Torn, format!("events {:08b} are published, {journalled:08b} journalled", log.published()));
    }
    Ok(())
}
