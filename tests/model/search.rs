//! Breadth first through every interleaving, so that the first counterexample is a shortest one.

use std::collections::HashSet;

use crate::drain::Drain;
use crate::hash::{Plain, hash};
use crate::invariants::{Class, Violation};
use crate::model::{Model, Steps};
use crate::state::State;

/// A counterexample.
#[derive(Debug)]
pub struct Story {
    pub class: Class,
    pub what: String,
    /// What happened, from the first step on.
    pub steps: Vec<String>,
}

impl std::fmt::Display for Story {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}: {}", self.class, self.what)?;
        self.steps.iter().try_for_each(|step| write!(formatter, "\n    {step}"))
    }
}

/// What a search came to.
#[derive(Debug, Default)]
pub struct Found {
    pub states: usize,
    /// Steps to the states that are farthest away.
    pub depth: usize,
    pub hits: u64,
    pub story: Option<Story>,
    /// There were more states than allowed.
    pub cut: bool,
}

/// How each state was found first: from which one, and by which of its steps.
type Parents = Vec<(u32, u16)>;

/// Searches all of a world, up to `most` states or the first violation.
pub fn search(model: &Model, most: usize) -> Found {
    let (mut found, mut drain) = (Found::default(), Drain::new(model));
    let mut seen: HashSet<u64, Plain> = HashSet::default();
    let (mut parents, mut steps) = (Parents::new(), Steps::default());
    let start = model.start().canonical();
    seen.insert(hash(&start));
    parents.push((0, 0));
    let mut level = vec![(0, start)];
    while !level.is_empty() {
        let mut next_level = Vec::new();
        for (index, state) in &level {
            if let Err(violation) = model.check(state).and_then(|()| drain.check(state)) {
                found.story = Some(tell(model, &parents, *index, violation));
                (found.states, found.hits) = (seen.len(), steps.hits);
                return found;
            }
            steps.clear();
            model.steps(state, &mut steps);
            for (step, next) in steps.found.iter().enumerate() {
                let next = next.canonical();
                if seen.insert(hash(&next)) {
                    next_level.push((parents.len() as u32, next));
                    parents.push((*index, step as u16));
                }
            }
        }
        if seen.len() > most {
            found.cut = true;
            break;
        }
        found.depth += usize::from(!next_level.is_empty());
        level = next_level;
    }
    (found.states, found.hits) = (seen.len(), steps.hits);
    found
}

/// Goes the way to a state again, and says what happens on it.
fn tell(model: &Model, parents: &Parents, index: u32, violation: Violation) -> Story {
    let mut way = Vec::new();
    let mut at = index;
    while at != 0 {
        let (parent, step) = parents[at as usize];
        way.push(step as usize);
        at = parent;
    }
    let mut state = model.start().canonical();
    let (mut steps, mut told) = (Steps::told(), Vec::new());
    for step in way.into_iter().rev() {
        steps.clear();
        model.steps(&state, &mut steps);
        told.extend(steps.told.as_ref().map(|told| told[step].clone()));
        state = steps.found[step].canonical();
    }
    told.extend(afterwards(model, &state));
    Story { class: violation.class, what: violation.what, steps: told }
}

/// What happens when nothing more befalls anybody, where it is that which goes wrong.
fn afterwards(model: &Model, state: &State) -> Vec<String> {
    if model.check(state).is_err() {
        return Vec::new();
    }
    let mut drain = Drain::telling(model);
    let _ = drain.check(state).is_err();
    drain.told.unwrap_or_default()
}
