//! Look, claim, halt: what the state row says, and who may write into it.

use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::connection::{Link, Place, Work, get, statement};
use super::failure::unreadable;
use super::names::Names;
use super::settings::Settings;
use super::table;
use crate::fault::{Cause, Fault, Halt};
use crate::journal::{Applied, Checksum, DatabaseIdentity, Owner};
use crate::source::state::{other_table, same_mode};
pub(super) use crate::source::state::{pins, unknown_outbox};
use crate::source::{ClaimNumber, Standing};

/// The state row and the newest applied batch. Lists are JSON: nothing but this program reads them.
const STANDING: &str = "SELECT s.outbox, s.claim, s.accepted_addresses, s.accepted_systems, s.lease_epoch, s.lease_starts, s.pins, \
    s.delivery, s.format, s.halted_code IS NOT NULL, a.n, a.journal_offset, a.checksum, s.table_name, s.paused_at IS NOT NULL \
    FROM outboxd_state s LEFT JOIN outboxd_applied a ON a.name = s.name \
    AND a.n = (SELECT max(n) FROM outboxd_applied WHERE name = s.name) WHERE s.name = ?1";
const HELD: &str = "SELECT topic FROM outboxd_held WHERE name = ?1";

const LEASE: &str = "SELECT lease_start = ?2 AND lease_until > {now} FROM outboxd_state WHERE name = ?1";
const CLAIM: &str = "UPDATE outboxd_state SET claim = ?2 WHERE name = ?1";
/// The same random number as token: the fetch compares both.
const TOKEN: &str =
    "INSERT INTO outboxd_token (name, token) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET token = excluded.token";

const CLAIM_NUMBER: &str = "SELECT claim FROM outboxd_state WHERE name = ?1";
const NEWEST: &str = "SELECT max(n) FROM outboxd_applied WHERE name = ?1";
const HALT: &str = "UPDATE outboxd_state SET halted_code = ?2, halted_evidence = ?3, halted_at = {now} WHERE name = ?1";

/// SQLite has no system identifier and no timeline. What a copied file publishes is told apart by its path, or by the journal.
const SYSTEM: &str = "sqlite";

/// What a claim learnt.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) standing: Standing,
    /// Whether a halt is still written in the state row.
    pub(super) halted: bool,
}

pub(super) async fn look(link: &mut Link, place: &Place, names: &Names, settings: &Settings) -> Result<Standing, Fault> {
    let mut work = link.read().await?;
    let (standing, _) = read(&mut work, place, names, settings).await?;
    work.commit().await?;
    Ok(standing)
}

pub(super) async fn claim(
    link: &mut Link,
    place: &Place,
    names: &Names,
    settings: &Settings,
    owner: &Owner,
    claim: ClaimNumber,
) -> Result<Claimed, Fault> {
    let mut work = link.write().await?;
    let lease = statement(&names.sql(LEASE)).bind(settings.name()).bind(owner.start.cast_signed());
    let row = work.row(lease).await?.ok_or_else(|| unknown_outbox(settings.name()))?;
    if get::<Option<i64>>(&row, 0, "lease")? != Some(1) {
        return Err(Fault::LeaseLost);
    }
    work.execute(statement(&names.sql(CLAIM)).bind(settings.name()).bind(claim.0)).await?;
    work.execute(statement(&names.sql(TOKEN)).bind(settings.name()).bind(claim.0)).await?;
    let (standing, halted) = read(&mut work, place, names, settings).await?;
    table::check(&mut work, names).await?;
    work.commit().await?;
    Ok(Claimed { standing, halted })
}

pub(super) async fn halt(link: &mut Link, names: &Names, settings: &Settings, halt: &Halt, seen: &Standing) -> Result<bool, Fault> {
    let (mut work, claim) = begin_locked(link, names, settings).await?;
    let still = claim == seen.claim && newest(&mut work, names, settings).await? == seen.applied.n;
    if still {
        let write = statement(&names.sql(HALT)).bind(settings.name()).bind(halt.code.name()).bind(&halt.evidence);
        work.execute(write).await?;
    }
    work.commit().await?;
    Ok(still)
}

/// Begins a transaction as the only writer, and reads the claim number.
pub(super) async fn begin_locked<'a>(
    link: &'a mut Link,
    names: &Names,
    settings: &Settings,
) -> Result<(Work<'a>, ClaimNumber), Fault> {
    let mut work = link.write().await?;
    let row = work.row(statement(&names.sql(CLAIM_NUMBER)).bind(settings.name())).await?;
    let row = row.ok_or_else(|| unknown_outbox(settings.name()))?;
    Ok((work, ClaimNumber(get(&row, 0, "claim")?)))
}

/// The same, provided that the claim number is still `claim`: compared where nobody else can write any more.
pub(super) async fn begin_claimed<'a>(
    link: &'a mut Link,
    names: &Names,
    settings: &Settings,
    claim: ClaimNumber,
) -> Result<Work<'a>, Fault> {
    let (work, found) = begin_locked(link, names, settings).await?;
    if found == claim {
        return Ok(work);
    }
    Err(Fault::in_doubt(Cause::ClaimChanged, "the state row holds another claim number"))
}

/// Number of the newest applied batch, 0 when there is none.
pub(super) async fn newest(work: &mut Work<'_>, names: &Names, settings: &Settings) -> Result<u64, Fault> {
    let row = work.row(statement(&names.sql(NEWEST)).bind(settings.name())).await?;
    let newest: Option<i64> = row.map_or(Ok(None), |row| get(&row, 0, "n"))?;
    Ok(newest.unwrap_or(0).cast_unsigned())
}

async fn read(work: &mut Work<'_>, place: &Place, names: &Names, settings: &Settings) -> Result<(Standing, bool), Fault> {
    let query = statement(&names.sql(STANDING)).bind(settings.name());
    let row = work.row(query).await?.ok_or_else(|| unknown_outbox(settings.name()))?;
    same_mode(&get::<String>(&row, 7, "delivery")?, get(&row, 8, "format")?, settings.delivery, settings.name())?;
    same_table(&get::<String>(&row, 13, "table_name")?, names, settings)?;
    let held = work.rows(statement(&names.sql(HELD)).bind(settings.name())).await?;
    let grants: Vec<i64> = list(&row, 5, "lease_starts")?;
    let standing = Standing {
        outbox: uuid(&row, 0, "outbox")?,
        claim: ClaimNumber(get(&row, 1, "claim")?),
        applied: Applied {
            n: get::<Option<i64>>(&row, 10, "n")?.unwrap_or(0).cast_unsigned(),
            offset: get::<Option<i64>>(&row, 11, "journal_offset")?.unwrap_or(0),
            checksum: Checksum(get::<Option<i64>>(&row, 12, "checksum")?.unwrap_or(0).cast_unsigned()),
        },
        address: place.address()?,
        database: identity(),
        accepted_addresses: list(&row, 2, "accepted_addresses")?,
        accepted_systems: list(&row, 3, "accepted_systems")?,
        epoch: get::<i64>(&row, 4, "lease_epoch")?.cast_unsigned(),
        grants: grants.into_iter().map(i64::cast_unsigned).collect(),
        pins: pins(get(&row, 6, "pins")?)?,
        paused: get::<i64>(&row, 14, "paused_at")? != 0,
        held: held.iter().map(|row| get(row, 0, "topic")).collect::<Result<_, _>>()?,
    };
    Ok((standing, get::<i64>(&row, 9, "halted")? != 0))
}

/// What SQLite says of itself.
pub(super) fn identity() -> DatabaseIdentity {
    DatabaseIdentity { system: SYSTEM.into(), timeline: 0 }
}

pub(super) fn uuid(row: &SqliteRow, index: usize, name: &'static str) -> Result<Uuid, Fault> {
    Uuid::parse_str(get(row, index, name)?).map_err(|_| unreadable(name))
}

/// A column that holds a list as JSON.
pub(super) fn list<T: serde::de::DeserializeOwned>(row: &SqliteRow, index: usize, name: &'static str) -> Result<Vec<T>, Fault> {
    serde_json::from_str(get(row, index, name)?).map_err(|_| unreadable(name))
}

/// What is bound to a column that holds JSON.
pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|_| unreadable("json"))
}

fn same_table(table: &str, names: &Names, settings: &Settings) -> Result<(), Fault> {
    if table.eq_ignore_ascii_case(&names.table) {
        return Ok(());
    }
    Err(other_table(settings.name(), table, &names.table))
}
