//! What the statements of `src/source` do to the rows.

use crate::rules::{Rule, Rules};
use crate::state::{Applied, Batch, Database, Entry, Row, bit};

/// Keys of the events, by their names.
pub type Keys = [u8; crate::state::EVENTS + 1];

impl Database {
    pub fn insert(&mut self, entry: Entry) {
        self.rows.push(Row { entry, sent: false });
        self.rows.sort_unstable_by_key(|row| row.entry.seq);
    }

    /// Whether a row is left out by the fetch: it is parked, or its key waits.
    pub fn blocks(&self, entry: Entry, keys: &Keys, rules: Rules) -> bool {
        let waits = |parked: &Entry| rules.keep(Rule::KeyWaits) && keys[parked.uid as usize] == keys[entry.uid as usize];
        self.parked.iter().any(|parked| parked.seq == entry.seq || waits(parked))
    }

    /// Unsent rows that no parked event holds up, ascending.
    pub fn pending(&self, keys: &Keys, rules: Rules) -> impl Iterator<Item = Entry> {
        let unsent = self.rows.iter().filter(|row| !row.sent).map(|row| row.entry);
        unsent.filter(move |entry| !self.blocks(*entry, keys, rules))
    }

    pub fn has_unsent(&self, entry: Entry) -> bool {
        self.rows.iter().any(|row| row.entry == entry && !row.sent)
    }

    /// Marks the rows of a batch, by number and identity or by number alone, and returns how many are marked then.
    pub fn mark(&mut self, batch: &Batch, by_id: bool, rules: Rules) -> usize {
        if self.refuses_marks {
            return 0;
        }
        let is_of = |row: &Row, entry: &Entry| if by_id { row.entry == *entry } else { row.entry.seq == entry.seq };
        let mut marked = 0;
        for row in self.rows.iter_mut().filter(|row| batch.iter().any(|entry| is_of(row, entry))) {
            row.sent = true;
            marked += 1;
            if rules.keep(Rule::ForgetParked) {
                self.parked.retain(|parked| parked.seq != row.entry.seq);
            }
        }
        marked
    }

    /// Records a batch as applied, after its predecessor only.
    pub fn apply(&mut self, at: Applied, rules: Rules) -> bool {
        let follows = at.n == self.applied.n + 1 || !rules.keep(Rule::Follows);
        if follows {
            self.applied = at;
        }
        follows
    }

    /// Entries of events that are sent, gone, or another event by now.
    pub fn forget_parked(&mut self) {
        let rows = self.rows;
        self.parked.retain(|parked| rows.iter().any(|row| row.entry == *parked && !row.sent));
    }

    /// The operator's DISCARD: the row counts as sent, the audit says why.
    pub fn discard(&mut self, entry: Entry) {
        self.rows.iter_mut().filter(|row| row.entry == entry).for_each(|row| row.sent = true);
        self.discarded |= bit(entry.uid);
        self.parked.retain(|parked| *parked != entry);
    }

    /// Where the sequence stands.
    pub fn last_value(&self, rules: Rules) -> u8 {
        if rules.keep(Rule::IsCalled) { self.last_value } else { self.last_value.max(1) }
    }
}
