//! What SQLite says, as faults. The one place that reads its result codes.

use std::io;
use std::path::Path;

use sqlx::Error;
use sqlx::error::DatabaseError;

use crate::fault::{Cause, Fault, TIMEOUT};
pub(super) use crate::source::state::{MIGRATE, unreadable};

/// What to do when the file cannot be opened or written.
const PERMISSIONS: &str = "Let the relay's user read and write the file, its folder, and the files -wal and -shm beside it";

// https://www.sqlite.org/rescode.html: the lowest byte is the primary code
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READ_ONLY: i32 = 8;
const INTERRUPTED: i32 = 9;
const INPUT_OUTPUT: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANNOT_OPEN: i32 = 14;
const CONSTRAINT: i32 = 19;
const NOT_A_DATABASE: i32 = 26;
const READ_ONLY_MOVED: i32 = READ_ONLY | 4 << 8;

/// The fault that an error of the driver means.
pub(super) fn fault(error: Error) -> Fault {
    match error {
        Error::Database(error) => told(&*error),
        Error::Io(error) => Fault::database("connection", error.to_string()),
        Error::WorkerCrashed => Fault::database("driver", "the thread of the connection has ended"),
        // rows that are not what the statement says: the texts may hold values
        _ => Fault::database("driver", "an answer that could not be read"),
    }
}

/// The same fault when what failed may have been done all the same.
pub(super) fn in_doubt(cause: Cause) -> impl Fn(Fault) -> Fault {
    move |fault| match fault {
        Fault::Unavailable { .. } => Fault::in_doubt(cause, fault.to_string()),
        other => other,
    }
}

/// The file could not be looked at.
pub(super) fn unseen(path: &Path, error: &io::Error) -> Fault {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Fault::database("no_database", format!("{path} is not there; where none has ever been, `outboxd migrate` makes it"))
        }
        io::ErrorKind::PermissionDenied => {
            Fault::Refused { detail: format!("{path} cannot be reached: {error}"), remedy: PERMISSIONS.into() }
        }
        _ => Fault::database("connection", format!("{path}: {error}")),
    }
}

/// SQLite's messages name tables, columns and constraints, never values; those of a trigger's RAISE are the service's own, and left out.
fn told(error: &dyn DatabaseError) -> Fault {
    let code: i32 = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
    let message = error.message().to_owned();
    match code & 0xff {
        _ if code == READ_ONLY_MOVED => Fault::database("file_moved", "the file was moved or replaced under an open connection"),
        BUSY | LOCKED | INTERRUPTED => Fault::database(TIMEOUT, format!("another connection holds its lock: {message}")),
        READ_ONLY | CANNOT_OPEN => Fault::Refused { detail: message, remedy: PERMISSIONS.into() },
        FULL => Fault::database("resources", message),
        INPUT_OUTPUT | CORRUPT | NOT_A_DATABASE => Fault::database("server", format!("{message} ({code})")),
        CONSTRAINT => Fault::database("constraint", format!("SQLite result code {code}")),
        _ if message.starts_with("no such ") => Fault::Missing { detail: message, remedy: MIGRATE.into() },
        _ => Fault::database("sqlstate", format!("SQLite result code {code}")),
    }
}
