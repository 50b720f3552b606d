//! `docs/reference` and the man pages are written from the code: OUTBOXD_TEST_BLESS=1 writes them, else they must be current.

use std::path::Path;

use super::cli::assert_current;

mod commands;
mod configuration;
mod json;
mod metrics;

pub(super) use metrics::names as metric_names;

const WRITTEN: &str = "<!-- Written by tests/quick/reference.rs from the code. Change it there, then: \
    OUTBOXD_TEST_BLESS=1 cargo test --test quick reference -->";

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_reference_of_commands_is_current() {
    assert_current("docs/reference/commands.md", &commands::page());
}

#[test]
fn the_reference_of_the_configuration_is_current() {
    assert_current("docs/reference/configuration.md", &configuration::page());
}

#[test]
fn the_reference_of_metrics_is_current() {
    assert_current("docs/reference/metrics.md", &metrics::page());
}

/// The page with a title line as man(7) has it: name in capitals, section, no date, program, kind of page. The generator leaves out
/// the empty date, so that `man` takes what follows for it.
fn titled(page: &str, file: &str) -> String {
    let name = file.strip_suffix(".1").unwrap().to_uppercase();
    let title = format!(".TH {name} 1 \"\" \"outboxd {}\" \"User Commands\"", env!("CARGO_PKG_VERSION"));
    let (before, rest) = page.split_once(".TH ").expect("a page has a title");
    let (_, after) = rest.split_once('\n').expect("the title is a line");
    assert!(!after.contains(".TH "), "one title a page: {page}");
    format!("{before}{title}\n{after}")
}

#[test]
fn the_man_pages_are_current() {
    let folder = repository("packaging/man");
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    std::fs::create_dir_all(&fresh).unwrap();
    clap_mangen::generate_to(outboxd::cli::command(), &fresh).unwrap();
    let names = |folder: &Path| {
        let entries =
            std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name.ends_with(".1")).collect::<std::collections::BTreeSet<_>>()
    };
    let written = names(&fresh);
    assert!(written.contains("outboxd.1") && written.contains("outboxd-parked-list.1"), "{written:?}");
    std::fs::create_dir_all(&folder).unwrap();
    for name in &written {
        assert_current(&format!("packaging/man/{name}"), &titled(&std::fs::read_to_string(fresh.join(name)).unwrap(), name));
    }
    assert_eq!(names(&folder), written, "a page of a command that is gone");
    std::fs::remove_dir_all(fresh).unwrap();
}
