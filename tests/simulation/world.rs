//! One simulated world. Everything that happens in it happens at one instant, under one lock; what takes time lies between two instants.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::breach::Breach;
use super::database::Database;
use super::kafka::Cluster;
use super::mutants::Mutant;
use super::plan::Plan;
use super::violation::{Class, Violation};

/// How often each situation really came about.
pub type Hits = BTreeMap<String, u64>;

/// What is done at an instant to come, whoever waits for it or has died since.
pub type Deed = Box<dyn FnOnce(&mut World) + Send>;

/// What a service inserted, whatever became of it.
#[derive(Clone, Debug)]
pub struct Happened {
    pub id: Uuid,
    pub topic: &'static str,
    pub key: Option<String>,
    /// In which transaction.
    pub transaction: u64,
    /// Step at which its INSERT began.
    pub inserted: u64,
    /// Step at which its transaction became visible.
    pub committed: Option<u64>,
    /// The database has lost it since, by a failover or a restore.
    pub lost: bool,
    /// A person gave it up.
    pub discarded: bool,
    /// A look finds that it can never be published.
    pub unfit: bool,
    /// The brokers refuse it.
    pub refused: bool,
}

/// Where a process stands in the course of a batch: windows of docs/guarantees.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Elsewhere,
    Fencing,
    Claiming,
    Settling,
    Sending,
    Acknowledged,
    Committing,
    Committed,
}

/// One relay process as the world sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    pub leading: bool,
    pub stage: Stage,
    /// It is to end at once: its configuration is another one.
    pub doomed: bool,
    /// Beside that, a mark is under way.
    pub marking: bool,
}

impl Process {
    /// In words.
    pub fn told(self) -> String {
        format!("{:?}{}", self.stage, if self.marking { " and marking" } else { "" })
    }
}

/// Everything there is.
pub struct World {
    pub plan: Plan,
    pub chance: fastrand::Rng,
    pub now: Instant,
    pub database: Database,
    pub kafka: Cluster,
    pub happened: Vec<Happened>,
    pub processes: Vec<Process>,
    pub hits: Hits,
    pub violations: Vec<Violation>,
    /// Until when the database, and Kafka, cannot be reached.
    pub down: [Instant; 2],
    /// What a standby, or a backup, has of the database, with the step it stood at.
    pub copies: Vec<(u64, Database)>,
    /// Another database with the same past: an old primary that lives on, or a copy. Some processes are led to it.
    pub other: Option<Database>,
    pub astray: Vec<bool>,
    /// There was one.
    pub divided: bool,
    /// A relay of the other database trimmed the journal.
    pub trimmed_astray: bool,
    /// When a leader that lags behind last answered.
    pub misled: Option<Instant>,
    /// Topics whose growth a person has accepted.
    pub repinned: BTreeSet<&'static str>,
    /// Something of the database was lost by a failover.
    pub lossy: bool,
    /// By a restore from a backup.
    pub restored: bool,
    /// The ground has given way, and events that this may have lost or doubled.
    pub breached: Option<Breach>,
    pub excused: BTreeSet<usize>,
    /// No more faults from now on.
    pub healed: bool,
    begun: Instant,
    /// Of everything that came about, and when.
    trace: DefaultHasher,
    step: u64,
    agenda: BTreeMap<(Instant, u64), Deed>,
}

/// The world as everybody in it holds it.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<World>>);

impl Handle {
    pub fn new(plan: Plan) -> Self {
        let now = Instant::now();
        // another stream than the plan's
        let chance = fastrand::Rng::with_seed(plan.seed);
        let world = World {
            chance,
            now,
            database: Database::new(),
            kafka: Cluster::default(),
            happened: Vec::new(),
            processes: vec![Process::default(); plan.processes],
            hits: Hits::new(),
            violations: Vec::new(),
            down: [now; 2],
            copies: Vec::new(),
            other: None,
            astray: vec![false; plan.processes],
            divided: false,
            trimmed_astray: false,
            misled: None,
            repinned: BTreeSet::new(),
            lossy: false,
            restored: false,
            breached: None,
            excused: BTreeSet::new(),
            healed: false,
            begun: now,
            trace: DefaultHasher::new(),
            step: 0,
            agenda: BTreeMap::new(),
            plan,
        };
        Self(Arc::new(Mutex::new(world)))
    }

    /// The world as it is now: what was due by now is done.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        let mut world = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        world.catch_up(Instant::now());
        world
    }
}

impl World {
    fn catch_up(&mut self, now: Instant) {
        while let Some(first) = self.agenda.first_entry().filter(|first| first.key().0 <= now) {
            let ((due, _), deed) = first.remove_entry();
            self.now = due.max(self.now);
            deed(self);
        }
        self.now = now.max(self.now);
    }

    /// Does something later.
    pub fn later(&mut self, after: Duration, deed: impl FnOnce(&mut World) + Send + 'static) {
        let step = self.step();
        self.agenda.insert((self.now + after, step), Box::new(deed));
    }

    /// The next number of everything that happens, in order.
    pub fn step(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    /// Tells two runs apart: all that came about, all records, and what chance would say next.
    pub fn digest(&mut self) -> u64 {
        let mut trace = self.trace.clone();
        let records = self.kafka.lanes.iter().flat_map(|lane| &lane.records);
        records.for_each(|stored| format!("{stored:?}").hash(&mut trace));
        (self.step(), self.chance.u64(..)).hash(&mut trace);
        trace.finish()
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.chance.u32(0..1000) < per_mille
    }

    /// A while between two bounds, in milliseconds.
    pub fn ms(&mut self, range: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.chance.u64(range))
    }

    /// The world as a process sees it: who is led to another database takes that for the database.
    pub fn seen_by<T>(&mut self, process: usize, effect: impl FnOnce(&mut World) -> T) -> T {
        let Some(other) = self.other.take_if(|_| self.astray[process]) else { return effect(self) };
        let real = std::mem::replace(&mut self.database, other);
        let done = effect(self);
        self.other = Some(std::mem::replace(&mut self.database, real));
        done
    }

    /// Counts a situation.
    pub fn hit(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.tell(|| what.clone());
        (self.now - self.begun, &what).hash(&mut self.trace);
        *self.hits.entry(what).or_default() += 1;
    }

    /// For a person who replays a seed.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.plan.told {
            println!("{:>9.3} {}", (self.now - self.begun).as_secs_f64(), what());
        }
    }

    /// Something that must never be.
    pub fn violated(&mut self, class: Class, what: String) {
        self.tell(|| format!("VIOLATION {class:?}: {what}"));
        self.violations.push(class.is(what));
    }

    /// Whether this run is to break a rule.
    pub fn is(&self, mutant: Mutant) -> bool {
        self.plan.mutants.contains(&mutant)
    }

    /// Where a process stands now.
    pub fn stage(&mut self, process: usize, stage: Stage) {
        self.processes[process].stage = stage;
    }

    /// The event with this identity.
    pub fn event(&mut self, id: Uuid) -> &mut Happened {
        let index = index_of(id);
        &mut self.happened[index]
    }
}

/// The low half of an event's identity is its place in the list of all.
pub fn index_of(id: Uuid) -> usize {
    id.as_u64_pair().1 as usize
}
