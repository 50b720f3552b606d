//! Rules of the protocol that a run can break on purpose: a simulation that finds nothing then is broken itself. Numbers in comments
//! are those of the list of mutants that the project was planned with.

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// 1: the producer is kept after a commit that was asked for twice.
    NoNewProducer,
    /// 2: a failed transaction is aborted, and its producer goes on.
    AbortAndGoOn,
    /// 3: the journal record first, together with the above.
    JournalFirst,
    /// 4: settle matches by number only.
    MatchBySeq,
    /// 5: fetch compares neither claim number nor token.
    NoGuards,
    /// 6: the journal is read before the fence.
    JournalBeforeFence,
    /// 7: each process has a transactional id of its own.
    OwnTransactionalId,
    /// 8: nothing is settled, the journal is not read.
    NoJournal,
    /// 9: a batch counts as published before its commit.
    MarkBeforeCommit,
    /// 10: only the last record is settled.
    LastRecordOnly,
    /// 11: gaps and what lies above head come from two snapshots.
    TwoStatements,
    /// 12: a writer is forgotten after a while.
    GraceTime,
    /// 13: writers are listed before the snapshot.
    HoldersFirst,
    /// 16: what the first fetch after a claim does not show is taken for dead.
    NoHoldersAtStart,
    /// 15: a sequence that stands lower than what was seen is taken for what it was.
    NoLastValue,
    /// A transaction that was prepared before a crash is overlooked, since it has lost its name.
    PreparedUnseen,
    /// At the start the writers are listed before the number is read.
    HoldersBeforeNumber,
    /// 19: the token is not looked at.
    NoToken,
    /// 20: a sequence that was never called seems to stand at one.
    IsCalledIgnored,
    /// 21: a publish with an unknown outcome is tried again in place.
    RetryInPlace,
    /// 22: a failed mark is taken for done.
    MarkIgnored,
    /// 23: later events of a parked key overtake it.
    Overtake,
    /// 24: a zombie parks.
    ParkUnguarded,
    /// 25: a release writes no new claim number.
    SilentRelease,
    /// 26: where the journal record lies is not looked at.
    NoExpectedOffset,
    /// 27: a reader whose offset is not there goes to the end.
    ResetToEnd,
    /// 28: the journal is trimmed to its end.
    TrimAll,
    /// 29: a send that fails at once is ignored.
    SendIgnored,
    /// 30: any address is as good.
    NoIdentity,
    /// 31: the fence comes before the look.
    InitBeforeLook,
    /// 32: a settlement does not look whether its marks took.
    SettleBlind,
    /// A halt is written although the outbox has moved on since its evidence was taken.
    HaltBlind,
    /// 33: mark by number only.
    MarkBySeq,
    /// Fetch above the highest number seen, and nothing else.
    SeqAboveLast,
}
