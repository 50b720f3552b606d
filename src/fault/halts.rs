//! The halts and the alarm: what a person has to decide about.

use thiserror::Error;

/// The named reasons for which a relay stops publishing until a person acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HaltCode {
    /// The journal belongs to another outbox.
    ForeignJournal,
    /// This is not a database the outbox was told to publish from.
    MovedDatabase,
    /// A newer primary has published already.
    OldPrimary,
    /// Another database publishes under the same name.
    TwoDatabases,
    /// The table is older than what the journal still holds.
    JournalWindow,
    /// The journal lacks records that the table has marked.
    KafkaBehind,
    /// Somebody's transaction on the journal does not end.
    JournalBlocked,
    /// The journal holds a record of a newer format.
    JournalVersion,
    /// Marked rows are still unsent.
    MarkRefused,
}

impl HaltCode {
    /// Every code, for metrics and documents that must be complete.
    pub const ALL: [Self; 9] = [
        Self::ForeignJournal,
        Self::MovedDatabase,
        Self::OldPrimary,
        Self::TwoDatabases,
        Self::JournalWindow,
        Self::KafkaBehind,
        Self::JournalBlocked,
        Self::JournalVersion,
        Self::MarkRefused,
    ];

    /// The halt of this name, if this version knows it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Name as in documents, state row, metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::ForeignJournal => "foreign-journal",
            Self::MovedDatabase => "moved-database",
            Self::OldPrimary => "old-primary",
            Self::TwoDatabases => "two-databases",
            Self::JournalWindow => "journal-window",
            Self::KafkaBehind => "kafka-behind",
            Self::JournalBlocked => "journal-blocked",
            Self::JournalVersion => "journal-version",
            Self::MarkRefused => "mark-refused",
        }
    }

    /// Stable error code.
    pub fn obx(self) -> &'static str {
        match self {
            Self::ForeignJournal => "OBX401",
            Self::MovedDatabase => "OBX402",
            Self::OldPrimary => "OBX403",
            Self::TwoDatabases => "OBX404",
            Self::JournalWindow => "OBX405",
            Self::KafkaBehind => "OBX406",
            Self::JournalBlocked => "OBX407",
            Self::JournalVersion => "OBX408",
            Self::MarkRefused => "OBX409",
        }
    }

    /// What a person can do about it, in one sentence.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::ForeignJournal => {
                "set another outbox.name and run `outboxd adopt --name OLD --reason …`; or take the other's journal over: \
                 `outboxd adopt --journal UUID --reason …`"
            }
            Self::MovedDatabase => "give a copy another outbox.name; if it has moved, `outboxd adopt --database --reason …`",
            Self::OldPrimary => "point the relay at the primary: a later one has published already",
            Self::TwoDatabases => {
                "stop the relay of one of the two databases, then `outboxd adopt --journal --reason …` in the one that stays"
            }
            Self::JournalWindow => {
                "restore a younger copy of the database; or `outboxd reconcile --dry-run`, which looks for every unsent row in its topic; \
                 or `outboxd adopt --journal --reason …`, which prints what may come twice"
            }
            Self::KafkaBehind => {
                "bring the journal topic back as it was; or `outboxd reconcile --dry-run`, which looks for every unsent row in its topic; \
                 or `outboxd adopt --journal --reason …`, which prints what may come twice"
            }
            Self::JournalBlocked => {
                "if it is our own, first `outboxd adopt --journal --reason …`; then end it with the broker's kafka-transactions tool"
            }
            Self::JournalVersion => "run the newer outboxd that wrote this record",
            Self::MarkRefused => "look for a row security policy or a trigger that keeps the relay from updating the table",
        }
    }
}

/// A halt, or the first evidence for one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {evidence}", code.name())]
pub struct Halt {
    /// Which one.
    pub code: HaltCode,
    /// What was seen, in one sentence, with the numbers.
    pub evidence: String,
}

impl Halt {
    /// A halt with its evidence.
    pub fn new(code: HaltCode, evidence: impl Into<String>) -> Self {
        Self { code, evidence: evidence.into() }
    }
}

/// What needs a person, although the relay can prove that going on is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Name in the status and in the log.
    pub name: &'static str,
    /// Stable error code.
    pub obx: &'static str,
    /// What a person can do about it, in one sentence.
    pub remedy: &'static str,
}

/// A topic lacks records that were acknowledged.
pub const EVENTS_TRUNCATED: Alarm = Alarm {
    name: "events-truncated",
    obx: "OBX306",
    remedy: "look for an unclean election or a restored disk; have what is lost sent again; then `outboxd repin TOPIC --reason …`",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let halts: std::collections::HashSet<_> = HaltCode::ALL.iter().flat_map(|code| [code.name(), code.obx()]).collect();
        assert_eq!(halts.len(), 2 * HaltCode::ALL.len());
    }
}
