//! Everything that can go wrong, and in one place what the relay does about it.

use std::{fmt, io};

use thiserror::Error;

use crate::park::{Ailing, SetAside, Unfit};

mod halts;

pub use halts::{Alarm, EVENTS_TRUNCATED, Halt, HaltCode};

/// What is known after something went wrong. The variants differ in what they prove, not in where they came from.
#[derive(Clone, Debug, Error)]
pub enum Fault {
    /// Nothing happened: the other side was not reached, or said "not now".
    #[error("{dependency} is not available ({code}): {detail}")]
    Unavailable {
        /// Which side.
        dependency: Dependency,
        /// Stable short code, also the metric label.
        code: &'static str,
        /// What the other side said. Never payloads, keys or secrets.
        detail: String,
    },
    /// It may have happened: only the journal knows.
    #[error("outcome unknown ({cause}): {detail}")]
    InDoubt {
        /// Why a claim is due.
        cause: Cause,
        /// What was seen.
        detail: String,
    },
    /// Another owner took over, or a transaction ran into its timeout: both look the same.
    #[error("fenced by another owner or a transaction timeout: {detail}")]
    Fenced {
        /// What the broker said.
        detail: String,
    },
    /// This event can never be published as it is.
    #[error(transparent)]
    Poison(#[from] Unfit),
    /// This topic cannot be published to now; the others can.
    #[error(transparent)]
    Topic(#[from] Ailing),
    /// Going on cannot be proved safe.
    #[error(transparent)]
    Unsafe(#[from] Halt),
    /// No retry helps until a person changes the configuration or the schema.
    #[error("{detail}")]
    Misconfigured {
        /// What is wrong.
        detail: String,
        /// What to do.
        remedy: String,
    },
    /// A table or a column that is needed is not there.
    #[error("{detail}")]
    Missing {
        /// Which one.
        detail: String,
        /// What to do.
        remedy: String,
    },
    /// A right is missing.
    #[error("not allowed: {detail}")]
    Refused {
        /// Which right is missing.
        detail: String,
        /// What to do.
        remedy: String,
    },
    /// What a command has read does not fit into memory, and its temporary file cannot be written or read.
    #[error("what was read cannot be kept: {detail}")]
    Unkept {
        /// The path and the system's reason.
        detail: String,
    },
    /// The lease is not ours any more.
    #[error("the lease was granted to another process")]
    LeaseLost,
    /// The database is a standby: it will be served by whoever is on the primary.
    #[error("the database is a standby (read only)")]
    Standby,
}

/// The two sides a relay depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependency {
    /// The database with the outbox table.
    Database,
    /// The Kafka cluster.
    Kafka,
}

impl Dependency {
    /// Metric label and word in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Kafka => "kafka",
        }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Why the relay claims: label of the claims counter, word in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The process started or took the lease over.
    Start,
    /// A send or its acknowledgement failed inside a transaction.
    Publish,
    /// The commit ended with anything but OK.
    Commit,
    /// A commit was OK but late: the producer is made anew, nothing else.
    SlowCommit,
    /// The journal record was not acknowledged at the expected offset.
    JournalMoved,
    /// The claim number in the state row is not ours any more: another owner, or a command.
    ClaimChanged,
    /// The token is gone: the database crashed, failed over or was restored.
    TokenMissing,
    /// Table or sequence are other files than at the claim.
    FileChanged,
    /// The sequence stands below what was already seen.
    SequenceWentBack,
    /// Not exactly the batch's rows could be marked.
    MarkCount,
    /// The mark failed or its outcome is unknown.
    Mark,
    /// The settlement found the table ahead of what it had read.
    Settle,
    /// The producer was fenced.
    Fenced,
    /// An event or a topic was set aside: the table is read anew.
    SetAside,
    /// A batch was refused as a whole: which of its events is at fault is searched for.
    Search,
    /// A dependency came back after an outage.
    Outage,
    /// A halt's evidence is gone.
    HaltCleared,
}

impl Cause {
    /// Every cause, for metrics that must exist from the start.
    pub const ALL: [Self; 17] = [
        Self::Start,
        Self::Publish,
        Self::Commit,
        Self::SlowCommit,
        Self::JournalMoved,
        Self::ClaimChanged,
        Self::TokenMissing,
        Self::FileChanged,
        Self::SequenceWentBack,
        Self::MarkCount,
        Self::Mark,
        Self::Settle,
        Self::Fenced,
        Self::SetAside,
        Self::Search,
        Self::Outage,
        Self::HaltCleared,
    ];

    /// Metric label and word in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Publish => "publish",
            Self::Commit => "commit",
            Self::SlowCommit => "slow_commit",
            Self::JournalMoved => "journal_moved",
            Self::ClaimChanged => "claim_changed",
            Self::TokenMissing => "token_missing",
            Self::FileChanged => "file_changed",
            Self::SequenceWentBack => "sequence_went_back",
            Self::MarkCount => "mark_count",
            Self::Mark => "mark",
            Self::Settle => "settle",
            Self::Fenced => "fenced",
            Self::SetAside => "set_aside",
            Self::Search => "search",
            Self::Outage => "outage",
            Self::HaltCleared => "halt_cleared",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What the relay does about a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wait, longer each time, then claim.
    BackOff,
    /// Claim: the journal tells what happened.
    Claim(Cause),
    /// Take the evidence again, then stop publishing and wait for a person.
    Halt(Halt),
    /// Go back to waiting for the lease.
    StepDown,
    /// Leave the process with this exit code.
    Exit(u8),
}

/// Code of a batch that was not acknowledged in time; the relay tries a smaller one.
pub const TIMEOUT: &str = "timeout";
/// Code of a user, password or token that the brokers refused.
pub const AUTHENTICATION: &str = "authentication";
/// Code of a journal record that the brokers refused: it is too large, and that of a smaller batch may not be.
pub const REFUSED_RECORD: &str = "refused_record";
/// Exit code: it failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code: the answer is no.
pub const EXIT_NO: u8 = 3;
/// Exit code: database or Kafka cannot be reached, or nobody answered.
pub const EXIT_UNREACHABLE: u8 = 69;
/// Exit code: not in time; try again.
pub const EXIT_NOT_NOW: u8 = 75;
/// Exit code: the configuration (or the schema) must change.
pub const EXIT_CONFIG: u8 = 78;
/// Exit code: a right is missing.
pub const EXIT_REFUSED: u8 = 77;

impl Fault {
    /// Shorthand for a database that could not be reached.
    pub fn database(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Unavailable { dependency: Dependency::Database, code, detail: detail.into() }
    }

    /// The temporary file of what does not fit into memory failed.
    pub fn unkept(error: io::Error) -> Self {
        Self::Unkept { detail: error.to_string() }
    }

    /// A claim waits for the end of older transactions, and that took too long.
    pub fn slow_fence() -> Self {
        Self::kafka("fence", "older transactions could not be ended in time")
    }

    /// Shorthand for a Kafka cluster that could not be reached or said "not now".
    pub fn kafka(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Unavailable { dependency: Dependency::Kafka, code, detail: detail.into() }
    }

    /// Shorthand for an outcome that only the journal knows.
    pub fn in_doubt(cause: Cause, detail: impl Into<String>) -> Self {
        Self::InDoubt { cause, detail: detail.into() }
    }

    /// The one place that decides. What can be set aside was, before anybody asks here.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unavailable { .. } | Self::Standby => Verdict::BackOff,
            Self::Poison(_) | Self::Topic(_) => Verdict::Claim(Cause::SetAside),
            Self::InDoubt { cause, .. } => Verdict::Claim(*cause),
            Self::Fenced { .. } => Verdict::Claim(Cause::Fenced),
            Self::Unsafe(halt) => Verdict::Halt(halt.clone()),
            Self::LeaseLost => Verdict::StepDown,
            Self::Misconfigured { .. } | Self::Missing { .. } | Self::Refused { .. } | Self::Unkept { .. } => {
                Verdict::Exit(self.exit_code())
            }
        }
    }

    /// Exit code of a process or a command that ends because of this fault.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unavailable { code: AUTHENTICATION, .. } | Self::Refused { .. } => EXIT_REFUSED,
            Self::Unavailable { .. } | Self::Standby => EXIT_UNREACHABLE,
            Self::Misconfigured { .. } | Self::Missing { .. } => EXIT_CONFIG,
            Self::InDoubt { .. }
            | Self::Fenced { .. }
            | Self::Poison(_)
            | Self::Topic(_)
            | Self::Unsafe(_)
            | Self::Unkept { .. }
            | Self::LeaseLost => EXIT_FAILED,
        }
    }

    /// Whether somebody took away what was there, a right, a table or a column, and may give it back while the process runs.
    pub fn may_be_undone(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Refused { .. })
    }

    /// What has to be set aside before the next claim.
    pub fn culprit(&self) -> Option<SetAside> {
        match self {
            Self::Poison(unfit) => Some(SetAside { unfit: vec![unfit.clone()], ailing: Vec::new() }),
            Self::Topic(ailing) => Some(SetAside { unfit: Vec::new(), ailing: vec![ailing.clone()] }),
            Self::Unavailable { .. }
            | Self::InDoubt { .. }
            | Self::Fenced { .. }
            | Self::Unsafe(_)
            | Self::Misconfigured { .. }
            | Self::Missing { .. }
            | Self::Refused { .. }
            | Self::Unkept { .. }
            | Self::LeaseLost
            | Self::Standby => None,
        }
    }

    /// Label of the faults counter: a bounded set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unavailable { code, .. } | Self::Poison(Unfit { code, .. }) | Self::Topic(Ailing { code, .. }) => code,
            Self::InDoubt { cause, .. } => cause.name(),
            Self::Fenced { .. } => "fenced",
            Self::Unsafe(halt) => halt.code.name(),
            Self::Misconfigured { .. } => "misconfigured",
            Self::Missing { .. } => "missing",
            Self::Refused { .. } => "refused",
            Self::Unkept { .. } => "unkept",
            Self::LeaseLost => "lease_lost",
            Self::Standby => "standby",
        }
    }

    /// Stable error code.
    pub fn obx(&self) -> &'static str {
        match self {
            Self::Unavailable { dependency: Dependency::Database, .. } => "OBX201",
            Self::Unavailable { dependency: Dependency::Kafka, .. } => "OBX301",
            Self::InDoubt { .. } => "OBX302",
            Self::Fenced { .. } => "OBX303",
            Self::Poison(_) => "OBX304",
            Self::Topic(_) => "OBX305",
            Self::Standby => "OBX202",
            Self::LeaseLost => "OBX205",
            Self::Refused { .. } => "OBX203",
            Self::Misconfigured { .. } | Self::Missing { .. } => "OBX204",
            Self::Unsafe(halt) => halt.code.obx(),
            Self::Unkept { .. } => "OBX701",
        }
    }

    /// Whether the database answered and rejected a statement, for a foreign key, a trigger or a constraint: no outage.
    pub fn is_rejection(&self) -> bool {
        matches!(self, Self::Unavailable { dependency: Dependency::Database, code: "constraint" | "refused" | "sqlstate", .. })
    }

    /// What a person can do about it, in one sentence.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unavailable { .. } if self.is_rejection() => {
                "Look into the database's log for what refuses it: a foreign key, a trigger, a constraint.".into()
            }
            Self::Unavailable { dependency: Dependency::Database, code: "tls", .. } => {
                "Do database.tls and database.ca_file fit the server, and is its certificate made out to the host in database.url?"
                    .into()
            }
            Self::Unavailable { code: "out_of_order", .. } => "Do two rows share a number? Ask `outboxd check`.".into(),
            Self::Unavailable { dependency: Dependency::Database, .. } => "Is the database up, and database.url right?".into(),
            Self::InDoubt { cause: Cause::MarkCount, .. } => {
                "Nothing, unless it repeats: then look for a trigger or a policy that keeps rows from being marked.".into()
            }
            Self::Unavailable { dependency: Dependency::Kafka, code, .. } => kafka_remedy(code).into(),
            Self::InDoubt { .. } => "Nothing: the journal tells what happened.".into(),
            Self::Fenced { .. } => "Nothing, unless it repeats: then look for a second relay of this name without a lease.".into(),
            Self::Poison(_) => "Look at it with `outboxd parked list`; correct the cause and retry it, or discard it.".into(),
            Self::Topic(Ailing { code, .. }) => kafka_remedy(code).into(),
            Self::Unsafe(halt) => halt.code.remedy().into(),
            Self::Misconfigured { remedy, .. } | Self::Missing { remedy, .. } | Self::Refused { remedy, .. } => remedy.clone(),
            Self::Unkept { .. } => "Make room in the folder for temporary files, or name another one in TMPDIR.".into(),
            Self::LeaseLost => "Nothing: another process of this outbox goes on.".into(),
            Self::Standby => "Nothing after a failover. A primary that is read only has default_transaction_read_only on.".into(),
        }
    }
}

/// What a person can do about a fault of the cluster; for most there is nothing to do but to see to the brokers.
fn kafka_remedy(code: &str) -> &'static str {
    match code {
        "topic_missing" => "Create the topic; outboxd goes on by itself.",
        "topic_recreated" => "If its consumers are ready for a topic that begins anew: `outboxd repin TOPIC --reason …`.",
        "topic_shrunk" => "Bring it back with at least the partitions it had; or accept fewer: `outboxd repin TOPIC --reason …`.",
        "journal_missing" => "Run `outboxd migrate`.",
        "not_authorised" => "Grant the relay's user what is named; outboxd goes on by itself.",
        AUTHENTICATION | "tls" => "Correct kafka.security, user, password or certificates.",
        "refused_record" => "Raise the topic's max.message.bytes, or correct the event that is too large.",
        "open_transaction" => "Try again when it has ended; if it never does: OBX407 in docs/errors.md.",
        "trimmed" => "Try again.",
        "clock" => "Set the clock of this machine, or of the brokers, right.",
        "storage" => "Look at the disks of the brokers.",
        "timeout" | "not_enough_replicas" | "no_leader" | "coordinator" | "init" | "fence" => {
            "Nothing, unless it lasts: then look for brokers that are down or too slow."
        }
        _ => "Are the brokers up, and kafka.brokers right?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_one_verdict() {
        assert_eq!(Fault::database("down", "").verdict(), Verdict::BackOff);
        assert_eq!(Fault::in_doubt(Cause::Commit, "").verdict(), Verdict::Claim(Cause::Commit));
        assert_eq!(Fault::Fenced { detail: String::new() }.verdict(), Verdict::Claim(Cause::Fenced));
        let halt = Halt::new(HaltCode::OldPrimary, "timeline 1 < 2");
        assert_eq!(Fault::from(halt.clone()).verdict(), Verdict::Halt(halt));
        assert_eq!(Fault::Standby.verdict(), Verdict::BackOff);
    }

    #[test]
    fn each_fault_has_one_exit_code() {
        let unavailable = |code| Fault::Unavailable { dependency: Dependency::Kafka, code, detail: String::new() };
        assert_eq!([unavailable("tls"), unavailable(AUTHENTICATION), Fault::Standby].map(|fault| fault.exit_code()), [69, 77, 69]);
        let refused = Fault::Refused { detail: String::new(), remedy: String::new() };
        assert_eq!((refused.exit_code(), refused.verdict()), (77, Verdict::Exit(77)));
        let missing = Fault::Missing { detail: String::new(), remedy: String::new() };
        assert_eq!((missing.exit_code(), missing.verdict()), (78, Verdict::Exit(78)));
        assert_eq!([Fault::LeaseLost, Halt::new(HaltCode::OldPrimary, "").into()].map(|fault| fault.exit_code()), [1, 1]);
    }

    #[test]
    fn a_certificate_that_does_not_fit_is_no_database_that_is_down() {
        let remedies = ["tls", "connection"].map(|code| Fault::database(code, "").remedy());
        assert!(remedies[0].contains("database.ca_file") && remedies[1].contains("Is the database up"), "{remedies:?}");
    }

    #[test]
    fn names_are_distinct() {
        let causes: std::collections::HashSet<_> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(causes.len(), Cause::ALL.len());
    }
}
