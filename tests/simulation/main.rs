//! The deterministic simulation: the real loop (`src/relay.rs`, cursor, journal, parking) over a simulated database and a simulated
//! Kafka. One seed is one run: time stands still but for what the run lets pass, and chance comes from the seed alone.
//!
//! ```text
//! cargo test --test simulation                                           2,000 seeds, and the controls that must fail
//! OUTBOXD_SIM_SEEDS=200000 cargo test --test simulation seeds  more
//! OUTBOXD_SIM_SEED=1234 cargo test --test simulation seeds -- --nocapture    one seed, told step by step
//! ```
//! A target of its own: it keeps all cores busy for some seconds, which the tests that measure time would notice.

mod database;
mod kafka;
mod lease;
mod mutants;
mod net;
mod oracle;
mod plan;
mod process;
mod producer;
mod publisher;
mod services;
mod sink;
mod source;
mod statements;
mod tests;
mod weather;
mod world;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use plan::Plan;
use world::{Handle, Hits};

/// After the last fault everything is published and settled within so much simulated time. Three leases of watching, three of being
/// stuck, and what is between.
const BOUND: Duration = Duration::from_secs(30);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(25);

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub violations: Vec<String>,
    pub hits: Hits,
    /// Tells two runs apart.
    pub digest: u64,
}

/// One run.
pub fn run(plan: Plan) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(play(plan))
}

async fn play(plan: Plan) -> Report {
    let world = Handle::new(plan.clone());
    let mut tasks: Vec<_> = (0..plan.processes).map(|process| tokio::spawn(process::live(world.clone(), process))).collect();
    tasks.push(tokio::spawn(weather::blow(world.clone())));
    tokio::spawn(services::work(world.clone()));
    while !world.lock().healed {
        sleep(LOOK).await;
    }
    let healed = Instant::now();
    let mut settled = false;
    while !settled && healed.elapsed() < BOUND {
        sleep(LOOK).await;
        settled = oracle::is_settled(&world.lock());
    }
    let panicked = tasks.iter().take(plan.processes).any(tokio::task::JoinHandle::is_finished);
    let mut world = world.lock();
    if panicked {
        world.violated("a process panicked".into());
    }
    if !settled && oracle::is_halted_rightly(&world) {
        world.hit("ended in a halt");
    } else if !settled {
        let (unsent, halted) = (world.database.rows.values().filter(|row| !row.sent).count(), world.database.halted);
        world.violated(format!("not settled after {} s: {unsent} rows unsent, halted: {halted:?}", BOUND.as_secs()));
    }
    oracle::judge(&mut world, settled);
    let records: u64 = world.kafka.lanes.iter().map(|lane| lane.records.len() as u64).sum();
    let digest = records.wrapping_mul(31).wrapping_add(world.step()).wrapping_mul(31).wrapping_add(world.chance.u64(..));
    world.hit("a run");
    Report { violations: std::mem::take(&mut world.violations), hits: std::mem::take(&mut world.hits), digest }
}
