//! What today's protocol does not promise. Each world here must show it: what is not found any more need not be said any more.

use crate::invariants::Class;
use crate::state::Budget;
use crate::world::{WORLD, World, Writing};

pub static LIMITS: &[(Class, World)] = &[
    // The marks of a batch found no row, since the database had lost it; then a coordinator commits it again.
    (
        Class::Unmarked,
        World {
            name: "limit: a prepared transaction that a failover has lost the end of is ended again, and its event published again",
            transactions: &[&[1]],
            writing: Writing::Drawn,
            budget: Budget { claims: 3, prepares: 1, failovers: 1, ..Budget::ONCE },
            ..WORLD
        },
    ),
    // Nothing tells this sequence from the one that was; the proof scan finds the row.
    (
        Class::Skipped,
        World {
            name: "limit: a sequence that is set back, and drawn from up to where it was, passes for the same",
            transactions: &[&[1], &[2]],
            committed: 1,
            budget: Budget { setbacks: 1, ..Budget::ONCE },
            ..WORLD
        },
    ),
    // One owns the log, the other the state row: no guard in the database proves that nobody is publishing.
    (
        Class::Discarded,
        World {
            name: "limit: a discard calls nothing back that another relay has fetched",
            relays: 2,
            transactions: &[&[1]],
            committed: 1,
            batch: 1,
            unfit: 1 << 1,
            budget: Budget { starts: 2, claims: 2, decisions: 1, cures: 1, ..Budget::ONCE },
            ..WORLD
        },
    ),
    (
        Class::Discarded,
        World {
            name: "limit: a retry that the database has lost may be under way when its event is discarded",
            transactions: &[&[1]],
            committed: 1,
            batch: 1,
            unfit: 1 << 1,
            budget: Budget { claims: 2, failovers: 1, decisions: 2, ..Budget::ONCE },
            ..WORLD
        },
    ),
];
