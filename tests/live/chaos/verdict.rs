//! The end of a run: everything is healed and published, and looked at by the checker and by `outboxd verify`, which must agree.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::SOON;
use super::world::World;
use crate::checker::Violation;
use crate::stage::{Mark, Stage};
use crate::support::eventually;
use crate::truth::Fate;

/// What `verify` calls an event that is published and has no row.
const PHANTOM: &str = "phantom";

/// What a run came to.
#[derive(Default)]
pub struct Verdict {
    /// What the checker found.
    pub violations: Vec<Violation>,
    /// Anything else that must not be: the run ended early, a relay left, an oracle says something else than the other one.
    pub wrong: Vec<String>,
    /// From the writers' end until everything was published.
    pub drained: Option<Duration>,
    /// How many events there were of which sort.
    pub events: BTreeMap<&'static str, usize>,
    /// What `outboxd verify` found, by its own names.
    pub verified: BTreeMap<String, u64>,
}

impl Verdict {
    /// Of a run of which nothing could be looked at, for this reason.
    pub fn of_nothing(why: String) -> Verdict {
        Verdict::default().and(why)
    }

    /// Something more that is wrong.
    pub fn and(mut self, wrong: String) -> Verdict {
        self.wrong.push(wrong);
        self
    }
}

/// Heals everything, waits for the end of the work, and looks at all of it.
///
/// # Panics
/// If the work does not come to its end.
pub fn reach(world: &mut World) -> Verdict {
    world.heal_all();
    world.wait_for_batches(3);
    world.stage.stop_writing();
    let stopped = Instant::now();
    eventually("everything is published", SOON, || world.stage.pending() == 0);
    let drained = stopped.elapsed();
    let mut violations = world.stage.violations(world.lost_some);
    violations.extend(world.vanished());
    let verified = verify(&world.stage);
    let events = events(&world.stage);
    let mut wrong = disagreements(&violations, &verified, world.stage.mark() == Mark::Row, events[ALLOWED]);
    wrong.extend(world.ended_relays());
    world.read_logs();
    if world.windows.has_rescued() {
        wrong.push("a proof scan found events that the cursor had overlooked".to_owned());
    }
    Verdict { violations, wrong, drained: Some(drained), events, verified }
}

/// Of a run that has stuck: what was published until then.
///
/// # Panics
/// If that cannot be looked at.
pub fn look_only(world: &mut World) -> Verdict {
    world.read_logs();
    if world.stage.is_writing() {
        world.stage.stop_writing();
    }
    let violations = world.stage.violations_while_halted();
    Verdict { violations, events: events(&world.stage), ..Verdict::default() }
}

/// Published, then lost by a failover that loses the last commits: nobody can take that back.
const ALLOWED: &str = "published and lost by the database: phantoms, the allowed class";

fn events(stage: &Stage<'_>) -> BTreeMap<&'static str, usize> {
    let seen: HashSet<Uuid> = stage.places().iter().filter_map(|place| place.id).collect();
    let count = |fate: Fate| stage.written().iter().filter(move |event| event.fate == fate);
    let lost = count(Fate::Unknown);
    BTreeMap::from([
        ("inserted", stage.written().len()),
        ("committed", count(Fate::Committed).count()),
        ("rolled back", count(Fate::RolledBack).count()),
        ("published", seen.len()),
        ("lost by the database, or never acknowledged", lost.clone().count()),
        (ALLOWED, lost.filter(|event| seen.contains(&event.id)).count()),
    ])
}

/// What the program itself finds, counted by kind; `broken` is said of the journal.
fn verify(stage: &Stage<'_>) -> BTreeMap<String, u64> {
    let (code, stdout, stderr) = stage.options.run_command(&["verify", "--json"]);
    assert!(code == 0 || code == 3, "verify: {code} {stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("verify prints JSON");
    // without a journal none is broken
    let mut found = BTreeMap::from([("broken".to_owned(), report["journal"]["broken"].as_u64().unwrap_or(0))]);
    for topic in report["topics"].as_array().expect("topics") {
        *found.entry("published".to_owned()).or_default() += topic["published"].as_u64().expect("a number");
        for kind in topic["found"].as_array().expect("what was found") {
            let name = kind["kind"].as_str().expect("a name").to_owned();
            *found.entry(name).or_default() += kind["count"].as_u64().expect("a number");
        }
    }
    found
}

/// Both count the same phantoms where rows are kept; where they are deleted, `verify` cannot miss a row. Of anything else both find
/// something or both find nothing. What overtook a late commit is no breach, and what is foreign is none of ours.
fn disagreements(violations: &[Violation], verified: &BTreeMap<String, u64>, rows_are_kept: bool, allowed: usize) -> Vec<String> {
    let count = |kind: &str| verified.get(kind).copied().unwrap_or(0);
    let breaches: u64 = ["lost", "duplicated", "reordered", "torn", "unmarked", "broken"].map(count).iter().sum();
    let mut wrong = Vec::new();
    if (breaches > 0) == violations.is_empty() {
        wrong.push(format!("verify finds {breaches} breaches, the checker {}: {verified:?}", violations.len()));
    }
    let expected = if rows_are_kept { allowed as u64 } else { 0 };
    if count(PHANTOM) != expected && violations.is_empty() {
        wrong.push(format!("verify finds {} phantoms, the checker {expected}", count(PHANTOM)));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Kind;

    fn found(kinds: &[(&str, u64)]) -> BTreeMap<String, u64> {
        kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
    }

    #[test]
    fn oracles_that_say_different_things_are_told() {
        let twice = Violation { kind: Kind::Duplicated, what: String::new() };
        let clean = found(&[("broken", 0), ("overtaken", 7), ("foreign", 1)]);
        assert!(disagreements(&[], &clean, true, 0).is_empty());
        assert_eq!(disagreements(std::slice::from_ref(&twice), &clean, true, 0).len(), 1);
        assert_eq!(disagreements(&[], &found(&[("torn", 1)]), true, 0).len(), 1);
        assert!(disagreements(&[twice], &found(&[("duplicated", 1)]), true, 0).is_empty());
        assert!(disagreements(&[], &found(&[("phantom", 3)]), true, 3).is_empty());
        assert_eq!(disagreements(&[], &found(&[("phantom", 2)]), true, 3).len(), 1);
        assert_eq!(disagreements(&[], &found(&[("phantom", 3)]), false, 3).len(), 1);
    }
}
