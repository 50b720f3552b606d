//! What is configured about the file and the outbox in it.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Database, Delivery, Mark, Outbox, Retention};

/// What a SQLite source needs to know: the file, two sections, and what it shares with other sections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database file.
    pub file: PathBuf,
    /// How long things may take.
    pub database: Database,
    /// The table, and what becomes of its rows.
    pub outbox: Outbox,
    /// What is promised to consumers; kept in the state row.
    pub delivery: Delivery,
    /// Life of a lease without renewal.
    pub lease: Duration,
}

impl Settings {
    /// Name of the outbox.
    pub(super) fn name(&self) -> &str {
        &self.outbox.name
    }

    /// How long sent rows stay; nothing: there are none, or for ever.
    pub(super) fn retention(&self) -> Option<Duration> {
        match (self.outbox.mark, self.outbox.retention) {
            (Mark::Row, Retention::For(retention)) => Some(retention),
            (Mark::Row, Retention::Forever) | (Mark::Delete, _) => None,
        }
    }
}
