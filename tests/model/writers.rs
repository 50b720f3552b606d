//! What services do: take the lock on the outbox, draw numbers, commit or roll back.

use crate::cursor::NAMELESS;
use crate::model::{Hit, Model, Steps};
use crate::state::{Entry, State, Writer, bit};
use crate::world::Writing;

impl Writer {
    /// Whether its lock is listed.
    fn holds(self) -> bool {
        matches!(self, Self::Writing(_) | Self::Visible | Self::Prepared)
    }

    pub fn is_open(self) -> bool {
        self.holds() || self == Self::Nameless
    }

    /// A server that goes down takes with it what is not committed. What it knows as prepared is there again, without its name.
    pub fn lose(&mut self, is_prepared: bool) {
        *self = match *self {
            _ if is_prepared => Self::Nameless,
            Self::Writing(_) | Self::Prepared | Self::Nameless => Self::RolledBack,
            Self::Visible => Self::Committed,
            other => other,
        };
    }
}

/// Who holds a write lock on the outbox of the first database: a bit for each writer, and one for all without a name.
pub fn holders(state: &State) -> u8 {
    let bit = |(at, writer): (usize, &Writer)| match writer {
        Writer::Nameless => NAMELESS,
        writer if writer.holds() => 1 << at,
        _ => 0,
    };
    state.writers.iter().enumerate().map(bit).fold(0, |all, one| all | one)
}

impl Model {
    pub fn writer_steps(&self, state: &State, out: &mut Steps) {
        let open = state.writers.iter().filter(|writer| writer.is_open()).count();
        for at in 0..self.world.transactions.len() {
            match state.writers[at] {
                Writer::Absent if at == 0 || state.writers[at - 1] != Writer::Absent => {
                    if open < self.world.open || self.world.writing == Writing::AtOnce {
                        self.begin_writing(state, at, out);
                    }
                }
                Writer::Writing(drawn) => self.write(state, at, drawn, out),
                Writer::Visible => {
                    let mut next = *state;
                    next.writers[at] = Writer::Committed;
                    out.push(next, || format!("writer {at}: its lock is gone"));
                }
                Writer::Prepared | Writer::Nameless => {
                    let mut next = *state;
                    self.show(&mut next, at);
                    next.writers[at] = Writer::Committed;
                    next.databases[0].prepared &= !(1 << at);
                    out.push(next, || format!("writer {at}: COMMIT PREPARED"));
                }
                Writer::Absent | Writer::Committed | Writer::RolledBack => {}
            }
        }
    }

    fn begin_writing(&self, state: &State, at: usize, out: &mut Steps) {
        let mut next = *state;
        match self.world.writing {
            Writing::AtOnce => {
                self.commit_at_once(&mut next, at);
                out.push(next, || format!("writer {at}: inserts and commits {:?}", self.entries(&next, at)));
            }
            Writing::Drawn => {
                self.draw(&mut next, at, 0);
                next.writers[at] = Writer::Writing(1);
                out.push(next, || format!("writer {at}: begins and draws number {}", next.databases[0].last_value));
            }
            Writing::Locked => {
                next.writers[at] = Writer::Writing(0);
                out.push(next, || format!("writer {at}: begins, its lock is listed"));
            }
        }
    }

    /// A transaction that was committed before the first step.
    pub fn commit_at_once(&self, state: &mut State, at: usize) {
        (0..self.world.transactions[at].len()).for_each(|event| self.draw(state, at, event));
        self.show(state, at);
        state.writers[at] = Writer::Committed;
    }

    fn write(&self, state: &State, at: usize, drawn: u8, out: &mut Steps) {
        let mut next = *state;
        if (drawn as usize) < self.world.transactions[at].len() {
            self.draw(&mut next, at, drawn as usize);
            next.writers[at] = Writer::Writing(drawn + 1);
            out.push(next, || format!("writer {at}: draws number {}", next.databases[0].last_value));
            return;
        }
        self.show(&mut next, at);
        next.writers[at] = if self.world.writing == Writing::Locked { Writer::Visible } else { Writer::Committed };
        out.push(next, || format!("writer {at}: commits {:?}", self.entries(&next, at)));
        let mut next = *state;
        if self.spend(&mut next.budget.rollbacks) {
            next.writers[at] = Writer::RolledBack;
            out.hit(Hit::RolledBack);
            out.push(next, || format!("writer {at}: rolls back"));
        }
        let mut next = *state;
        if self.spend(&mut next.budget.prepares) {
            next.writers[at] = Writer::Prepared;
            next.databases[0].prepared |= 1 << at;
            out.push(next, || format!("writer {at}: PREPARE"));
        }
    }

    /// Draws the next number for an event, and remembers what of its key its writer could see.
    fn draw(&self, state: &mut State, at: usize, event: usize) {
        let events = self.world.transactions[at];
        let uid = events[event];
        let database = &mut state.databases[0];
        database.last_value += 1;
        let same_key = |other: u8| self.world.keys[other as usize] == self.world.keys[uid as usize];
        let seen = database.rows.iter().map(|row| row.entry.uid).chain(events[..event].iter().copied());
        state.before[uid as usize] = seen.filter(|other| same_key(*other)).fold(0, |all, other| all | bit(other));
        state.numbers[uid as usize] = database.last_value;
    }

    /// Its rows become visible.
    fn show(&self, state: &mut State, at: usize) {
        for entry in self.entries(state, at) {
            state.databases[0].insert(entry);
            state.committed |= bit(entry.uid);
        }
    }

    fn entries(&self, state: &State, at: usize) -> Vec<Entry> {
        self.world.transactions[at].iter().map(|&uid| Entry { seq: state.numbers[uid as usize], uid }).collect()
    }
}
