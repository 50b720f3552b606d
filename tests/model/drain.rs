//! From every state the work must come to its end: whatever happened, once nothing more happens. Three ways: everybody dies and a fresh
//! relay begins; and each living relay goes on alone, from what it remembers.

use std::collections::HashSet;

use crate::hash::{Plain, hash};
use crate::invariants::{Class, Violation, violated};
use crate::model::{Model, NAMES, Steps};
use crate::relay::{Cursor, Phase, Relay};
use crate::state::{Budget, State, Writer};

/// Far more steps than any of these worlds needs.
const MOST_STEPS: usize = 500;

/// A relay that comes to no rest tells the same again and again.
const MOST_TOLD: usize = 60;

/// Remembers which states come to a good end.
pub struct Drain<'a> {
    model: &'a Model,
    good: HashSet<u64, Plain>,
    steps: Steps,
    /// The story, when somebody listens.
    pub told: Option<Vec<String>>,
}

impl<'a> Drain<'a> {
    pub fn new(model: &'a Model) -> Self {
        Self { model, good: HashSet::default(), steps: Steps::default(), told: None }
    }

    /// That tells its steps, up to the violation.
    pub fn telling(model: &'a Model) -> Self {
        Self { steps: Steps::told(), told: Some(Vec::new()), ..Self::new(model) }
    }

    /// All three ways.
    pub fn check(&mut self, state: &State) -> Result<(), Violation> {
        self.alone(state, None)?;
        let living = |r: &usize| state.relays[*r].phase != Phase::Dead;
        (0..self.model.world.relays).filter(living).try_for_each(|r| self.alone(state, Some(r)))
    }

    fn alone(&mut self, state: &State, left: Option<usize>) -> Result<(), Violation> {
        let mut state = *state;
        state.budget = Budget::calm();
        state.past = None;
        for (r, relay) in state.relays.iter_mut().enumerate().filter(|(r, _)| Some(*r) != left) {
            let dies = (r, relay.phase) != (r, Phase::Dead);
            *relay = Relay::default();
            if let (Some(told), true) = (&mut self.told, dies) {
                told.push(format!("then {} dies", NAMES[r]));
            }
        }
        // what is open then never commits; those states in which it did are others
        for writer in state.writers.iter_mut().filter(|writer| writer.is_open() || **writer == Writer::Absent) {
            *writer = if *writer == Writer::Visible { Writer::Committed } else { Writer::RolledBack };
        }
        if let Some(told) = &mut self.told {
            told.push("nothing more happens, open transactions are rolled back".into());
        }
        let result = self.run(state, left.unwrap_or(0));
        if let (Some(told), true) = (&mut self.told, result.is_ok()) {
            told.clear();
        }
        result
    }

    /// One relay, step by step, until nothing changes any more.
    fn run(&mut self, mut state: State, r: usize) -> Result<(), Violation> {
        let mut passed = Vec::new();
        let mut rested = None;
        for _ in 0..MOST_STEPS {
            state = state.canonical();
            let now = hash(&state);
            if self.good.contains(&now) || matches!(state.relays[r].phase, Phase::Halted(_)) {
                self.model.check(&state)?;
                self.good.extend(passed);
                return Ok(());
            }
            if rests(&state.relays[r]) {
                if rested == Some(now) {
                    self.rest(&state, r)?;
                    self.good.extend(passed);
                    return Ok(());
                }
                rested = Some(now);
            }
            passed.push(now);
            state = self.step(&state, r)?;
            self.model.check(&state)?;
        }
        violated(Class::Stuck, format!("{} comes to no rest", NAMES[r]))
    }

    /// The first thing that the relay may do; or what it waits for.
    fn step(&mut self, state: &State, r: usize) -> Result<State, Violation> {
        self.steps.clear();
        self.model.relay_steps(state, r, &mut self.steps);
        if let Some(next) = self.steps.found.first() {
            if let (Some(told), Some(steps)) = (&mut self.told, &self.steps.told)
                && told.len() < MOST_TOLD
            {
                told.extend(steps.first().cloned());
            }
            return Ok(*next);
        }
        let Some(id) = (0..state.log.producers.len()).find(|id| state.log.is_open(*id)) else {
            return violated(Class::Stuck, format!("{} has nothing to do in {:?}", NAMES[r], state.relays[r].phase));
        };
        let mut next = *state;
        next.log.time_out(id);
        Ok(next)
    }

    /// At rest everything is done that can be. Then a person decides about what is parked, in both ways, and all of it is done.
    fn rest(&mut self, state: &State, r: usize) -> Result<(), Violation> {
        if self.model.home(state, r) != 0 {
            return Ok(());
        }
        let database = &state.databases[0];
        if let Some(entry) = database.pending(&self.model.world.keys, self.model.rules).next() {
            return violated(Class::Stuck, format!("{entry:?} is neither published nor parked"));
        }
        if let Some(entry) = database.parked.iter().find(|entry| !database.has_unsent(**entry)) {
            return violated(Class::Stuck, format!("the parked entry of {entry:?} outlives its event, its key waits for ever"));
        }
        if matches!(&state.relays[r].cursor, Cursor::Running { gaps, .. } if !gaps.is_empty()) {
            return violated(Class::Memory, "gaps are left, and nobody is writing");
        }
        let Some(entry) = database.parked.first().copied() else { return Ok(()) };
        let mut retried = *state;
        self.model.retry(&mut retried, entry);
        self.tell(|| format!("operator: RETRY of event {}", entry.uid));
        self.run(retried, r)?;
        let mut discarded = *state;
        self.model.discard(&mut discarded, entry);
        self.tell(|| format!("operator, instead: DISCARD of event {}", entry.uid));
        self.run(discarded, r)
    }

    fn tell(&mut self, tell: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(tell());
        }
    }
}

/// Whether a relay has nothing under way.
fn rests(relay: &Relay) -> bool {
    let idle = relay.next.is_empty() && relay.sending.is_none() && relay.unmarked.is_empty();
    relay.phase == Phase::Relay && idle && relay.parking.is_none() && relay.statement.is_none()
}
