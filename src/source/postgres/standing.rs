//! Look, claim, halt: what the state row says, and who may write into it.

use super::connection::{Link, Work, statement};
use super::failure::unreadable;
use super::names::{Names, literal};
use super::settings::Settings;
use super::table::{self, Table, get};
use crate::fault::{Fault, Halt};
use crate::journal::{Applied, Checksum, DatabaseIdentity, Owner};
use crate::source::state::{other_table, same_mode};
pub(super) use crate::source::state::{pins, unknown_outbox};
use crate::source::{ClaimNumber, Standing};

/// Which server this is. Every role may ask this on 15 to 18. The timeline comes from the name of the current log file:
/// pg_control_checkpoint() still tells the old one for a while after a promotion. On a standby that name cannot be had.
const IDENTITY: &str = "SELECT system_identifier::text, pg_is_in_recovery(), \
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END FROM pg_control_system()";

/// The state row and the newest applied batch. The latter is read newest first from an append-only table: a counter that is updated
/// gets thirty times slower under somebody's long snapshot.
const STANDING: &str = "SELECT s.outbox, s.claim, s.accepted_addresses, s.accepted_systems, s.lease_epoch, s.lease_starts, s.pins::text, \
    s.delivery, s.format, s.halted_code IS NOT NULL, a.n, a.journal_offset, a.checksum, s.table_name, \
    ARRAY(SELECT topic FROM {held} WHERE name = s.name), s.paused_at IS NOT NULL \
    FROM {state} s LEFT JOIN LATERAL \
    (SELECT n, journal_offset, checksum FROM {applied} WHERE name = s.name ORDER BY n DESC LIMIT 1) a ON true WHERE s.name = $1";

/// Locks the state row. A statement of its own: what a statement that waits for a lock reads besides the row is older than the row.
const LOCK_FOR_CLAIM: &str =
    "SELECT coalesce(lease_start = $2 AND lease_until > clock_timestamp(), false) FROM {state} WHERE name = $1 FOR UPDATE";

/// The same random number into state row and token: the fetch compares both.
const CLAIM: &str = "WITH claimed AS (UPDATE {state} SET claim = $2 WHERE name = $1) \
    INSERT INTO {token} (name, token) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET token = excluded.token";

/// Goes with BEGIN in one round trip, hence no bound value.
const LOCK: &str = "SELECT claim FROM {state} WHERE name = {name} FOR UPDATE";
const NEWEST: &str = "SELECT n FROM {applied} WHERE name = $1 ORDER BY n DESC LIMIT 1";
const HALT: &str = "UPDATE {state} SET halted_code = $2, halted_evidence = $3, halted_at = clock_timestamp() WHERE name = $1";

/// What a claim learnt.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) standing: Standing,
    pub(super) table: Table,
    /// Whether a halt is still written in the state row.
    pub(super) halted: bool,
}

pub(super) async fn look(link: &mut Link, names: &Names, settings: &Settings) -> Result<Standing, Fault> {
    let mut work = link.begin().await?;
    let (standing, _) = read(&mut work, names, settings).await?;
    work.commit().await?;
    Ok(standing)
}

pub(super) async fn claim(
    link: &mut Link,
    names: &Names,
    settings: &Settings,
    owner: &Owner,
    claim: ClaimNumber,
) -> Result<Claimed, Fault> {
    let mut work = link.begin().await?;
    let lock = statement(&names.sql(LOCK_FOR_CLAIM)).bind(settings.name()).bind(owner.start.cast_signed());
    let row = work.row(lock).await?.ok_or_else(|| unknown_outbox(settings.name()))?;
    if !get::<bool>(&row, 0, "lease")? {
        return Err(Fault::LeaseLost);
    }
    work.execute(statement(&names.sql(CLAIM)).bind(settings.name()).bind(claim.0)).await?;
    let (standing, halted) = read(&mut work, names, settings).await?;
    let table = table::look_up(&mut work, names, settings).await?;
    work.commit().await?;
    Ok(Claimed { standing, table, halted })
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

/// Begins a transaction with the state row locked until its end, and reads the claim number.
pub(super) async fn begin_locked<'a>(
    link: &'a mut Link,
    names: &Names,
    settings: &Settings,
) -> Result<(Work<'a>, ClaimNumber), Fault> {
    let lock = names.sql_with(LOCK, &[("name", &literal(settings.name()))]);
    let (work, row) = link.begin_with_row(&lock).await?;
    let row = row.ok_or_else(|| unknown_outbox(settings.name()))?;
    Ok((work, ClaimNumber(get(&row, 0, "claim")?)))
}

/// Number of the newest applied batch, 0 when there is none.
pub(super) async fn newest(work: &mut Work<'_>, names: &Names, settings: &Settings) -> Result<u64, Fault> {
    let row = work.row(statement(&names.sql(NEWEST)).bind(settings.name())).await?;
    row.map_or(Ok(0), |row| get::<i64>(&row, 0, "n").map(i64::cast_unsigned))
}

async fn read(work: &mut Work<'_>, names: &Names, settings: &Settings) -> Result<(Standing, bool), Fault> {
    let database = identity(work, names).await?;
    let query = statement(&names.sql(STANDING)).bind(settings.name());
    let row = work.row(query).await?.ok_or_else(|| unknown_outbox(settings.name()))?;
    same_mode(&get::<String>(&row, 7, "delivery")?, get::<i32>(&row, 8, "format")?.into(), settings.delivery, settings.name())?;
    same_table(&get::<String>(&row, 13, "table_name")?, names, settings)?;
    let grants: Vec<i64> = get(&row, 5, "lease_starts")?;
    let standing = Standing {
        outbox: get(&row, 0, "outbox")?,
        claim: ClaimNumber(get(&row, 1, "claim")?),
        applied: Applied {
            n: get::<Option<i64>>(&row, 10, "n")?.unwrap_or(0).cast_unsigned(),
            offset: get::<Option<i64>>(&row, 11, "journal_offset")?.unwrap_or(0),
            checksum: Checksum(get::<Option<i64>>(&row, 12, "checksum")?.unwrap_or(0).cast_unsigned()),
        },
        address: settings.address(),
        database,
        accepted_addresses: get(&row, 2, "accepted_addresses")?,
        accepted_systems: get(&row, 3, "accepted_systems")?,
        epoch: get::<i64>(&row, 4, "lease_epoch")?.cast_unsigned(),
        grants: grants.into_iter().map(i64::cast_unsigned).collect(),
        pins: pins(get(&row, 6, "pins")?)?,
        paused: get(&row, 15, "paused_at")?,
        held: get::<Vec<String>>(&row, 14, "held")?.into_iter().collect(),
    };
    Ok((standing, get(&row, 9, "halted")?))
}

/// What the server says of itself.
pub(super) async fn identity(work: &mut Work<'_>, names: &Names) -> Result<DatabaseIdentity, Fault> {
    let row = work.row(statement(&names.sql(IDENTITY))).await?.ok_or(Fault::Standby)?;
    if get::<bool>(&row, 1, "pg_is_in_recovery")? {
        return Err(Fault::Standby);
    }
    let timeline: String = get(&row, 2, "timeline")?;
    let timeline = u32::from_str_radix(&timeline, 16).map_err(|_| unreadable("timeline"))?;
    Ok(DatabaseIdentity { system: get(&row, 0, "system_identifier")?, timeline })
}

fn same_table(table: &str, names: &Names, settings: &Settings) -> Result<(), Fault> {
    if table == names.table {
        return Ok(());
    }
    Err(other_table(settings.name(), table, &names.table))
}
