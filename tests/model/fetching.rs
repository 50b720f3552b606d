//! The loop: what is fetched, what of it is admitted, and what is set aside.

use crate::cursor::Listing;
use crate::model::{Hit, Model, NAMES, Steps};
use crate::relay::{Cursor, Relay, Sending, Statement};
use crate::rules::Rule;
use crate::state::{Batch, Database, Entry, Rows, State, bit};
use crate::writers::holders;

impl Relay {
    fn is_busy(&self) -> bool {
        self.sending.is_some() || !self.unmarked.is_empty()
    }

    /// Whether an event is fetched, being published or not marked yet.
    pub fn has_under_way(&self, uid: u8) -> bool {
        let sending = self.sending.is_some_and(|sending| sending.batch.has(uid));
        sending || self.next.has(uid) || self.unmarked.iter().any(|published| published.batch.has(uid))
    }
}

impl Model {
    /// Publish, mark and fetch go on side by side; each is a step of its own. The order matters to nobody but those who let a relay go
    /// on alone: they take the first.
    pub fn loop_steps(&self, state: &State, r: usize, out: &mut Steps) {
        self.park(state, r, out);
        self.mark(state, r, out);
        self.publish(state, r, out);
        self.fetch(state, r, out);
        self.trim(state, r, out);
    }

    fn fetch(&self, state: &State, r: usize, out: &mut Steps) {
        let relay = &state.relays[r];
        if !relay.next.is_empty() || relay.parking.is_some() {
            return;
        }
        if let Some(statement) = relay.statement {
            return self.listed(state, r, statement, out);
        }
        let (value, writers) = (self.value(state, r), self.writers(state, r));
        let begun = match relay.cursor {
            Cursor::Unknown if self.keeps(Rule::ValueBeforeHolders) => Cursor::Value { floor: value },
            Cursor::Unknown => Cursor::Holders { holders: writers },
            Cursor::Value { floor } => Cursor::Starting { floor, holders: writers, previous: writers },
            Cursor::Holders { holders } => Cursor::Starting { floor: value, holders, previous: writers },
            Cursor::FullOnly | Cursor::Starting { .. } => return self.query(state, r, true, out),
            Cursor::Running { .. } => {
                self.query(state, r, false, out);
                return self.scan(state, r, out);
            }
        };
        let mut next = *state;
        next.relays[r].cursor = begun;
        out.push(next, || format!("{}: the cursor begins: {begun:?}", NAMES[r]));
    }

    /// The proof scan: the full form now and then, which must bring nothing that the cursor does not know.
    fn scan(&self, state: &State, r: usize, out: &mut Steps) {
        let mut next = *state;
        if !state.relays[r].is_busy() && self.spend(&mut next.budget.proof_scans) {
            out.hit(Hit::Scanned);
            self.query(&next, r, true, out);
        }
    }

    fn value(&self, state: &State, r: usize) -> u8 {
        state.databases[self.home(state, r)].last_value(self.rules)
    }

    /// Services write to the first database only.
    fn writers(&self, state: &State, r: usize) -> u8 {
        if self.home(state, r) == 0 { holders(state) } else { 0 }
    }

    /// The snapshot of a fetch. The full form comes with nothing in flight.
    fn query(&self, state: &State, r: usize, full: bool, out: &mut Steps) {
        let (relay, database) = (&state.relays[r], &state.databases[self.home(state, r)]);
        if full && relay.is_busy() && self.keeps(Rule::FullAlone) {
            return;
        }
        if self.keeps(Rule::FetchGuards) && database.claim != relay.claim {
            out.hit(Hit::ClaimChanged);
            return self.push_again(state, r, out, "FETCH: another claim number");
        }
        if self.keeps(Rule::FetchGuards) && self.keeps(Rule::Token) && database.token != relay.claim {
            out.hit(Hit::TokenMissing);
            return self.push_again(state, r, out, "FETCH: the token is gone");
        }
        if self.world.sqlite && self.keeps(Rule::FetchApplied) && database.applied.n != relay.last.n {
            out.hit(Hit::OtherTime);
            return self.push_again(state, r, out, "FETCH: the file is of another time");
        }
        if relay.is_busy() {
            out.hit(Hit::FetchedAhead);
        }
        let statement = Statement { full, rows: self.rows(relay, database, full) };
        if matches!(relay.cursor, Cursor::FullOnly) {
            return self.listed(state, r, statement, out);
        }
        let mut next = *state;
        next.relays[r].statement = Some(statement);
        out.push(next, || format!("{}: FETCH (full form: {full}), its snapshot has {:?}", NAMES[r], statement.rows));
    }

    fn rows(&self, relay: &Relay, database: &Database, full: bool) -> Rows {
        let pending = database.pending(&self.world.keys, self.rules);
        if let (Cursor::Running { head, .. }, false) = (relay.cursor, full) {
            let above = pending.filter(|entry| entry.seq > head).take(self.world.batch);
            let in_gaps = self.in_gaps(relay, database);
            return in_gaps.into_iter().filter(|_| self.keeps(Rule::OneStatement)).chain(above).collect();
        }
        pending.filter(|entry| !relay.has_under_way(entry.uid)).take(self.world.batch).collect()
    }

    fn in_gaps(&self, relay: &Relay, database: &Database) -> Vec<Entry> {
        let Cursor::Running { gaps, .. } = relay.cursor else { return Vec::new() };
        let pending = database.pending(&self.world.keys, self.rules);
        pending.filter(|entry| gaps.iter().any(|gap| gap.seq == entry.seq)).take(self.world.batch).collect()
    }

    /// What comes with the statement after its snapshot: the files, the sequence, the writers.
    fn listed(&self, state: &State, r: usize, statement: Statement, out: &mut Steps) {
        let (relay, database) = (&state.relays[r], &state.databases[self.home(state, r)]);
        if database.file != relay.file && self.keeps(Rule::Files) {
            out.hit(Hit::FileChanged);
            return self.push_again(state, r, out, "FETCH: other files");
        }
        let mut rows = statement.rows;
        if !self.keeps(Rule::OneStatement) && !statement.full {
            self.in_gaps(relay, database).into_iter().for_each(|entry| rows.push(entry));
            rows.sort_unstable_by_key(|entry| entry.seq);
        }
        rows.truncate(self.world.batch);
        let seqs: Vec<u8> = rows.iter().map(|entry| entry.seq).collect();
        if relay.cursor.rescued(&seqs) > 0 {
            return self.push_again(state, r, out, "the proof scan finds what nobody waited for");
        }
        let listing = Listing { last_value: self.value(state, r), holders: self.writers(state, r) };
        let Ok(cursor) = relay.cursor.take(listing, &seqs, rows.len() == self.world.batch, self.rules) else {
            out.hit(Hit::SequenceWentBack);
            return self.push_again(state, r, out, "FETCH: the sequence went back");
        };
        self.note_gaps(relay.cursor, cursor, &seqs, out);
        let mut next = *state;
        let relay = &mut next.relays[r];
        (relay.statement, relay.cursor, relay.next) = (None, cursor, rows.iter().copied().collect());
        out.push(next, || format!("{}: FETCH brings {:?}; {cursor:?}", NAMES[r], &rows[..]));
    }

    fn note_gaps(&self, before: Cursor, after: Cursor, seqs: &[u8], out: &mut Steps) {
        let (Cursor::Running { gaps: old, .. }, Cursor::Running { gaps: new, .. }) = (before, after) else { return };
        let gone: Vec<u8> = old.iter().map(|gap| gap.seq).filter(|seq| new.iter().all(|gap| gap.seq != *seq)).collect();
        if new.iter().any(|gap| old.iter().all(|known| known.seq != gap.seq)) {
            out.hit(Hit::GapOpened);
        }
        if gone.iter().any(|seq| seqs.contains(seq)) {
            out.hit(Hit::GapFilled);
        }
        if gone.iter().any(|seq| !seqs.contains(seq)) {
            out.hit(Hit::GapDied);
        }
    }

    /// Whether an event cannot be published: a look tells, or the log refused it alone.
    fn is_unfit(&self, state: &State, relay: &Relay, uid: u8) -> bool {
        (self.world.unfit & !state.cured | relay.suspects) & bit(uid) != 0
    }

    /// A batch is about to be published: all of it; or what is not behind something unfit; or the unfit event is parked.
    pub fn admit(&self, state: &State, r: usize) -> Relay {
        let mut relay = state.relays[r];
        let batch = std::mem::take(&mut relay.next);
        let unfit = |entry: &Entry| self.is_unfit(state, &relay, entry.uid);
        let key = |entry: &Entry| self.world.keys[entry.uid as usize];
        let Some(first) = batch.iter().position(unfit) else {
            relay.sending = Some(Sending { batch, ..Sending::default() });
            return relay;
        };
        if batch[..first].iter().all(|entry| key(entry) != key(&batch[first])) {
            relay.parking = Some((batch[first], false));
            return relay;
        }
        let behind = |at: usize| batch[..=at].iter().any(|entry| unfit(entry) && key(entry) == key(&batch[at]));
        let free: Batch = (0..batch.len()).filter(|at| !behind(*at)).map(|at| batch[at]).collect();
        relay.sending = Some(Sending { batch: free, ..Sending::default() });
        relay.cursor = self.fresh_cursor();
        relay
    }

    /// PARK, when everything that was published is marked: claim number and row are compared in the locked state row.
    fn park(&self, state: &State, r: usize, out: &mut Steps) {
        let relay = &state.relays[r];
        let Some((entry, compared)) = relay.parking.filter(|_| relay.unmarked.is_empty()) else { return };
        let home = self.home(state, r);
        let database = &state.databases[home];
        if !compared && (database.claim != relay.claim || !database.has_unsent(entry)) {
            out.hit(Hit::ParkRefused);
            return self.push_again(state, r, out, "PARK is refused by its guards");
        }
        let mut next = *state;
        if !compared && !self.keeps(Rule::ParkInLockedRow) {
            next.relays[r].parking = Some((entry, true));
            return out.push(next, || format!("{}: PARK of event {}: the guards are read", NAMES[r], entry.uid));
        }
        let parked = &mut next.databases[home].parked;
        parked.retain(|known| known.seq != entry.seq);
        parked.push(entry);
        let relay = &mut next.relays[r];
        (relay.parking, relay.cursor) = (None, self.fresh_cursor());
        relay.suspects &= !bit(entry.uid);
        out.hit(Hit::Parked);
        out.push(next, || format!("{}: PARKs event {}", NAMES[r], entry.uid));
    }
}
