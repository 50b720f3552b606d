//! Worlds that are searched only when there is time.

use crate::invariants::Class;
use crate::relay::Halt;
use crate::state::Budget;
use crate::world::{WORLD, World, Writing};

const ONCE: Budget = Budget::ONCE;

pub static LARGE: &[World] = &[
    World {
        name: "cursor, large: three open writers",
        writing: Writing::Locked,
        open: 3,
        budget: Budget { rollbacks: 1, ..ONCE },
        states: 2_199_546,
        ..WORLD
    },
    World {
        name: "zombie, large: three events, a crash",
        relays: 2,
        committed: 2,
        batch: 1,
        budget: Budget { starts: 2, claims: 4, late_commits: 1, lost_answers: 1, crashes: 1, ..ONCE },
        states: 1_717_790,
        ..WORLD
    },
    World {
        name: "failover2, large: three events",
        relays: 2,
        committed: 1,
        batch: 1,
        budget: Budget { starts: 2, claims: 3, failovers: 1, ..ONCE },
        states: 1_938_122,
        ..WORLD
    },
    World {
        name: "old primary, large: three events",
        relays: 2,
        committed: 1,
        batch: 1,
        cursor: false,
        looks: true,
        old_primary: true,
        halts: &[Halt::OldPrimary],
        budget: Budget { starts: 2, claims: 4, failovers: 1, ..ONCE },
        states: 2_288_940,
        ..WORLD
    },
    World {
        name: "mixed: two relays, writers that commit late, a late commit, a timeout",
        relays: 2,
        transactions: &[&[1], &[2]],
        writing: Writing::Drawn,
        batch: 1,
        budget: Budget { starts: 2, claims: 2, late_commits: 1, timeouts: 1, rollbacks: 1, ..ONCE },
        states: 712_481,
        ..WORLD
    },
    World {
        name: "truncate2: two relays, a failover",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 1,
        batch: 1,
        budget: Budget { starts: 2, claims: 4, truncations: 1, failovers: 1, ..ONCE },
        states: 4_749_772,
        ..WORLD
    },
    World {
        name: "park7: two relays, refused by the log, commits late or unanswered",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 2,
        refused: 1 << 1,
        tolerates: &[Class::Discarded],
        budget: Budget { starts: 2, claims: 5, decisions: 1, cures: 1, late_commits: 1, lost_answers: 1, ..ONCE },
        states: 153_038,
        ..WORLD
    },
    World {
        name: "copy2: a copy, trimming, a failover, a late commit",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 2,
        batch: 1,
        looks: true,
        foreign: 6,
        halts: &[Halt::MovedDatabase],
        budget: Budget { starts: 2, claims: 4, copies: 1, trims: 1, failovers: 1, late_commits: 1, ..ONCE },
        states: 26_064,
        ..WORLD
    },
    World {
        name: "refused marks2: two relays, an unanswered commit, a crash",
        relays: 2,
        committed: 2,
        transactions: &[&[1], &[2]],
        batch: 1,
        halts: &[Halt::MarkRefused],
        budget: Budget { starts: 2, claims: 4, triggers: 1, crashes: 1, lost_answers: 1, ..ONCE },
        states: 271_666,
        ..WORLD
    },
    World {
        name: "park6: parked, a failover, a crash and an unanswered commit",
        committed: 1,
        unfit: 1 << 1,
        tolerates: &[Class::Discarded],
        budget: Budget { starts: 2, claims: 4, failovers: 1, decisions: 2, cures: 1, crashes: 1, lost_answers: 1, ..ONCE },
        states: 720_789,
        ..WORLD
    },
];
