//! Chaos: a database with a standby, three brokers, three relays, writers, a reader, and a proxy on every connection; each fault of the
//! matrix alone, then two at once, until the time is over; and a report of what happened and of what the checker found, also where the run
//! itself came to an end before that.
//!
//! `scripts/chaos` says how long and with which seed. The seed draws the faults; threads and servers go their own way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::stage::{Mark, is_long};
use crate::support::disk::Disk;
use crate::support::{let_pass, place};

mod fault;
mod healing;
mod report;
mod striking;
mod tally;
mod verdict;
mod watcher;
mod windows;
mod world;

use fault::Kind;
use report::Report;
use tally::Tally;
use verdict::Verdict;
use world::World;

/// How long the relays may take to go on after a fault is healed.
const SOON: Duration = Duration::from_secs(90);
/// How often a kind that could not be made is tried before the next one.
const TRIES: usize = 3;

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

    /// A run of minutes makes all kinds that this machine can make.
    fn kinds(&self) -> Vec<Kind> {
        let is_short = self.time < Duration::from_secs(120);
        let can_be =
            |kind: &Kind| kind.most() > 0 && (*kind != Kind::LogDiskFull || Disk::mount(&place::folder("trial"), 1).is_ok());
        Kind::ALL.into_iter().filter(|kind| can_be(kind) && !(is_short && kind.is_slow())).collect()
    }

    /// What becomes of published rows: one half of the seeds each.
    fn mark(&self) -> Mark {
        if self.seed.is_multiple_of(2) { Mark::Delete } else { Mark::Row }
    }
}

#[test]
fn any_two_faults_together_leave_each_event_published_once_on_three_of_each() {
    let settings = Settings::from_environment();
    println!("chaos: seed {}, {:?}", settings.seed, settings.time);
    let mut world = World::start(&settings);
    let mut tally = Tally::new(settings.kinds());
    let start = Instant::now();
    let dealt = attempt("dealing", || Round { settings: &settings, start }.deal_all(&mut world, &mut tally));
    let took = start.elapsed();
    let verdict = match attempt("the end", || verdict::reach(&mut world)) {
        Ok(verdict) => verdict,
        Err(why) => attempt("a look", || verdict::look_only(&mut world)).unwrap_or_else(Verdict::of_nothing).and(why),
    };
    let verdict = dealt.err().into_iter().fold(verdict, Verdict::and);
    let report = Report::new(&world, tally, verdict, &settings, took);
    report.tell(settings.report.as_deref());
    world.windows.keep_if(!report.is_clean(), &report.everything_wrong(), &world.stage);
    report.expect_nothing_wrong();
    assert!(report.least() >= settings.least, "not {} of each kind", settings.least);
}

/// Does something that may panic: a run that ends in the middle has a report too.
fn attempt<T>(what: &str, step: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        format!("{what} ended: {}", text.unwrap_or("no word"))
    })
}

/// The time in which faults are dealt.
struct Round<'a> {
    settings: &'a Settings,
    start: Instant,
}

impl Round<'_> {
    /// Each kind alone, then pairs.
    fn deal_all(&self, world: &mut World, tally: &mut Tally) {
        world.stage.write();
        world.wait_for_batches(5);
        let mut alone = tally.kinds().to_vec();
        world.chance.shuffle(&mut alone);
        for kind in alone {
            for _ in 0..TRIES {
                if !self.is_over(tally) && tally.count(kind) == 0 {
                    self.deal(world, tally, &[kind]);
                    world.wait_for_batches(2);
                }
            }
        }
        while !self.is_over(tally) {
            let pair = tally.draw_two(&mut world.chance);
            self.deal(world, tally, &pair);
            // mostly the next ones fall while these are not got over; now and then everything comes to rest
            match world.chance.u8(0..3) {
                0 => world.wait_for_batches(2),
                _ => let_pass(Duration::from_millis(world.chance.u64(0..1500))),
            }
        }
    }

    /// Some kinds need what does not always come, so a run ends when it has taken twice what it was asked for.
    fn is_over(&self, tally: &Tally) -> bool {
        let (elapsed, time) = (self.start.elapsed(), self.settings.time);
        elapsed >= 2 * time || (elapsed >= time && tally.least() >= self.settings.least)
    }

    /// Strikes with each, lets them last, heals each. Counts what really happened.
    fn deal(&self, world: &mut World, tally: &mut Tally, kinds: &[Kind]) {
        let mut lasts = Duration::ZERO;
        for kind in kinds {
            if let Some(what) = world.strike(*kind) {
                world.under.push_back((*kind, what));
                lasts = lasts.max(kind.lasts(&mut world.chance));
            }
        }
        let_pass(lasts);
        let struck = world.heal_all();
        tally.dealt(kinds, &struck);
        let told: Vec<String> = kinds.iter().map(|kind| tell(*kind, struck.contains(kind))).collect();
        let (elapsed, time) = (self.start.elapsed().as_secs(), self.settings.time.as_secs());
        let left = time.saturating_sub(elapsed);
        println!("chaos: {elapsed} s, {left} s left: {}; {} faults", told.join(", "), tally.total());
    }
}

fn tell(kind: Kind, happened: bool) -> String {
    if happened { kind.name() } else { format!("({} did not happen)", kind.name()) }
}
