//! One moment of the world: databases, log, relays, writers. Small numbers throughout: `seq` counts from 1, `uid` names an event.

use crate::list::List;
use crate::relay::Relay;

/// Events that a configuration may have; their names are 1 to this.
pub const EVENTS: usize = 6;
/// Transactions of services.
pub const WRITERS: usize = 5;

/// An event and the number it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    pub seq: u8,
    pub uid: u8,
}

/// Rows that are sent, journalled and marked together.
pub type Batch = List<Entry, 2>;
/// What a fetch brings before it is cut to a batch.
pub type Rows = List<Entry, 4>;

/// A row of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    pub entry: Entry,
    pub sent: bool,
}

/// A batch number with the offset and the checksum of its journal record; n = 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Applied {
    pub n: u8,
    pub offset: u8,
    pub checksum: u32,
}

/// The outbox and what is kept beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Database {
    /// Committed rows, ascending.
    pub rows: List<Row, EVENTS>,
    /// The newest applied batch.
    pub applied: Applied,
    /// Claim number of the state row.
    pub claim: u8,
    /// The unlogged token, 0 when it is gone.
    pub token: u8,
    /// Highest number drawn.
    pub last_value: u8,
    /// File number of table and sequence.
    pub file: u8,
    pub parked: List<Entry, 3>,
    /// Events that the audit says were discarded, a bit each.
    pub discarded: u8,
    pub timeline: u8,
    /// Transactions that are prepared, a bit each.
    pub prepared: u8,
    /// Marks touch no row, as with a row security policy or a trigger.
    pub refuses_marks: bool,
}

/// What a journal record holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    pub n: u8,
    pub batch: Batch,
    pub previous: u32,
    pub checksum: u32,
    pub timeline: u8,
}

/// A record on the journal. Aborted ones are not kept: they only take offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    pub offset: u8,
    pub record: Record,
    /// Its transaction is open.
    pub open: bool,
    /// Which transactional id.
    pub id: u8,
}

/// A record of an event, in the one partition of the event topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stored {
    pub uid: u8,
    pub open: bool,
    pub id: u8,
}

/// What the coordinator knows of a transactional id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Producer {
    /// The relay whose epoch it is, from 1; 0: nobody's.
    pub owner: u8,
    /// Requests to commit that are still on their way, in this epoch.
    pub late_commits: u8,
    /// The same for aborts.
    pub late_aborts: u8,
}

/// Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    /// In the order of their offsets, committed or open.
    pub events: List<Stored, 14>,
    pub journal: List<Slot, 10>,
    /// First offset that the journal still has. Older records stay in the list, for the invariants.
    pub start: u8,
    /// Where the next record will lie.
    pub end: u8,
    pub producers: [Producer; 2],
}

/// A transaction of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Writer {
    #[default]
    Absent,
    /// It holds its lock on the outbox and has drawn so many numbers.
    Writing(u8),
    /// Others see its rows, its lock is still listed.
    Visible,
    Committed,
    RolledBack,
    Prepared,
    /// Prepared before the server restarted: listed as `-1/…`.
    Nameless,
}

/// What may still happen, each so many times. 255 is without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub starts: u8,
    pub claims: u8,
    pub crashes: u8,
    /// Failovers and restores to an earlier moment.
    pub failovers: u8,
    /// Commits that were asked for twice.
    pub late_commits: u8,
    /// Commits without an answer.
    pub lost_answers: u8,
    pub timeouts: u8,
    pub failed_sends: u8,
    pub failed_marks: u8,
    pub rollbacks: u8,
    pub prepares: u8,
    /// Clean restarts of the database.
    pub restarts: u8,
    /// Journal reads from a leader that lags.
    pub stale_reads: u8,
    pub trims: u8,
    /// RETRY and DISCARD.
    pub decisions: u8,
    /// Limits that are raised.
    pub cures: u8,
    pub truncations: u8,
    /// Sequences set back by hand, with all rows deleted.
    pub setbacks: u8,
    pub copies: u8,
    /// Fetches in full form under a cursor that runs.
    pub proof_scans: u8,
    /// Triggers made that swallow marks.
    pub triggers: u8,
}

/// Everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// What services write to; and its copy, or the old primary.
    pub databases: [Database; 2],
    /// A standby or a backup: the last moment that it has.
    pub past: Option<Database>,
    /// There is a second database.
    pub split: bool,
    pub log: Log,
    pub relays: [Relay; 2],
    pub writers: [Writer; WRITERS],
    /// For each event those of its key that its writer could see, a bit each.
    pub before: [u8; EVENTS + 1],
    /// The number each event was given last.
    pub numbers: [u8; EVENTS + 1],
    /// Events that were committed once, a bit each.
    pub committed: u8,
    /// Events that can be published by now, a bit each.
    pub cured: u8,
    /// Events that were discarded once, a bit each, also where the database has lost that.
    pub given_up: u8,
    /// Somebody who may not publish has fenced the owner.
    pub fenced_by_stranger: bool,
    pub budget: Budget,
}

/// The bit of an event.
pub fn bit(uid: u8) -> u8 {
    1 << uid
}

impl Batch {
    pub fn has(&self, uid: u8) -> bool {
        self.iter().any(|entry| entry.uid == uid)
    }
}

impl State {
    /// Renames claim numbers by their first appearance: only whether two of them are equal counts. 0 stays: it is none.
    pub fn canonical(mut self) -> Self {
        let mut names = List::<u8, 12>::default();
        let mut rename = |claim: &mut u8| {
            if *claim != 0 {
                let known = names.iter().position(|name| name == claim);
                *claim = known.unwrap_or_else(|| {
                    names.push(*claim);
                    names.len() - 1
                }) as u8
                    + 1;
            }
        };
        for database in self.databases.iter_mut().chain(&mut self.past) {
            rename(&mut database.claim);
            rename(&mut database.token);
        }
        for relay in &mut self.relays {
            rename(&mut relay.claim);
            rename(&mut relay.seen.0);
        }
        self
    }

    /// A claim number that nobody has.
    pub fn fresh_claim(&self) -> u8 {
        let databases = self.databases.iter().chain(&self.past).flat_map(|database| [database.claim, database.token]);
        let relays = self.relays.iter().flat_map(|relay| [relay.claim, relay.seen.0]);
        databases.chain(relays).max().map_or(1, |highest| highest + 1)
    }
}

impl Budget {
    /// One start and one claim, and nothing befalls anybody.
    pub const ONCE: Self = Self {
        starts: 1,
        claims: 1,
        crashes: 0,
        failovers: 0,
        late_commits: 0,
        lost_answers: 0,
        timeouts: 0,
        failed_sends: 0,
        failed_marks: 0,
        rollbacks: 0,
        prepares: 0,
        restarts: 0,
        stale_reads: 0,
        trims: 0,
        decisions: 0,
        cures: 0,
        truncations: 0,
        setbacks: 0,
        copies: 0,
        proof_scans: 0,
        triggers: 0,
    };
}
