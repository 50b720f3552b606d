//! The rules of the protocol that a run can break on purpose. A mutant is today's protocol with some of them switched off.

/// What today's protocol does. The number is that of the list of mutants the project was planned with, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// 1: after a late commit the producer is made anew before the next begin.
    NewProducerAfterLate,
    /// 2: a transaction that failed is dropped with its producer; never aborted, never tried again with the same one.
    DropFailed,
    /// 3: the journal record comes last.
    JournalLast,
    /// 4: settle matches by number and identity.
    SettleById,
    /// 5: fetch compares claim number and token.
    FetchGuards,
    /// 6: the journal is read after init.
    JournalAfterInit,
    /// 6: what is applied is read after init.
    AppliedAfterInit,
    /// 7: all relays share one transactional id.
    SharedId,
    /// 8: there is a journal.
    Journal,
    /// 9: a batch is marked after its commit.
    MarkAfterCommit,
    /// 10: every record above the newest applied one is settled.
    EveryRecord,
    /// 11: gaps and what lies above head come from one snapshot.
    OneStatement,
    /// 12: a gap waits for the writers that were there when it was first seen, not for a while.
    HoldersOfGap,
    /// 13: the writers of a new gap are listed after the statement that showed it.
    NewGapListedAfter,
    /// 14: at retirement the writers of the statement before count.
    RetireByPrevious,
    /// 15: a sequence that stands below head means a claim.
    LastValue,
    /// 16: the start waits for the writers that were there.
    StartWaits,
    /// 17: a gap dies when its writers are gone.
    GapsDie,
    /// 18: the listing does not come from the snapshot of its own statement, neither at the start nor at retirement.
    ListingOutsideSnapshot,
    /// 19: fetch compares the token.
    Token,
    /// 20: a sequence that was never called stands at 0.
    IsCalled,
    /// 21: an unknown outcome leads to a claim.
    ClaimInDoubt,
    /// 22: a failed mark and a wrong count lead to a claim.
    MarkFailureCounts,
    /// 23: the whole key of a parked event waits.
    KeyWaits,
    /// 24: PARK compares in the locked state row.
    ParkInLockedRow,
    /// 25: a release writes a new claim number.
    ReleaseClaims,
    /// 26: the journal record must be acknowledged exactly where the journal ended.
    ExpectedOffset,
    /// 27: a journal that begins above the applied record is no journal (`auto.offset.reset=error`).
    ResetIsError,
    /// 28: nothing at or above the applied record is trimmed.
    TrimBelowApplied,
    /// 29: a send that fails at once ends the batch.
    SendChecked,
    /// 30: the database's identity is compared.
    Identity,
    /// 31: LOOK comes before init.
    LookFirst,
    /// 32: settle looks whether its marks took.
    SettleLooks,
    /// 33: mark by number and identity.
    MarkById,
    /// A halt is written only if claim number and applied batch are still those of its evidence.
    HaltCompares,
    /// At the start the sequence is read before the writers are listed.
    ValueBeforeHolders,
    /// No gap dies while a prepared transaction without its name is listed.
    NamelessGaps,
    /// The start is not decided while one is listed.
    NamelessStart,
    /// Fetch compares the file numbers of table and sequence.
    Files,
    /// Settle and mark record a batch only after its predecessor.
    Follows,
    /// Settle and mark remove the parked entries of what they mark.
    ForgetParked,
    /// Nothing is in flight when the full form is fetched.
    FullAlone,
    /// Numbers that were passed over are remembered.
    Gaps,
    /// SQLite: fetch compares the newest applied batch with the one that this claim has left.
    FetchApplied,
    /// A batch begins only when at most one is unmarked.
    OneUnmarked,
    /// A database whose timeline is older than the journal's last record halts.
    Timeline,
}

/// Which rules are kept.
#[derive(Clone, Copy, Debug)]
pub struct Rules(u64);

impl Rules {
    /// All but these.
    pub fn without(broken: &[Rule]) -> Self {
        Self(broken.iter().fold(u64::MAX, |kept, rule| kept & !(1 << *rule as u64)))
    }

    pub fn keep(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u64) != 0
    }
}
