//! What befalls the world: failovers, restarts, late frames, timeouts, and what persons do.

use crate::model::{Hit, Model, Steps};
use crate::state::{Entry, State, bit};
use crate::writers::holders;

impl Model {
    pub fn weather_steps(&self, state: &State, out: &mut Steps) {
        self.database_weather(state, out);
        self.log_weather(state, out);
        self.persons(state, out);
        self.copying(state, out);
    }

    fn database_weather(&self, state: &State, out: &mut Steps) {
        let mut next = *state;
        match state.past {
            None if state.budget.failovers > 0 => {
                next.past = Some(state.databases[0]);
                out.push(next, || "standby or backup: this is the last moment that it has".into());
            }
            Some(past) if self.spend(&mut next.budget.failovers) => {
                self.fail_over(&mut next, out);
                let database = next.databases[0];
                out.push(next, || format!("DATABASE GOES BACK to a = {}, rows {:?}", past.applied.n, &database.rows[..]));
            }
            _ => {}
        }
        let mut next = *state;
        if self.spend(&mut next.budget.restarts) {
            go_down(&mut next);
            out.hit(Hit::Restarted);
            out.push(next, || "database: clean restart, the token stays".into());
        }
        let mut next = *state;
        if self.spend(&mut next.budget.triggers) {
            next.databases[0].refuses_marks = true;
            out.push(next, || "somebody: a trigger that swallows marks".into());
        }
    }

    /// A failover with loss, or a restore. What a pooler hides: only the token tells.
    fn fail_over(&self, state: &mut State, out: &mut Steps) {
        let Some(past) = state.past.take() else { return };
        if self.world.old_primary {
            (state.databases[1], state.split) = (state.databases[0], true);
        }
        let timeline = state.databases[0].timeline + 1;
        state.databases[0] = crate::state::Database { timeline, token: if self.world.sqlite { past.token } else { 0 }, ..past };
        go_down(state);
        out.hit(Hit::WentBack);
    }

    fn log_weather(&self, state: &State, out: &mut Steps) {
        for id in 0..state.log.producers.len() {
            let producer = state.log.producers[id];
            let open = state.log.is_open(id);
            for (late, commit) in [(producer.late_commits, true), (producer.late_aborts, false)] {
                let mut next = *state;
                if late > 0 {
                    let counter = &mut next.log.producers[id];
                    *(if commit { &mut counter.late_commits } else { &mut counter.late_aborts }) -= 1;
                    next.log.finish(id, commit);
                    out.hit(if open { Hit::LateFrameEnded } else { Hit::LateFrameInVain });
                    let what = if open { "and ENDS the open transaction" } else { "in vain" };
                    out.push(next, || format!("network: the late EndTxn (commit: {commit}) arrives, {what}"));
                }
            }
            let mut next = *state;
            if open && self.spend(&mut next.budget.timeouts) {
                next.log.time_out(id);
                out.hit(Hit::TimedOut);
                out.push(next, || "coordinator: the transaction took too long: aborted, its owner shut out".into());
            }
        }
    }

    fn persons(&self, state: &State, out: &mut Steps) {
        for entry in state.databases[0].parked.iter() {
            let mut next = *state;
            if self.spend(&mut next.budget.decisions) {
                self.retry(&mut next, *entry);
                out.hit(Hit::Retried);
                out.push(next, || format!("operator: RETRY of event {}, which can be published now", entry.uid));
            }
            let mut next = *state;
            if self.spend(&mut next.budget.decisions) {
                self.discard(&mut next, *entry);
                out.hit(Hit::Discarded);
                out.push(next, || format!("operator: DISCARD of event {}", entry.uid));
            }
        }
        for uid in (1..=crate::state::EVENTS as u8).filter(|uid| (self.world.unfit | self.world.refused) & bit(*uid) != 0) {
            let mut next = *state;
            if next.cured & bit(uid) == 0 && self.spend(&mut next.budget.cures) {
                next.cured |= bit(uid);
                out.push(next, || format!("operator: raises a limit, event {uid} can be published"));
            }
        }
        self.begin_numbers_anew(state, out);
    }

    fn begin_numbers_anew(&self, state: &State, out: &mut Steps) {
        let locked = holders(state) != 0 || state.relays.iter().any(|relay| relay.statement.is_some());
        if locked {
            return;
        }
        let mut emptied = *state;
        let database = &mut emptied.databases[0];
        (database.rows, database.last_value) = (Default::default(), 0);
        let mut next = emptied;
        if self.spend(&mut next.budget.truncations) {
            next.databases[0].file += 1;
            out.hit(Hit::Truncated);
            out.push(next, || "somebody: TRUNCATE … RESTART IDENTITY".into());
        }
        let mut next = emptied;
        if self.spend(&mut next.budget.setbacks) {
            out.push(next, || "somebody: DELETE of all rows, and setval".into());
        }
    }

    /// RETRY: the entry goes, what waits behind it is free, and the relay has to claim.
    pub fn retry(&self, state: &mut State, entry: Entry) {
        state.cured |= bit(entry.uid);
        state.databases[0].forget_parked();
        state.databases[0].parked.retain(|parked| *parked != entry);
        self.release(state);
    }

    /// DISCARD: of an entry that outlived its event nothing is left to discard.
    pub fn discard(&self, state: &mut State, entry: Entry) {
        state.databases[0].forget_parked();
        if state.databases[0].has_unsent(entry) {
            state.databases[0].discard(entry);
            state.given_up |= bit(entry.uid);
        }
        self.release(state);
    }

    fn release(&self, state: &mut State) {
        if self.keeps(crate::rules::Rule::ReleaseClaims) {
            state.databases[0].claim = state.fresh_claim();
        }
    }

    fn copying(&self, state: &State, out: &mut Steps) {
        let mut next = *state;
        if self.spend(&mut next.budget.copies) {
            let mut copy = crate::state::Database { token: 0, ..state.databases[0] };
            copy.last_value += 1;
            copy.insert(Entry { seq: copy.last_value, uid: self.world.foreign });
            (next.databases[1], next.split) = (copy, true);
            out.push(next, || format!("somebody: a COPY of the database, which gets an event {} of its own", self.world.foreign));
        }
    }
}

/// Open transactions end, and connections break: what was being fetched is asked for again.
fn go_down(state: &mut State) {
    let prepared = state.databases[0].prepared;
    state.writers.iter_mut().enumerate().for_each(|(at, writer)| writer.lose(prepared & (1 << at) != 0));
    state.relays.iter_mut().for_each(|relay| relay.statement = None);
}
