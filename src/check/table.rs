//! The table of events: how it is made, and what stands in the way.

use super::{Finding, Name, listed};
use crate::config::{Config, Mark, Order, Retention};
use crate::source::desk::Obstacle;
use crate::source::postgres::{Activity, Covers, Index, Outbox, Policy, Sequence, ServerFacts, Shape};

/// So many inserts must have been counted before anything is concluded from them.
const ENOUGH_ROWS: i64 = 10;

pub(super) fn findings(config: &Config, outbox: &Outbox, server: &ServerFacts) -> Vec<Finding> {
    let mut findings = fit(outbox);
    match &outbox.shape {
        Ok(shape) => findings.extend(shape_findings(config, outbox, shape, server)),
        Err(fault) => findings.push(Finding::unanswered(Name::Table, fault)),
    }
    findings.push(match &outbox.activity {
        Ok(activity) => insert_and_delete(config, activity),
        Err(fault) => Finding::unanswered(Name::InsertAndDelete, fault),
    });
    findings
}

fn fit(outbox: &Outbox) -> Vec<Finding> {
    let fit = match &outbox.fit {
        Ok(fit) => fit,
        Err(fault) => return vec![Finding::essential(Name::Columns, fault)],
    };
    let payload = match fit.payload_is_jsonb {
        false => Finding::ok(Name::Payload, "its type is passed on as it lies there"),
        true => Finding::warning(
            Name::Payload,
            "jsonb: the server prints it anew for each event, at twice the cost of json",
            // the type of a column that a view shows cannot be changed
            format!(
                "Where its bytes matter or the load is high: DROP VIEW {}; make the column json; then `outboxd migrate`, which makes the \
                 view anew",
                outbox.view
            ),
        ),
    };
    vec![Finding::ok(Name::Columns, "every column is there, of a type that can be passed on"), payload]
}

fn shape_findings(config: &Config, outbox: &Outbox, shape: &Shape, server: &ServerFacts) -> Vec<Finding> {
    let allows_cursor = outbox.fit.as_ref().is_ok_and(|fit| fit.allows_cursor);
    vec![
        kind(&outbox.table, shape),
        logged(shape),
        inheritance(shape),
        subscription(shape),
        sequence(config, shape.sequence),
        form(allows_cursor, shape),
        row_security(config, shape.policies.as_deref()),
        obstacles(config, Name::Triggers, "triggers", &shape.triggers),
        obstacles(config, Name::Rules, "rules", &shape.rules),
        index(config, shape),
        unique(shape),
        autovacuum(shape, server),
    ]
}

fn kind(table: &str, shape: &Shape) -> Finding {
    match shape.kind.as_str() {
        "r" => Finding::ok(Name::Table, format!("{table} is a table")),
        "p" => Finding::ok(Name::Table, format!("{table} is a partitioned table")),
        _ => Finding::misconfigured(Name::Table, format!("{table} is not a local table"), "Correct outbox.table"),
    }
}

fn logged(shape: &Shape) -> Finding {
    match shape.logged {
        true => Finding::ok(Name::TableLogged, "its rows outlive a crash"),
        false => Finding::failed(Name::TableLogged, "it is unlogged: a crash empties it", "Make it a logged table: SET LOGGED"),
    }
}

fn inheritance(shape: &Shape) -> Finding {
    match shape.inherits {
        false => Finding::ok(Name::TableInheritance, "it inherits nothing"),
        true => Finding::warning(
            Name::TableInheritance,
            "it has parents or children by inheritance: numbers can repeat across them",
            "Use a table of its own, or partitions",
        ),
    }
}

fn subscription(shape: &Shape) -> Finding {
    match shape.subscribed {
        false => Finding::ok(Name::TableSubscription, "no subscription feeds it"),
        true => Finding::warning(
            Name::TableSubscription,
            "a subscription feeds it: its numbers were drawn elsewhere, in another order than they arrive",
            "Relay from the publishing database",
        ),
    }
}

fn sequence(config: &Config, sequence: Option<Sequence>) -> Finding {
    let found = match sequence {
        Some(Sequence { increment: 1, cache: 1, cycles: false }) => {
            return Finding::ok(Name::Sequence, "INCREMENT 1, CACHE 1, no CYCLE");
        }
        Some(Sequence { increment, cache, cycles }) => {
            format!(
                "INCREMENT {increment}, CACHE {cache}{}: its numbers do not keep the order",
                if cycles { ", CYCLE" } else { "" }
            )
        }
        None => "seq draws from no sequence: its numbers may not keep the order".into(),
    };
    let remedy =
        "Give seq a sequence with INCREMENT 1 CACHE 1 NO CYCLE that goes on above its numbers, or write outbox.order = \"none\"";
    let steps_by_one = sequence.is_some_and(|sequence| sequence.increment == 1 && sequence.cache == 1);
    match config.outbox.order {
        Order::Key if !steps_by_one => Finding::misconfigured(Name::Sequence, found, remedy),
        Order::Key | Order::None => Finding::warning(Name::Sequence, found, remedy),
    }
}

/// What no look can tell is said with it.
fn form(allows_cursor: bool, shape: &Shape) -> Finding {
    if allows_cursor {
        return Finding::ok(Name::FetchForm, "by cursor: seq is GENERATED ALWAYS AS IDENTITY");
    }
    // a new sequence begins at 1, below what was published: the statements are too many for a line
    let (why, remedy) = match shape.always {
        true => ("the table breaks a rule that is told above", "Mend what is told of inheritance, subscription or sequence"),
        false => (
            "seq is not GENERATED ALWAYS AS IDENTITY",
            "Follow `Numbers by identity` in docs/tables.md, so that numbers go on where they are; never draw them in the service",
        ),
    };
    Finding::warning(
        Name::FetchForm,
        format!("full form only, since {why}: slower, and the order is kept only if each number is drawn by its INSERT"),
        remedy,
    )
}

fn row_security(config: &Config, policies: Option<&[Policy]>) -> Finding {
    let Some(policies) = policies else { return Finding::ok(Name::RowSecurity, "no policy applies to our role") };
    let delete = config.outbox.mark == Mark::Delete;
    let commands: &[(&str, &str)] =
        if delete { &[("r", "SELECT"), ("d", "DELETE")] } else { &[("r", "SELECT"), ("w", "UPDATE"), ("d", "DELETE")] };
    let lets = |command: &str, policy: &&Policy| policy.command == "*" || policy.command == command;
    let hidden: Vec<&str> = commands
        .iter()
        .filter(|(command, _)| !policies.iter().any(|policy| policy.permissive && lets(command, &policy)))
        .map(|(_, word)| *word)
        .collect();
    let remedy = "Give the relay's role BYPASSRLS, or a policy FOR ALL USING (true)";
    if !hidden.is_empty() {
        let found = format!("no policy lets our role {} any row: what is done to no row is no error", hidden.join(" or "));
        return Finding::failed(Name::RowSecurity, found, remedy);
    }
    let open = |(command, _): &(&str, &str)| {
        let mut of_command = policies.iter().filter(|policy| lets(command, policy));
        of_command.clone().any(|policy| policy.permissive && policy.lets_all)
            && of_command.all(|policy| policy.permissive || policy.lets_all)
    };
    if commands.iter().all(open) {
        return Finding::ok(Name::RowSecurity, "policies apply to our role and let every row through");
    }
    let names = listed(policies.iter().map(|policy| &policy.name));
    Finding::warning(Name::RowSecurity, format!("policies may hide rows from our role: {names}"), remedy)
}

pub(super) fn obstacles(config: &Config, name: Name, what: &str, found: &[Obstacle]) -> Finding {
    let deletes = config.outbox.mark == Mark::Delete || config.outbox.retention != Retention::Forever;
    let marks = config.outbox.mark == Mark::Row;
    let met: Vec<&str> = found
        .iter()
        .filter(|found| found.on_mark && marks || found.on_delete && deletes)
        .map(|found| found.name.as_str())
        .collect();
    if met.is_empty() {
        return Finding::ok(name, format!("no {what} stand in the way of marks"));
    }
    Finding::warning(
        name,
        format!("{what} see each row before it is marked or deleted, and may swallow that: {}", met.join(", ")),
        "Let them leave alone what the relay does, or drop them; rows that stay unsent end in the halt mark-refused",
    )
}

/// With rows deleted at once, all rows are unsent: every index that begins with the number serves.
fn index(config: &Config, shape: &Shape) -> Finding {
    let deletes = config.outbox.mark == Mark::Delete;
    let serves = |index: &&Index| index.covers == Covers::Unsent || deletes && index.covers == Covers::All;
    let (valid, invalid): (Vec<&Index>, Vec<&Index>) = shape.indexes.iter().filter(serves).partition(|index| index.valid);
    if let Some(index) = valid.first() {
        return Finding::ok(Name::UnsentIndex, format!("unsent rows are found by {}", index.name));
    }
    if let Some(broken) = invalid.first() {
        let found = format!("{} is not valid: it was not built to its end", broken.name);
        return Finding::warning(Name::UnsentIndex, found, "Drop it, and build it anew, CONCURRENTLY");
    }
    let walks = shape.indexes.iter().any(|index| index.valid && index.covers == Covers::All);
    let found = match walks {
        true => "no index holds the unsent rows alone: each fetch in full form walks over all that was sent",
        false => "no index over the unsent rows begins with seq: each fetch reads the whole table",
    };
    let create = shape.create_unsent.as_ref().filter(|_| !deletes).unwrap_or(&shape.create_unique);
    Finding::warning(Name::UnsentIndex, found, format!("Build one: {create}"))
}

/// Two rows with one number cannot be told apart by it, and the fetch refuses what is not in order.
fn unique(shape: &Shape) -> Finding {
    if let Some(index) = shape.indexes.iter().find(|index| index.keeps_numbers_apart()) {
        return Finding::ok(Name::UniqueNumbers, format!("{} says that each number occurs once", index.name));
    }
    if shape.kind == "p" {
        return Finding::ok(Name::UniqueNumbers, "a partitioned table cannot say so: it rests on the sequence");
    }
    Finding::warning(
        Name::UniqueNumbers,
        "nothing says that each number occurs once: two rows with one number stop the relay (OBX201, out_of_order)",
        format!("Build an index that does: {}", shape.create_unique),
    )
}

fn autovacuum(shape: &Shape, server: &ServerFacts) -> Finding {
    let found = match (server.autovacuum, shape.autovacuum_off) {
        (true, false) => return Finding::ok(Name::Autovacuum, "on"),
        (false, _) => "off in this server: dead rows pile up where the relay reads",
        (true, true) => "off for this table: dead rows pile up where the relay reads",
    };
    Finding::warning(
        Name::Autovacuum,
        found,
        "Set autovacuum = on and track_counts = on, and reset autovacuum_enabled of the table",
    )
}

/// Deleted rows without any mark: a service that deletes its rows in the same transaction, for a reader of the log.
fn insert_and_delete(config: &Config, activity: &Activity) -> Finding {
    let published = match config.outbox.mark {
        Mark::Row => activity.updated * 10 >= activity.inserted,
        Mark::Delete => activity.applied > 0,
    };
    let found = format!("{} rows were inserted and {} deleted", activity.inserted, activity.deleted);
    if activity.inserted < ENOUGH_ROWS || activity.deleted * 10 < activity.inserted * 9 || published {
        return Finding::ok(Name::InsertAndDelete, found);
    }
    Finding::warning(
        Name::InsertAndDelete,
        format!("{found}, while hardly any was published: a service seems to delete its rows itself, before they can be seen"),
        "Let the service only insert; the relay removes rows after outbox.retention",
    )
}
