//! The worlds that are searched in every test run.

use crate::database::Keys;
use crate::invariants::Class;
use crate::relay::Halt;
use crate::state::Budget;
use crate::world::{WORLD, World, Writing};

const ONCE: Budget = Budget::ONCE;
const PIPE: Budget = Budget {
    starts: 2,
    claims: 4,
    crashes: 1,
    lost_answers: 1,
    late_commits: 1,
    timeouts: 1,
    failed_sends: 1,
    failed_marks: 1,
    ..ONCE
};
const TWO_OF_FOUR: Keys = [0, 0, 0, 1, 0, 0, 0];

pub static WORLDS: &[World] = &[
    World {
        name: "all: two relays, a failover, parking, trimming, a late commit",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 1,
        batch: 1,
        unfit: 1 << 1,
        looks: true,
        tolerates: &[Class::Discarded],
        budget: Budget { starts: 2, claims: 3, failovers: 1, decisions: 1, late_commits: 1, trims: 1, ..ONCE },
        states: 1_146_116,
        ..WORLD
    },
    World {
        name: "pipe2: four events, most of it twice",
        each_send: true,
        transactions: &[&[1], &[2], &[3], &[4]],
        committed: 3,
        batch: 2,
        budget: Budget { starts: 3, claims: 6, crashes: 2, lost_answers: 2, late_commits: 2, failed_marks: 2, ..PIPE },
        states: 1_098_692,
        ..WORLD
    },
    World {
        name: "pipe: one relay, everything that can fail between send and mark",
        each_send: true,
        committed: 2,
        budget: PIPE,
        states: 26_442,
        ..WORLD
    },
    World {
        name: "zombie: two relays without a lease, commits late or unanswered",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 2,
        batch: 1,
        budget: Budget { starts: 2, claims: 3, late_commits: 1, lost_answers: 1, ..ONCE },
        states: 74_854,
        ..WORLD
    },
    World {
        name: "zombie2: the same in full form, batches of two",
        relays: 2,
        committed: 2,
        cursor: false,
        each_send: true,
        budget: Budget { starts: 2, claims: 4, late_commits: 1, failed_sends: 1, crashes: 1, ..ONCE },
        states: 68_748,
        ..WORLD
    },
    World {
        name: "stale: two relays, a leader that lags",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 2,
        batch: 1,
        cursor: false,
        budget: Budget { starts: 2, claims: 4, stale_reads: 1, crashes: 1, ..ONCE },
        states: 23_117,
        ..WORLD
    },
    World {
        name: "cursor: lock, draw, commit, unlock are steps of their own; a proof scan",
        writing: Writing::Locked,
        budget: Budget { rollbacks: 1, proof_scans: 1, ..ONCE },
        states: 563_161,
        ..WORLD
    },
    World {
        name: "cursor2: transactions of two events, two keys",
        transactions: &[&[1, 2], &[3], &[4]],
        writing: Writing::Drawn,
        keys: TWO_OF_FOUR,
        budget: Budget { claims: 2, rollbacks: 1, failed_marks: 1, ..ONCE },
        states: 78_793,
        ..WORLD
    },
    World {
        name: "cursor3: batches of one, three open writers",
        transactions: &[&[1], &[2], &[3], &[4]],
        committed: 1,
        writing: Writing::Drawn,
        open: 3,
        batch: 1,
        budget: Budget { rollbacks: 1, ..ONCE },
        states: 64_460,
        ..WORLD
    },
    World {
        name: "prepared: two-phase commit and a clean restart",
        writing: Writing::Drawn,
        budget: Budget { prepares: 1, restarts: 1, ..ONCE },
        states: 132_812,
        ..WORLD
    },
    World {
        name: "failover: hidden, with loss and numbers used again",
        transactions: &[&[1], &[2], &[3], &[4]],
        committed: 1,
        writing: Writing::Drawn,
        budget: Budget { claims: 3, failovers: 1, ..ONCE },
        states: 979_124,
        ..WORLD
    },
    World {
        name: "failover2: the same with two relays",
        relays: 2,
        committed: 1,
        batch: 1,
        transactions: &[&[1], &[2]],
        budget: Budget { starts: 2, claims: 3, failovers: 1, ..ONCE },
        states: 356_846,
        ..WORLD
    },
    World {
        name: "sqlite: a file that is copied back, under the same claim",
        committed: 1,
        batch: 1,
        cursor: false,
        sqlite: true,
        budget: Budget { starts: 2, claims: 4, failovers: 2, crashes: 1, ..ONCE },
        states: 64_159,
        ..WORLD
    },
    World {
        name: "failover3: two of them and a crash",
        budget: Budget { starts: 2, claims: 4, failovers: 2, crashes: 1, ..ONCE },
        states: 375_989,
        ..WORLD
    },
    World {
        name: "old primary: it lives on, with a relay of its own",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 1,
        batch: 1,
        cursor: false,
        looks: true,
        old_primary: true,
        halts: &[Halt::OldPrimary],
        budget: Budget { starts: 2, claims: 4, failovers: 1, ..ONCE },
        states: 462_045,
        ..WORLD
    },
    World {
        name: "trim: within the retention, two relays, a failover",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 2,
        batch: 1,
        cursor: false,
        looks: true,
        budget: Budget { starts: 2, claims: 3, failovers: 1, trims: 1, ..ONCE },
        states: 118_394,
        ..WORLD
    },
    World {
        name: "trim2: restored to before the journal's start",
        committed: 2,
        batch: 1,
        looks: true,
        retention: false,
        halts: &[Halt::JournalWindow],
        budget: Budget { starts: 2, claims: 4, failovers: 1, trims: 2, crashes: 1, ..ONCE },
        states: 27_310,
        ..WORLD
    },
    World {
        name: "trim3: two relays, a leader that lags, a crash",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 2,
        batch: 1,
        cursor: false,
        looks: true,
        budget: Budget { starts: 2, claims: 4, trims: 2, stale_reads: 1, crashes: 1, ..ONCE },
        states: 64_555,
        ..WORLD
    },
    World {
        name: "park: found unfit by a look, late commits, two keys",
        transactions: &[&[1], &[2], &[3], &[4]],
        committed: 1,
        writing: Writing::Drawn,
        keys: [0, 0, 0, 0, 1, 0, 0],
        unfit: 1 << 2,
        budget: Budget { claims: 3, decisions: 1, ..ONCE },
        states: 18_662,
        ..WORLD
    },
    World {
        name: "park2: refused by the log, two relays",
        relays: 2,
        committed: 2,
        cursor: false,
        refused: 1 << 1,
        keys: [0, 0, 0, 1, 0, 0, 0],
        tolerates: &[Class::Discarded],
        budget: Budget { starts: 2, claims: 5, decisions: 1, cures: 1, ..ONCE },
        states: 83_232,
        ..WORLD
    },
    World {
        name: "park3: refused by the log, cursor, a crash",
        transactions: &[&[1], &[2], &[3], &[4]],
        committed: 2,
        keys: TWO_OF_FOUR,
        refused: 1 << 1,
        budget: Budget { starts: 2, claims: 5, decisions: 1, cures: 1, crashes: 1, ..ONCE },
        states: 14_532,
        ..WORLD
    },
    World {
        name: "park4: parked, a failover, decisions",
        committed: 1,
        unfit: 1 << 1,
        tolerates: &[Class::Discarded],
        budget: Budget { claims: 4, failovers: 1, decisions: 2, cures: 1, ..ONCE },
        states: 62_482,
        ..WORLD
    },
    World {
        name: "park5: two relays, a limit is raised",
        relays: 2,
        transactions: &[&[1], &[2]],
        committed: 1,
        batch: 1,
        unfit: 1 << 1,
        tolerates: &[Class::Discarded],
        budget: Budget { starts: 2, claims: 4, decisions: 1, cures: 1, ..ONCE },
        states: 177_482,
        ..WORLD
    },
    World {
        name: "copy: a second database of the same name",
        relays: 2,
        committed: 1,
        batch: 1,
        looks: true,
        foreign: 6,
        halts: &[Halt::MovedDatabase],
        budget: Budget { starts: 2, claims: 5, crashes: 1, copies: 1, ..ONCE },
        states: 10_790,
        ..WORLD
    },
    World {
        name: "truncate: TRUNCATE … RESTART, then as many rows as before",
        committed: 1,
        budget: Budget { claims: 3, truncations: 1, ..ONCE },
        states: 1_501,
        ..WORLD
    },
    World {
        name: "setval: the sequence is set back",
        committed: 2,
        budget: Budget { claims: 3, setbacks: 1, ..ONCE },
        states: 376,
        ..WORLD
    },
    World {
        name: "refused marks: a trigger that swallows them",
        committed: 2,
        batch: 1,
        halts: &[Halt::MarkRefused],
        budget: Budget { starts: 2, claims: 4, triggers: 1, crashes: 1, ..ONCE },
        states: 2_081,
        ..WORLD
    },
];
