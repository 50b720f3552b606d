//! The loop: send, journal, commit, mark, trim.

use crate::model::{Hit, Model, NAMES, Steps};
use crate::relay::{Published, Sending};
use crate::rules::Rule;
use crate::state::{Applied, Record, State, bit};

impl Model {
    /// One step of what is being published; or the begin of the next batch, when at most one is unmarked.
    pub fn publish(&self, state: &State, r: usize, out: &mut Steps) {
        let relay = &state.relays[r];
        match relay.sending {
            None if !relay.next.is_empty() && relay.unmarked.len() < self.most_unmarked() => self.begin(state, r, out),
            None => {}
            Some(_) if relay.renew => self.renew(state, r, out),
            Some(_) if !self.owns_log(state, r) => {
                out.hit(Hit::Fenced);
                self.push_again(state, r, out, "is fenced");
            }
            Some(sending) if !self.keeps(Rule::JournalLast) && sending.journalled.is_none() => {
                self.journal(state, r, sending, out);
            }
            Some(sending) if (sending.acked as usize) < sending.batch.len() => self.send(state, r, sending, out),
            Some(sending) if sending.journalled.is_none() && self.keeps(Rule::Journal) => self.journal(state, r, sending, out),
            Some(sending) if !self.keeps(Rule::MarkAfterCommit) && !sending.marked => self.mark_first(state, r, sending, out),
            Some(sending) => self.commit(state, r, sending, out),
        }
    }

    /// A batch begins while fewer than so many are unmarked.
    fn most_unmarked(&self) -> usize {
        if self.keeps(Rule::OneUnmarked) { 2 } else { 3 }
    }

    fn begin(&self, state: &State, r: usize, out: &mut Steps) {
        let mut next = *state;
        next.relays[r] = self.admit(state, r);
        let relay = &next.relays[r];
        if relay.sending.is_some() && !relay.unmarked.is_empty() {
            out.hit(Hit::MarkBesidePublish);
        }
        let begun = relay.sending.map(|sending| sending.batch);
        out.push(next, || format!("{}: begins {begun:?}", NAMES[r]));
    }

    /// After a late commit: a new producer with the same cursor; the expected offset guards it.
    fn renew(&self, state: &State, r: usize, out: &mut Steps) {
        let mut next = *state;
        next.log.init(self.id(r), r);
        next.relays[r].renew = false;
        out.push(next, || format!("{}: makes its producer anew", NAMES[r]));
    }

    fn send(&self, state: &State, r: usize, mut sending: Sending, out: &mut Steps) {
        let (id, relay) = (self.id(r), &state.relays[r]);
        if sending.acked > 0 && !state.log.has_open_events(id) {
            return self.push_again(state, r, out, "INVALID_TXN_STATE");
        }
        let mut next = *state;
        let most = if self.world.each_send { 1 } else { sending.batch.len() };
        for entry in sending.batch.iter().skip(sending.acked as usize).take(most) {
            if self.world.refused & !state.cured & bit(entry.uid) != 0 {
                return self.refused(state, r, entry.uid, sending.batch.len() == 1 || relay.search, out);
            }
            next.log.send(id, entry.uid);
            sending.acked += 1;
        }
        next.relays[r].sending = Some(sending);
        out.push(next, || format!("{}: {} events are acknowledged", NAMES[r], sending.acked));
        self.fail_to_send(state, r, out);
    }

    fn fail_to_send(&self, state: &State, r: usize, out: &mut Steps) {
        let mut next = *state;
        if !self.spend(&mut next.budget.failed_sends) {
            return;
        }
        if !self.keeps(Rule::SendChecked) {
            if let Some(sending) = &mut next.relays[r].sending {
                sending.acked += 1;
            }
            out.push(next, || format!("{}: a send fails at once and is IGNORED", NAMES[r]));
        } else if self.keeps(Rule::DropFailed) {
            self.push_again(&next, r, out, "a send fails");
        } else {
            self.abort(&next, r, out);
        }
    }

    /// Broken: aborts, perhaps asked for twice, and tries again with the same producer.
    fn abort(&self, state: &State, r: usize, out: &mut Steps) {
        let mut next = *state;
        let id = self.id(r);
        next.log.finish(id, false);
        next.relays[r].end = next.log.end;
        if let Some(sending) = &mut next.relays[r].sending {
            *sending = Sending { batch: sending.batch, ..Sending::default() };
        }
        let mut late = next;
        out.push(next, || format!("{}: ABORTS and tries again", NAMES[r]));
        if self.spend(&mut late.budget.late_commits) {
            late.log.producers[id].late_aborts += 1;
            out.push(late, || format!("{}: ABORTS, asked for twice, and tries again", NAMES[r]));
        }
    }

    /// The log refuses an event: of a batch nobody knows which, of one alone it is known.
    fn refused(&self, state: &State, r: usize, uid: u8, alone: bool, out: &mut Steps) {
        let mut next = *state;
        let relay = &mut next.relays[r];
        relay.search = !alone;
        relay.suspects |= if alone { bit(uid) } else { 0 };
        out.hit(Hit::Refused);
        self.push_again(&next, r, out, "a record is refused");
    }

    /// The journal record; where it lies tells whether anybody else has written since.
    fn journal(&self, state: &State, r: usize, mut sending: Sending, out: &mut Steps) {
        let mut next = *state;
        let relay = &state.relays[r];
        let timeline = state.databases[self.home(state, r)].timeline;
        let record = Record { n: relay.last.n + 1, batch: sending.batch, previous: relay.last.checksum, timeline, checksum: 0 };
        let record = record.sealed(r as u8);
        let offset = next.log.journal(self.id(r), record);
        if offset != relay.end && self.keeps(Rule::ExpectedOffset) {
            out.hit(Hit::JournalMoved);
            let why = format!("the journal record lies at {offset} instead of {}", relay.end);
            return self.push_again(&next, r, out, &why);
        }
        sending.journalled = Some(Applied { n: record.n, offset, checksum: record.checksum });
        next.relays[r].sending = Some(sending);
        out.push(next, || format!("{}: journal record {} is acknowledged at {offset}", NAMES[r], record.n));
    }

    /// EndTxn: it is done; or nobody knows; or it was asked for twice and one of the two is still on its way.
    fn commit(&self, state: &State, r: usize, sending: Sending, out: &mut Steps) {
        let id = self.id(r);
        let mut done = *state;
        done.log.finish(id, true);
        self.published(done, r, sending, false, out);
        let mut unknown = done;
        if self.spend(&mut unknown.budget.lost_answers) {
            out.hit(Hit::LostAnswer);
            self.in_doubt(&unknown, r, out);
            let mut under_way = State { budget: unknown.budget, ..*state };
            under_way.log.producers[id].late_commits += 1;
            self.in_doubt(&under_way, r, out);
        }
        let mut late = done;
        if self.spend(&mut late.budget.late_commits) {
            out.hit(Hit::LateCommit);
            late.log.producers[id].late_commits += 1;
            self.published(late, r, sending, true, out);
        }
    }

    fn in_doubt(&self, state: &State, r: usize, out: &mut Steps) {
        if self.keeps(Rule::ClaimInDoubt) {
            return self.push_again(state, r, out, "nobody knows whether the commit was done");
        }
        let mut next = *state;
        if let Some(sending) = &mut next.relays[r].sending {
            *sending = Sending { batch: sending.batch, ..Sending::default() };
        }
        out.push(next, || format!("{}: nobody knows whether the commit was done: tries AGAIN in place", NAMES[r]));
    }

    fn published(&self, mut next: State, r: usize, sending: Sending, late: bool, out: &mut Steps) {
        let relay = &mut next.relays[r];
        let at = sending.journalled.unwrap_or(Applied { n: relay.last.n + 1, ..Applied::default() });
        (relay.sending, relay.search, relay.renew) = (None, false, late && self.keeps(Rule::NewProducerAfterLate));
        (relay.last, relay.end) = (at, relay.end + 2);
        if !sending.marked {
            relay.unmarked.push(Published { batch: sending.batch, at });
        }
        out.push(next, || format!("{}: batch {} {:?} is committed (late: {late})", NAMES[r], at.n, sending.batch));
    }

    /// MARK: claim number, predecessor and count are compared in one transaction.
    pub fn mark(&self, state: &State, r: usize, out: &mut Steps) {
        let Some(Published { batch, at }) = state.relays[r].unmarked.first().copied() else { return };
        let mut next = *state;
        next.relays[r].unmarked.remove_first();
        let marked = self.mark_rows(&mut next, r, &Published { batch, at });
        if marked {
            out.push(next, || format!("{}: MARKs batch {}", NAMES[r], at.n));
        } else {
            out.hit(Hit::MarkRefused);
            self.mark_failed(state, r, out);
        }
        let mut unknown = next;
        if marked && self.spend(&mut unknown.budget.failed_marks) {
            self.push_again(&unknown, r, out, "MARK was done and its answer is lost");
            self.mark_failed(&State { budget: unknown.budget, ..*state }, r, out);
        }
    }

    fn mark_failed(&self, state: &State, r: usize, out: &mut Steps) {
        if self.keeps(Rule::MarkFailureCounts) {
            return self.push_again(state, r, out, "MARK failed");
        }
        let mut next = *state;
        next.relays[r].unmarked.remove_first();
        out.push(next, || format!("{}: MARK failed, and that is IGNORED", NAMES[r]));
    }

    /// Changes nothing when it may not.
    fn mark_rows(&self, state: &mut State, r: usize, published: &Published) -> bool {
        let home = self.home(state, r);
        let mut database = state.databases[home];
        let follows = database.apply(published.at, self.rules);
        let marked = database.mark(&published.batch, self.keeps(Rule::MarkById), self.rules);
        let good = database.claim == state.relays[r].claim && follows && marked == published.batch.len();
        if good {
            state.databases[home] = database;
        }
        good
    }

    /// Broken: the mark before the commit.
    fn mark_first(&self, state: &State, r: usize, mut sending: Sending, out: &mut Steps) {
        let mut next = *state;
        let at = sending.journalled.unwrap_or_default();
        if !self.mark_rows(&mut next, r, &Published { batch: sending.batch, at }) {
            return self.push_again(state, r, out, "MARK failed");
        }
        sending.marked = true;
        next.relays[r].sending = Some(sending);
        out.push(next, || format!("{}: MARKs batch {} BEFORE its commit", NAMES[r], at.n));
    }

    /// Lets go of journal records below the newest applied one; what is younger than the retention, and so is in any backup, stays.
    pub fn trim(&self, state: &State, r: usize, out: &mut Steps) {
        let mut next = *state;
        if !self.spend(&mut next.budget.trims) {
            return;
        }
        let applied = state.databases[self.home(state, r)].applied.offset;
        let kept = state.past.filter(|_| self.world.retention).map_or(applied, |past| past.applied.offset.min(applied));
        let until = if self.keeps(Rule::TrimBelowApplied) { kept } else { state.log.stable() };
        if until > state.log.start {
            next.log.start = until;
            out.hit(Hit::Trimmed);
            out.push(next, || format!("{}: trims the journal up to {until}", NAMES[r]));
        }
    }
}
