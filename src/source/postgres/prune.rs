//! Prune: lets go of sent rows and old applied rows, in small steps that never read the whole table.

use tokio::sync::Mutex;

use super::Postgres;
use super::connection::{Work, statement};
use super::failure::unreadable;
use super::names::Sql;
use super::table::{self, get};
use crate::fault::Fault;
use crate::source::{Pruned, Pruning};

/// One step along the primary key from `$1`: deletes what was sent longer than `$3` microseconds ago, up to the first row that was
/// sent later. Unsent rows are passed over, so that an event that waits does not keep all younger ones. Rejected: `WHERE sent_at < …`
/// alone, which reads the whole table where there is no index on `sent_at`, and such an index would cost every mark.
const STEP: &str = "WITH step AS MATERIALIZED \
        (SELECT {seq}::int8 AS seq, {sent_at} AS sent_at FROM {outbox} o WHERE {seq} > $1 ORDER BY {seq} LIMIT $2), \
    young AS (SELECT min(seq) AS seq FROM step WHERE sent_at >= {now} - $3 * interval '1 microsecond'), \
    gone AS (DELETE FROM {outbox} o USING step, young WHERE {seq} = step.seq AND (young.seq IS NULL OR step.seq < young.seq) \
        AND {sent_at} < {now} - $3 * interval '1 microsecond' RETURNING 1) \
    SELECT (SELECT count(*) FROM gone), count(*), max(step.seq), (SELECT seq FROM young) FROM step";

/// Applied rows below the newest ten thousand: far more than a claim ever looks back, and never the newest.
const OLD_APPLIED: &str = "DELETE FROM {applied} WHERE name = $1 AND n IN (SELECT n FROM {applied} WHERE name = $1 \
    AND n <= (SELECT max(n) FROM {applied} WHERE name = $1) - 10000 ORDER BY n LIMIT $2)";

/// Rows that one step looks at.
const STEP_ROWS: i64 = 2_000;
/// Every so many walks begins at the bottom again, for events that were passed over while they waited.
const WALKS_BETWEEN_BOTTOMS: u32 = 60;

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

impl Pruning for Postgres {
    async fn prune(&self) -> Result<Pruned, Fault> {
        let names = self.names().await?;
        let mut position = self.walk.0.lock().await;
        let mut link = self.chores.link().await;
        let mut work = link.begin_indexed().await?;
        let old = statement(&names.sql(OLD_APPLIED)).bind(self.settings.name()).bind(STEP_ROWS);
        let applied = work.execute(old).await?;
        let (pruned, next) = match self.settings.retention().and_then(|retention| i64::try_from(retention.as_micros()).ok()) {
            Some(retention_us) => {
                let sql = table::look_up(&mut work, &names, &self.settings).await?.sql(&names, STEP);
                step(&mut work, &sql, *position, retention_us).await?
            }
            None => (Pruned::default(), *position),
        };
        work.commit().await?;
        *position = next;
        Ok(Pruned { rows: pruned.rows + applied, more: pruned.more || applied == STEP_ROWS.cast_unsigned() })
    }
}

/// One step, and where the next one begins.
async fn step(work: &mut Work<'_>, sql: &Sql, at: Position, retention_us: i64) -> Result<(Pruned, Position), Fault> {
    let query = statement(sql).bind(at.seq).bind(STEP_ROWS).bind(retention_us);
    let row = work.row(query).await?.ok_or_else(|| unreadable("count"))?;
    let (rows, seen): (i64, i64) = (get(&row, 0, "gone")?, get(&row, 1, "count")?);
    let (last, young): (Option<i64>, Option<i64>) = (get(&row, 2, "max")?, get(&row, 3, "young")?);
    let more = young.is_none() && seen == STEP_ROWS;
    Ok((Pruned { rows: rows.cast_unsigned(), more }, at.after(last, young, more)))
}

impl Position {
    /// Before the first young row, or behind the last one seen; at the end of some walks back to the bottom.
    fn after(self, last: Option<i64>, young: Option<i64>, more: bool) -> Self {
        let walks = self.walks + u32::from(!more);
        if !more && walks.is_multiple_of(WALKS_BETWEEN_BOTTOMS) {
            return Self { seq: i64::MIN, walks };
        }
        Self { seq: young.map(|young| young - 1).or(last).unwrap_or(self.seq), walks }
    }
}
