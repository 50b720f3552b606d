//! `check`: from what was found to what it means. Pure: the looking is done by the sources and `sink::kafka`, and this turns facts
//! into findings (`configuration`, `database`, `table`, `file`, `standing`, `cluster`, `journal`, `topics`), and findings into the promises
//! that follow (`guarantees`).

mod cluster;
mod configuration;
mod database;
mod file;
mod guarantees;
mod journal;
mod names;
mod settings;
mod show;
mod standing;
mod table;
#[cfg(test)]
mod tests;
mod topics;

use std::fmt;

pub use guarantees::{Guarantee, NOT_LOOKED, Promise, Reason, Verdict};
pub use names::{Kind, Name, Part};
pub use show::printable;
pub use topics::{Choice, Wanted, wanted};

use crate::config::{Config, ConfigErrors, Delivery};
use crate::fault::{EXIT_CONFIG, EXIT_FAILED, EXIT_REFUSED, Fault};
use crate::sink::kafka::{ClusterFacts, TopicPlan};
use crate::source::any::Checkup;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and something should be known or mended.
    Warning,
    /// The relay does not start, stands still, or a promise is broken. With the exit code that it asks for.
    Failed(u8),
    /// A right is missing, or what it depends on has no answer. Not a failure.
    Unseen,
}

impl State {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed(_) => "failed",
            Self::Unseen => "could not look",
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub name: Name,
    /// Which topic, right or the like, where there are several.
    pub about: Option<String>,
    /// What became of it.
    pub state: State,
    /// What was found, one sentence without its full stop.
    pub found: String,
    /// What to do, one sentence; exactly where the state is not ok.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(name: Name, state: State, found: impl Into<String>, remedy: Option<String>) -> Self {
        Self { name, about: None, state, found: found.into(), remedy }
    }

    fn ok(name: Name, found: impl Into<String>) -> Self {
        Self::new(name, State::Ok, found, None)
    }

    fn warning(name: Name, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, State::Warning, found, Some(remedy.into()))
    }

    /// Without a better exit code.
    fn failed(name: Name, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, State::Failed(EXIT_FAILED), found, Some(remedy.into()))
    }

    /// The relay would leave with the exit code of configuration errors.
    fn misconfigured(name: Name, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, State::Failed(EXIT_CONFIG), found, Some(remedy.into()))
    }

    /// A right is missing without which nothing goes.
    fn refused(name: Name, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, State::Failed(EXIT_REFUSED), found, Some(remedy.into()))
    }

    fn unseen(name: Name, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, State::Unseen, found, Some(remedy.into()))
    }

    /// A question that has no answer. A right that is missing is none of the outbox's failures; a table that is missing is told of where
    /// the table itself is.
    fn unanswered(name: Name, fault: &Fault) -> Self {
        match fault {
            Fault::Misconfigured { .. } => Self::unseen(name, told(fault), fault.remedy()),
            other => Self::essential(name, other),
        }
    }

    /// The same where a table or setting that does not fit is the failure.
    fn essential(name: Name, fault: &Fault) -> Self {
        match fault {
            Fault::Refused { .. } | Fault::Standby => Self::unseen(name, told(fault), fault.remedy()),
            other => Self::by_fault(name, other),
        }
    }

    /// What `run` reads before anything else, and leaves with its exit code when it may not. A standby is told of where the server is.
    fn required(name: Name, fault: &Fault) -> Self {
        match fault {
            Fault::Standby => Self::essential(name, fault),
            other => Self::by_fault(name, other),
        }
    }

    /// What the relay would meet as this fault.
    fn by_fault(name: Name, fault: &Fault) -> Self {
        Self::new(name, State::Failed(fault.exit_code()), told(fault), Some(fault.remedy()))
    }

    /// The same of one of several.
    fn about(mut self, which: impl Into<String>) -> Self {
        self.about = Some(which.into());
        self
    }

    /// Name, and which one.
    pub fn title(&self) -> String {
        match &self.about {
            Some(which) => format!("{} ({which})", self.name.as_str()),
            None => self.name.as_str().to_owned(),
        }
    }
}

fn told(fault: &Fault) -> String {
    format!("{}: {fault}", fault.obx())
}

/// What was looked at beside the configuration; nothing of it with `--offline`.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The database.
    pub database: Option<Result<Checkup, Fault>>,
    /// The cluster with the journal topic and the wanted topics.
    pub cluster: Option<Result<ClusterFacts, Fault>>,
    /// The journal topic as it should be; nothing in a mode without one, or where the cluster could not be asked.
    pub journal: Option<TopicPlan>,
    /// Whether the journal's records agree with the database; nothing where one of the two cannot be read.
    pub agreement: Option<Result<(), Fault>>,
}

/// Everything that `check` has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Name of the outbox; empty when the configuration does not tell it.
    pub outbox: String,
    /// In the order of their names.
    pub findings: Vec<Finding>,
    /// What follows; nothing without a configuration.
    pub guarantees: Vec<Guarantee>,
}

impl Report {
    /// From all that was looked at.
    pub fn new(config: &Config, seen: &Seen) -> Self {
        let mut findings = configuration::findings(config);
        if let Some(database) = &seen.database {
            findings.extend(database::findings(config, database));
        }
        if let Some(cluster) = &seen.cluster {
            let database = seen.database.as_ref().and_then(|database| database.as_ref().ok());
            findings.extend(cluster::findings(config, cluster, seen, database));
        }
        // stable: what is told of several topics stays together by name
        findings.sort_by_key(|finding| finding.name);
        let guarantees = guarantees::follow(&findings, config.kafka.delivery == Delivery::ExactlyOnce, Kind::of(config));
        Self { outbox: config.outbox.name.clone(), findings, guarantees }
    }

    /// Of a configuration that does not hold together: there is nothing else to look at.
    pub fn of_errors(errors: &ConfigErrors) -> Self {
        let finding = |error: &crate::config::ConfigError| {
            let found = crate::config::ConfigError { remedy: String::new(), ..error.clone() }.to_string();
            Finding::misconfigured(Name::Configuration, found.trim_end_matches([' ', '.']), error.remedy.clone())
        };
        Self { outbox: String::new(), findings: errors.iter().map(finding).collect(), guarantees: Vec::new() }
    }

    /// 0 when nothing failed, else that of the worst failure: what only a change of the configuration mends is worse than a missing right,
    /// and that is worse than a server that does not answer now.
    pub fn exit_code(&self) -> u8 {
        let codes = self.findings.iter().filter_map(|finding| match finding.state {
            State::Failed(code) => Some(code),
            State::Ok | State::Warning | State::Unseen => None,
        });
        codes.max().unwrap_or(0)
    }

    /// How many findings have this state.
    pub fn count(&self, state: &str) -> usize {
        self.findings.iter().filter(|finding| finding.state.as_str() == state).count()
    }
}

/// A list for a sentence.
fn listed<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
