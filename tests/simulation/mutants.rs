//! Rules of the protocol that a run can break on purpose: a simulation that finds nothing then is broken itself. What each must be found
//! to do stands in `controls.rs`.

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The producer is kept after a commit that was asked for twice.
    NoNewProducer,
    /// A failed transaction is aborted, and its producer goes on.
    AbortAndGoOn,
    /// The journal record first, together with the above.
    JournalFirst,
    /// Settle matches by number only.
    MatchBySeq,
    /// Fetch compares neither claim number nor token.
    NoGuards,
    /// The journal is read before the fence.
    JournalBeforeFence,
    /// Each process has a transactional id of its own.
    OwnTransactionalId,
    /// Nothing is settled, the journal is not read.
    NoJournal,
    /// A batch counts as published before its commit.
    MarkBeforeCommit,
    /// Only the last record is settled.
    LastRecordOnly,
    /// Gaps and what lies above head come from two snapshots.
    TwoStatements,
    /// A writer is forgotten after a while.
    GraceTime,
    /// Writers are listed before the snapshot.
    HoldersFirst,
    /// What the first fetch after a claim does not show is taken for dead.
    NoHoldersAtStart,
    /// A sequence that stands lower than what was seen is taken for what it was.
    NoLastValue,
    /// A transaction that was prepared before a crash is overlooked, since it has lost its name.
    PreparedUnseen,
    /// At the start the writers are listed before the number is read.
    HoldersBeforeNumber,
    /// The token is not looked at.
    NoToken,
    /// A sequence that was never called seems to stand at one.
    IsCalledIgnored,
    /// A publish with an unknown outcome is tried again in place.
    RetryInPlace,
    /// A failed mark is taken for done.
    MarkIgnored,
    /// Later events of a parked key overtake it.
    Overtake,
    /// What a park compares, it compares before it waits for a lock, and not again.
    ParkUnguarded,
    /// A release writes no new claim number.
    SilentRelease,
    /// Where the journal record lies is not looked at.
    NoExpectedOffset,
    /// A reader whose offset is not there goes to the end.
    ResetToEnd,
    /// The journal is trimmed to its end.
    TrimAll,
    /// A send that fails at once is ignored.
    SendIgnored,
    /// Any address is as good.
    NoIdentity,
    /// The fence comes before the look.
    InitBeforeLook,
    /// A settlement does not look whether its marks took.
    SettleBlind,
    /// Mark by number only.
    MarkBySeq,
    /// Keys are spread over as many partitions as a topic has now.
    PinIgnored,
    /// What was known of a snapshot is used for the next fetch: writers are listed after it.
    SnapshotAhead,
    /// Two fetches in one transaction that keeps its snapshot.
    SnapshotKept,
    /// Fetch above the highest number seen, and nothing else.
    SeqAboveLast,
}
