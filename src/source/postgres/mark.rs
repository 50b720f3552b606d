//! Mark: exactly the rows of a batch, and the batch as applied, in one transaction under the locked state row.

use std::sync::Arc;

use sqlx::types::Uuid;

use super::connection::{Link, Work, statement};
use super::failure::in_doubt;
use super::names::{Names, Sql};
use super::settings::Settings;
use super::standing;
use crate::config::Mark;
use crate::event::Batch;
use crate::fault::{Cause, Fault};
use crate::journal::Applied;
use crate::sink::Published;
use crate::source::{ClaimNumber, Marker, Pins};

/// By the primary key, row by row of the batch: `begin_indexed` keeps the planner from reading the whole table. By id too, since
/// another event may have got the same number after a failover. Rejected: `AND sent_at IS NULL`, which would make a row that a person
/// has marked look like a fault.
const MARK_ROWS: &str = "UPDATE {outbox} o SET sent_at = now() FROM unnest($1::int8[], $2::uuid[]) AS b (seq, id) \
    WHERE o.seq = b.seq AND o.id = b.id";
const DELETE_ROWS: &str =
    "DELETE FROM {outbox} o USING unnest($1::int8[], $2::uuid[]) AS b (seq, id) WHERE o.seq = b.seq AND o.id = b.id";

/// The key (name, n) is the compare-and-set: a batch can be applied once. Applied without its predecessor, it is not inserted.
const APPLY: &str = "INSERT INTO {applied} (name, n, journal_offset, checksum) SELECT $1, $2, $3, $4 \
    WHERE $2 = 1 + coalesce((SELECT n FROM {applied} WHERE name = $1 ORDER BY n DESC LIMIT 1), 0)";

const PIN: &str = "UPDATE {state} SET pins = pins || $2::jsonb WHERE name = $1";

/// Marks under one claim.
pub struct PostgresMarker {
    link: Link,
    names: Arc<Names>,
    settings: Arc<Settings>,
    claim: ClaimNumber,
    rows: Sql,
}

impl PostgresMarker {
    pub(super) fn new(link: Link, names: Arc<Names>, settings: Arc<Settings>, claim: ClaimNumber) -> Self {
        let rows = rows_statement(&names, &settings);
        Self { link, names, settings, claim, rows }
    }
}

impl Marker for PostgresMarker {
    async fn mark(&mut self, published: &Published) -> Result<(), Fault> {
        let mut work = self.link.begin_indexed().await?;
        expect_claim(&mut work, &self.names, &self.settings, self.claim).await?;
        if let Some(applied) = published.journalled()
            && !apply(&mut work, &self.names, &self.settings, applied).await?
        {
            return Err(Fault::in_doubt(Cause::Mark, format!("batch {} does not follow the newest applied one", applied.n)));
        }
        let batch = published.batch();
        let marked = mark_rows(&mut work, &self.rows, batch.seqs().collect(), batch.ids().collect()).await?;
        expect_all(marked, batch)?;
        work.commit().await.map_err(in_doubt(Cause::Mark))
    }

    async fn pin(&mut self, pins: &Pins) -> Result<(), Fault> {
        let pins = serde_json::to_string(pins).map_err(|_| super::failure::unreadable("pins"))?;
        let mut work = self.link.begin().await?;
        expect_claim(&mut work, &self.names, &self.settings, self.claim).await?;
        work.execute(statement(&self.names.sql(PIN)).bind(self.settings.name()).bind(pins)).await?;
        work.commit().await
    }
}

fn expect_all(marked: u64, batch: &Batch) -> Result<(), Fault> {
    if marked == batch.len() as u64 {
        return Ok(());
    }
    Err(Fault::in_doubt(Cause::MarkCount, format!("{marked} of {} rows could be marked", batch.len())))
}

/// The statement that marks rows in the configured way.
pub(super) fn rows_statement(names: &Names, settings: &Settings) -> Sql {
    names.sql(match settings.outbox.mark {
        Mark::Row => MARK_ROWS,
        Mark::Delete => DELETE_ROWS,
    })
}

/// Marks rows; returns how many were.
pub(super) async fn mark_rows(work: &mut Work<'_>, sql: &Sql, seqs: Vec<i64>, ids: Vec<Uuid>) -> Result<u64, Fault> {
    work.execute(statement(sql).bind(seqs).bind(ids)).await
}

/// Locks the state row and compares its claim number there: in a sub-select it would not be looked at again after a wait.
pub(super) async fn expect_claim(work: &mut Work<'_>, names: &Names, settings: &Settings, claim: ClaimNumber) -> Result<(), Fault> {
    if standing::lock(work, names, settings).await? == claim {
        return Ok(());
    }
    Err(Fault::in_doubt(Cause::ClaimChanged, "the state row holds another claim number"))
}

/// Records a batch as applied. False when it is applied already or does not follow the newest one.
pub(super) async fn apply(work: &mut Work<'_>, names: &Names, settings: &Settings, applied: Applied) -> Result<bool, Fault> {
    let insert = statement(&names.sql(APPLY))
        .bind(settings.name())
        .bind(applied.n.cast_signed())
        .bind(applied.offset)
        .bind(applied.checksum.0.cast_signed());
    Ok(work.insert(insert).await? == Some(1))
}
