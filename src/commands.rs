//! One file a subcommand. Each gets its part of the configuration and returns an exit code.

use std::fmt;

use crate::config::ConfigErrors;
use crate::fault::{EXIT_CONFIG, EXIT_FAILED, Fault};

mod adopt;
mod assembly;
mod check;
mod completions;
mod config;
mod demo;
mod healthcheck;
mod migrate;
mod parked;
mod reconcile;
mod rename;
mod run;
mod send;
mod status;
mod steer;
mod trace;
mod verify;

pub use adopt::{Consent, adopt_journal};
pub use check::{Reach, check, check_errors};
pub use completions::completions;
pub use config::config_show;
pub use demo::{Settings as DemoSettings, demo};
pub use healthcheck::healthcheck;
pub use migrate::{Apply, Roles, migrate, plan, roles};
pub use parked::{Deciding, parked_decide, parked_list, parked_show};
pub use reconcile::reconcile;
pub use rename::adopt_name;
pub use run::{Once, run};
pub use send::{Sending, send};
pub use status::{status, watch_status};
pub use steer::{Rehearse, adopt_database, pause, repin, resume};
pub use trace::{Asked, trace};
pub use verify::{Verifying, verify};

/// Exit code: done, or yes.
const EXIT_DONE: u8 = 0;

/// How a command prints its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Text,
    /// One JSON object, stable.
    Json,
}

/// Why a command failed: what to print on stderr, and the exit code.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// A failure that has no code of its own.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_FAILED }
    }

    /// A failure with this exit code.
    fn coded(code: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), code }
    }

    /// Exit code of the process.
    pub fn exit_code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.message)
    }
}

/// Who asks for a change, beside the name of the database role.
fn operator() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    user.map_or_else(|_| String::new(), |user| format!(" ({user})"))
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self { message: errors.to_string(), code: EXIT_CONFIG }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { message: format!("{}: {fault}. {}", fault.obx(), fault.remedy()), code: fault.exit_code() }
    }
}
