//! The model: today's protocol (docs/guarantees.md) as a state and a step relation, searched breadth first through every interleaving
//! of small worlds. Two relays need no lease, a relay may stand still anywhere, and everything may fail between any two steps.
//!
//! ```text
//! state  ->  steps: writers | weather | claiming | fetching | publishing  ->  state       invariants hold in each; from each the work drains
//! ```
//! Good worlds are searched to their end, and have as many states as they had. Each mutant, today's protocol without a rule, must be
//! caught by a named world as a named class of violation; what is found is told as the shortest story that leads there.
//!
//! ```text
//! cargo test --test model -- --nocapture                           all worlds, with their states
//! OUTBOXD_TEST_LONG=1 cargo test --test model -- --nocapture       larger ones too: some minutes
//! OUTBOXD_MODEL=trim cargo test --test model -- --nocapture        what begins with this: worlds, and the stories of mutants
//! ```
//! What it leaves out: clocks and leases, held topics, several partitions, adopt, a Kafka that loses what it acknowledged (but for a
//! leader that lags), ledger marking, tail mode. Those are shares of the simulation and of the live tests.

mod claiming;
mod code;
mod cursor;
mod database;
mod drain;
mod fetching;
mod hash;
mod invariants;
mod large;
mod limits;
mod list;
mod log;
mod model;
mod mutants;
mod publishing;
mod relay;
mod rules;
mod search;
mod state;
mod weather;
mod world;
mod worlds;
mod writers;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use large::LARGE;
use model::{Hit, Model};
use mutants::{MUTANTS, Mutant};
use rules::{Rule, Rules};
use search::{Found, search};
use world::World;
use worlds::WORLDS;

/// No world here has more states.
const MOST: usize = 6_000_000;

/// Names what is meant by how its name begins.
const ASKED: &str = "OUTBOXD_MODEL";

fn is_long() -> bool {
    std::env::var_os("OUTBOXD_TEST_LONG").is_some()
}

/// Whether this is meant.
fn is_asked_for(name: &str) -> bool {
    std::env::var(ASKED).map_or(true, |asked| name.starts_with(&asked))
}

/// Does it to all of them, on all cores, and gives what went wrong.
fn each<T: Sync>(items: &[T], check: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(complaint) = check(item) {
                failed.lock().expect("nobody panics with it").push(complaint);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..std::thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(work)));
    });
    failed.into_inner().expect("nobody panics with it")
}

/// A search, its figures printed.
fn run(name: &str, world: &'static World, broken: &[Rule]) -> Found {
    let started = Instant::now();
    let found = search(&Model { world, rules: Rules::without(broken) }, MOST);
    let (states, depth, seconds) = (found.states, found.depth, started.elapsed().as_secs_f64());
    println!("{name:<72} {states:>9} states  {depth:>3} steps {seconds:>6.1} s");
    found
}

fn holds(world: &'static World, hits: &AtomicU64) -> Result<(), String> {
    let found = run(world.name, world, &[]);
    hits.fetch_or(found.hits, Ordering::Relaxed);
    if let Some(story) = found.story {
        return Err(format!("{}: {story}", world.name));
    }
    if found.cut || found.states != world.states {
        return Err(format!("{}: {} states, {} are known", world.name, found.states, world.states));
    }
    Ok(())
}

#[test]
fn every_world_is_searched_to_its_end_and_nothing_is_found() {
    let large = LARGE.iter().filter(|_| is_long());
    let worlds: Vec<&World> = large.chain(WORLDS).filter(|world| is_asked_for(world.name)).collect();
    let hits = AtomicU64::new(0);
    let failed = each(&worlds, |world| holds(world, &hits));
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    let met = |hit: &&Hit| hits.load(Ordering::Relaxed) & (1 << **hit as u64) != 0;
    let missed: Vec<_> = Hit::ALL.iter().filter(|hit| !met(hit)).collect();
    assert!(missed.is_empty() || std::env::var_os(ASKED).is_some(), "never happened: {missed:?}");
}

fn is_caught(mutant: &&'static Mutant) -> Result<(), String> {
    let world = WORLDS.iter().find(|world| world.name.starts_with(&format!("{}:", mutant.world)));
    let world = world.ok_or_else(|| format!("there is no world {}", mutant.world))?;
    let name = format!("mutant {}: {}", mutant.number, mutant.name);
    let found = run(&name, world, mutant.off);
    let Some(story) = found.story else { return Err(format!("{name}: not caught")) };
    println!("{:>80} {:?}: {} ({} steps)", world.name, story.class, story.what, story.steps.len());
    if std::env::var_os(ASKED).is_some() {
        println!("{story}");
    }
    if story.class == mutant.class { Ok(()) } else { Err(format!("{name}: expected {:?}, found {story}", mutant.class)) }
}

#[test]
fn every_mutant_is_caught() {
    let mutants: Vec<&Mutant> = MUTANTS.iter().filter(|mutant| is_asked_for(mutant.world)).collect();
    let failed = each(&mutants, is_caught);
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn what_is_not_promised_is_found() {
    let limits: Vec<_> = limits::LIMITS.iter().filter(|(_, world)| is_asked_for(world.name)).collect();
    let failed = each(&limits, |(class, world)| match run(world.name, world, &[]).story {
        Some(story) if story.class == *class => Ok(()),
        Some(story) => Err(format!("{}: expected {class:?}, found {story}", world.name)),
        None => Err(format!("{}: not found any more; then docs/guarantees.md need not say it", world.name)),
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Of the planned list, 34 and above belong to a mode that is not built.
#[test]
fn no_mutant_of_the_list_is_forgotten() {
    let missing: Vec<u8> = (1..=33).filter(|number| MUTANTS.iter().all(|mutant| mutant.number != *number)).collect();
    assert!(missing.is_empty(), "no world catches {missing:?}");
}

/// These rules are held up by another one: without it they are caught above, alone they are not.
#[test]
fn rules_that_others_cover_are_not_missed_alone() {
    let covered = mutants::COVERED;
    let failed = each(covered, |(rule, world)| {
        let world = WORLDS.iter().find(|known| known.name.starts_with(&format!("{world}:"))).expect("a world of that name");
        let found = run(&format!("covered: {rule:?}"), world, &[*rule]);
        found.story.map_or(Ok(()), |story| Err(format!("{rule:?} is missed alone: {story}")))
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
