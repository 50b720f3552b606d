//! What PostgreSQL and the connection say, as faults. The one place that reads SQLSTATE.

use sqlx::Error;
use sqlx::postgres::PgDatabaseError;

use crate::fault::{Cause, Fault, TIMEOUT};

/// What to do when tables are missing or older than this binary.
pub(super) const MIGRATE: &str = "Run `outboxd migrate`";
/// What to do when a right is missing.
pub(super) const GRANT: &str = "Run `outboxd migrate --roles` and grant what it prints";

/// The fault that an error of the driver means.
pub(super) fn fault(error: Error) -> Fault {
    match error {
        Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => told(error),
            None => Fault::database("driver", "an error of another database's driver"),
        },
        // rustls hands a refused certificate on as this
        Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => Fault::database("tls", error.to_string()),
        Error::Io(error) => Fault::database("connection", error.to_string()),
        Error::Tls(error) => Fault::database("tls", error.to_string()),
        Error::Configuration(error) => Fault::Misconfigured { detail: error.to_string(), remedy: "Correct [database]".into() },
        Error::Protocol(detail) => Fault::database("protocol", detail),
        // a wait that nothing answered, or rows that are not what the statement says: the texts may hold values
        Error::PoolTimedOut => Fault::database(TIMEOUT, "no answer in time"),
        _ => Fault::database("driver", "an answer that could not be read"),
    }
}

/// A failed decoding of a column.
pub(super) fn unreadable(column: &'static str) -> Fault {
    Fault::database("driver", format!("column {column} could not be read"))
}

/// The same fault when what failed may have been done all the same.
pub(super) fn in_doubt(cause: Cause) -> impl Fn(Fault) -> Fault {
    move |fault| match fault {
        Fault::Standby | Fault::Unavailable { .. } => Fault::in_doubt(cause, fault.to_string()),
        other => other,
    }
}

/// Only the primary message, and only of classes that never quote a value: DETAIL and the messages of classes 22 and 23 hold rows.
fn told(error: &PgDatabaseError) -> Fault {
    let (code, message) = (error.code(), error.message().to_owned());
    match code {
        "42501" => Fault::Refused { detail: message, remedy: GRANT.into() },
        "28000" | "28P01" => Fault::Refused { detail: message, remedy: "Correct role and password, or pg_hba.conf".into() },
        "42P01" | "42703" | "3F000" | "42883" => Fault::Missing { detail: message, remedy: MIGRATE.into() },
        "0A000" | "25006" => Fault::Standby,
        "57014" | "55P03" => Fault::database(TIMEOUT, message),
        "40001" | "40P01" => Fault::database("conflict", message),
        _ => unavailable(code, message, error.constraint()),
    }
}

fn unavailable(code: &str, message: String, constraint: Option<&str>) -> Fault {
    match &code.get(..2).unwrap_or_default() {
        &"08" => Fault::database("connection", message),
        &"53" => Fault::database("resources", message),
        &"57" => Fault::database("shutdown", message),
        &"3D" => Fault::database("no_database", message),
        &"58" | &"XX" => Fault::database("server", format!("{message} ({code})")),
        &"23" => Fault::database("constraint", format!("SQLSTATE {code}, constraint {}", constraint.unwrap_or("not named"))),
        _ => Fault::database("sqlstate", format!("SQLSTATE {code}")),
    }
}
