//! A wall clock that can be set wrong for one process alone: see `clock.c`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::{DaemonOptions, place, process};

/// The clock of a daemon.
pub struct Clock(PathBuf);

impl Clock {
    /// A clock that is right, and what a daemon needs to go by it.
    pub fn for_daemon(options: DaemonOptions) -> (Clock, DaemonOptions) {
        let clock = Clock(place::folder("clock").join("ahead"));
        clock.set(0);
        let path = clock.0.to_str().unwrap().to_owned();
        let options = options.variable("LD_PRELOAD", library().to_str().unwrap());
        (clock, options.variable("OUTBOXD_TEST_CLOCK", &path))
    }

    /// So many seconds ahead of the machine's clock from now on, for a running daemon as well.
    pub fn set(&self, seconds: i64) {
        let next = self.0.with_extension("next");
        std::fs::write(&next, seconds.to_string()).unwrap();
        std::fs::rename(next, &self.0).unwrap();
    }
}

fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = place::folder("preload").join("clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/support/clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
        process::run(compiler);
        library
    })
}
