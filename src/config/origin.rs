//! Where an effective value was written.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from, in rising precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Written nowhere: the default.
    Default,
    /// Written nowhere, and another default than usual because of what is written elsewhere.
    Follows {
        /// Why, in a few words.
        why: &'static str,
    },
    /// Written in the configuration file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line of the key, counted from 1.
        line: usize,
    },
    /// Set by this environment variable.
    Environment {
        /// The name of the variable.
        variable: String,
    },
    /// Given on the command line.
    Flag,
}

impl Origin {
    /// Which source beats which: the higher one.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default | Self::Follows { .. } => 0,
            Self::File { .. } => 1,
            Self::Environment { .. } => 2,
            Self::Flag => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Follows { why } => write!(f, "default {why}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}
