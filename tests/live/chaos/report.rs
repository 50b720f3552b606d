//! What a run tells: events, faults by kind, windows that were hit, violations by class, seed and versions; as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use super::fault::{ELSEWHERE, Kind};
use super::world::World;
use crate::checker::{self, Violation};
use crate::truth::Fate;

/// How often what was done.
pub struct Tally {
    kinds: Vec<Kind>,
    struck: BTreeMap<Kind, usize>,
    missed: BTreeMap<Kind, usize>,
    pairs: usize,
}

impl Tally {
    /// Of a run that makes these kinds.
    pub fn new(kinds: Vec<Kind>) -> Tally {
        Tally { kinds, struck: BTreeMap::new(), missed: BTreeMap::new(), pairs: 0 }
    }

    /// What the run makes.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// These happened, together.
    pub fn struck(&mut self, kinds: &[Kind]) {
        kinds.iter().for_each(|kind| *self.struck.entry(*kind).or_default() += 1);
        self.pairs += usize::from(kinds.len() == 2);
    }

    /// It could not be made.
    pub fn missed(&mut self, kind: Kind) {
        *self.missed.entry(kind).or_default() += 1;
    }

    fn count(&self, kind: Kind) -> usize {
        self.struck.get(&kind).copied().unwrap_or(0)
    }

    /// Of the kinds that can be made any number of times, how often the rarest one happened.
    pub fn least(&self) -> usize {
        self.kinds.iter().filter(|kind| kind.most() == usize::MAX).map(|kind| self.count(*kind)).min().unwrap_or(0)
    }

    /// By chance one of those that happened least often, or just one.
    pub fn draw(&self, chance: &mut Rng) -> Kind {
        let can_be: Vec<Kind> = self.kinds.iter().copied().filter(|kind| self.count(*kind) < kind.most()).collect();
        let fewest = can_be.iter().map(|kind| self.count(*kind)).min().unwrap_or(0);
        let rare: Vec<Kind> = can_be.iter().copied().filter(|kind| self.count(*kind) == fewest).collect();
        let among = if chance.bool() { rare } else { can_be };
        *chance.choice(&among).expect("there are kinds")
    }
}

/// When what was.
pub struct Times {
    /// From which the faults were drawn.
    pub seed: u64,
    /// How long faults were dealt.
    pub took: Duration,
    /// From the writers' end until everything was published.
    pub drained: Duration,
}

/// A run that is over.
pub struct Report {
    tally: Tally,
    violations: Vec<Violation>,
    times: Times,
    events: BTreeMap<&'static str, usize>,
    /// Why relays claimed, and at which points they died, by the log.
    windows: BTreeMap<String, usize>,
    versions: BTreeMap<&'static str, String>,
}

impl Report {
    /// Gathers what is to be told.
    pub fn new(world: &World, tally: Tally, violations: Vec<Violation>, times: Times) -> Report {
        Report { tally, violations, times, events: events(world), windows: windows(world), versions: versions(world) }
    }

    /// How often the rarest kind happened.
    pub fn least(&self) -> usize {
        self.tally.least()
    }

    /// # Panics
    /// If the checker found anything.
    pub fn expect_nothing_wrong(&self) {
        let shown: Vec<String> = self.violations.iter().take(20).map(ToString::to_string).collect();
        assert!(shown.is_empty(), "seed {}: {} violations:\n{}", self.times.seed, self.violations.len(), shown.join("\n"));
    }

    /// Prints the report, and writes it into a folder as `chaos-SEED.md` and `chaos-SEED.json`.
    pub fn tell(&self, folder: Option<&Path>) {
        let text = self.text();
        println!("{text}");
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let file = folder.join(format!("chaos-{}", self.times.seed));
            std::fs::write(file.with_extension("md"), text).unwrap();
            std::fs::write(file.with_extension("json"), serde_json::to_string_pretty(&self.json()).unwrap()).unwrap();
        }
    }

    fn classes(&self) -> BTreeMap<String, usize> {
        let mut classes: BTreeMap<String, usize> = checker::Kind::ALL.iter().map(|kind| (format!("{kind:?}"), 0)).collect();
        self.violations.iter().for_each(|wrong| *classes.entry(format!("{:?}", wrong.kind)).or_default() += 1);
        classes
    }

    fn faults(&self) -> Vec<(String, usize, usize)> {
        let missed = |kind: Kind| self.tally.missed.get(&kind).copied().unwrap_or(0);
        Kind::ALL.iter().map(|kind| (kind.name(), self.tally.count(*kind), missed(*kind))).collect()
    }

    fn json(&self) -> Value {
        let faults: Vec<Value> = self
            .faults()
            .into_iter()
            .map(|(kind, struck, missed)| json!({"kind": kind, "happened": struck, "not_possible_then": missed}))
            .collect();
        let elsewhere: Vec<Value> = ELSEWHERE.iter().map(|(kind, place)| json!({"kind": kind, "instead": place})).collect();
        json!({
            "seed": self.times.seed,
            "seconds": self.times.took.as_secs(),
            "drained_seconds": self.times.drained.as_secs_f64(),
            "versions": self.versions,
            "events": self.events,
            "faults": faults,
            "faults_at_once": self.tally.pairs,
            "faults_elsewhere": elsewhere,
            "windows": self.windows,
            "violations": self.classes(),
            "first_violations": self.violations.iter().take(20).map(ToString::to_string).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let total: usize = self.tally.struck.values().sum();
        let mut text = format!(
            "# Chaos, seed {}\n\n{total} faults in {} s, {} times two at once; everything was published {:.1} s after the writers had stopped. \
             {} violations.\n",
            self.times.seed,
            self.times.took.as_secs(),
            self.tally.pairs,
            self.times.drained.as_secs_f64(),
            self.violations.len()
        );
        table(&mut text, "Violations by class", "class", self.classes());
        for wrong in self.violations.iter().take(20) {
            let _ = writeln!(text, "- {wrong}");
        }
        table(&mut text, "Events", "which", self.events.clone());
        let _ = write!(text, "\n## Faults\n\n| kind | happened | could not be made then |\n|---|---|---|\n");
        for (kind, struck, missed) in self.faults() {
            let _ = writeln!(text, "| {kind} | {struck} | {missed} |");
        }
        table(&mut text, "Windows: why relays claimed, where they died", "window", self.windows.clone());
        let _ = write!(text, "\n## Kinds that this run does not make\n\n| kind | instead |\n|---|---|\n");
        for (kind, place) in ELSEWHERE {
            let _ = writeln!(text, "| {kind} | {place} |");
        }
        table(&mut text, "Versions", "of", self.versions.clone());
        text
    }
}

fn table<K: std::fmt::Display, V: std::fmt::Display>(text: &mut String, title: &str, column: &str, rows: BTreeMap<K, V>) {
    let _ = write!(text, "\n## {title}\n\n| {column} | |\n|---|---|\n");
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {value} |");
    }
}

fn events(world: &World) -> BTreeMap<&'static str, usize> {
    let seen: std::collections::HashSet<_> = world.stage.seen().iter().filter_map(|record| record.id()).collect();
    let count = |fate: Fate| world.stage.written().iter().filter(move |event| event.fate == fate);
    let lost = count(Fate::Unknown);
    BTreeMap::from([
        ("inserted", world.stage.written().len()),
        ("committed", count(Fate::Committed).count()),
        ("rolled back", count(Fate::RolledBack).count()),
        ("published", seen.len()),
        ("lost by the database, or never acknowledged", lost.clone().count()),
        ("published and lost by the database: phantoms, the allowed class", lost.filter(|event| seen.contains(&event.id)).count()),
    ])
}

/// Log lines say why a relay claimed, which batches a claim found unmarked, and which failpoint did something.
fn windows(world: &World) -> BTreeMap<String, usize> {
    let mut windows = BTreeMap::new();
    for log in world.all_logs() {
        for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let word = |name: &str| line[name].as_str().unwrap_or("?").to_owned();
            let window = match line["message"].as_str() {
                Some("claimed") => format!("claimed: {}", word("cause")),
                Some("failpoint") => format!("died at: {}", word("point")),
                Some(message) if message.starts_with("the database went back in time") => "the database went back".to_owned(),
                Some("halted" | "looking again before halting") => format!("suspected: {}", word("code")),
                Some("the proof scan found events below the cursor that nobody waited for") => "RESCUED".to_owned(),
                _ => continue,
            };
            *windows.entry(window).or_default() += 1;
        }
    }
    windows
}

fn versions(world: &World) -> BTreeMap<&'static str, String> {
    let server = world.stage.postgres.sql("postgres", "SHOW server_version");
    BTreeMap::from([
        ("outboxd", env!("CARGO_PKG_VERSION").to_owned()),
        ("commit", std::env::var("OUTBOXD_CHAOS_COMMIT").unwrap_or_else(|_| "not told".into())),
        ("failpoints", cfg!(feature = "failpoints").to_string()),
        ("PostgreSQL, a primary and a standby", server),
        ("Apache Kafka, three brokers", crate::support::kafka::VERSION.to_owned()),
        ("librdkafka", rdkafka::util::get_rdkafka_version().1),
        ("processors", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
    ])
}
