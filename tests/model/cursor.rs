//! Head and gaps, number by number: what `src/cursor.rs` does with ranges. A test in this folder holds the two against each other.

use crate::list::List;
use crate::relay::{Cursor, Gap};
use crate::rules::{Rule, Rules};
use crate::state::EVENTS;

/// Stands for every `-1/…` among the holders.
pub const NAMELESS: u8 = 0x80;

/// What came with a statement.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    pub last_value: u8,
    pub holders: u8,
}

/// The sequence stands below what was seen.
#[derive(Debug, PartialEq, Eq)]
pub struct WentBack;

/// Numbers never seen.
pub type Gaps = List<Gap, EVENTS>;

impl Cursor {
    /// Rows at or below head that are no gaps.
    pub fn rescued(&self, seqs: &[u8]) -> usize {
        let Self::Running { head, gaps, .. } = self else { return 0 };
        seqs.iter().filter(|seq| *seq <= head && gaps.iter().all(|gap| gap.seq != **seq)).count()
    }

    /// Takes in the answer of one statement: its listing, the numbers of its rows, and whether a limit ended them.
    pub fn take(self, listing: Listing, seqs: &[u8], cut: bool, rules: Rules) -> Result<Self, WentBack> {
        let last = seqs.last().copied();
        let went_back = |seen: u8| rules.keep(Rule::LastValue) && listing.last_value < seen;
        match self {
            Self::Starting { floor, holders, previous } => {
                if went_back(floor) {
                    return Err(WentBack);
                }
                let before = if rules.keep(Rule::ListingOutsideSnapshot) { previous } else { listing.holders };
                let named = before & NAMELESS == 0 || !rules.keep(Rule::NamelessStart);
                let gone = holders & before & !NAMELESS == 0 && named;
                if !gone && rules.keep(Rule::StartWaits) {
                    return Ok(Self::Starting { floor, holders, previous: listing.holders });
                }
                let top = last.unwrap_or(floor);
                let head = if cut { top } else { floor.max(top) };
                let mut gaps = Gaps::default();
                open(&mut gaps, floor, seqs, listing.holders, rules);
                Ok(Self::Running { head, gaps, previous: listing.holders })
            }
            Self::Running { head, gaps, previous } => {
                if went_back(head) {
                    return Err(WentBack);
                }
                let decided = last.filter(|_| cut).unwrap_or(u8::MAX);
                let mut left = close(&gaps, seqs, decided, previous, listing.holders, rules);
                let holders = if rules.keep(Rule::NewGapListedAfter) { listing.holders } else { previous };
                open(&mut left, head, seqs, holders, rules);
                let head = last.map_or(head, |last| last.max(head));
                Ok(Self::Running { head, gaps: left, previous: listing.holders })
            }
            other => Ok(other),
        }
    }
}

/// Numbers missing above `floor` and below the last of `seqs` become gaps.
fn open(gaps: &mut Gaps, floor: u8, seqs: &[u8], holders: u8, rules: Rules) {
    let top = seqs.last().copied().unwrap_or(0);
    if rules.keep(Rule::Gaps) {
        (floor + 1..top).filter(|seq| !seqs.contains(seq)).for_each(|seq| gaps.push(Gap { seq, holders }));
    }
}

/// What stays of the gaps: neither found nor dead.
fn close(gaps: &Gaps, seqs: &[u8], decided: u8, previous: u8, now: u8, rules: Rules) -> Gaps {
    let listed = rules.keep(Rule::RetireByPrevious) && rules.keep(Rule::ListingOutsideSnapshot);
    let before = if listed { previous } else { now };
    let named = before & NAMELESS == 0 || !rules.keep(Rule::NamelessGaps);
    let dead = |gap: &Gap| {
        let gone = gap.holders & before & !NAMELESS == 0 && named;
        (gone || !rules.keep(Rule::HoldersOfGap)) && gap.seq <= decided && rules.keep(Rule::GapsDie)
    };
    let mut left = *gaps;
    left.retain(|gap| !seqs.contains(&gap.seq) && !dead(gap));
    left
}
