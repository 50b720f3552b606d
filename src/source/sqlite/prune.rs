//! Prune: lets go of sent rows and old applied rows, in small steps, so that the lock for writing is never held for long.

use tokio::sync::Mutex;

use super::Sqlite;
use super::connection::{Work, get, statement};
use super::standing::json;
use crate::fault::Fault;
use crate::source::{Pruned, Pruning};

/// One step along the numbers from `?1`: whether each row was sent, and longer ago than `?3` days. Read without the lock for writing.
const STEP: &str = "SELECT o.seq, o.sent_at IS NOT NULL, coalesce(julianday(o.sent_at) < julianday('now') - ?3, 0) \
    FROM {outbox} o WHERE o.seq > ?1 ORDER BY o.seq LIMIT ?2";
/// What was found there, if it is still so.
const DELETE: &str =
    "DELETE FROM {outbox} WHERE seq IN (SELECT value FROM json_each(?1)) AND julianday(sent_at) < julianday('now') - ?2";

/// Applied rows below the newest ten thousand: far more than a claim ever looks back, and never the newest.
const OLD_APPLIED: &str = "DELETE FROM outboxd_applied WHERE name = ?1 AND n IN (SELECT n FROM outboxd_applied WHERE name = ?1 \
    AND n <= (SELECT max(n) FROM outboxd_applied WHERE name = ?1) - 10000 ORDER BY n LIMIT ?2)";
const HAS_OLD_APPLIED: &str = "SELECT min(n) <= max(n) - 10000 FROM outboxd_applied WHERE name = ?1";

/// Rows that one step looks at.
const STEP_ROWS: i64 = 1_000;
/// Every so many walks begins at the bottom again, for events that were passed over while they waited.
const WALKS_BETWEEN_BOTTOMS: u32 = 60;
const DAY_SECONDS: f64 = 86_400.0;

/// Where the next step begins.
pub(super) struct Walk(Mutex<Position>);

#[derive(Clone, Copy)]
struct Position {
    seq: i64,
    walks: u32,
}

impl Default for Walk {
    fn default() -> Self {
        Self(Mutex::new(Position { seq: i64::MIN, walks: 0 }))
    }
}

/// What a step found.
#[derive(Default)]
struct Found {
    /// Rows that may go.
    old: Vec<i64>,
    /// The last row that was looked at.
    last: Option<i64>,
    /// The first row that was sent too lately; nothing behind it is old enough.
    young: Option<i64>,
    seen: i64,
}

impl Pruning for Sqlite {
    async fn prune(&self) -> Result<Pruned, Fault> {
        let mut position = self.walk.0.lock().await;
        let applied = self.prune_applied().await?;
        let (rows, more) = match self.settings.retention() {
            Some(retention) => self.step(&mut position, retention.as_secs_f64() / DAY_SECONDS).await?,
            None => (0, false),
        };
        Ok(Pruned { rows: rows + applied, more: more || applied == STEP_ROWS.cast_unsigned() })
    }
}

impl Sqlite {
    /// One step; how many rows went, and whether there is probably more.
    async fn step(&self, position: &mut Position, retention_days: f64) -> Result<(u64, bool), Fault> {
        let mut link = self.chores.link().await;
        let step = statement(&self.names.sql(STEP)).bind(position.seq).bind(STEP_ROWS).bind(retention_days);
        let mut work = link.read().await?;
        let found = look(&mut work, step).await?;
        work.commit().await?;
        let mut gone = 0;
        if !found.old.is_empty() {
            let delete = statement(&self.names.sql(DELETE)).bind(json(&found.old)?).bind(retention_days);
            let mut work = link.write().await?;
            gone = work.execute(delete).await?;
            work.commit().await?;
        }
        let more = found.young.is_none() && found.seen == STEP_ROWS;
        *position = position.after(&found, more);
        Ok((gone, more))
    }

    async fn prune_applied(&self) -> Result<u64, Fault> {
        let mut link = self.chores.link().await;
        let mut work = link.read().await?;
        let row = work.row(statement(&self.names.sql(HAS_OLD_APPLIED)).bind(self.settings.name())).await?;
        let old: Option<i64> = row.map_or(Ok(None), |row| get(&row, 0, "n"))?;
        work.commit().await?;
        if old != Some(1) {
            return Ok(0);
        }
        let mut work = link.write().await?;
        let gone = work.execute(statement(&self.names.sql(OLD_APPLIED)).bind(self.settings.name()).bind(STEP_ROWS)).await?;
        work.commit().await?;
        Ok(gone)
    }
}

/// Unsent rows are passed over, so that an event that waits does not keep all younger ones.
async fn look(work: &mut Work<'_>, step: super::connection::Statement<'_>) -> Result<Found, Fault> {
    let mut found = Found::default();
    for row in work.rows(step).await? {
        let (seq, sent, old): (i64, i64, i64) = (get(&row, 0, "seq")?, get(&row, 1, "sent_at")?, get(&row, 2, "sent_at")?);
        found.seen += 1;
        found.last = Some(seq);
        match (sent != 0, old != 0) {
            (true, true) if found.young.is_none() => found.old.push(seq),
            (true, false) => found.young = found.young.or(Some(seq)),
            (true, true) | (false, _) => {}
        }
    }
    Ok(found)
}

impl Position {
    /// Before the first young row, or behind the last one seen; at the end of some walks back to the bottom.
    fn after(self, found: &Found, more: bool) -> Self {
        let walks = self.walks + u32::from(!more);
        if !more && walks.is_multiple_of(WALKS_BETWEEN_BOTTOMS) {
            return Self { seq: i64::MIN, walks };
        }
        Self { seq: found.young.map(|young| young - 1).or(found.last).unwrap_or(self.seq), walks }
    }
}
