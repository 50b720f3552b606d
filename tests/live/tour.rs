//! What the documents tell to type is typed here: the tour of the README from its first line to its last, and recipes in SQL.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::history;
use crate::stage::answer;
use crate::support::{DaemonOptions, Kafka, Postgres, Version, place, process};

/// The blocks in this language below a heading, up to the next one.
fn blocks<'a>(page: &'a str, heading: &str, language: &str) -> Vec<&'a str> {
    let part = page.split("\n## ").find(|part| part.lines().next() == Some(heading)).expect("the heading is there");
    part.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().expect("a block ends")).collect()
}

/// A folder that stands for the repository: a person's own servers must not be met.
struct Repository(PathBuf);

impl Repository {
    fn new() -> Self {
        let folder = place::folder("tour");
        std::fs::create_dir_all(folder.join("scripts")).unwrap();
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/servers"), folder.join("scripts/servers")).unwrap();
        Self(folder)
    }

    /// Runs lines as a person types them, one after the other, and stops at the first that fails. Returns what they print.
    fn type_in(&self, lines: &str, environment: &[(&str, &str)]) -> String {
        let mut bash = Command::new("timeout");
        std::fs::write(self.0.join("typed"), lines).unwrap();
        bash.args(["-k", "10", "240", "bash", "-m", "typed"]).current_dir(&self.0).envs(environment.iter().copied());
        let output = bash.stdin(Stdio::null()).output().unwrap();
        let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{said}\n{log}", output.status);
        said.into_owned()
    }
}

impl Drop for Repository {
    /// Whatever was left running when something failed.
    fn drop(&mut self) {
        let mut down = Command::new(self.0.join("scripts/servers"));
        down.args(["down", "--purge"]);
        if let Err(error) = process::try_run(down) {
            eprintln!("{error}");
        }
    }
}

#[test]
fn the_first_command_of_the_readme_ends_well() {
    let block = blocks(include_str!("../../README.md"), "See it work", "sh").concat();
    let command = block.strip_prefix("cargo run --release -- ").expect("the binary of this build can be run instead");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    demo.args(command.split_whitespace()).args(["--seconds", "4"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = demo.output().unwrap();
    let verdict = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && verdict.contains("\nGood: "), "{}\n{verdict}", output.status);
}

#[test]
fn the_tour_of_the_readme_is_as_it_says() {
    let blocks = blocks(include_str!("../../README.md"), "Three minutes with real servers", "sh");
    let (build, typed): (Vec<&str>, Vec<&str>) =
        blocks.iter().flat_map(|block| block.lines()).partition(|line| line.starts_with("cargo "));
    assert!(build == ["cargo build --release"] && typed.len() > 10, "{build:?} {typed:?}");
    // a port that nobody has, and the binary of these tests
    let port = place::free_port().to_string();
    let listen = format!("127.0.0.1:{port}");
    let folder = Path::new(env!("CARGO_BIN_EXE_outboxd")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let lines: Vec<String> =
        typed.iter().filter(|line| !line.starts_with("export PATH=")).map(|line| line.replace("9640", &port)).collect();
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}\n", lines.join("\n"));
    let repository = Repository::new();
    let environment = [("PATH", path.as_str()), ("OUTBOXD__HTTP__LISTEN", &listen), ("OUTBOXD_CONFIG", "/dev/null")];
    let said = repository.type_in(&script, &environment);
    let event = said.lines().find(|line| line.starts_with("Partition:")).unwrap_or_else(|| panic!("no event: {said}"));
    assert!(event.contains("type:OrderPlaced") && event.ends_with("| order-42 | {\"total\": 3}"), "{event}");
    assert!(said.contains("is relayed by"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("outboxd_events_published_total{") && line.ends_with(" 1")), "{said}");
    assert!(!repository.0.join(".servers").exists(), "the servers' data are gone");
}

#[test]
fn a_copy_is_made_an_outbox_of_its_own_as_the_page_says() {
    let recipe = blocks(include_str!("../../docs/operating.md"), "A copy of production", "sql");
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    let database = postgres.create_database("copied");
    let topic = kafka.unique_topic("copied");
    let options = |name: &str| DaemonOptions::new(name, &postgres.url(&database, "postgres"), &kafka.brokers());
    let production = options(&topic);
    answer(&production, &["migrate", "--topics", &format!("{topic}:1")]);
    let send = |options: &DaemonOptions, payload: &str| answer(options, &["send", "--topic", &topic, payload]);
    send(&production, "1");
    answer(&production, &["run", "--once"]);
    send(&production, "2");
    // what production would publish next is what the copy must not publish
    for sql in &recipe {
        postgres.sql(&database, sql);
    }
    let (code, _, stderr) = production.run_command(&["run", "--once"]);
    assert!(code == 78, "production's name is not known in the copy: {code} {stderr}");
    let copy = options(&kafka.unique_topic("staging"));
    assert!(answer(&copy, &["migrate"]).contains("done: 0001 outbox"));
    answer(&copy, &["run", "--once"]);
    send(&copy, "3");
    answer(&copy, &["run", "--once"]);
    let payloads: Vec<_> =
        history::read(kafka, &topic, 1).iter().map(|seen| String::from_utf8(seen.payload.clone().unwrap()).unwrap()).collect();
    assert_eq!((recipe.len(), payloads), (1, vec!["1".to_owned(), "3".to_owned()]));
}
