//! What is configured about the database and the outbox in it.

use std::time::Duration;

use super::names::quoted;
use crate::config::{Database, Delivery, Mark, Order, Outbox, Retention};

/// What a PostgreSQL source needs to know: two sections, and what it shares with other sections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the database is.
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

    /// Host, port and database as configured: one of the two things a database is recognised by.
    pub(super) fn address(&self) -> String {
        self.database.address().to_string()
    }

    /// The configured table as it stands in a statement, with a schema only where one is configured.
    pub(super) fn quoted_table(&self) -> String {
        let table = &self.outbox.table;
        match &table.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&table.table)),
            None => quoted(&table.table),
        }
    }

    /// Whether events of one key need their order.
    pub(super) fn ordered(&self) -> bool {
        match self.outbox.order {
            Order::Key => true,
            Order::None => false,
        }
    }

    /// How long sent rows stay; nothing: there are none, or for ever.
    pub(super) fn retention(&self) -> Option<Duration> {
        match (self.outbox.mark, self.outbox.retention) {
            (Mark::Row, Retention::For(retention)) => Some(retention),
            (Mark::Row, Retention::Forever) | (Mark::Delete, _) => None,
        }
    }
}
