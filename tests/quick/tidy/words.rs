//! Words that have one place, or none.

use super::{Finding, code_lines};

/// SQL belongs to the seam's databases and the migrations; help texts may show an example, and the shop of the demo is a service.
pub fn sql_stays_in_the_source(path: &str, text: &str) -> Vec<Finding> {
    if path.starts_with("src/source/") || path.starts_with("src/cli") || path == "src/demo/table.rs" {
        return Vec::new();
    }
    find(path, text, "SQL outside src/source/", is_sql)
}

/// A statement's first words, as they stand in capitals: prose about them does not have both.
fn is_sql(line: &str) -> bool {
    const STATEMENTS: [(&str, &str); 9] = [
        ("SELECT ", " FROM "),
        ("INSERT INTO ", ""),
        ("UPDATE ", " SET "),
        ("DELETE FROM ", ""),
        ("CREATE ", " TABLE "),
        ("CREATE ", " INDEX "),
        ("ALTER TABLE ", ""),
        ("DROP TABLE ", ""),
        ("GRANT ", " ON "),
    ];
    let follows = |first: &str, then: &str| line.find(first).is_some_and(|at| line[at + first.len() - 1..].contains(then));
    STATEMENTS.iter().any(|(first, then)| follows(first, then)) || line.contains("sqlx::query") && line.contains('"')
}

/// Dashboards and alerts hang on the names: they are written once.
pub fn metric_names_stay_in_metrics(path: &str, text: &str) -> Vec<Finding> {
    if path == "src/metrics.rs" || path.starts_with("src/metrics/") {
        return Vec::new();
    }
    find(path, text, "a metric's name outside src/metrics.rs", |line| identifiers(line).any(is_metric))
}

fn is_metric(word: &str) -> bool {
    const ENDS: [&str; 8] = ["_total", "_seconds", "_events", "_bytes", "_gaps", "_topics", "_info", "_up"];
    const OTHERS: [&str; 4] = ["phase", "leader", "halted", "fetch_form"];
    let Some(rest) = word.strip_prefix("outboxd_") else { return false };
    ENDS.iter().any(|end| rest.ends_with(end)) || OTHERS.contains(&rest)
}

/// What can go wrong is a fault, and the relay knows what to do about it.
pub fn nothing_panics_on_purpose(path: &str, text: &str) -> Vec<Finding> {
    const WORDS: [&str; 6] = [".unwrap()", "todo!(", "dbg!(", "unimplemented!(", ".expect(\"\")", "panic!("];
    WORDS.iter().flat_map(|word| find(path, text, &format!("`{word}`"), |line| line.contains(word))).collect()
}

/// A note for later says what for.
pub fn todos_have_a_reason(path: &str, text: &str) -> Vec<Finding> {
    if path.starts_with("tests/quick/tidy") {
        return Vec::new();
    }
    let has_reason = |line: &str, word: &str| match line.split_once(word) {
        Some((_, rest)) => rest.starts_with(": ") && rest.split_whitespace().count() > 3,
        None => true,
    };
    let bare = text.lines().enumerate().filter(|(_, line)| !["TODO", "FIXME"].iter().all(|word| has_reason(line, word)));
    bare.map(|(i, _)| Finding { line: i + 1, what: "a TODO without its reason".to_owned() }).collect()
}

/// The heart is the same whatever stands on either side.
pub fn the_relay_names_no_server(path: &str, text: &str) -> Vec<Finding> {
    if path != "src/relay.rs" {
        return Vec::new();
    }
    const SERVERS: [&str; 4] = ["postgres", "sqlite", "sql", "kafka"];
    let named = |line: &str| SERVERS.into_iter().find(|server| line.to_lowercase().contains(server));
    let lines = text.lines().enumerate().filter_map(|(i, line)| Some((i + 1, named(line)?)));
    lines.map(|(line, server)| Finding { line, what: format!("the relay names {server}") }).collect()
}

fn find(path: &str, text: &str, what: &str, is_bad: impl Fn(&str) -> bool) -> Vec<Finding> {
    let bad = code_lines(path, text).into_iter().filter(|(_, line)| is_bad(line));
    bad.map(|(line, _)| Finding { line, what: what.to_owned() }).collect()
}

fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

#[test]
fn sql_elsewhere_is_found() {
    let text = "// SELECT a FROM b\nlet a = \"SELECT a FROM b\";\nlet b = \"INSERT INTO t\";\nlet c = \"UPDATE the state\";\n";
    super::assert_bites(sql_stays_in_the_source, "src/daemon.rs", text, &[2, 3]);
    super::assert_bites(
        sql_stays_in_the_source,
        "src/migrate.rs",
        "CREATE TABLE t\nCREATE UNIQUE INDEX i\nGRANT SELECT ON t\n",
        &[1, 2, 3],
    );
    super::assert_bites(sql_stays_in_the_source, "src/check.rs", "sqlx::query(\"SHOW x\")\nsqlx::query(SHOW)\n", &[1]);
    super::assert_bites(sql_stays_in_the_source, "src/source/postgres.rs", text, &[]);
}

#[test]
fn a_metric_name_elsewhere_is_found() {
    let text = "f(\"outboxd_batches_total\");\ng(\"outboxd_state\", \"outboxd_parked\");\nh(\"outboxd_phase{\");\n";
    super::assert_bites(metric_names_stay_in_metrics, "src/http.rs", text, &[1, 3]);
    super::assert_bites(metric_names_stay_in_metrics, "src/metrics/registry.rs", text, &[]);
}

#[test]
fn a_panic_is_found() {
    let text = "a.unwrap();\nb.unwrap_or(1);\n#[cfg(test)]\nmod tests {\n    c.unwrap();\n}\n";
    super::assert_bites(nothing_panics_on_purpose, "src/a.rs", text, &[1]);
    super::assert_bites(nothing_panics_on_purpose, "src/a.rs", "dbg!(a);\ntodo!();\nc.expect(\"the map has it\");\n", &[2, 1]);
    super::assert_bites(nothing_panics_on_purpose, "tests/live/a.rs", text, &[]);
}

#[test]
fn a_bare_todo_is_found() {
    let text = "// TODO\n// TODO: later\n// TODO: read both forms until 2.0 is out\n// FIXME speed\n";
    super::assert_bites(todos_have_a_reason, "src/a.rs", text, &[1, 2, 4]);
}

#[test]
fn a_server_in_the_relay_is_found() {
    super::assert_bites(the_relay_names_no_server, "src/relay.rs", "//! from PostgreSQL\nuse a;\nuse rdkafka;\n", &[1, 3]);
    super::assert_bites(the_relay_names_no_server, "src/daemon.rs", "use sqlx;\n", &[]);
}
