//! What commands ask: figures for `status`, who keeps the outbox open.

use std::time::Duration;

use super::Postgres;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::Oid;

use super::connection::{Work, statement};
use super::fetch;
use super::names::Names;
use super::table::{self, Table, get};
use crate::fault::Fault;
use crate::source::desk::{Figures, OpenWriter};
use crate::source::{Gauging, Pending};

/// At most 10,001 entries of the partial index are counted.
const PENDING: &str =
    "SELECT count(*) FROM (SELECT FROM {outbox} o WHERE {sent_at} IS NULL AND {is_free} ORDER BY {seq} LIMIT 10001) bounded";
/// The lowest pending event is the oldest one, near enough: a late commit has a lower number. What has no time, or an infinite one, has
/// no age.
const OLDEST: &str = "SELECT CASE WHEN isfinite({created}) \
    THEN greatest(0, extract(epoch FROM clock_timestamp() - {created}) * 1000000)::int8 END FROM {outbox} o \
    WHERE {sent_at} IS NULL AND {is_free} ORDER BY {seq} LIMIT 1";
/// Events that wait for something else than their turn, among the first 100,000 that are unsent.
const BLOCKED: &str = "SELECT count(*) FROM (SELECT FROM \
    (SELECT o.* FROM {outbox} o WHERE {sent_at} IS NULL ORDER BY {seq} LIMIT 100000) o \
    WHERE NOT {is_free} AND {seq} NOT IN (SELECT seq FROM {parked} WHERE name = $1) LIMIT 10001) bounded";
const ASIDE: &str = "SELECT (SELECT count(*) FROM {parked} WHERE name = $1), (SELECT count(*) FROM {held} WHERE name = $1)";
const STATE: &str = "SELECT s.delivery, s.lease_instance, s.lease_epoch, \
    (extract(epoch FROM s.lease_until - clock_timestamp()) * 1000000)::int8, s.halted_code, s.halted_evidence, \
    (extract(epoch FROM clock_timestamp() - s.halted_at) * 1000000)::int8, \
    (SELECT n FROM {applied} WHERE name = s.name ORDER BY n DESC LIMIT 1), s.outbox, \
    s.paused_by, s.paused_reason, (extract(epoch FROM clock_timestamp() - s.paused_at) * 1000000)::int8, \
    s.pins::text FROM {state} s WHERE s.name = $1";

/// Transactions that hold a write lock on the outbox for longer than a second: what a gap waits for. The age of somebody else's
/// session is hidden without pg_read_all_stats; then it is told without one. A prepared transaction is found by its own number.
const OPEN_WRITERS: &str = "SELECT l.pid, p.gid, \
    (extract(epoch FROM clock_timestamp() - coalesce(p.prepared, a.xact_start)) * 1000000)::int8 AS age \
    FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
    LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' \
        AND x.virtualtransaction = l.virtualtransaction \
    LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid \
    WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.relation = $1 \
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
        AND coalesce(clock_timestamp() - coalesce(p.prepared, a.xact_start) > interval '1 second', true) \
    ORDER BY age DESC NULLS LAST LIMIT 20";

impl Gauging for Postgres {
    async fn pending(&self) -> Result<Pending, Fault> {
        Ok(self.figures().await?.gauged())
    }
}

impl Postgres {
    /// What `status` shows.
    pub async fn figures(&self) -> Result<Figures, Fault> {
        let names = self.names().await?;
        let mut link = self.chores.link().await;
        let mut work = link.begin_indexed().await?;
        let table = table::look_at(&mut work, &names).await?;
        let figures = figures(&mut work, &names, self.settings.name(), &table).await?;
        work.commit().await?;
        let refused = table::keeps_order(&table, &names, &self.settings).err();
        Ok(Figures { refused: refused.map(|fault| (fault.to_string(), fault.remedy())), ..figures })
    }

    /// Transactions that keep numbers of the outbox open for more than a second, the oldest first, at most twenty.
    pub async fn open_writers(&self) -> Result<Vec<OpenWriter>, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let table = table::look_at(&mut work, &names).await?;
        let writers = open_writers(&mut work, &names, table.oid).await?;
        work.commit().await?;
        Ok(writers)
    }
}

/// Transactions that keep numbers of this table open for more than a second.
pub(super) async fn open_writers(work: &mut Work<'_>, names: &Names, table: Oid) -> Result<Vec<OpenWriter>, Fault> {
    let rows = work.rows(statement(&names.sql(OPEN_WRITERS)).bind(table)).await?;
    let read = |row| Ok(OpenWriter { pid: get(row, 0, "pid")?, gid: get(row, 1, "gid")?, age: duration(get(row, 2, "age")?) });
    rows.iter().map(read).collect()
}

fn duration(us: Option<i64>) -> Option<Duration> {
    us.map(|us| Duration::from_micros(us.max(0).cast_unsigned()))
}

async fn figures(work: &mut Work<'_>, names: &Names, name: &str, table: &Table) -> Result<Figures, Fault> {
    let ask = |template: &str| statement(&table.sql(names, &template.replace("{is_free}", fetch::FREE))).bind(name);
    let count = |row: Option<PgRow>| row.map_or(Ok(0), |row| get::<i64>(&row, 0, "count").map(i64::cast_unsigned));
    let pending = count(work.row(ask(PENDING)).await?)?;
    let oldest: Option<i64> = work.row(ask(OLDEST)).await?.map_or(Ok(None), |row| get(&row, 0, "age"))?;
    let aside = work.row(ask(ASIDE)).await?.ok_or_else(|| super::failure::unreadable("count"))?;
    let (parked, held_topics): (i64, i64) = (get(&aside, 0, "parked")?, get(&aside, 1, "held")?);
    let blocked = if parked + held_topics > 0 { count(work.row(ask(BLOCKED)).await?)? } else { 0 };
    let row = work.row(statement(&names.sql(STATE)).bind(name)).await?.ok_or_else(|| super::standing::unknown_outbox(name))?;
    let left: Option<i64> = get(&row, 3, "lease_left")?;
    let held = left.is_some_and(|left| left > 0);
    let halted = match get::<Option<String>>(&row, 4, "halted_code")? {
        Some(code) => Some((code, get(&row, 5, "evidence")?, duration(get(&row, 6, "halted_at")?).unwrap_or_default())),
        None => None,
    };
    let paused = match get::<Option<String>>(&row, 9, "paused_by")? {
        Some(by) => Some((by, get(&row, 10, "paused_reason")?, duration(get(&row, 11, "paused_at")?).unwrap_or_default())),
        None => None,
    };
    Ok(Figures {
        pins: super::standing::pins(get(&row, 12, "pins")?)?,
        refused: None,
        paused,
        outbox: get(&row, 8, "outbox")?,
        delivery: get(&row, 0, "delivery")?,
        pending,
        parked: parked.cast_unsigned(),
        blocked,
        held: held_topics.cast_unsigned(),
        oldest: duration(oldest),
        applied: get::<Option<i64>>(&row, 7, "n")?.unwrap_or(0).cast_unsigned(),
        owner: if held { get(&row, 1, "instance")? } else { None },
        epoch: get::<i64>(&row, 2, "epoch")?.cast_unsigned(),
        lease_left: if held { duration(left) } else { None },
        halted,
    })
}
