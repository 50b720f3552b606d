//! A SQLite file and the table in it.

use super::standing::{self, Books};
use super::table::obstacles;
use super::{Finding, Name};
use crate::config::{Config, Mark};
use crate::fault::Fault;
use crate::source::sqlite::Checkup;

/// The journal mode in which readers and the writer do not wait for each other.
const WAL: &str = "wal";

pub(super) fn findings(config: &Config, file: &Checkup) -> Vec<Finding> {
    let mut findings = vec![synchronous(), journal_mode(&file.journal_mode), writing(&file.writing)];
    findings.extend(table(config, file));
    let Checkup { table, schema, row, acceptance, aside, neighbours, .. } = file;
    findings.extend(standing::books(config, &Books { table, schema, row, acceptance, aside, neighbours }));
    findings
}

/// A connection has a setting of its own, and tells it to nobody.
fn synchronous() -> Finding {
    Finding::ok(Name::SynchronousCommit, "FULL in our connections; that services keep the default, FULL too, no look can tell")
}

fn journal_mode(mode: &str) -> Finding {
    match mode {
        WAL => Finding::ok(Name::WalMode, "readers and the writer do not wait for each other"),
        other => Finding::warning(
            Name::WalMode,
            format!("the journal mode is {other}: readers and the writer wait for each other"),
            "Run PRAGMA journal_mode = WAL once; the file keeps it",
        ),
    }
}

fn writing(writing: &Result<(), Fault>) -> Finding {
    let finding = match writing {
        Ok(()) => Finding::ok(Name::DatabaseRight, "granted"),
        Err(fault) => Finding::by_fault(Name::DatabaseRight, fault),
    };
    finding.about("writing the file")
}

/// What would be said of a table that is not fit follows from that alone.
fn table(config: &Config, file: &Checkup) -> Vec<Finding> {
    if let Err(fault) = &file.fit {
        return vec![Finding::essential(Name::Table, fault)];
    }
    vec![
        Finding::ok(Name::Table, format!("{} is a table", file.table)),
        Finding::ok(Name::Columns, "every column is there"),
        Finding::ok(Name::Sequence, "AUTOINCREMENT: no number comes again"),
        Finding::ok(Name::FetchForm, "full form, by which nothing is lost or slow: numbers are committed as they are drawn"),
        match &file.triggers {
            Ok(triggers) => obstacles(config, Name::Triggers, "triggers", triggers),
            Err(fault) => Finding::unanswered(Name::Triggers, fault),
        },
        match &file.unsent_index {
            Ok(index) => unsent_index(config, file, index.as_deref()),
            Err(fault) => Finding::unanswered(Name::UnsentIndex, fault),
        },
    ]
}

/// With rows deleted at once, all rows are unsent, and lie in the order of their numbers.
fn unsent_index(config: &Config, file: &Checkup, index: Option<&str>) -> Finding {
    match (index, config.outbox.mark) {
        (Some(index), _) => Finding::ok(Name::UnsentIndex, format!("unsent rows are found by {index}")),
        (None, Mark::Delete) => Finding::ok(Name::UnsentIndex, "rows lie in the order of their numbers, and none is sent"),
        (None, Mark::Row) => Finding::warning(
            Name::UnsentIndex,
            "no index holds the unsent rows alone: each fetch walks over all that was sent",
            format!("Build one: {}", file.create_unsent),
        ),
    }
}
