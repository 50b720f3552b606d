//! What the statements of a relay do to the simulated database, each at one instant: compare in the locked row, then act.

use std::collections::BTreeSet;

use outboxd::cursor::Form;
use outboxd::event::{Batch, BatchBuilder, Event, Fingerprint, Pushed};
use outboxd::fault::{Cause, Fault, Halt, HaltCode};
use outboxd::journal::{Applied, Entry, Owner, Record};
use outboxd::park::{Done, SetAside, Unfit};
use outboxd::source::{ClaimNumber, Pins, Query, Standing};
use uuid::Uuid;

use super::database::{Holder, Parked, Row, is_swallowed};
use super::mutants::Mutant;
use super::oracle;
use super::plan::waits;
use super::violation::Class;
use super::world::World;

impl World {
    pub fn claim(&mut self, owner: &Owner, claim: ClaimNumber) -> Result<Standing, Fault> {
        let now = self.now;
        let is_ours = |holder: &Holder| holder.start == owner.start && holder.until.is_some_and(|until| until > now);
        if !self.database.lease.as_ref().is_some_and(is_ours) {
            self.hit("a claim came without the lease");
            return Err(Fault::LeaseLost);
        }
        self.database.claim = claim;
        self.database.token = Some(claim);
        Ok(self.database.standing())
    }

    pub fn settle_one(&mut self, claim: ClaimNumber, record: &Record, at: Applied) -> Result<(), Fault> {
        self.database.guard(claim)?;
        let (blind, swallows) = (self.is(Mutant::SettleBlind), self.database.swallows);
        let is_it = |row: &Row, fingerprint| Fingerprint::of(row.id) == fingerprint;
        let stays = |entry: &&Entry| {
            let row = self.database.rows.get(&entry.seq);
            swallows && is_swallowed(entry.seq) && row.is_some_and(|row| is_it(row, entry.fingerprint) && !row.sent)
        };
        if let Some(entry) = record.entries.iter().find(stays).filter(|_| !blind) {
            self.hit("a settlement's marks did not take");
            return Err(Halt::new(HaltCode::MarkRefused, format!("seq {} is still unsent", entry.seq)).into());
        }
        if self.is(Mutant::LastRecordOnly) {
            self.database.applied.push(at);
        } else {
            self.database.apply(at, Cause::Settle)?;
        }
        let (by_seq, deletes) = (self.is(Mutant::MatchBySeq), self.plan.deletes);
        for entry in &record.entries {
            let is_it = |row: &Row| by_seq || Fingerprint::of(row.id) == entry.fingerprint;
            if self.database.rows.get(&entry.seq).is_some_and(|row| !is_it(row)) {
                self.hit("settle met another event under the same number");
            }
            self.database.mark(entry.seq, deletes, is_it);
        }
        self.hit("a batch was settled from the journal");
        Ok(())
    }

    pub fn mark_batch(&mut self, claim: ClaimNumber, rows: &[(i64, Uuid)], at: Option<Applied>) -> Result<(), Fault> {
        let (by_seq, deletes) = (self.is(Mutant::MarkBySeq), self.plan.deletes);
        self.guard(claim, "a mark met another claim")?;
        let is_it = |row: &Row, id: Uuid| by_seq || row.id == id;
        let there = |(seq, id): &&(i64, Uuid)| {
            let swallowed = self.database.swallows && is_swallowed(*seq);
            !swallowed && self.database.rows.get(seq).is_some_and(|row| is_it(row, *id))
        };
        let count = rows.iter().filter(there).count();
        let follows = at.is_none_or(|at| self.database.applied().n + 1 == at.n);
        if count != rows.len() || !follows {
            self.hit("a mark met other rows or another batch");
            let cause = if follows { Cause::MarkCount } else { Cause::Mark };
            return Err(Fault::in_doubt(cause, format!("{count} of {} rows", rows.len())));
        }
        for (seq, id) in rows {
            self.database.mark(*seq, deletes, |row| is_it(row, *id));
        }
        at.map_or(Ok(()), |at| self.database.apply(at, Cause::Mark))
    }

    pub fn note(&mut self, claim: ClaimNumber, at: Applied) -> Result<(), Fault> {
        self.database.guard(claim)?;
        self.database.apply(at, Cause::Mark)
    }

    pub fn pin(&mut self, claim: ClaimNumber, pins: Pins) -> Result<(), Fault> {
        self.database.guard(claim)?;
        self.database.pins.extend(pins);
        Ok(())
    }

    /// What of it can be set aside: of events those that are there and unsent.
    pub fn fit_to_park(&mut self, claim: ClaimNumber, what: &SetAside) -> Result<SetAside, Fault> {
        self.guard(claim, "a set-aside met another claim")?;
        let rows = &self.database.rows;
        let is_there = |unfit: &&Unfit| rows.get(&unfit.seq).is_some_and(|row| unfit.id.id() == row.id.into() && !row.sent);
        Ok(SetAside { unfit: what.unfit.iter().filter(is_there).cloned().collect(), ailing: what.ailing.clone() })
    }

    pub fn put_aside(&mut self, what: &SetAside) -> Done {
        let before = (self.database.parked.len(), self.database.held.len());
        for seq in what.unfit.iter().map(|unfit| unfit.seq) {
            let Some(row) = self.database.rows.get(&seq).cloned() else { continue };
            if row.sent {
                self.violated(Class::Parked, format!("seq {seq} was set aside, and is marked already"));
            }
            self.database.parked.insert(seq, Parked { id: row.id, topic: row.topic, key: row.key });
            self.hit("an event was parked");
        }
        self.database.held.extend(what.ailing.iter().map(|ailing| ailing.topic.clone()));
        let after = (self.database.parked.len(), self.database.held.len());
        Done { parked: (after.0 - before.0) as u64, held: (after.1 - before.1) as u64 }
    }

    pub fn let_go(&mut self, claim: ClaimNumber, topics: &BTreeSet<String>) -> Result<(), Fault> {
        self.database.guard(claim)?;
        self.database.held.retain(|topic| !topics.contains(topic));
        self.hit("a held topic was let go");
        Ok(())
    }

    pub fn declare(&mut self, halt: &Halt, seen: &Standing) -> bool {
        let same = self.database.claim == seen.claim && self.database.applied().n == seen.applied.n;
        if same {
            self.database.halted = Some(halt.code);
            self.hit(format!("halted: {}", halt.code.name()));
            // evidence is taken twice, a lease apart: a leader that lags behind for so long says what is not so
            let misled = self.misled.is_some_and(|at| self.now - at < 2 * waits(&self.plan).lease);
            // the connection of a dead process would have ended with the server that it led to
            let is_another = seen.database.timeline != self.database.timeline;
            if !misled && !is_another && !oracle::is_true(self, halt.code) {
                self.violated(Class::FalseHalt, halt.to_string());
            }
        }
        same
    }

    /// Claim number and token, in the snapshot of a fetch.
    pub fn guards(&mut self, claim: ClaimNumber) -> Result<(), Fault> {
        if self.is(Mutant::NoGuards) {
            return Ok(());
        }
        self.guard(claim, "a fetch met another claim")?;
        match self.database.token {
            Some(token) if token == claim => Ok(()),
            Some(_) => Err(Fault::in_doubt(Cause::ClaimChanged, "another token")),
            None if self.is(Mutant::NoToken) => Ok(()),
            None => {
                self.hit("a fetch met no token");
                Err(Fault::in_doubt(Cause::TokenMissing, "no token"))
            }
        }
    }

    fn guard(&mut self, claim: ClaimNumber, what: &str) -> Result<(), Fault> {
        let met = self.database.guard(claim);
        if met.is_err() {
            self.hit(what);
        }
        met
    }

    /// The rows of one snapshot.
    pub fn select(&self, query: &Query) -> Option<Batch> {
        let wanted = |seq: i64| match query.form {
            Form::Full => true,
            Form::Cursor if self.is(Mutant::SeqAboveLast) => seq > query.head,
            Form::Cursor => seq > query.head || query.gaps.iter().any(|gap| (gap.low..=gap.high).contains(&seq)),
        };
        let overtakes = self.is(Mutant::Overtake);
        let parked = |seq: &i64| self.database.parked.contains_key(seq);
        let free = |seq: i64, row: &Row| if overtakes { !parked(&seq) } else { self.database.is_free(seq, row) };
        let mut batch = BatchBuilder::new(query.limits);
        for (&seq, row) in self.database.rows.iter().filter(|(seq, row)| !row.sent && wanted(**seq) && free(**seq, row)) {
            let event = Event {
                seq,
                id: row.id.into(),
                topic: row.topic,
                key: row.key.as_deref().map(str::as_bytes),
                kind: "",
                source: None,
                payload: None,
                headers: None,
                created_at_us: None,
            };
            if batch.push(&event) != Pushed::Kept {
                break;
            }
        }
        batch.build()
    }
}
