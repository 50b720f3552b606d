//! What is shipped beside the binary: the unit, alert rules and dashboard, the stacks and manifests, the Debian package.
//! Needs systemd-analyze, promtool, dpkg-deb and lintian, which `scripts/install-test-needs` installs.

use std::path::PathBuf;
use std::process::Command;

mod compose;
mod debian;
mod kubernetes;
mod monitoring;
mod unit;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A new folder of this name for one test, emptied.
fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What a tool said, and whether it was content.
struct Said {
    content: bool,
    text: String,
}

impl Said {
    #[track_caller]
    fn content(self) -> String {
        assert!(self.content, "{}", self.text);
        self.text
    }
}

fn run(command: &mut Command) -> Said {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/install-test-needs installs it"));
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Said { content: output.status.success(), text }
}

/// Whether the real binary takes this environment as its configuration.
#[track_caller]
fn assert_configures<'a>(environment: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command.env_clear().env("OUTBOXD_CONFIG", "/dev/null").envs(environment).args(["config", "show"]);
    run(&mut command).content();
}

/// Whether these words are a command line of ours.
#[track_caller]
fn assert_is_command<'a>(words: impl IntoIterator<Item = &'a str>) {
    let words: Vec<&str> = ["outboxd"].into_iter().chain(words).collect();
    outboxd::cli::command().try_get_matches_from(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
}
