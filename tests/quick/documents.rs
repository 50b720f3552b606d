//! The documents are complete: every error has its part, every file its line, every command its row.

use std::collections::BTreeSet;
use std::fs;

use outboxd::check::{Name, Part, Promise};
use outboxd::config::ErrorCode;
use outboxd::fault::{Cause, Dependency, Fault, Halt, HaltCode};
use outboxd::park::{Ailing, Unfit};
use uuid::Uuid;

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Text without its line breaks.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One fault of each kind. A kind that is new does not compile before it is named here.
fn faults() -> Vec<Fault> {
    let detail = String::new();
    let misconfigured = Fault::Misconfigured { detail: detail.clone(), remedy: detail.clone() };
    let missing = Fault::Missing { detail: detail.clone(), remedy: detail.clone() };
    let refused = Fault::Refused { detail: detail.clone(), remedy: detail.clone() };
    let poison = Fault::Poison(Unfit { seq: 1, id: Uuid::nil().into(), code: "too_large", detail: detail.clone() });
    let unavailable = |dependency| Fault::Unavailable { dependency, code: "timeout", detail: String::new() };
    let unsafe_ones = HaltCode::ALL.map(|code| Fault::Unsafe(Halt::new(code, "")));
    let all = [
        unavailable(Dependency::Database),
        unavailable(Dependency::Kafka),
        Fault::in_doubt(Cause::Commit, ""),
        Fault::Fenced { detail },
        poison,
        Fault::Topic(Ailing { topic: String::new(), code: "topic_missing", detail: String::new() }),
        misconfigured,
        missing,
        refused,
        Fault::Unkept { detail: String::new() },
        Fault::LeaseLost,
        Fault::Standby,
    ];
    for fault in &all {
        match fault {
            Fault::Unavailable { .. }
            | Fault::InDoubt { .. }
            | Fault::Fenced { .. }
            | Fault::Poison(_)
            | Fault::Topic(_)
            | Fault::Unsafe(_)
            | Fault::Misconfigured { .. }
            | Fault::Missing { .. }
            | Fault::Refused { .. }
            | Fault::Unkept { .. }
            | Fault::LeaseLost
            | Fault::Standby => {}
        }
    }
    all.into_iter().chain(unsafe_ones).collect()
}

/// The parts of the page on errors: code, rest of the heading, text.
fn parts(page: &str) -> Vec<(String, String, String)> {
    let parts = page.split("\n### ").skip(1).map(|part| part.split("\n## ").next().unwrap());
    let headed = parts.map(|part| part.split_once('\n').unwrap());
    headed
        .map(|(heading, text)| {
            let (code, title) = heading.split_once(' ').unwrap();
            (code.to_owned(), title.to_owned(), on_one_line(text))
        })
        .collect()
}

/// What looks like an error code.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    let found = text.match_indices("OBX").filter_map(|(at, _)| text.get(at..at + 6));
    found.filter(|code| code.bytes().skip(3).all(|byte| byte.is_ascii_digit()))
}

#[test]
fn every_error_code_has_its_part_and_every_part_its_code() {
    let parts = parts(&read("docs/errors.md"));
    let described: BTreeSet<&str> = parts.iter().map(|(code, ..)| code.as_str()).collect();
    assert_eq!(described.len(), parts.len(), "a code is described twice");
    let faults = faults();
    let sources: Vec<String> = source_files("src").iter().map(|path| read(path)).collect();
    let written: BTreeSet<&str> = sources.iter().flat_map(|text| codes(text)).collect();
    assert_eq!(described, written);
    let known: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).chain(faults.iter().map(Fault::obx)).collect();
    assert!(known.is_subset(&written), "{known:?}");
    for (code, _, text) in &parts {
        // what an error of the configuration means stands in its heading
        let meaning = (!code.starts_with("OBX1")).then_some("**Meaning**");
        for word in ["**Evidence**", "**Remedy**"].into_iter().chain(meaning) {
            assert!(text.contains(word), "{code} has no {word}");
        }
    }
}

/// The words in quotes behind `before`, as far as they are short codes.
fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    let found = text.match_indices(before).filter_map(move |(at, _)| text[at + before.len()..].split('"').next());
    found.filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
}

#[test]
fn every_short_word_of_a_fault_is_described() {
    let page = read("docs/errors.md");
    let everywhere = ["Fault::database(\"", "Fault::kafka(\"", " code: \"", "(&event, \"", "Some((\"", "then(|| (\"", "another(\""];
    // what the other side says is told by words of ours there
    let of_answers = [
        ("src/sink/kafka/faults.rs", "=> \""),
        ("src/sink/kafka/faults.rs", "{\n            \""),
        ("src/source/postgres/failure.rs", ": &str = \""),
        ("src/fault.rs", ": &str = \""),
    ];
    let sources: Vec<(String, String)> = source_files("src").into_iter().map(|path| (path.clone(), read(&path))).collect();
    let mut words = BTreeSet::new();
    for (path, text) in sources.iter().filter(|(path, _)| !path.starts_with("src/check") && !path.starts_with("src/config")) {
        let text = text.split("#[cfg(test)]").next().unwrap();
        let here = of_answers.iter().filter(|(file, _)| file == path).map(|(_, before)| *before);
        everywhere.into_iter().chain(here).for_each(|before| words.extend(quoted(text, before)));
    }
    words.extend(Cause::ALL.map(Cause::name));
    for known in
        ["no_database", "file_moved", "tls", "topic_recreated", "topic_invalid", "topic_not_allowed", "refused", "refused_record"]
    {
        assert!(words.contains(known), "{known} is not found in the code: {words:?}");
    }
    let missing: Vec<&&str> = words.iter().filter(|word| !page.contains(&format!("`{word}`"))).collect();
    assert!(words.len() > 55 && missing.is_empty(), "docs/errors.md lacks {missing:?} of {words:?}");
}

#[test]
fn every_halt_is_described_by_its_name_with_its_remedy() {
    let parts = parts(&read("docs/errors.md"));
    let guarantees = read("docs/guarantees.md");
    for halt in HaltCode::ALL {
        let (_, title, text) = parts.iter().find(|(code, ..)| code == halt.obx()).unwrap();
        assert_eq!(title, halt.name());
        assert!(text.to_lowercase().contains(&halt.remedy().to_lowercase()), "{title}: the program says: {}", halt.remedy());
        assert!(guarantees.contains(&format!("| {title} | ")), "docs/guarantees.md lacks {title}");
    }
}

/// The paths at the beginnings of lines, with `{a,b}` written out.
fn rooms(page: &str) -> BTreeSet<String> {
    let named = page.lines().filter(|line| line.starts_with("src/")).filter_map(|line| line.split_whitespace().next());
    let written_out = |path: &str| match path.split_once('{').and_then(|(folder, rest)| Some((folder, rest.split_once('}')?))) {
        Some((folder, (names, end))) => names.split(',').map(|name| format!("{folder}{name}{end}")).collect(),
        None => vec![path.to_owned()],
    };
    named.flat_map(written_out).collect()
}

fn source_files(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let paths = entries.map(|entry| entry.unwrap()).map(|entry| (entry.path(), entry.file_name().into_string().unwrap()));
    let not_tests = paths.filter(|(_, name)| name != "tests" && name != "tests.rs");
    not_tests
        .flat_map(|(path, name)| {
            let below = format!("{folder}/{name}");
            if path.is_dir() { source_files(&below) } else { BTreeSet::from([below]) }
        })
        .collect()
}

#[test]
fn the_architecture_names_every_room() {
    assert_eq!(rooms(&read("ARCHITECTURE.md")), source_files("src"));
}

#[test]
fn the_architecture_draws_the_states_as_the_code_does() {
    let code = read("src/phase.rs");
    let picture = code.split("//! ```text\n").nth(1).and_then(|rest| rest.split("//! ```").next()).unwrap();
    let picture: Vec<&str> = picture.lines().map(|line| line.strip_prefix("//!").unwrap()).collect();
    let picture: String = picture.iter().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    assert!(read("ARCHITECTURE.md").contains(&picture));
}

#[test]
fn the_readme_shows_every_command() {
    let help = super::cli::outboxd(&["--help"]).stdout;
    let listed = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let commands: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"run"), "{help}");
    let readme = read("README.md");
    for command in commands.iter().filter(|command| **command != "help") {
        assert!(readme.contains(&format!("`{command}`")), "the README does not name {command}");
    }
}

/// The cells of the rows below a heading, up to the next one.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let part = page.split("\n## ").find(|part| part.lines().next() == Some(heading)).unwrap_or_default();
    let rows = part.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn every_finding_of_check_has_its_row_and_every_row_its_finding() {
    let page = read("docs/check.md");
    for part in Part::ALL {
        let heading = part.as_str().replacen(part.as_str().chars().next().unwrap(), &part.as_str()[..1].to_uppercase(), 1);
        let rows = rows(&page, &heading);
        let described: Vec<String> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
        let names: Vec<&str> = Name::ALL.iter().filter(|name| name.part() == part).map(|name| name.as_str()).collect();
        assert_eq!(described, names, "in the order in which they are told");
        for row in &rows {
            assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
            assert!(
                ["failed: ", "warning: ", "could not look: ", "never: "].iter().any(|state| row[1].starts_with(state)),
                "{row:?}"
            );
        }
    }
    let promises: Vec<String> = rows(&page, "The guarantees").iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(promises, Promise::ALL.map(Promise::as_str));
}

/// Of a table in a document the words in back ticks of its last column.
fn last_column<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, section) = text.split_once(heading).expect("the section is there");
    let rows = section.lines().take_while(|line| !line.starts_with("## ")).filter(|line| line.ends_with("` |"));
    rows.filter_map(|row| row.trim_end_matches("` |").rsplit('`').next()).collect()
}

#[test]
fn each_test_that_the_guarantees_name_is_there() {
    let guarantees = read("docs/guarantees.md");
    let named = last_column(&guarantees, "\n## Which test shows it\n");
    assert!(named.len() > 25, "{named:?}");
    let tests: String = source_files("tests/live").iter().map(|path| read(path)).collect();
    let missing: Vec<&&str> = named.iter().filter(|name| !tests.contains(&format!("fn {name}()"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(last_column("a\n## B\n| x | `y` | `z` |\n## C\n| `w` |", "## B\n"), ["z"]);
}
