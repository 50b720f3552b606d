//! What a run tells: events, faults by kind, windows that were hit, violations by class, seed and versions; as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::Settings;
use super::fault::Kind;
use super::tally::Tally;
use super::verdict::Verdict;
use super::world::World;
use crate::checker;

/// A run that is over.
pub struct Report {
    tally: Tally,
    verdict: Verdict,
    seed: u64,
    /// How long faults were dealt.
    took: Duration,
    /// Why relays claimed, and at which points they died, by the log.
    windows: BTreeMap<String, usize>,
    versions: BTreeMap<&'static str, String>,
}

impl Report {
    /// Gathers what is to be told.
    pub fn new(world: &World, tally: Tally, verdict: Verdict, settings: &Settings, took: Duration) -> Report {
        let windows = world.windows.counts().clone();
        Report { tally, verdict, seed: settings.seed, took, windows, versions: versions(world, settings) }
    }

    /// How often the rarest kind happened.
    pub fn least(&self) -> usize {
        self.tally.least()
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.verdict.violations.is_empty() && self.verdict.wrong.is_empty()
    }

    /// One line for each thing that is wrong.
    pub fn everything_wrong(&self) -> String {
        let violations = self.verdict.violations.iter().map(ToString::to_string);
        self.verdict.wrong.iter().cloned().chain(violations).collect::<Vec<_>>().join("\n")
    }

    /// # Panics
    /// If anything is wrong.
    pub fn expect_nothing_wrong(&self) {
        let wrong = self.everything_wrong();
        let shown: Vec<&str> = wrong.lines().take(20).collect();
        let count = self.verdict.violations.len();
        assert!(self.is_clean(), "seed {}: {count} violations:\n{}", self.seed, shown.join("\n"));
    }

    /// Prints the report, and writes it into a folder as `chaos-SEED.md` and `chaos-SEED.json`.
    pub fn tell(&self, folder: Option<&Path>) {
        let text = self.text();
        println!("{text}");
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let file = folder.join(format!("chaos-{}", self.seed));
            std::fs::write(file.with_extension("md"), text).unwrap();
            std::fs::write(file.with_extension("json"), serde_json::to_string_pretty(&self.json()).unwrap()).unwrap();
        }
    }

    fn classes(&self) -> BTreeMap<String, usize> {
        let mut classes: BTreeMap<String, usize> = checker::Kind::ALL.iter().map(|kind| (format!("{kind:?}"), 0)).collect();
        self.verdict.violations.iter().for_each(|wrong| *classes.entry(format!("{:?}", wrong.kind)).or_default() += 1);
        classes
    }

    fn faults(&self) -> Vec<(String, usize, usize)> {
        Kind::ALL.iter().map(|kind| (kind.name(), self.tally.count(*kind), self.tally.missed(*kind))).collect()
    }

    fn json(&self) -> Value {
        let faults: Vec<Value> = self
            .faults()
            .into_iter()
            .map(|(kind, struck, missed)| json!({"kind": kind, "happened": struck, "not_possible_then": missed}))
            .collect();
        json!({
            "seed": self.seed,
            "seconds": self.took.as_secs(),
            "drained_seconds": self.verdict.drained.map(|time| time.as_secs_f64()),
            "versions": self.versions,
            "events": self.verdict.events,
            "faults": faults,
            "faults_at_once": self.tally.pairs(),
            "windows": self.windows,
            "violations": self.classes(),
            "verify": self.verdict.verified,
            "wrong": self.verdict.wrong,
            "first_violations": self.verdict.violations.iter().take(20).map(ToString::to_string).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let drained = self.verdict.drained.map_or("not everything was published".to_owned(), |time| {
            format!("everything was published {:.1} s after the writers had stopped", time.as_secs_f64())
        });
        let mut text = format!(
            "# Chaos, seed {}\n\n{} faults in {} s, {} times two at once; {drained}. {} violations.\n",
            self.seed,
            self.tally.total(),
            self.took.as_secs(),
            self.tally.pairs(),
            self.verdict.violations.len()
        );
        self.verdict.wrong.iter().for_each(|wrong| text += &format!("\nWRONG: {wrong}\n"));
        table(&mut text, "Violations by class", "class", self.classes());
        for wrong in self.verdict.violations.iter().take(20) {
            let _ = writeln!(text, "- {wrong}");
        }
        table(&mut text, "What `outboxd verify` counts", "what", self.verdict.verified.clone());
        table(&mut text, "Events", "which", self.verdict.events.clone());
        let _ = write!(text, "\n## Faults\n\n| kind | happened | could not be made then |\n|---|---|---|\n");
        for (kind, struck, missed) in self.faults() {
            let _ = writeln!(text, "| {kind} | {struck} | {missed} |");
        }
        table(&mut text, "Windows: why relays claimed, where they died", "window", self.windows.clone());
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

fn versions(world: &World, settings: &Settings) -> BTreeMap<&'static str, String> {
    let server = world.stage.postgres.try_sql("postgres", "SHOW server_version").unwrap_or_else(|_| "it does not answer".into());
    BTreeMap::from([
        ("outboxd", env!("CARGO_PKG_VERSION").to_owned()),
        ("commit", std::env::var("OUTBOXD_CHAOS_COMMIT").unwrap_or_else(|_| "not told".into())),
        ("published rows", format!("{:?}", settings.mark())),
        ("failpoints", cfg!(feature = "failpoints").to_string()),
        ("PostgreSQL, a primary and a standby", server),
        ("Apache Kafka, three brokers", crate::support::kafka::VERSION.to_owned()),
        ("librdkafka", rdkafka::util::get_rdkafka_version().1),
        ("processors", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
    ])
}
