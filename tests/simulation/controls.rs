//! Controls that must fail: each breaks one rule, or a rule together with the one that covers it, and names what must be found then. A
//! simulation that does not find it is broken itself.
//!
//! What is not here: that a cursor which takes every number for a gap is given up in time needs a million numbers, and is shown in
//! `src/cursor/tests.rs`. A halt that is written although the outbox has moved on since hides behind the rule that nothing may have
//! changed for a lease before it is written.

use super::mutants::Mutant::{self, *};
use super::plan::Plan;
use super::violation::Class::{self, *};

/// One broken rule.
pub struct Control {
    pub broken: &'static [Mutant],
    /// One of these must be found.
    pub found: &'static [Class],
    /// Where it is looked for.
    pub focus: Focus,
}

/// Which plans are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// As they come.
    Any,
    /// Two processes that both have the lease, and much that is set aside.
    TwinsAndPoison,
    /// Two processes that both have the lease, and rows that cannot be marked for a while.
    TwinsAndTriggers,
    /// Topics that grow.
    Growth,
    /// Crashes and failovers behind a pooler, with transactions that are prepared.
    Pooler,
}

impl Focus {
    pub const ALL: [Self; 4] = [Self::TwinsAndPoison, Self::TwinsAndTriggers, Self::Growth, Self::Pooler];

    /// The plan of a seed, as this wants it.
    pub fn plan(self, seed: u64, broken: &[Mutant]) -> Plan {
        let any = Plan::of(seed, broken);
        let plan = Plan { breach: None, ..any.clone() };
        let twins = Plan { twins: true, processes: plan.processes.max(2), splits: 0, ..plan.clone() };
        match self {
            Self::Any => any,
            Self::TwinsAndPoison => Plan { poison: 150, trouble: [50, 20], kills: 60, ..twins },
            Self::TwinsAndTriggers => Plan { triggers: 60, trouble: [50, 20], lasts: std::time::Duration::from_secs(5), ..twins },
            Self::Growth => Plan { grows: 60, ..plan },
            Self::Pooler => Plan { pooler: true, cursor: true, crashes: 50, failovers: 80, ..plan },
        }
    }
}

const fn caught(broken: &'static [Mutant], found: &'static [Class]) -> Control {
    Control { broken, found, focus: Focus::Any }
}

const fn caught_in(focus: Focus, broken: &'static [Mutant], found: &'static [Class]) -> Control {
    Control { broken, found, focus }
}

/// Broken rules and what they lead to.
pub const CONTROLS: &[Control] = &[
    // the log
    caught(&[NoNewProducer], &[Duplicated]),
    caught(&[AbortAndGoOn], &[Duplicated]),
    caught(&[NoNewProducer, JournalFirst], &[Torn]),
    caught(&[JournalBeforeFence, NoExpectedOffset], &[Duplicated]),
    caught(&[OwnTransactionalId, NoExpectedOffset], &[Duplicated]),
    caught(&[RetryInPlace, NoExpectedOffset], &[Duplicated]),
    caught(&[NoExpectedOffset], &[Journal]),
    caught(&[ResetToEnd], &[Duplicated]),
    caught(&[TrimAll], &[Stuck]),
    caught(&[SendIgnored], &[Lost]),
    caught_in(Focus::Growth, &[PinIgnored], &[Scattered]),
    // the journal and the marks
    caught(&[NoJournal], &[Duplicated]),
    caught(&[LastRecordOnly], &[Duplicated]),
    caught(&[MarkBeforeCommit], &[Lost]),
    caught(&[MarkIgnored], &[Duplicated]),
    caught(&[MarkIgnored], &[Behind]),
    caught(&[MatchBySeq], &[Lost]),
    caught(&[MarkBySeq], &[Lost]),
    caught(&[SettleBlind], &[Duplicated]),
    // the fetch and the cursor
    caught(&[NoGuards], &[Duplicated, Reordered]),
    caught_in(Focus::Pooler, &[NoToken], &[Duplicated, Lost, Reordered]),
    caught_in(Focus::Pooler, &[NoToken, NoLastValue], &[Lost, Reordered]),
    caught(&[SeqAboveLast], &[Lost]),
    caught(&[TwoStatements], &[Reordered]),
    caught(&[GraceTime], &[Lost, Reordered]),
    caught(&[HoldersFirst], &[Lost, Reordered]),
    caught(&[SnapshotAhead], &[Lost, Reordered]),
    caught(&[SnapshotKept], &[Lost, Reordered]),
    caught(&[NoHoldersAtStart], &[Lost, Reordered]),
    caught(&[HoldersBeforeNumber], &[Lost, Reordered]),
    caught(&[PreparedUnseen], &[Lost, Reordered]),
    caught(&[IsCalledIgnored], &[Lost, Reordered]),
    // what is set aside
    caught(&[Overtake], &[Overtaken]),
    caught_in(Focus::TwinsAndPoison, &[ParkUnguarded], &[Parked]),
    caught(&[SilentRelease], &[Reordered]),
    // who may publish, and when it halts
    caught(&[NoIdentity], &[Trespass]),
    caught(&[InitBeforeLook], &[Trespass]),
];
