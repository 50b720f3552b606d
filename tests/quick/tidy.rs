//! The tidy test: what keeps the house as ARCHITECTURE.md describes it. Each rule is a pure function over path and text that
//! returns what it found, and each is shown below itself to bite.

use std::path::{Path, PathBuf};

mod direction;
mod docs;
mod shape;
mod words;

/// A place and what is wrong there.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    line: usize,
    what: String,
}

type Rule = fn(path: &str, text: &str) -> Vec<Finding>;

/// Every rule that looks at one file at a time.
const RULES: [Rule; 9] = [
    shape::lines_are_short,
    shape::files_are_short,
    shape::functions_are_short,
    words::sql_stays_in_the_source,
    words::metric_names_stay_in_metrics,
    words::nothing_panics_on_purpose,
    words::todos_have_a_reason,
    words::the_relay_names_no_server,
    direction::modules_look_down_only,
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Paths of all our text files, from the top of the repository, sorted.
fn our_files() -> Vec<String> {
    const ROOMS: [&str; 8] = ["src", "tests", "migrations", "config", "docs", "packaging", "scripts", ".ci"];
    let mut files: Vec<PathBuf> = ROOMS.iter().flat_map(|room| below(&repository().join(room))).collect();
    files.extend(std::fs::read_dir(repository()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    let mut paths: Vec<String> = files.iter().map(|path| relative(path)).filter(|path| path != "Cargo.lock").collect();
    paths.sort();
    paths
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).expect("only our files are read").to_string_lossy().into_owned()
}

/// The lines that are neither comments nor in a module of tests, with their numbers.
fn code_lines<'a>(path: &str, text: &'a str) -> Vec<(usize, &'a str)> {
    if !path.starts_with("src/") || path.ends_with("/tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let is_tests =
        |i: usize| lines[i].trim() == "#[cfg(test)]" && lines.get(i + 1).is_some_and(|next| next.trim_end().ends_with('{'));
    let end = (0..lines.len()).find(|&i| is_tests(i)).unwrap_or(lines.len());
    let numbered = lines[..end].iter().enumerate().map(|(i, line)| (i + 1, *line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//")).collect()
}

/// For the rules' own tests: whether the rule finds something at exactly these lines.
#[track_caller]
fn assert_bites(rule: Rule, path: &str, text: &str, lines: &[usize]) {
    let found = rule(path, text);
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), lines, "{found:?}");
}

#[test]
fn the_house_is_tidy() {
    let files = our_files();
    assert!(files.iter().any(|path| path == "src/lib.rs"), "the test looks at the wrong place: {files:?}");
    let exists = |path: &str| repository().join(path).exists();
    let mut complaints = Vec::new();
    for path in &files {
        let Ok(text) = std::fs::read_to_string(repository().join(path)) else { continue };
        let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(path, &text)).collect();
        findings.extend(docs::named_paths_exist(path, &text, &exists));
        complaints.extend(findings.iter().map(|finding| format!("{path}:{}: {}", finding.line, finding.what)));
    }
    complaints.extend(docs::migrations_march_in_step(&files));
    assert!(complaints.is_empty(), "{} untidy places:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn code_lines_leave_out_comments_and_tests() {
    let text = "//! doc\nuse a;\n    // why\nfn f() {}\n#[cfg(test)]\nmod tests {\n    bad();\n}\n";
    assert_eq!(code_lines("src/a.rs", text), [(2, "use a;"), (4, "fn f() {}")]);
    assert_eq!(code_lines("src/a.rs", "#[cfg(test)]\nmod tests;\nfn g() {}").len(), 3);
    assert!(code_lines("src/a/tests.rs", "f();").is_empty());
    assert!(code_lines("tests/live/a.rs", "f();").is_empty());
}
