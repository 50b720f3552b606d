//! What PostgreSQL and the connection say, as faults. The one place that reads SQLSTATE.

use sqlx::Error;
use sqlx::postgres::PgDatabaseError;

use crate::fault::{Cause, Dependency, Fault, Halt, HaltCode, TIMEOUT};
pub(super) use crate::source::state::{MIGRATE, unreadable};

/// What to do when a right is missing.
pub(super) const GRANT: &str = "Run `outboxd migrate --roles` and grant what it prints";

/// Codes of statements that are refused for what they do: by a constraint, or by what a trigger does.
const CONSTRAINT: &str = "constraint";
const REFUSED: &str = "refused";
/// Of the classes of SQLSTATE those that only such a refusal has. Not among them: what another try may cure (40: conflicts, 55P03: locks,
/// 25: a standby, an idle transaction that was ended), outages (08, 53, 57, 58, XX), what a pooler mixes up (26, 34), foreign servers (HV),
/// and what is told by its own name (42: rights, tables, columns).
const REFUSALS: [&str; 12] = ["09", "21", "22", "23", "27", "2F", "38", "39", "44", "54", "55", "P0"];
/// The part of the server that refuses rows for a policy of row security or a view's CHECK OPTION; the same SQLSTATE as a missing right.
const CHECKS_OPTIONS: &str = "ExecWithCheckOptions";

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

/// The same fault when what failed may have been done all the same.
pub(super) fn in_doubt(cause: Cause) -> impl Fn(Fault) -> Fault {
    move |fault| match fault {
        Fault::Standby | Fault::Unavailable { .. } => Fault::in_doubt(cause, fault.to_string()),
        other => other,
    }
}

/// The same fault, unless it says that rows may not be marked: then going on would only publish what nobody can take note of.
pub(super) fn mark_refused(batch: &str) -> impl Fn(Fault) -> Fault {
    move |fault| match fault {
        Fault::Unavailable { dependency: Dependency::Database, code: CONSTRAINT | REFUSED, detail } => {
            Halt::new(HaltCode::MarkRefused, format!("{batch} may not be marked: {detail}")).into()
        }
        other => other,
    }
}

/// Only the primary message, and only of classes that never quote a value: DETAIL, the messages of classes 22 and 23, and those that a
/// trigger raises hold rows.
fn told(error: &PgDatabaseError) -> Fault {
    let (code, message) = (error.code(), error.message().to_owned());
    match code {
        "42501" if error.routine() == Some(CHECKS_OPTIONS) => Fault::database(REFUSED, message),
        "42501" => Fault::Refused { detail: message, remedy: GRANT.into() },
        "28000" | "28P01" => Fault::Refused { detail: message, remedy: "Correct role and password, or pg_hba.conf".into() },
        "42P01" | "42703" | "3F000" | "42883" => Fault::Missing { detail: message, remedy: MIGRATE.into() },
        "2BP01" => Fault::Misconfigured { detail: message, remedy: "Drop what rests on it, and make that anew afterwards".into() },
        "0A000" | "25006" => Fault::Standby,
        "57014" | "55P03" => Fault::database(TIMEOUT, message),
        "40001" | "40P01" => Fault::database("conflict", message),
        _ if is_refusal(code) => refusal(code, error),
        _ => unavailable(code, message),
    }
}

fn is_refusal(code: &str) -> bool {
    code.get(..2).is_some_and(|class| REFUSALS.contains(&class))
}

fn refusal(code: &str, error: &PgDatabaseError) -> Fault {
    match (error.constraint(), error.r#where().and_then(function)) {
        (Some(constraint), _) => Fault::database(CONSTRAINT, format!("SQLSTATE {code}, constraint {constraint}")),
        (None, Some(function)) => Fault::database(REFUSED, format!("SQLSTATE {code} in function {function}")),
        (None, None) => Fault::database(REFUSED, format!("SQLSTATE {code}")),
    }
}

/// The PL/pgSQL function that an error came out of, as far as the server speaks English: what else stands there may quote values.
fn function(context: &str) -> Option<&str> {
    context.lines().find_map(|line| Some(line.strip_prefix("PL/pgSQL function ")?.split_once(" line ")?.0))
}

fn unavailable(code: &str, message: String) -> Fault {
    match &code.get(..2).unwrap_or_default() {
        &"08" => Fault::database("connection", message),
        &"53" => Fault::database("resources", message),
        &"57" => Fault::database("shutdown", message),
        &"3D" => Fault::database("no_database", message),
        &"58" | &"XX" => Fault::database("server", format!("{message} ({code})")),
        _ => Fault::database("sqlstate", format!("SQLSTATE {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_other_try_cures_is_a_refusal() {
        for code in ["P0001", "P0004", "23514", "23503", "22012", "27000", "2F003", "38000", "39P01", "44000", "54001", "55000"] {
            assert!(is_refusal(code), "{code}");
        }
        // conflicts, outages, standbys, what a pooler mixes up, full disks, foreign servers
        for code in ["40001", "40P01", "08006", "25006", "25P03", "26000", "53100", "57P01", "58030", "XX000", "HV000", "34000", ""]
        {
            assert!(!is_refusal(code), "{code}");
        }
    }

    #[test]
    fn a_refused_mark_halts_and_an_outage_does_not() {
        let refused = mark_refused("batch 7")(Fault::database(REFUSED, "SQLSTATE P0001 in function keep()"));
        let Fault::Unsafe(halt) = refused else { panic!("{refused:?}") };
        assert_eq!(halt.to_string(), "mark-refused: batch 7 may not be marked: SQLSTATE P0001 in function keep()");
        assert!(matches!(mark_refused("")(Fault::database(CONSTRAINT, "")), Fault::Unsafe(_)));
        for code in [TIMEOUT, "conflict", "connection", "resources", "shutdown", "server", "sqlstate", "driver"] {
            assert!(matches!(mark_refused("")(Fault::database(code, "")), Fault::Unavailable { .. }), "{code}");
        }
        assert!(matches!(mark_refused("")(Fault::kafka(REFUSED, "")), Fault::Unavailable { .. }));
    }

    #[test]
    fn of_the_context_only_the_name_of_the_function_is_told() {
        let context = "SQL statement \"SELECT 'secret'\"\nPL/pgSQL function app.keep() line 3 at RAISE";
        assert_eq!(function(context), Some("app.keep()"));
        assert_eq!(function("PL/pgSQL-Funktion keep() Zeile 3 bei RAISE"), None);
    }
}
