//! The schema as `run` finds it, and the state row that makes a table an outbox.

use super::connection::{Link, Work, statement};
use super::migration::MIGRATIONS;
use super::names::{Names, literal};
use super::settings::Settings;
use super::table::get;
use super::{Postgres, standing};
use crate::config::Delivery;
use crate::fault::Fault;
use crate::journal::FORMAT;
use crate::source::ClaimNumber;
use crate::source::desk::Step;
use crate::source::migrations;

/// What the migrations have reached: of the relay's own tables, and of this table of events.
const REACHED: &str = "SELECT coalesce(max(version) FILTER (WHERE scope = ''), 0), coalesce(max(version) FILTER (WHERE scope = $1), 0) \
    FROM {migrations}";

const STATE: &str = "SELECT table_name FROM {state} WHERE name = $1";
const NAME_OF_TABLE: &str = "SELECT name FROM {state} WHERE table_name = $1";
/// A new outbox; its uuid is drawn by the default of the column.
const CREATE_STATE: &str = "INSERT INTO {state} (name, table_name, delivery, format, accepted_addresses, accepted_systems)\n    VALUES \
    ({name}, {table_name}, {delivery}, {format}, ARRAY[{address}], ARRAY[{system}]);\n";

/// Changes the mode when no lease is alive, with a new claim number, so that whoever still works in the old mode is shut out.
const SET_DELIVERY: &str = "UPDATE {state} SET delivery = $2, claim = $3 WHERE name = $1 \
    AND (lease_until IS NULL OR lease_until <= clock_timestamp())";

/// Accepts the schema of this version and the one before, so that a rolling upgrade can go back.
pub(super) async fn check(link: &mut Link, names: &Names, settings: &Settings) -> Result<(), Fault> {
    let newest = MIGRATIONS[MIGRATIONS.len() - 1].version;
    let mut work = link.begin().await?;
    let row = work.row(statement(&names.sql(REACHED)).bind(&names.table)).await?;
    let reached: (i32, i32) = match row {
        Some(row) => (get(&row, 0, "max")?, get(&row, 1, "max")?),
        None => (0, 0),
    };
    work.commit().await?;
    migrations::accept(reached, newest, settings.name())
}

/// The step that makes the state row, unless it is there. `fresh`: the table of state rows is not there yet either.
pub(super) async fn state_step(
    work: &mut Work<'_>,
    names: &Names,
    settings: &Settings,
    fresh: bool,
) -> Result<Option<Step>, Fault> {
    if !fresh && known(work, names, settings).await? {
        return Ok(None);
    }
    let system = standing::identity(work, names).await?.system;
    let values = [
        ("name", literal(settings.name())),
        ("delivery", literal(settings.delivery.as_str())),
        ("format", FORMAT.to_string()),
        ("address", literal(&settings.address())),
        ("system", literal(&system)),
    ];
    let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
    let sql = names.sql_with(CREATE_STATE, &values).text().to_owned();
    Ok(Some(Step { title: format!("outbox {}", settings.name()), sql }))
}

/// Whether this name belongs to this table already; refused when either belongs to another.
async fn known(work: &mut Work<'_>, names: &Names, settings: &Settings) -> Result<bool, Fault> {
    let refuse = |detail: String| {
        let remedy =
            "One table has one name: correct outbox.name or outbox.table; `outboxd adopt --name OLD` renames an outbox".into();
        Err(Fault::Misconfigured { detail, remedy })
    };
    if let Some(row) = work.row(statement(&names.sql(STATE)).bind(settings.name())).await? {
        let table: String = get(&row, 0, "table_name")?;
        return if table == names.table {
            Ok(true)
        } else {
            refuse(format!("outbox {} belongs to table {table}", settings.name()))
        };
    }
    match work.row(statement(&names.sql(NAME_OF_TABLE)).bind(&names.table)).await? {
        Some(row) => refuse(format!("table {} is outbox {} already", names.shown(), get::<String>(&row, 0, "name")?)),
        None => Ok(false),
    }
}

impl Postgres {
    /// Changes the mode in the state row, provided that no lease is alive. The caller has settled in the old mode.
    pub async fn set_delivery(&self, delivery: Delivery, claim: ClaimNumber) -> Result<(), Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let set = statement(&names.sql(SET_DELIVERY)).bind(self.settings.name()).bind(delivery.as_str()).bind(claim.0);
        if work.execute(set).await? == 0 {
            let detail = format!("outbox {} is being relayed, or is not set up", self.settings.name());
            return Err(Fault::Misconfigured { detail, remedy: "Stop its relay first".into() });
        }
        work.commit().await
    }
}
