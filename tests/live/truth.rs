//! What the writers know: every event they ever inserted, and what became of it. The checker holds the topics against it.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

pub use crate::support::daemon::MARKER;

/// The `type` of every event.
pub const KIND: &str = "Bumped";

/// What became of an inserted event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its transaction committed and is still there: it must be published exactly once.
    Committed,
    /// Its transaction, or the savepoint around it, was rolled back: it must never be published.
    RolledBack,
    /// The answer to its COMMIT never came, or the database lost it afterwards: once, or not at all.
    Unknown,
}

/// One event as its writer inserted it.
#[derive(Clone, Debug)]
pub struct Written {
    /// The row's id.
    pub id: Uuid,
    /// The row's topic.
    pub topic: Arc<str>,
    /// The row's key.
    pub key: Option<String>,
    /// The key's version, drawn under the row lock of its aggregate; grows along each key.
    pub version: i64,
    /// Number of the workload run; it grows when the database is put back and versions are drawn again.
    pub generation: i64,
    /// The transaction it was inserted in.
    pub transaction: i64,
    /// Which of the concurrent writers.
    pub writer: usize,
    /// How many bytes to blow the payload up by.
    pub filler: usize,
    /// What became of it.
    pub fate: Fate,
}

impl Written {
    /// The payload, byte for byte: JSON with spaces that a round trip through a JSON value would not keep.
    pub fn payload(&self) -> String {
        let key = self.key.as_deref().map_or("null".to_owned(), |key| format!("\"{key}\""));
        format!(
            "{{\"word\":  \"{MARKER}\", \"key\":{key}, \"version\":{}, \"transaction\":{}, \"writer\":{}, \"filler\":\"{}\"}}",
            self.version,
            self.transaction,
            self.writer,
            "x".repeat(self.filler)
        )
    }

    /// The value of its own header `trace`.
    pub fn trace(&self) -> String {
        format!("{MARKER}-{}", self.transaction)
    }

    /// The row's column `headers`.
    pub fn headers(&self) -> String {
        format!("{{\"trace\": \"{}\"}}", self.trace())
    }
}

/// Replaces what the writers believe by what the database says: `kept` are the transactions that it holds in the end.
///
/// # Panics
/// If the database lost an acknowledged transaction although it was never put back (`went_back`).
pub fn settle(written: &mut [Written], kept: &HashSet<i64>, went_back: bool) {
    for event in written.iter_mut().filter(|event| event.fate != Fate::RolledBack) {
        let is_kept = kept.contains(&event.transaction);
        assert!(
            is_kept || went_back || event.fate == Fate::Unknown,
            "the database lost the acknowledged transaction {}",
            event.transaction
        );
        event.fate = match (is_kept, went_back) {
            (true, _) => Fate::Committed,
            (false, true) => Fate::Unknown,
            (false, false) => Fate::RolledBack,
        };
    }
}
