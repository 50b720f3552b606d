//! What a state row must say, in whichever database it lies.

use super::Pins;
use crate::config::Delivery;
use crate::fault::Fault;
use crate::journal::FORMAT;

/// What to do when tables are missing or older than this binary.
pub(super) const MIGRATE: &str = "Run `outboxd migrate`";

/// A failed decoding of a column.
pub(super) fn unreadable(column: &'static str) -> Fault {
    Fault::database("driver", format!("column {column} could not be read"))
}

/// Pinned topics, as they are stored.
pub(super) fn pins(text: &str) -> Result<Pins, Fault> {
    serde_json::from_str(text).map_err(|_| unreadable("pins"))
}

/// Nothing was migrated under this name.
pub(super) fn unknown_outbox(name: &str) -> Fault {
    let detail = format!("this database knows no outbox named {name}");
    Fault::Misconfigured { detail, remedy: "Correct outbox.name, or set it up with `outboxd migrate`".into() }
}

/// Whether the row says the configured mode, and a journal format that this binary knows.
pub(super) fn same_mode(delivery: &str, format: i64, configured: Delivery, name: &str) -> Result<(), Fault> {
    if delivery != configured.as_str() {
        let detail = format!("outbox {name} was set up for delivery = \"{delivery}\"");
        return Err(Fault::Misconfigured {
            detail,
            remedy: "Correct kafka.delivery, or run `outboxd migrate` to change the mode".into(),
        });
    }
    if format > i64::from(FORMAT) {
        let detail = format!("outbox {name} writes journal format {format}");
        return Err(Fault::Misconfigured { detail, remedy: "Run the newer outboxd".into() });
    }
    Ok(())
}

/// The name belongs to the table `known`, and another one is configured.
pub(super) fn other_table(name: &str, known: &str, configured: &str) -> Fault {
    let detail = format!("outbox {name} belongs to table {known}, not to {configured}");
    Fault::Misconfigured { detail, remedy: "Correct outbox.name or outbox.table".into() }
}
