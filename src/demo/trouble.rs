//! Why a demo cannot go on.

use std::{fmt, io};

/// What failed of the demo itself. Its code is OBX601.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The folder that holds everything.
    #[error("{0}")]
    Folder(#[from] io::Error),
    /// The broker inside, or the client that reads from it.
    #[error("the broker inside the demo: {0}")]
    Broker(#[from] rdkafka::error::KafkaError),
    /// The outbox table, as the shop uses it.
    #[error("the shop's database: {0}")]
    Table(#[from] sqlx::Error),
    /// The relay's process, with the last lines of its log.
    #[error("the relay: {what}")]
    Relay {
        /// What happened to it.
        what: String,
        /// Lines as it wrote them; may be empty.
        log: String,
    },
    /// A person asked for the end before anything was written.
    #[error("it was asked to end before it began")]
    Ended,
}

impl Trouble {
    /// A trouble of the file or folder `what`.
    pub(super) fn file(what: &impl fmt::Debug, error: &io::Error) -> Self {
        Self::Folder(io::Error::new(error.kind(), format!("{what:?}: {error}")))
    }

    /// A trouble of the relay without a log.
    pub(super) fn relay(what: impl Into<String>) -> Self {
        Self::Relay { what: what.into(), log: String::new() }
    }

    /// Code, cause and remedy, after what the relay said.
    pub fn told(&self) -> String {
        let log = match self {
            Self::Relay { log, .. } if !log.is_empty() => format!("{}\n\n", log.trim_end()),
            Self::Relay { .. } | Self::Folder(_) | Self::Broker(_) | Self::Table(_) | Self::Ended => String::new(),
        };
        format!("{log}OBX601: the demo cannot go on: {self}. {}", self.remedy())
    }

    fn remedy(&self) -> &'static str {
        match self {
            Self::Folder(_) => "Make room in the folder for temporary files, or name another one in TMPDIR",
            Self::Broker(_) => "It needs free ports on 127.0.0.1, and threads",
            Self::Table(_) => "Is there room in the folder for temporary files? TMPDIR names another one",
            Self::Relay { .. } => "What it wrote last, if anything, stands above",
            Self::Ended => "Start it again",
        }
    }
}
