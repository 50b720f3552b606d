//! One file a subcommand. Each gets its part of the configuration and returns an exit code.

use std::{fmt, io};

use crate::config::{Config, ConfigErrors};
use crate::demo::Trouble;
use crate::fault::{EXIT_CONFIG, EXIT_FAILED, EXIT_NO, EXIT_NOT_NOW, EXIT_REFUSED, EXIT_UNREACHABLE, Fault};

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

/// Stable code of what a command cannot do, with the exit code that goes with it. Each has a part in docs/errors.md.
#[derive(Clone, Copy, Debug)]
struct Obx {
    code: &'static str,
    exit_code: u8,
}

const UNREADABLE_EVENT: Obx = Obx { code: "OBX203", exit_code: EXIT_REFUSED };
const FOREIGN: Obx = Obx { code: "OBX401", exit_code: EXIT_FAILED };
const NOBODY_LISTENS: Obx = Obx { code: "OBX505", exit_code: EXIT_FAILED };
const LISTENING: Obx = Obx { code: "OBX504", exit_code: EXIT_FAILED };
const SYSTEM: Obx = Obx { code: "OBX801", exit_code: EXIT_FAILED };
const RELAYED: Obx = Obx { code: "OBX802", exit_code: EXIT_NOT_NOW };
const NO_JOURNAL: Obx = Obx { code: "OBX804", exit_code: EXIT_FAILED };
const NOT_TAKEN: Obx = Obx { code: "OBX805", exit_code: EXIT_FAILED };

/// What a person who asked for a journal's remedy can do without a journal.
const WITHOUT_JOURNAL: &str = "Nothing is needed: the relay publishes what is unsent; what came twice `outboxd verify` counts";

/// The settlement that a command needs first failed, with this exit code.
fn unsettled(exit_code: u8) -> Obx {
    Obx { code: "OBX803", exit_code }
}

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
    /// A failure that no fault and no configuration explains: what goes wrong, and what a person can do about it.
    fn new(obx: Obx, cause: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { message: format!("{}: {cause}. {remedy}", obx.code), code: obx.exit_code }
    }

    /// Not a failure but an answer: no. It has no code.
    fn no(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_NO }
    }

    /// The system refuses the process what it needs.
    pub fn refused_by_system(what: &str, error: &io::Error) -> Self {
        Self::new(SYSTEM, format!("{what}: {error}"), "Look at the limits of this process and of the machine")
    }

    /// The same; where nobody was reached, with where the configuration leads, whichever layer of it says so.
    pub fn of(self, config: &Config) -> Self {
        if self.code != EXIT_UNREACHABLE {
            return self;
        }
        let message =
            format!("{}\n  database.url leads to {}, kafka.brokers to {}", self.message, target(config), config.kafka.brokers);
        Self { message, code: self.code }
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

/// Where the database is, without anything secret.
fn target(config: &Config) -> String {
    config.database.url.address.to_string()
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

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self { message: trouble.told(), code: EXIT_FAILED }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { message: format!("{}: {fault}. {}", fault.obx(), fault.remedy()), code: fault.exit_code() }
    }
}
