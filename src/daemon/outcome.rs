//! Why the process leaves, and with which exit code.

use tracing::error;

use crate::fault::{EXIT_FAILED, EXIT_NOT_NOW, EXIT_UNREACHABLE, Fault};

/// Why the process leaves.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Asked to stop and drained, or done with what it was to run until.
    Done,
    /// The drain was not finished: too slow, or a second signal.
    NotDrained,
    /// No retry helps; logged.
    Failed(Fault),
    /// A run until something is done: another process has the lease, or nothing could be finished.
    NotNow,
    /// A run until something is done: a dependency cannot be reached.
    Unreachable,
    /// A fault of the program; logged where it happened.
    Panicked,
}

impl Outcome {
    /// The process leaves for this fault.
    pub(super) fn failed(fault: Fault) -> Self {
        error!(error = fault.obx(), %fault, remedy = fault.remedy(), "leaving: no retry helps");
        Self::Failed(fault)
    }

    /// The process leaves until a person changes its configuration.
    pub(super) fn misconfigured(detail: String, remedy: &str) -> Self {
        Self::failed(Fault::Misconfigured { detail, remedy: remedy.into() })
    }

    /// Exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotDrained | Self::Panicked => EXIT_FAILED,
            Self::Failed(fault) => fault.exit_code(),
            Self::NotNow => EXIT_NOT_NOW,
            Self::Unreachable => EXIT_UNREACHABLE,
        }
    }
}
