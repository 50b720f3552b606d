//! What a process remembers: nothing of it outlives a crash.

use crate::list::List;
use crate::state::{Applied, Batch, EVENTS, Entry, Rows};

/// Why a relay does not go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Halt {
    #[default]
    MovedDatabase,
    OldPrimary,
    JournalWindow,
    KafkaBehind,
    MarkRefused,
}

/// Where a relay is between its start and its loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Dead,
    /// Reads what the database says.
    LookDatabase,
    /// Reads what the journal says.
    LookJournal,
    /// init_transactions.
    Fence,
    /// A new claim number, and what is applied.
    Claim,
    /// Reads the journal.
    Recover,
    /// Marks what the journal has and the table lacks.
    Settle,
    /// Fetches, publishes and marks.
    Relay,
    /// Has evidence for a halt.
    Evidence(Halt),
    Halted(Halt),
}

/// A number that was never seen, and the writers that were there when it was passed over, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gap {
    pub seq: u8,
    pub holders: u8,
}

/// What to fetch next; as in `src/cursor.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cursor {
    /// Full form for ever.
    #[default]
    FullOnly,
    /// Neither the sequence nor the writers are read.
    Unknown,
    /// The sequence is read.
    Value { floor: u8 },
    /// The writers are listed, too early: only where that rule is broken.
    Holders { holders: u8 },
    /// Full form until these writers are gone.
    Starting { floor: u8, holders: u8, previous: u8 },
    /// By head and gaps.
    Running { head: u8, gaps: List<Gap, EVENTS>, previous: u8 },
}

/// A fetch whose snapshot is taken and whose listing is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Statement {
    pub full: bool,
    pub rows: Rows,
}

/// What is being published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sending {
    pub batch: Batch,
    /// Events that are acknowledged.
    pub acked: u8,
    /// The journal record, once it is acknowledged.
    pub journalled: Option<Applied>,
    /// It is marked: only where that comes before the commit.
    pub marked: bool,
}

/// A batch that is committed and not marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Published {
    pub batch: Batch,
    pub at: Applied,
}

/// A process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Relay {
    pub phase: Phase,
    /// Claim number and applied batch that evidence is held against. While settling, the batch settled last.
    pub seen: (u8, Applied),
    /// Its claim number.
    pub claim: u8,
    /// File number at the claim.
    pub file: u8,
    /// The journal's last record, and where the next one will lie.
    pub last: Applied,
    pub end: u8,
    pub cursor: Cursor,
    pub statement: Option<Statement>,
    /// Fetched and not begun.
    pub next: Batch,
    pub sending: Option<Sending>,
    pub unmarked: List<Published, 3>,
    /// About to be parked; the guards have been compared: only where that is not done in the locked row.
    pub parking: Option<(Entry, bool)>,
    /// A commit was late: the next begin needs a new producer.
    pub renew: bool,
    /// Outlive a claim: whether each record is sent alone, and which events were refused so.
    pub search: bool,
    pub suspects: u8,
}
