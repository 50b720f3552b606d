//! What the documents name exists, and the databases' migrations march in step.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;

/// Paths in back ticks that start with one of our rooms, and relative links, lead somewhere.
pub fn named_paths_exist(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    if !path.ends_with(".md") || path == "CHANGELOG.md" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let linked = links(line).map(|link| beside(path, link));
        let named = back_ticked(line).filter(|word| in_a_room(word)).map(str::to_owned);
        let missing = linked.chain(named).filter(|named| !exists(named));
        findings.extend(missing.map(|named| Finding { line: i + 1, what: format!("{named} does not exist") }));
    }
    findings
}

/// The first word of each span in back ticks, without a trailing slash.
fn back_ticked(line: &str) -> impl Iterator<Item = &str> {
    let spans = line.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.split_whitespace().next()).map(|word| word.trim_end_matches(['/', ',', ';']))
}

fn in_a_room(word: &str) -> bool {
    const ROOMS: [&str; 8] = ["src/", "tests/", "migrations/", "config/", "docs/", "packaging/", "scripts/", ".ci/"];
    ROOMS.iter().any(|room| word.starts_with(room)) && !word.contains(['*', '{', '<', '…', '$'])
}

/// Targets of relative links.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

/// A link is relative to the document's folder.
fn beside(document: &str, link: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in link.split('/').filter(|part| !["", "."].contains(part)) {
        if part == ".." && !parts.is_empty() {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// `migrations/DATABASE/NNNN_title.sql`: each database has the same numbers and titles.
pub fn migrations_march_in_step(files: &[String]) -> Vec<String> {
    let mut databases: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (database, name) in files.iter().filter_map(|path| path.strip_prefix("migrations/")?.split_once('/')) {
        databases.entry(database).or_default().insert(name);
    }
    let all: BTreeSet<&str> = databases.values().flatten().copied().collect();
    let numbered = |name: &str| name.len() > 9 && name[..4].bytes().all(|b| b.is_ascii_digit()) && name[4..].starts_with('_');
    let misnamed = all.iter().filter(|name| !numbered(name)).map(|name| format!("migrations: {name} is not NNNN_title.sql"));
    let lacks = |(database, names): (&&str, &BTreeSet<&str>)| {
        all.difference(names).map(|name| format!("migrations/{database} lacks {name}")).collect::<Vec<_>>()
    };
    misnamed.chain(databases.iter().flat_map(lacks)).collect()
}

#[test]
fn a_missing_path_is_found() {
    let exists = |path: &str| ["src/relay.rs", "scripts/servers", "docs/guarantees.md", "README.md"].contains(&path);
    let good = "`src/relay.rs` `scripts/servers up` `src/{a,b}.rs` `cargo test` [g](docs/guarantees.md#why) [w](https://a.b/c)\n";
    assert_eq!(named_paths_exist("README.md", good, &exists), []);
    assert_eq!(named_paths_exist("docs/guarantees.md", "[up](../README.md) [here](guarantees.md)", &exists), []);
    let bad = "fine\n`src/gone.rs` and [x](docs/gone.md)\n";
    let found = named_paths_exist("README.md", bad, &exists);
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(named_paths_exist("src/a.rs", bad, &exists), []);
}

#[test]
fn a_missing_migration_is_found() {
    let files = |names: &[&str]| names.iter().map(|name| format!("migrations/{name}")).collect::<Vec<_>>();
    assert!(migrations_march_in_step(&files(&["postgres/0001_outbox.sql"])).is_empty());
    let found = migrations_march_in_step(&files(&["postgres/0001_outbox.sql", "sqlite/0001_outbox.sql", "sqlite/2_more.sql"]));
    assert_eq!(found, ["migrations: 2_more.sql is not NNNN_title.sql", "migrations/postgres lacks 2_more.sql"]);
}
