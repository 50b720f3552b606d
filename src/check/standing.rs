//! Where the outbox stands: schema, rights, state row, what is set aside.

use std::time::Duration;

use super::{Finding, Name, listed};
use crate::config::Config;
use crate::fault::{Fault, HaltCode};
use crate::source::desk::{Acceptance, Aside, OpenWriter, Row};
use crate::source::postgres::{Outbox, Right};

/// A transaction that has kept the outbox open for longer than this is worth a look.
const LONG: Duration = Duration::from_secs(60);
const MIGRATE: &str = "Run `outboxd migrate`";

/// What every database keeps of an outbox.
pub(super) struct Books<'a> {
    /// The table, with its schema where there are schemas.
    pub table: &'a str,
    pub schema: &'a Result<(), Fault>,
    pub row: &'a Result<Option<Row>, Fault>,
    pub acceptance: &'a Result<Acceptance, Fault>,
    pub aside: &'a Result<Aside, Fault>,
    pub neighbours: &'a Result<Vec<String>, Fault>,
}

pub(super) fn findings(config: &Config, outbox: &Outbox) -> Vec<Finding> {
    let Outbox { table, schema, row, acceptance, aside, neighbours, .. } = outbox;
    let mut findings = books(config, &Books { table, schema, row, acceptance, aside, neighbours });
    findings.extend(rights(&outbox.rights));
    findings.push(answer(Name::OpenTransactions, &outbox.writers, |writers| open(writers)));
    findings
}

pub(super) fn books(config: &Config, books: &Books) -> Vec<Finding> {
    let mut findings = vec![match books.schema {
        Ok(()) => Finding::ok(Name::Schema, "of a version that this outboxd works with"),
        Err(fault) => Finding::required(Name::Schema, fault),
    }];
    findings.extend(row(config, books));
    findings.push(answer(Name::Identity, books.acceptance, identity));
    findings.extend(aside(books.aside));
    findings.push(answer(Name::Neighbours, books.neighbours, |names| match names.as_slice() {
        [] => Finding::ok(Name::Neighbours, "no other outbox has its books beside these"),
        names => Finding::ok(Name::Neighbours, format!("these outboxes have their books beside these: {}", listed(names))),
    }));
    findings
}

fn answer<T>(name: Name, answer: &Result<T, Fault>, finding: impl Fn(&T) -> Finding) -> Finding {
    match answer {
        Ok(answer) => finding(answer),
        Err(fault) => Finding::unanswered(name, fault),
    }
}

fn rights(rights: &Result<Vec<Right>, Fault>) -> Vec<Finding> {
    let right = |right: &Right| {
        let finding = match right.had {
            true => Finding::ok(Name::DatabaseRight, "granted"),
            false => Finding::refused(
                Name::DatabaseRight,
                "our role lacks it, and `outboxd run` leaves at once",
                "Run `outboxd migrate --roles` and grant what it prints",
            ),
        };
        finding.about(&right.what)
    };
    match rights {
        Ok(rights) => rights.iter().map(right).collect(),
        Err(fault) => vec![Finding::unanswered(Name::DatabaseRight, fault)],
    }
}

fn row(config: &Config, books: &Books) -> Vec<Finding> {
    let name = &config.outbox.name;
    let row = match books.row {
        Ok(Some(row)) => row,
        Ok(None) => {
            let found = format!("this database knows no outbox named {name}");
            return vec![Finding::misconfigured(Name::Outbox, found, format!("{MIGRATE}, or correct outbox.name"))];
        }
        Err(fault) => {
            let names = [Name::Outbox, Name::OutboxDelivery, Name::Halted, Name::Paused, Name::Owner];
            return names.iter().map(|name| Finding::unanswered(*name, fault)).collect();
        }
    };
    vec![owned(name, books.table, row), mode(config, row), halted(row), paused(row), owner(row)]
}

fn owned(name: &str, table: &str, row: &Row) -> Finding {
    if table.eq_ignore_ascii_case(&row.table) || table.ends_with(&format!(".{}", row.table)) {
        return Finding::ok(Name::Outbox, format!("{name} is set up for {table}"));
    }
    let found = format!("{name} belongs to table {}, not to {table}", row.table);
    Finding::misconfigured(Name::Outbox, found, "One table has one name: correct outbox.name or outbox.table")
}

fn mode(config: &Config, row: &Row) -> Finding {
    if row.delivery == config.kafka.delivery.as_str() {
        return Finding::ok(Name::OutboxDelivery, format!("it was set up for {}", row.delivery));
    }
    Finding::misconfigured(
        Name::OutboxDelivery,
        format!("it was set up for {}, the configuration says {}", row.delivery, config.kafka.delivery.as_str()),
        "Correct kafka.delivery, or run `outboxd migrate` to change the mode",
    )
}

fn halted(row: &Row) -> Finding {
    let Some((code, evidence)) = &row.halted else { return Finding::ok(Name::Halted, "it is not halted") };
    let known = HaltCode::ALL.into_iter().find(|known| known.name() == code);
    let remedy = known.map_or("Run the newer outboxd that wrote this halt", HaltCode::remedy);
    let obx = known.map_or(String::new(), |known| format!("{}: ", known.obx()));
    Finding::failed(Name::Halted, format!("{obx}it is halted, {code}: {evidence}"), capitalised(remedy))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn paused(row: &Row) -> Finding {
    match &row.paused {
        None => Finding::ok(Name::Paused, "it is not paused"),
        Some((by, reason)) => {
            Finding::warning(Name::Paused, format!("it is paused by {by}: {reason}"), "Run `outboxd resume --reason …` to go on")
        }
    }
}

fn owner(row: &Row) -> Finding {
    match &row.owner {
        Some(owner) => Finding::ok(Name::Owner, format!("{owner} relays it now")),
        None => Finding::ok(Name::Owner, "nobody relays it now"),
    }
}

fn identity(acceptance: &Acceptance) -> Finding {
    if acceptance.holds() {
        return Finding::ok(Name::Identity, format!("{} is one of the accepted databases", acceptance.address));
    }
    let found = format!(
        "address {} and system {}; accepted are {} and {}",
        acceptance.address,
        acceptance.database.system,
        listed(&acceptance.addresses),
        listed(&acceptance.systems)
    );
    let code = HaltCode::MovedDatabase;
    Finding::failed(Name::Identity, format!("{}: {found}", code.obx()), capitalised(code.remedy()))
}

fn aside(aside: &Result<Aside, Fault>) -> [Finding; 2] {
    let aside = match aside {
        Ok(aside) => aside,
        Err(fault) => return [Name::Parked, Name::Held].map(|name| Finding::unanswered(name, fault)),
    };
    let parked = match aside.parked {
        0 => Finding::ok(Name::Parked, "no event is set aside"),
        parked => Finding::warning(
            Name::Parked,
            format!("{parked} events can never be published as they are"),
            "Look at them with `outboxd parked list`; retry or discard them",
        ),
    };
    let held = match aside.held.as_slice() {
        [] => Finding::ok(Name::Held, "no topic is held"),
        held => Finding::warning(
            Name::Held,
            format!(
                "these topics cannot be published to: {}",
                listed(held.iter().map(|(topic, code)| format!("{topic} ({code})")))
            ),
            release(held),
        ),
    };
    [parked, held]
}

/// How held topics come back: one that is another topic by now only when a person accepts it, or brings the old one back.
fn release(held: &[(String, String)]) -> String {
    let is_another = |code: &str| ["topic_recreated", "topic_shrunk"].contains(&code);
    let accept = held.iter().filter(|(_, code)| is_another(code)).map(|(topic, _)| format!("`outboxd repin {topic} --reason …`"));
    let accept: Vec<String> = accept.collect();
    let accept_them = format!("When consumers are ready for the topic as it is now: {}", accept.join(", "));
    let mend = "Create them or grant what is named in the log; the relay goes on by itself";
    match (accept.len(), held.len() - accept.len()) {
        (0, _) => mend.into(),
        (_, 0) => accept_them,
        (_, _) => format!("{accept_them}. The others: {}", mend.to_lowercase()),
    }
}

/// A prepared transaction waits for a person. The age of somebody else's transaction is hidden from most roles.
fn open(writers: &[OpenWriter]) -> Finding {
    let shown = |writer: &&OpenWriter| match (&writer.gid, writer.pid) {
        (Some(gid), _) => format!("prepared transaction {gid}"),
        (None, Some(pid)) => format!("server process {pid}"),
        (None, None) => "a prepared transaction".to_owned(),
    };
    let is_long = |writer: &&OpenWriter| writer.pid.is_none() || writer.age.is_some_and(|age| age >= LONG);
    let long: Vec<String> = writers.iter().filter(is_long).map(|writer| shown(&writer)).collect();
    let ageless = writers.iter().filter(|writer| writer.pid.is_some() && writer.age.is_none()).count();
    if !long.is_empty() {
        return Finding::warning(
            Name::OpenTransactions,
            format!("these keep events back, and dead rows in the table: {}", long.join(", ")),
            "Commit them or roll them back; a prepared one with COMMIT PREPARED or ROLLBACK PREPARED",
        );
    }
    match ageless {
        0 => Finding::ok(Name::OpenTransactions, "no transaction has kept the outbox open for long"),
        count => Finding::unseen(
            Name::OpenTransactions,
            format!("{count} transactions have it open, and their age is hidden from our role"),
            "Grant pg_read_all_stats to look at it",
        ),
    }
}
