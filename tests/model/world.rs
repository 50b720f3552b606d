//! Configurations: small worlds, each searched to its end.

use crate::database::Keys;
use crate::invariants::Class;
use crate::relay::Halt;
use crate::state::Budget;

/// How finely the transactions of services are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Each is one step.
    AtOnce,
    /// Lock and first number are one step, commit and the end of the lock another.
    Drawn,
    /// Lock, each number, commit, and the end of the lock are steps.
    Locked,
}

/// A small world.
#[derive(Clone, Debug)]
pub struct World {
    pub name: &'static str,
    pub relays: usize,
    /// Events of each transaction, by their names from 1.
    pub transactions: &'static [&'static [u8]],
    /// So many transactions are committed before the first step.
    pub committed: usize,
    /// Most transactions that are open at once.
    pub open: usize,
    pub writing: Writing,
    pub keys: Keys,
    pub batch: usize,
    /// Whether the table allows the cursor; otherwise the full form is used for ever.
    pub cursor: bool,
    /// SQLite: a file that goes back keeps its token.
    pub sqlite: bool,
    /// Each send is a step.
    pub each_send: bool,
    /// A relay looks before it fences. Left out where nothing is ever trimmed or moved: there LOOK finds nothing.
    pub looks: bool,
    /// Events that a look finds unfit, and events that the log refuses, a bit each.
    pub unfit: u8,
    pub refused: u8,
    /// The event that a copy of the database gets; 0: there is no copy.
    pub foreign: u8,
    /// The old primary lives on, with the second relay.
    pub old_primary: bool,
    /// No backup is older than `journal_retention`.
    pub retention: bool,
    /// For which of its faults it may halt.
    pub halts: &'static [Halt],
    /// Limits of the protocol that show in this world, and that docs/guarantees.md names.
    pub tolerates: &'static [Class],
    pub budget: Budget,
    /// How many states it has: fewer would mean that something is not searched any more.
    pub states: usize,
}

/// What most worlds have.
pub const WORLD: World = World {
    name: "",
    relays: 1,
    transactions: &[&[1], &[2], &[3]],
    committed: 0,
    open: 2,
    writing: Writing::AtOnce,
    keys: [0; 7],
    batch: 2,
    cursor: true,
    sqlite: false,
    each_send: false,
    looks: false,
    unfit: 0,
    refused: 0,
    foreign: 0,
    old_primary: false,
    retention: true,
    halts: &[],
    tolerates: &[],
    budget: Budget::ONCE,
    states: 0,
};
