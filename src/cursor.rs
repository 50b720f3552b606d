//! The cursor: which rows to fetch next, and when a number that was never seen will never come. Pure; see docs/guarantees.md.
//!
//! A sequence hands out numbers before their transactions commit, so a missing number below the highest seen one is either rolled
//! back or still to come. The cursor remembers such *gaps* together with the transactions that were writing to the table when the
//! gap was first seen (its *holders*). A gap is dead when all of those are gone and the number is still missing in a snapshot that
//! was taken after that. Until the cursor knows where it stands, rows are fetched in *full form*: all unsent ones from the bottom.

use std::collections::BTreeSet;
use std::sync::Arc;

/// A transaction that holds a write lock on the outbox table, as the database names it.
pub type Holder = String;

/// Writers of the outbox at one instant.
pub type Holders = BTreeSet<Holder>;

/// Name prefix of a transaction that was prepared before the server restarted: it has lost the name it was listed under, so nothing
/// can be decided while one is there.
const PREPARED_BEFORE_RESTART: &str = "-1/";

/// Above this many ranges the cursor is given up for the full form, until the writers that caused them are gone.
pub const MAX_GAP_RANGES: usize = 10_000;

/// The same for this many numbers in all.
pub const MAX_GAP_NUMBERS: i64 = 1_000_000;

/// What came with every statement, read after its snapshot was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Highest number the sequence has handed out, 0 when none.
    pub last_value: i64,
    /// Writers of the outbox.
    pub holders: Holders,
}

/// What a statement asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All unsent rows from the bottom.
    Full,
    /// The gaps and what lies above `head`.
    Cursor,
}

/// An inclusive range of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First number.
    pub low: i64,
    /// Last number.
    pub high: i64,
}

#[derive(Clone, Debug)]
struct Gap {
    range: Range,
    holders: Arc<Holders>,
}

/// Head and gaps of one tenure; forgotten with it.
#[derive(Debug)]
pub struct Cursor {
    state: State,
    /// The writers that came with the previous statement: before the next snapshot.
    previous: Arc<Holders>,
    /// Where the sequence stood at the previous statement: before the writers of the next one are listed.
    previous_value: i64,
}

#[derive(Debug)]
enum State {
    /// The table is not fit for a cursor.
    FullOnly,
    /// Full form until every writer of `holders` is gone; then everything up to `floor` is decided.
    Starting { floor: i64, holders: Arc<Holders> },
    /// `head` is the highest number seen; `gaps` are ascending and below it.
    Running { head: i64, gaps: Vec<Gap> },
}

/// What the cursor learnt from one statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Rows at or below head that were no gaps: found by a full-form statement, must stay 0.
    pub rescued: usize,
}

/// The sequence stands below what was already seen: the table has another past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WentBack {
    /// Highest number seen.
    pub head: i64,
    /// Where the sequence stands.
    pub last_value: i64,
}

impl Cursor {
    /// Full form for ever: the table breaks a rule that the cursor needs.
    pub fn full_only() -> Self {
        Self { state: State::FullOnly, previous: Arc::default(), previous_value: 0 }
    }

    /// Starts a tenure. In `positions` the sequence was read first and the writers by a later statement; the other way round
    /// a writer that begins in between would be missed.
    pub fn start(positions: Listing) -> Self {
        let (floor, holders) = (positions.last_value, Arc::new(positions.holders));
        Self { state: State::Starting { floor, holders: holders.clone() }, previous: holders, previous_value: floor }
    }

    /// What the next statement asks for.
    pub fn form(&self) -> Form {
        match self.state {
            State::FullOnly | State::Starting { .. } => Form::Full,
            State::Running { .. } => Form::Cursor,
        }
    }

    /// Highest number seen; 0 before the cursor runs.
    pub fn head(&self) -> i64 {
        match &self.state {
            State::FullOnly | State::Starting { .. } => 0,
            State::Running { head, .. } => *head,
        }
    }

    /// The open gaps, ascending.
    pub fn gaps(&self) -> impl ExactSizeIterator<Item = Range> + '_ {
        let gaps: &[Gap] = match &self.state {
            State::FullOnly | State::Starting { .. } => &[],
            State::Running { gaps, .. } => gaps,
        };
        gaps.iter().map(|gap| gap.range)
    }

    /// Takes in the answer of one statement: its listing and the numbers of its rows, ascending. `cut` says that a limit ended the
    /// rows, so that nothing is known about numbers above the last one.
    pub fn take(&mut self, form: Form, listing: Listing, seqs: &[i64], cut: bool) -> Result<Learnt, WentBack> {
        let before = std::mem::replace(&mut self.previous, Arc::new(listing.holders));
        let holders = self.previous.clone();
        let last = seqs.last().copied();
        let mut learnt = Learnt::default();
        match &mut self.state {
            State::FullOnly => {}
            State::Starting { floor, holders: writers } => {
                if listing.last_value < *floor {
                    return Err(WentBack { head: *floor, last_value: listing.last_value });
                }
                if all_gone(writers, &before) {
                    let (floor, top) = (*floor, last.unwrap_or(*floor));
                    let head = if cut { top } else { floor.max(top) };
                    let mut gaps = Vec::new();
                    open_gaps(&mut gaps, floor, seqs, &holders);
                    self.state = State::Running { head, gaps };
                }
            }
            State::Running { head, gaps } => {
                if listing.last_value < *head {
                    return Err(WentBack { head: *head, last_value: listing.last_value });
                }
                let decided = last.filter(|_| cut).unwrap_or(i64::MAX);
                let known = seqs.partition_point(|&seq| seq <= *head);
                let filled = close_gaps(gaps, &seqs[..known], decided, &before);
                debug_assert!(form == Form::Full || filled == known, "the cursor form returns gaps and what is above head");
                learnt.rescued = known - filled;
                open_gaps(gaps, *head, &seqs[known..], &holders);
                *head = last.map_or(*head, |last| last.max(*head));
            }
        }
        self.give_up_when_too_many();
        self.previous_value = listing.last_value;
        Ok(learnt)
    }

    /// Too many gaps: back to the start. Its positions must be read one after the other, the sequence first: it is the previous
    /// statement's value that goes with the writers listed now.
    fn give_up_when_too_many(&mut self) {
        let State::Running { gaps, .. } = &self.state else { return };
        let numbers = |gap: &Gap| gap.range.high - gap.range.low + 1;
        if gaps.len() > MAX_GAP_RANGES || gaps.iter().map(numbers).sum::<i64>() > MAX_GAP_NUMBERS {
            self.state = State::Starting { floor: self.previous_value, holders: self.previous.clone() };
        }
    }
}

/// Whether none of `writers` is among those listed `before` a snapshot, nor anyone who may have lost its name.
fn all_gone(writers: &Holders, before: &Holders) -> bool {
    writers.is_disjoint(before) && !before.iter().any(|holder| holder.starts_with(PREPARED_BEFORE_RESTART))
}

/// Numbers missing above `floor` and below the last of `seqs` become gaps.
fn open_gaps(gaps: &mut Vec<Gap>, floor: i64, seqs: &[i64], holders: &Arc<Holders>) {
    let mut below = floor;
    for &seq in seqs.iter().filter(|&&seq| seq > floor) {
        if seq > below + 1 {
            gaps.push(Gap { range: Range { low: below + 1, high: seq - 1 }, holders: holders.clone() });
        }
        below = seq;
    }
}

/// Takes the numbers `found` out of the gaps, and drops what of them is dead up to `decided`. Returns how many were found in gaps.
fn close_gaps(gaps: &mut Vec<Gap>, found: &[i64], decided: i64, before: &Holders) -> usize {
    let mut filled = 0;
    let mut found = found.iter().copied().peekable();
    let mut left = Vec::with_capacity(gaps.len());
    for gap in gaps.drain(..) {
        let dead = all_gone(&gap.holders, before);
        let mut keep = |low: i64, high: i64| {
            let low = if dead { low.max(decided.saturating_add(1)) } else { low };
            if low <= high {
                left.push(Gap { range: Range { low, high }, holders: gap.holders.clone() });
            }
        };
        let mut low = gap.range.low;
        while found.next_if(|&seq| seq < low).is_some() {}
        while let Some(seq) = found.next_if(|&seq| seq <= gap.range.high) {
            keep(low, seq - 1);
            low = seq + 1;
            filled += 1;
        }
        keep(low, gap.range.high);
    }
    *gaps = left;
    filled
}

#[cfg(test)]
mod tests;
