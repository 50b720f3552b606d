//! The unit is one, asks for no more than it needs, and leaves alone what no restart mends.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{read, run, scratch};

const UNIT: &str = "packaging/outboxd@.service";
const DROP_IN: &str = "packaging/credentials.conf";
const DROP_IN_FOR_FILES: &str = "packaging/sqlite.conf";
/// What `systemd-analyze security` may find at most; 10 is a service that may do everything.
const MOST_EXPOSED: &str = "12";

/// The unit in a folder of its own, with our binary in place of the installed one.
fn laid_out(name: &str, unit: &str) -> PathBuf {
    let folder = scratch(name);
    let path = folder.join("outboxd@.service");
    std::fs::write(&path, unit.replace("/usr/bin/outboxd", env!("CARGO_BIN_EXE_outboxd"))).unwrap();
    path
}

fn verify(path: &Path) -> super::Said {
    run(Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no"]).arg(path))
}

#[test]
fn the_unit_is_one_that_systemd_understands() {
    let said = verify(&laid_out("unit", &read(UNIT))).content();
    assert_eq!(said, "", "a warning");
    let broken = read(UNIT).replace("WatchdogSec=", "WatchDogSeconds=");
    assert!(!verify(&laid_out("unit-broken", &broken)).content, "the look at it finds nothing");
}

#[test]
fn the_drop_in_for_credentials_is_understood_and_names_keys_that_exist() {
    let path = laid_out("unit-drop-in", &read(UNIT));
    let folder = path.with_file_name("outboxd@.service.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("credentials.conf"), read(DROP_IN)).unwrap();
    assert_eq!(verify(&path).content(), "");
    let variables = read(DROP_IN);
    let variables = variables.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
    let variables: Vec<(&str, &str)> = variables.collect();
    assert!(!variables.is_empty());
    // a file that holds something, in place of the credential
    let all = variables.iter().map(|(name, _)| (*name, env!("CARGO_MANIFEST_DIR").to_owned() + "/rust-toolchain.toml"));
    let all: Vec<(&str, String)> = all.chain([("OUTBOXD__OUTBOX__NAME", "shop".to_owned())]).collect();
    let sasl = [
        ("OUTBOXD__KAFKA__SECURITY", "sasl_plaintext"),
        ("OUTBOXD__KAFKA__SASL_MECHANISM", "PLAIN"),
        ("OUTBOXD__KAFKA__USERNAME", "u"),
    ];
    super::assert_configures(all.iter().map(|(name, value)| (*name, value.as_str())).chain(sasl));
}

#[test]
fn the_drop_in_for_files_is_understood_and_is_the_one_that_the_page_shows() {
    let path = laid_out("unit-file", &read(UNIT));
    let folder = path.with_file_name("outboxd@.service.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("sqlite.conf"), read(DROP_IN_FOR_FILES)).unwrap();
    assert_eq!(verify(&path).content(), "");
    let page = read("docs/sqlite.md");
    let shown = page.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(read(DROP_IN_FOR_FILES).ends_with(shown), "{shown}");
}

#[test]
fn the_unit_asks_for_no_more_than_it_needs() {
    let exposed = |unit: &str, name| {
        let arguments = ["security", "--offline=true", "--no-pager", &format!("--threshold={MOST_EXPOSED}")];
        run(Command::new("systemd-analyze").args(arguments).arg(laid_out(name, unit)))
    };
    exposed(&read(UNIT), "unit-security").content();
    let open = read(UNIT).replace("SystemCallFilter=", "# ").replace("PrivateUsers=yes", "").replace("DynamicUser=yes", "");
    assert!(!exposed(&open, "unit-open").content, "the look at it finds nothing");
}

#[test]
fn no_restart_where_no_restart_helps() {
    let unit = read(UNIT);
    let value = |key: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{UNIT} has no {key}")).to_owned()
    };
    assert_eq!(value("RestartPreventExitStatus"), "2 78");
    assert_eq!((value("Type"), value("Restart")), ("notify".into(), "always".into()));
    let seconds = |key: &str| value(key).trim_end_matches('s').parse::<u64>().unwrap();
    let config = outboxd::config::Config::default();
    assert!(seconds("TimeoutStopSec") > config.relay.shutdown_grace.as_secs(), "it is killed while it drains");
    assert!(seconds("WatchdogSec") > outboxd::heartbeat::SILENCE_AT_MOST.as_secs(), "the process gives up on itself first");
}
