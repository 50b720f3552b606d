//! Chaos: a database with a standby, three brokers, three relays, writers, a reader, and a proxy on every connection; each fault of the
//! matrix alone, then two at once, until the time is over; and a report of what happened and of what the checker found.
//!
//! `scripts/chaos` says how long and with which seed. The seed draws the faults; threads and servers go their own way.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::stage::is_long;
use crate::support::let_pass;

mod fault;
mod healing;
mod report;
mod striking;
mod watcher;
mod world;

use fault::Kind;
use report::{Report, Tally};
use world::World;

/// How long the relays may take to go on after a fault is healed.
const SOON: Duration = Duration::from_secs(90);

/// What a run is asked for, by the environment.
struct Settings {
    /// How long faults are dealt.
    time: Duration,
    /// From which they are drawn.
    seed: u64,
    /// How often each kind must have happened.
    least: usize,
    /// Where the report goes; it is always printed.
    report: Option<PathBuf>,
}

impl Settings {
    fn from_environment() -> Settings {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")));
        let seconds = number("OUTBOXD_CHAOS_SECONDS").unwrap_or(if is_long() { 240 } else { 40 });
        Settings {
            time: Duration::from_secs(seconds),
            seed: number("OUTBOXD_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..)),
            // a kind takes about ten seconds with what comes after it
            least: seconds as usize / (15 * Kind::ALL.len()),
            report: std::env::var_os("OUTBOXD_CHAOS_REPORT").map(PathBuf::from),
        }
    }

    /// A run of minutes makes all kinds.
    fn kinds(&self) -> Vec<Kind> {
        let is_short = self.time < Duration::from_secs(120);
        Kind::ALL.into_iter().filter(|kind| kind.most() > 0 && !(is_short && kind.is_slow())).collect()
    }
}

#[test]
fn any_two_faults_together_leave_each_event_published_once_on_three_of_each() {
    let settings = Settings::from_environment();
    println!("chaos: seed {}, {:?}", settings.seed, settings.time);
    let mut world = World::start(settings.seed);
    let mut tally = Tally::new(settings.kinds());
    world.stage.write();
    world.stage.wait_for_batches(5, SOON);
    let start = Instant::now();
    let is_over =
        |tally: &Tally| start.elapsed() >= settings.time && (tally.least() >= settings.least || is_hopeless(&settings, start));
    let mut alone = tally.kinds().to_vec();
    world.chance.shuffle(&mut alone);
    for kind in alone {
        if !is_over(&tally) {
            deal(&mut world, &mut tally, &[kind]);
            world.stage.wait_for_batches(2, SOON);
        }
    }
    while !is_over(&tally) {
        let pair = [tally.draw(&mut world.chance), tally.draw(&mut world.chance)];
        deal(&mut world, &mut tally, &pair);
        // mostly the next ones fall while these are not got over; now and then everything comes to rest
        match world.chance.u8(0..3) {
            0 => world.stage.wait_for_batches(2, SOON),
            _ => let_pass(Duration::from_millis(world.chance.u64(0..1500))),
        }
    }
    let report = finish(world, tally, &settings, start.elapsed());
    report.tell(settings.report.as_deref());
    report.expect_nothing_wrong();
    assert!(report.least() >= settings.least, "not {} of each kind", settings.least);
}

/// Some kinds need what does not always come, so a run ends when it has taken four times what it was asked for.
fn is_hopeless(settings: &Settings, start: Instant) -> bool {
    start.elapsed() > 4 * settings.time
}

/// Strikes with each, lets them last, heals each. Counts what really happened.
fn deal(world: &mut World, tally: &mut Tally, kinds: &[Kind]) {
    let mut under = Vec::new();
    let mut lasts = Duration::ZERO;
    for kind in kinds {
        if let Some(what) = world.strike(*kind) {
            under.push((*kind, what));
            lasts = lasts.max(kind.lasts(&mut world.chance));
        } else {
            tally.missed(*kind);
        }
    }
    let_pass(lasts);
    let struck: Vec<Kind> = under.into_iter().filter_map(|(kind, what)| world.heal(what).then_some(kind)).collect();
    kinds.iter().filter(|kind| !struck.contains(kind)).for_each(|kind| println!("chaos: {} did not happen", kind.name()));
    tally.struck(&struck);
}

/// Everything is healed: waits for the end of the work, and looks at all of it.
fn finish(mut world: World, tally: Tally, settings: &Settings, took: Duration) -> Report {
    world.stage.wait_for_batches(3, SOON);
    world.stage.stop_writing();
    let stopped = Instant::now();
    crate::support::eventually("everything is published", SOON, || world.stage.pending() == 0);
    let drained = stopped.elapsed();
    let mut violations = world.stage.violations(world.lost_some);
    violations.extend(world.vanished());
    Report::new(&world, tally, violations, report::Times { seed: settings.seed, took, drained })
}
