//! Today's protocol with rules switched off. Each mutant must be caught, by a named world and as a named class: a model that cannot
//! catch it is broken. Where one rule covers another, both are switched off.

use crate::invariants::Class::{self, *};
use crate::rules::Rule::{self, *};

/// A broken protocol.
pub struct Mutant {
    /// Number in the list of mutants that the project was planned with; 0: beside it.
    pub number: u8,
    pub name: &'static str,
    pub off: &'static [Rule],
    /// The world that catches it, and as what.
    pub world: &'static str,
    pub class: Class,
}

const fn mutant(number: u8, name: &'static str, off: &'static [Rule], world: &'static str, class: Class) -> Mutant {
    Mutant { number, name, off, world, class }
}

pub static MUTANTS: &[Mutant] = &[
    mutant(1, "no new producer after a late commit", &[NewProducerAfterLate], "pipe", Torn),
    mutant(2, "no new producer after an abort", &[DropFailed], "pipe", Torn),
    mutant(3, "no new producer, and the journal record first", &[NewProducerAfterLate, JournalLast], "zombie", Torn),
    mutant(3, "abort, and the journal record first", &[DropFailed, JournalLast], "pipe", Torn),
    mutant(4, "settle matches by number only", &[SettleById], "failover3", Lost),
    mutant(5, "fetch compares nothing", &[FetchGuards], "failover", Stuck),
    mutant(6, "the journal is read before init", &[JournalAfterInit], "zombie", Stuck),
    mutant(
        6,
        "the journal is read before init, nor is its offset expected",
        &[JournalAfterInit, ExpectedOffset],
        "zombie",
        Duplicate,
    ),
    mutant(6, "what is applied is read before init", &[AppliedAfterInit], "failover2", Duplicate),
    mutant(7, "own transactional ids, nor is an offset expected", &[SharedId, ExpectedOffset], "zombie", Duplicate),
    mutant(8, "no journal", &[Journal], "pipe", Duplicate),
    mutant(9, "mark before commit", &[MarkAfterCommit], "zombie", Lost),
    mutant(10, "only the last record is settled", &[EveryRecord], "pipe", Stuck),
    mutant(10, "only the last record is settled, whatever it follows", &[EveryRecord, Follows], "pipe", Unmarked),
    mutant(11, "two statements", &[OneStatement], "park", Overtaken),
    mutant(12, "a gap waits for a while", &[HoldersOfGap], "cursor", Skipped),
    mutant(13, "writers of a new gap are listed before", &[NewGapListedAfter], "cursor", Skipped),
    mutant(14, "writers at retirement are listed after", &[RetireByPrevious], "cursor", Skipped),
    mutant(15, "no look at the sequence", &[LastValue], "setval", Stuck),
    mutant(15, "no look at the sequence, nor at the files", &[LastValue, Files], "truncate", Stuck),
    mutant(16, "the first fetch decides", &[StartWaits], "cursor", Skipped),
    mutant(17, "gaps never die", &[GapsDie], "cursor", Memory),
    mutant(18, "listing and fetch in one snapshot", &[ListingOutsideSnapshot], "cursor3", Skipped),
    mutant(19, "no token", &[Token], "failover", Stuck),
    mutant(20, "is_called is ignored", &[IsCalled], "cursor", Skipped),
    mutant(21, "a publish in doubt is tried again in place", &[ClaimInDoubt], "pipe", Duplicate),
    mutant(
        21,
        "a publish in doubt is tried again in place, nor is an offset expected",
        &[ClaimInDoubt, ExpectedOffset],
        "pipe",
        Duplicate,
    ),
    mutant(22, "a failed mark is ignored", &[MarkFailureCounts], "pipe", Skipped),
    mutant(23, "later events of a parked key overtake it", &[KeyWaits], "park", Overtaken),
    mutant(24, "PARK compares in a sub-select", &[ParkInLockedRow], "park2", Stuck),
    mutant(25, "a release writes no new claim number", &[ReleaseClaims], "park", Skipped),
    mutant(26, "no offset is expected", &[ExpectedOffset], "stale", Duplicate),
    mutant(27, "a reader without its offset goes to the end", &[ResetIsError], "trim2", Unchained),
    mutant(28, "trimmed above the applied record", &[TrimBelowApplied], "trim3", FalseHalt),
    mutant(29, "a failed send is ignored", &[SendChecked], "pipe", Torn),
    mutant(30, "no identity", &[Identity], "copy", Foreign),
    mutant(31, "init before LOOK", &[LookFirst], "copy", FencedByStranger),
    mutant(32, "settle does not look whether its marks took", &[SettleLooks], "refused marks", Unmarked),
    mutant(33, "mark by number only", &[MarkById], "failover3", Lost),
    mutant(0, "a halt without looking again", &[HaltCompares], "trim3", FalseHalt),
    mutant(0, "writers are listed before the sequence is read", &[ValueBeforeHolders], "cursor", Skipped),
    mutant(0, "a writer without a name is no writer of a gap", &[NamelessGaps], "prepared", Skipped),
    mutant(0, "a writer without a name does not hold up the start", &[NamelessStart], "prepared", Skipped),
    mutant(0, "no look at the files", &[Files], "truncate", Stuck),
    mutant(0, "settle and mark leave the parked entries", &[ForgetParked], "park5", Stuck),
    mutant(0, "the full form beside a batch in flight", &[FullAlone], "cursor2", Duplicate),
    mutant(0, "seq > last", &[Gaps], "cursor", Skipped),
    mutant(0, "the timeline is not looked at", &[Timeline], "old primary", OutOfDate),
    mutant(0, "settle and mark record a batch whatever it follows", &[Follows], "trim", Unmarked),
    mutant(0, "a batch begins while two are unmarked", &[OneUnmarked], "cursor3", FarBehind),
    mutant(0, "SQLite: fetch does not compare what is applied", &[FetchApplied], "sqlite", Duplicate),
];

/// Rules that another one covers, with a world that would show them. They stay: each is a second lock, or spares a detour.
pub const COVERED: &[(Rule, &str)] = &[(SharedId, "zombie"), (LastValue, "truncate"), (JournalLast, "zombie")];
