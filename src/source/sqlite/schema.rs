//! The schema as `run` finds it, and the state row that makes a table an outbox.

use super::connection::{Link, Work, get, statement};
use super::migration::MIGRATIONS;
use super::names::{Names, literal};
use super::settings::Settings;
use super::standing::{identity, json};
use super::{Sqlite, table};
use crate::config::Delivery;
use crate::fault::Fault;
use crate::journal::FORMAT;
use crate::source::ClaimNumber;
use crate::source::desk::Step;
use crate::source::migrations;

/// What the migrations have reached: of the relay's own tables, and of this table of events.
const REACHED: &str = "SELECT coalesce(max(CASE WHEN scope = '' THEN version END), 0), \
    coalesce(max(CASE WHEN scope = ?1 COLLATE NOCASE THEN version END), 0) FROM outboxd_migrations";

const STATE: &str = "SELECT table_name FROM outboxd_state WHERE name = ?1";
const NAME_OF_TABLE: &str = "SELECT name FROM outboxd_state WHERE table_name = ?1 COLLATE NOCASE";
/// A new outbox, with a random uuid.
const CREATE_STATE: &str = "INSERT INTO outboxd_state\n    \
    (name, table_name, outbox, delivery, format, accepted_addresses, accepted_systems)\n    \
    VALUES ({name}, {table_name}, {uuid}, {delivery}, {format}, {addresses}, {systems});\n";
const UUID: &str = "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-'\n        \
    || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))";

/// Changes the mode when no lease is alive, with a new claim number, so that whoever still works in the old mode is shut out.
const SET_DELIVERY: &str = "UPDATE outboxd_state SET delivery = ?2, claim = ?3 WHERE name = ?1 \
    AND (lease_until IS NULL OR lease_until <= {now})";

/// Accepts the schema of this version and the one before, so that a rolling upgrade can go back.
pub(super) async fn check(link: &mut Link, names: &Names, settings: &Settings) -> Result<(), Fault> {
    let mut work = link.read().await?;
    version(&mut work, names, settings).await?;
    table::check(&mut work, names).await?;
    work.commit().await
}

/// [`check`] without the table of events.
pub(super) async fn version(work: &mut Work<'_>, names: &Names, settings: &Settings) -> Result<(), Fault> {
    let newest = MIGRATIONS[MIGRATIONS.len() - 1].version;
    let row = work.row(statement(&names.sql(REACHED)).bind(&names.table)).await?;
    let reached: (i32, i32) = match row {
        Some(row) => (get(&row, 0, "max")?, get(&row, 1, "max")?),
        None => (0, 0),
    };
    migrations::accept(reached, newest, settings.name())
}

/// The step that makes the state row of an outbox at this address.
pub(super) fn state_step(names: &Names, settings: &Settings, address: &str) -> Result<Step, Fault> {
    let values = [
        ("name", literal(settings.name())),
        ("uuid", UUID.to_owned()),
        ("delivery", literal(settings.delivery.as_str())),
        ("format", FORMAT.to_string()),
        ("addresses", literal(&json(&[address])?)),
        ("systems", literal(&json(&[identity().system])?)),
    ];
    let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
    let sql = names.sql_with(CREATE_STATE, &values).text().to_owned();
    Ok(Step { title: format!("outbox {}", settings.name()), sql })
}

/// Whether this name belongs to this table already; refused when either belongs to another.
pub(super) async fn known(work: &mut Work<'_>, names: &Names, settings: &Settings) -> Result<bool, Fault> {
    let refuse = |detail: String| {
        let remedy =
            "One table has one name: correct outbox.name or outbox.table; `outboxd adopt --name OLD` renames an outbox".into();
        Err(Fault::Misconfigured { detail, remedy })
    };
    if let Some(row) = work.row(statement(&names.sql(STATE)).bind(settings.name())).await? {
        let table: String = get(&row, 0, "table_name")?;
        return if table.eq_ignore_ascii_case(&names.table) {
            Ok(true)
        } else {
            refuse(format!("outbox {} belongs to table {table}", settings.name()))
        };
    }
    match work.row(statement(&names.sql(NAME_OF_TABLE)).bind(&names.table)).await? {
        Some(row) => refuse(format!("table {} is outbox {} already", names.table, get::<String>(&row, 0, "name")?)),
        None => Ok(false),
    }
}

impl Sqlite {
    /// Changes the mode in the state row, provided that no lease is alive. The caller has settled in the old mode.
    pub async fn set_delivery(&self, delivery: Delivery, claim: ClaimNumber) -> Result<(), Fault> {
        let mut link = self.place.link();
        let mut work = link.write().await?;
        let set = statement(&self.names.sql(SET_DELIVERY)).bind(self.settings.name()).bind(delivery.as_str()).bind(claim.0);
        if work.execute(set).await? == 0 {
            let detail = format!("outbox {} is being relayed, or is not set up", self.settings.name());
            return Err(Fault::Misconfigured { detail, remedy: "Stop its relay first".into() });
        }
        work.commit().await
    }
}
