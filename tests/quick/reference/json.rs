//! Every field that the code writes as JSON has its row in `docs/reference/json.md`, and every row its field.

use std::collections::{BTreeMap, BTreeSet};

/// The parts of the page, and the files whose fields they tell.
const PARTS: [(&str, &[&str]); 10] = [
    ("outboxd status --json", &["src/commands/status.rs"]),
    ("outboxd parked --json", &["src/commands/parked.rs"]),
    ("outboxd send --json", &["src/commands/send.rs"]),
    ("outboxd verify --json", &["src/verify/show.rs"]),
    ("outboxd trace --json", &["src/trace/show.rs"]),
    ("outboxd check --json", &["src/check/show.rs"]),
    ("outboxd config show --json", &["src/config/show.rs"]),
    ("outboxd healthcheck --json", &["src/commands/healthcheck.rs"]),
    ("/healthz and /readyz", &["src/http/health.rs"]),
    ("Errors over HTTP", &["src/http.rs"]),
];

/// Names in front of a colon inside `json!`, in the code without comments and tests.
fn written(path: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(super::repository(path)).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(names).collect()
}

fn names(line: &str) -> Vec<String> {
    let pieces: Vec<&str> = line.split('"').collect();
    let is_name = |i: &usize| i % 2 == 1 && pieces.get(i + 1).is_some_and(|next| next.starts_with(':') && !next.starts_with("::"));
    (0..pieces.len()).filter(is_name).map(|i| pieces[i].to_owned()).collect()
}

/// The last parts of the paths in the first cells, by heading.
fn told(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let parts = page.split("\n## ").skip(1);
    let rows = |part: &str| {
        let cells = part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(cell, _)| cell.to_owned()));
        cells.map(|cell| cell.rsplit(['.', ']']).next().unwrap().to_owned()).collect()
    };
    parts.map(|part| (part.lines().next().unwrap().replace('`', ""), rows(part))).collect()
}

#[test]
fn every_field_of_json_has_its_row_and_every_row_its_field() {
    let told = told(&std::fs::read_to_string(super::repository("docs/reference/json.md")).unwrap());
    for (heading, files) in PARTS {
        let written: BTreeSet<String> = files.iter().flat_map(|file| written(file)).collect();
        assert!(written.len() > 1, "the test looks at the wrong place: {heading}");
        assert_eq!(told.get(heading), Some(&written), "{heading}");
    }
    let known: BTreeSet<&str> = PARTS.iter().map(|(heading, _)| *heading).collect();
    assert_eq!(told.keys().map(String::as_str).collect::<BTreeSet<_>>(), known);
}

#[test]
fn names_of_fields_are_found() {
    assert_eq!(names(r#"json!({ "a": one, "b": two["c"], "d": "e" })"#), ["a", "b", "d"]);
    assert_eq!(names(r#"format!("{x}: y")"#), [""; 0]);
}
