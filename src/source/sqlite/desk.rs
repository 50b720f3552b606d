//! What commands ask: figures for `status`.

use std::time::Duration;

use sqlx::sqlite::SqliteRow;

use super::connection::{Work, get, statement};
use super::failure::unreadable;
use super::fetch::FREE;
use super::names::Names;
use super::standing::{pins, unknown_outbox, uuid};
use super::{Sqlite, table};
use crate::fault::Fault;
use crate::source::desk::{Figures, OpenWriter};
use crate::source::{Gauging, Pending};

/// At most 10,001 entries of the partial index are counted.
const PENDING: &str =
    "SELECT count(*) FROM (SELECT 1 FROM {outbox} o WHERE o.sent_at IS NULL AND {is_free} ORDER BY o.seq LIMIT 10001)";
/// The lowest pending event is the oldest one. Milliseconds.
const OLDEST: &str = "SELECT CAST(round((julianday('now') - julianday(o.created_at)) * 86400000) AS INTEGER) FROM {outbox} o \
    WHERE o.sent_at IS NULL AND {is_free} ORDER BY o.seq LIMIT 1";
/// Events that wait for something else than their turn, among the first 100,000 that are unsent.
const BLOCKED: &str = "SELECT count(*) FROM (SELECT 1 FROM \
    (SELECT seq, topic, key FROM {outbox} WHERE sent_at IS NULL ORDER BY seq LIMIT 100000) o \
    WHERE NOT {is_free} AND o.seq NOT IN (SELECT seq FROM outboxd_parked WHERE name = ?1) LIMIT 10001)";
const ASIDE: &str =
    "SELECT (SELECT count(*) FROM outboxd_parked WHERE name = ?1), (SELECT count(*) FROM outboxd_held WHERE name = ?1)";
const STATE: &str = "SELECT s.delivery, s.lease_instance, s.lease_epoch, {left}, s.halted_code, s.halted_evidence, {halted}, \
    (SELECT max(n) FROM outboxd_applied WHERE name = s.name), s.outbox, s.paused_by, s.paused_reason, {paused}, s.pins \
    FROM outboxd_state s WHERE s.name = ?1";
/// Milliseconds from one moment to the other.
const BETWEEN: &str = "CAST(round((julianday({to}) - julianday({from})) * 86400000) AS INTEGER)";

impl Gauging for Sqlite {
    async fn pending(&self) -> Result<Pending, Fault> {
        Ok(self.figures().await?.gauged())
    }
}

impl Sqlite {
    /// What `status` shows.
    pub async fn figures(&self) -> Result<Figures, Fault> {
        let mut link = self.chores.link().await;
        let mut work = link.read().await?;
        let figures = figures(&mut work, &self.names, self.settings.name()).await?;
        let refused = match table::check(&mut work, &self.names).await {
            Ok(()) => None,
            Err(fault @ Fault::Misconfigured { .. }) => Some((fault.to_string(), fault.remedy())),
            Err(other) => return Err(other),
        };
        work.commit().await?;
        Ok(Figures { refused, ..figures })
    }

    /// Nobody: whoever writes shows nothing of it before the commit, and keeps no number of anybody else's open.
    pub async fn open_writers(&self) -> Result<Vec<OpenWriter>, Fault> {
        Ok(Vec::new())
    }
}

async fn figures(work: &mut Work<'_>, names: &Names, name: &str) -> Result<Figures, Fault> {
    let ask = |template: &str| statement(&names.sql(&template.replace("{is_free}", FREE))).bind(name.to_owned());
    let count = |row: Option<SqliteRow>| row.map_or(Ok(0), |row| get::<i64>(&row, 0, "count").map(i64::cast_unsigned));
    let pending = count(work.row(ask(PENDING)).await?)?;
    let oldest: Option<i64> = work.row(ask(OLDEST)).await?.map_or(Ok(None), |row| get(&row, 0, "age"))?;
    let aside = work.row(ask(ASIDE)).await?.ok_or_else(|| unreadable("count"))?;
    let (parked, held_topics): (i64, i64) = (get(&aside, 0, "parked")?, get(&aside, 1, "held")?);
    let blocked = if parked + held_topics > 0 { count(work.row(ask(BLOCKED)).await?)? } else { 0 };
    let row = work.row(ask(&state())).await?.ok_or_else(|| unknown_outbox(name))?;
    let left: Option<i64> = get(&row, 3, "lease_left")?;
    let held = left.is_some_and(|left| left > 0);
    Ok(Figures {
        outbox: uuid(&row, 8, "outbox")?,
        delivery: get(&row, 0, "delivery")?,
        pending,
        oldest: oldest.map(duration),
        parked: parked.cast_unsigned(),
        blocked,
        held: held_topics.cast_unsigned(),
        applied: get::<Option<i64>>(&row, 7, "n")?.unwrap_or(0).cast_unsigned(),
        owner: if held { get(&row, 1, "instance")? } else { None },
        epoch: get::<i64>(&row, 2, "epoch")?.cast_unsigned(),
        lease_left: left.filter(|_| held).map(duration),
        paused: told(&row, 9)?,
        halted: told(&row, 4)?,
        pins: pins(get(&row, 12, "pins")?)?,
        refused: None,
    })
}

fn state() -> String {
    let between = |from: &str, to: &str| BETWEEN.replace("{from}", from).replace("{to}", to);
    STATE
        .replace("{left}", &between("'now'", "s.lease_until"))
        .replace("{halted}", &between("s.halted_at", "'now'"))
        .replace("{paused}", &between("s.paused_at", "'now'"))
}

/// Two texts and an age, in columns side by side; nothing when the first is NULL.
fn told(row: &SqliteRow, first: usize) -> Result<Option<(String, String, Duration)>, Fault> {
    let Some(what) = get::<Option<String>>(row, first, "state")? else { return Ok(None) };
    let age = get::<Option<i64>>(row, first + 2, "age")?.map_or(Duration::ZERO, duration);
    Ok(Some((what, get::<Option<String>>(row, first + 1, "state")?.unwrap_or_default(), age)))
}

pub(super) fn duration(ms: i64) -> Duration {
    Duration::from_millis(ms.max(0).cast_unsigned())
}
