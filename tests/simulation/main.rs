//! The deterministic simulation: the real loop (`src/relay.rs`, cursor, journal, parking) over a simulated database and a simulated
//! Kafka. One seed is one run: time stands still but for what the run lets pass, and chance comes from the seed alone.
//!
//! ```text
//! cargo test --test simulation                                           2,000 seeds, and the controls that must fail
//! OUTBOXD_SIM_SEEDS=200000 cargo test --test simulation seeds  more
//! OUTBOXD_SIM_SEED=1234 cargo test --test simulation seeds -- --nocapture    one seed, told step by step
//! OUTBOXD_SIM_FOCUS=Growth …                                             the same with other plans: `controls.rs`
//! ```
//! A target of its own: it keeps all cores busy for some seconds, which the tests that measure time would notice.

mod breach;
mod controls;
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
mod violation;
mod weather;
mod world;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use plan::Plan;
use violation::{Class, Violation};
use weather::blow;
use world::{Handle, Hits};

/// After the last fault everything is published and settled within so much simulated time. Three leases of watching, three of being
/// stuck, and what is between.
const BOUND: Duration = Duration::from_secs(30);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(25);

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub violations: Vec<Violation>,
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
    let tasks: Vec<_> = (0..plan.processes).map(|process| tokio::spawn(process::live(world.clone(), process))).collect();
    let weather = tokio::spawn(blow(world.clone()));
    let services = tokio::spawn(services::work(world.clone()));
    while !weather.is_finished() {
        sleep(LOOK).await;
    }
    let healed = Instant::now();
    let mut settled = false;
    while !settled && healed.elapsed() < BOUND {
        sleep(LOOK).await;
        settled = services.is_finished() && oracle::is_settled(&world.lock());
    }
    // processes never end; the weather and the services do so in good order
    let died = tasks.iter().any(tokio::task::JoinHandle::is_finished);
    let failed = weather.await.is_err() || services.await.is_err();
    let mut world = world.lock();
    if died || failed {
        world.violated(Class::Left, "a task of the simulation panicked".into());
    }
    if !settled && oracle::is_halted_rightly(&world) {
        world.hit("ended in a halt");
    } else if !settled {
        oracle::overdue(&mut world);
    }
    oracle::judge(&mut world, settled);
    world.hit("a run");
    let digest = world.digest();
    Report { violations: std::mem::take(&mut world.violations), hits: std::mem::take(&mut world.hits), digest }
}
