//! The database, and the way to its parts.

use super::{Finding, Name, file, standing, table};
use crate::config::Config;
use crate::fault::{EXIT_UNREACHABLE, Fault};
use crate::source::any::Checkup;
use crate::source::postgres::{self, ServerFacts};

use super::State;

/// The oldest and the newest version that are tested.
const OLDEST: i32 = 15;
const NEWEST: i32 = 18;
/// A difference between two clocks above this is worth a look.
const CLOCKS_APART_US: i64 = 5_000_000;

pub(super) fn findings(config: &Config, database: &Result<Checkup, Fault>) -> Vec<Finding> {
    let checkup = match database {
        Ok(checkup) => checkup,
        Err(fault) => return vec![Finding::by_fault(Name::DatabaseReachable, fault)],
    };
    let address = config.database.address();
    let mut findings = vec![Finding::ok(Name::DatabaseReachable, format!("{address} answers"))];
    findings.extend(match checkup {
        Checkup::Postgres(checkup) => server_findings(config, checkup),
        Checkup::Sqlite(checkup) => file::findings(config, checkup),
    });
    findings
}

fn server_findings(config: &Config, checkup: &postgres::Checkup) -> Vec<Finding> {
    let mut findings = server(&checkup.server).to_vec();
    match &checkup.outbox {
        Ok(outbox) => {
            findings.extend(table::findings(config, outbox, &checkup.server));
            findings.extend(standing::findings(config, outbox));
        }
        Err(fault) => findings.push(Finding::required(Name::Table, fault)),
    }
    findings
}

fn server(server: &ServerFacts) -> [Finding; 6] {
    [version(server), primary(server), fsync(server), full_pages(server), commit(server), clock(server)]
}

fn version(server: &ServerFacts) -> Finding {
    let major = server.version / 10_000;
    let found = format!("PostgreSQL {major}.{}", server.version % 10_000);
    match major {
        OLDEST..=NEWEST => Finding::ok(Name::DatabaseVersion, found),
        ..OLDEST => Finding::misconfigured(Name::DatabaseVersion, found, format!("Upgrade to PostgreSQL {OLDEST} or newer")),
        _ => Finding::warning(
            Name::DatabaseVersion,
            format!("{found}, which this version of outboxd was never tested with"),
            format!("Use PostgreSQL {OLDEST} to {NEWEST}, or a newer outboxd"),
        ),
    }
}

fn primary(server: &ServerFacts) -> Finding {
    let found = match (server.in_recovery, server.read_only) {
        (true, _) => "it is a standby, which takes no writes",
        (false, true) => "our transactions are read only",
        (false, false) => return Finding::ok(Name::DatabasePrimary, "it is a primary and takes writes"),
    };
    let remedy = "Let database.url lead to the primary, and look at default_transaction_read_only".to_owned();
    Finding::new(Name::DatabasePrimary, State::Failed(EXIT_UNREACHABLE), found, Some(remedy))
}

fn fsync(server: &ServerFacts) -> Finding {
    match server.fsync {
        true => Finding::ok(Name::Fsync, "on"),
        false => Finding::failed(
            Name::Fsync,
            "off: a crash of the machine can lose what was committed, or the whole database",
            "Set fsync = on; off is for tests",
        ),
    }
}

fn full_pages(server: &ServerFacts) -> Finding {
    match server.full_page_writes {
        true => Finding::ok(Name::FullPageWrites, "on"),
        false => Finding::warning(
            Name::FullPageWrites,
            "off: a crash in the middle of writing a page can destroy it",
            "Set full_page_writes = on, unless the file system never tears a page",
        ),
    }
}

fn commit(server: &ServerFacts) -> Finding {
    let found = &server.synchronous_commit;
    match found.as_str() {
        "off" => Finding::warning(
            Name::SynchronousCommit,
            "off: a crash can lose transactions whose events are published already",
            "Set synchronous_commit = on, at least for the services that write events",
        ),
        _ => Finding::ok(Name::SynchronousCommit, found.clone()),
    }
}

fn clock(server: &ServerFacts) -> Finding {
    let seconds = server.ahead_us as f64 / 1e6;
    let found =
        format!("the database's clock is {:.1} s {} ours", seconds.abs(), if seconds < 0.0 { "behind" } else { "ahead of" });
    if server.ahead_us.abs() < CLOCKS_APART_US {
        return Finding::ok(Name::Clock, found);
    }
    Finding::warning(Name::Clock, found, "Set both clocks by one time server: records carry ours, the header `time` the database's")
}
