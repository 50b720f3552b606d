//! Look, claim, settle: what comes before the loop, and what comes instead of it.

use crate::model::{Hit, Model, NAMES, Steps};
use crate::relay::{Halt, Phase};
use crate::rules::Rule;
use crate::state::{Applied, Record, State};

impl Model {
    pub fn claim_steps(&self, state: &State, r: usize, out: &mut Steps) {
        match state.relays[r].phase {
            Phase::LookDatabase => self.look_at_database(state, r, out),
            Phase::LookJournal => self.look_at_journal(state, r, out),
            Phase::Fence => self.fence(state, r, out),
            Phase::Claim => self.claim(state, r, out),
            Phase::Recover => self.recover(state, r, out),
            Phase::Settle => self.settle(state, r, out),
            Phase::Evidence(halt) => self.declare(state, r, halt, out),
            Phase::Halted(_) => self.push_again(state, r, out, "halted, looks again"),
            Phase::Dead | Phase::Relay => {}
        }
    }

    /// Whether this database may be published from: a copy has another address.
    fn is_stranger(&self, state: &State, r: usize) -> bool {
        self.world.foreign != 0 && self.home(state, r) == 1
    }

    fn look_at_database(&self, state: &State, r: usize, out: &mut Steps) {
        let database = &state.databases[self.home(state, r)];
        let mut next = *state;
        next.relays[r].seen = (database.claim, database.applied);
        let moved = self.is_stranger(state, r) && self.keeps(Rule::Identity);
        next.relays[r].phase = if moved { Phase::Evidence(Halt::MovedDatabase) } else { Phase::LookJournal };
        out.push(next, || format!("{}: LOOK: the database says a = {}", NAMES[r], database.applied.n));
    }

    fn look_at_journal(&self, state: &State, r: usize, out: &mut Steps) {
        let (stable, base) = (state.log.stable(), state.relays[r].seen.1);
        let mut next = *state;
        let judged = self.judge(state, r, base, stable);
        next.relays[r].phase = judged.map_or_else(Phase::Evidence, |_| Phase::Fence);
        if let (Ok(last), false) = (judged, self.keeps(Rule::JournalAfterInit)) {
            (next.relays[r].last, next.relays[r].end) = (last, stable);
        }
        out.push(next, || format!("{}: LOOK: the journal from {} to {stable}: {judged:?}", NAMES[r], base.offset));
    }

    /// What the journal says, against what is applied and against the database's timeline.
    fn judge(&self, state: &State, r: usize, base: Applied, until: u8) -> Result<Applied, Halt> {
        let view = state.log.read(base, until, self.rules)?;
        let old = view.timeline > state.databases[self.home(state, r)].timeline;
        if old && self.keeps(Rule::Timeline) { Err(Halt::OldPrimary) } else { Ok(view.last) }
    }

    fn fence(&self, state: &State, r: usize, out: &mut Steps) {
        let mut next = *state;
        if !self.spend(&mut next.budget.claims) {
            return;
        }
        let id = self.id(r);
        if state.log.is_open(id) {
            out.hit(Hit::AbortedByInit);
        }
        next.log.init(id, r);
        next.fenced_by_stranger |= self.is_stranger(state, r) && self.keeps(Rule::Identity);
        next.relays[r].phase = Phase::Claim;
        out.push(next, || format!("{}: init_transactions shuts older owners out", NAMES[r]));
    }

    fn claim(&self, state: &State, r: usize, out: &mut Steps) {
        let mut next = *state;
        let claim = state.fresh_claim();
        let database = &mut next.databases[self.home(state, r)];
        (database.claim, database.token) = (claim, claim);
        let (applied, file) = (database.applied, database.file);
        let relay = &mut next.relays[r];
        let known = if self.keeps(Rule::AppliedAfterInit) { applied } else { relay.seen.1 };
        (relay.claim, relay.file, relay.seen) = (claim, file, (claim, known));
        let moved = self.is_stranger(state, r) && self.keeps(Rule::Identity);
        relay.phase = if moved { Phase::Evidence(Halt::MovedDatabase) } else { Phase::Recover };
        out.push(next, || format!("{}: CLAIM: a = {}", NAMES[r], known.n));
    }

    /// Reads the journal to its true end; waits while somebody's transaction is open.
    fn recover(&self, state: &State, r: usize, out: &mut Steps) {
        let base = state.relays[r].seen.1;
        if !self.keeps(Rule::Journal) {
            self.recovered(state, r, base, 0, out);
        } else if !self.keeps(Rule::JournalAfterInit) {
            let early = &state.relays[r];
            self.recovered(state, r, early.last, early.end, out);
        } else if state.log.stable() == state.log.end {
            match self.judge(state, r, base, state.log.end) {
                Ok(last) => self.recovered(state, r, last, state.log.end, out),
                Err(halt) => {
                    let mut next = *state;
                    next.relays[r].phase = Phase::Evidence(halt);
                    out.push(next, || format!("{}: reads the journal from {}: {halt:?}", NAMES[r], base.offset));
                }
            }
            self.recover_from_a_stale_leader(state, r, base, out);
        }
    }

    /// A leader that lags: the last record above the applied one is not there yet.
    fn recover_from_a_stale_leader(&self, state: &State, r: usize, base: Applied, out: &mut Steps) {
        let Some((offset, _)) = state.log.records().next_back() else { return };
        let mut next = *state;
        let lags = (base.n == 0 || offset > base.offset) && self.spend(&mut next.budget.stale_reads);
        if let (true, Ok(last)) = (lags, self.judge(state, r, base, offset)) {
            out.hit(Hit::Stale);
            self.recovered(&next, r, last, offset, out);
        }
    }

    fn recovered(&self, state: &State, r: usize, last: Applied, end: u8, out: &mut Steps) {
        let mut next = *state;
        let relay = &mut next.relays[r];
        (relay.last, relay.end, relay.phase) = (last, end, Phase::Settle);
        out.push(next, || format!("{}: reads the journal: k = {}, it ends at {end}", NAMES[r], last.n));
    }

    /// One record a step; then the entries of parked events that are done, and the loop begins.
    fn settle(&self, state: &State, r: usize, out: &mut Steps) {
        let home = self.home(state, r);
        if state.databases[home].claim != state.relays[r].claim {
            out.hit(Hit::ClaimChanged);
            return self.push_again(state, r, out, "SETTLE: another claim number");
        }
        match self.to_settle(state, r) {
            Some((offset, record)) => self.settle_one(state, r, offset, &record, out),
            None => self.settled(state, r, out),
        }
    }

    fn to_settle(&self, state: &State, r: usize) -> Option<(u8, Record)> {
        let relay = &state.relays[r];
        let base = relay.seen.1;
        let above = |offset: u8| offset < relay.end && (base.n == 0 || offset > base.offset);
        let mut above = state.log.records().filter(|(offset, _)| above(*offset));
        let found = if self.keeps(Rule::EveryRecord) { above.next() } else { above.next_back() };
        found.filter(|_| self.keeps(Rule::Journal)).map(|(offset, record)| (offset, *record))
    }

    fn settle_one(&self, state: &State, r: usize, offset: u8, record: &Record, out: &mut Steps) {
        let mut next = *state;
        let database = &mut next.databases[self.home(state, r)];
        let at = Applied { n: record.n, offset, checksum: record.checksum };
        if !database.apply(at, self.rules) {
            return self.push_again(state, r, out, "SETTLE: another batch is applied");
        }
        database.mark(&record.batch, self.keeps(Rule::SettleById), self.rules);
        let unsent = record.batch.iter().any(|entry| database.has_unsent(*entry));
        if unsent && self.keeps(Rule::SettleLooks) {
            let mut next = *state;
            next.relays[r].phase = Phase::Evidence(Halt::MarkRefused);
            return out.push(next, || format!("{}: SETTLE: rows of batch {} stay unsent", NAMES[r], record.n));
        }
        out.hit(Hit::Settled);
        if state.relays[r].seen.1.n + 1 < state.relays[r].last.n {
            out.hit(Hit::SettledTwo);
        }
        next.relays[r].seen.1 = at;
        out.push(next, || format!("{}: SETTLE marks batch {}", NAMES[r], record.n));
    }

    fn settled(&self, state: &State, r: usize, out: &mut Steps) {
        let mut next = *state;
        if self.keeps(Rule::ForgetParked) {
            next.databases[self.home(state, r)].forget_parked();
        }
        let relay = &mut next.relays[r];
        (relay.phase, relay.seen, relay.cursor) = (Phase::Relay, Default::default(), self.fresh_cursor());
        out.push(next, || format!("{}: is settled", NAMES[r]));
    }

    /// Writes the halt if nobody claimed or marked since its evidence was taken.
    fn declare(&self, state: &State, r: usize, halt: Halt, out: &mut Steps) {
        let database = &state.databases[self.home(state, r)];
        let (claim, applied) = state.relays[r].seen;
        if self.keeps(Rule::HaltCompares) && (database.claim, database.applied.n) != (claim, applied.n) {
            out.hit(Hit::EvidenceGone);
            return self.push_again(state, r, out, "the evidence does not hold any more");
        }
        let mut next = *state;
        next.relays[r].phase = Phase::Halted(halt);
        out.hit(Hit::Halted);
        out.push(next, || format!("{}: HALT {halt:?}", NAMES[r]));
    }
}
