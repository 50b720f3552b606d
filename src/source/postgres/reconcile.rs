//! What `reconcile` reads and does: unsent rows page by page; marks those that lie in their topics already.

use std::future::Future;

use sqlx::postgres::PgRow;

use super::connection::statement;
use super::failure::mark_refused;
use super::mark::Marking;
use super::settle::Matching;
use super::steering::{PATIENT, audit_change, begin_as_seen, insert_base};
use super::table::{self, get};
use super::{Postgres, settle};
use crate::fault::{Fault, Halt};
use crate::journal::{Applied, Entry};
use crate::source::Standing;
use crate::source::desk::{Request, UnsentRow, reconciled};

const UNSENT: &str = "SELECT {seq}::int8, {identity}, {id}::text, coalesce({topic}::text, ''), \
    CASE WHEN isfinite({created}) THEN (extract(epoch FROM {created}) * 1000000)::int8 END \
    FROM {outbox} o WHERE {seq} > $1 AND {sent_at} IS NULL ORDER BY {seq} LIMIT $2";

impl Postgres {
    /// Shows a page of unsent rows above `after`, in order, and returns the number of the last one; nothing when there are no more.
    pub async fn unsent_after(&self, after: i64, mut show: impl FnMut(UnsentRow<'_>) + Send) -> Result<Option<i64>, Fault> {
        let unsent = |row: &PgRow, seq, fingerprint| {
            let (id, topic, created_us) = (get(row, 2, "id")?, get(row, 3, "topic")?, get(row, 4, "created_at")?);
            show(UnsentRow { seq, id, fingerprint, topic, created_us });
            Ok(())
        };
        self.page(UNSENT, after, unsent).await
    }

    /// Marks what was found to be published, has a journal record written, takes that for the newest applied batch and ends the halt,
    /// provided that nobody claimed or marked since `seen`. Returns the record and how many rows were marked; how many nothing was known
    /// of goes into the audit. All of it is one transaction under the locked state row; the record comes last, so that nothing is
    /// written if a mark is refused.
    pub async fn reconcile(
        &self,
        (found, undecided): (impl Iterator<Item = Result<Vec<Entry>, Fault>> + Send, u64),
        write: impl Future<Output = Result<Applied, Fault>>,
        seen: &Standing,
        halt: &Halt,
        request: &Request,
    ) -> Result<(Applied, u64), Fault> {
        let (mut link, names) = self.link().await?;
        let (mut work, claim) = begin_as_seen(&mut link, &names, &self.settings, seen).await?;
        let name = self.settings.name();
        work.script(PATIENT).await?;
        let table = table::look_up(&mut work, &names, &self.settings).await?;
        let (matching, marking) = (Matching::new(&names, &table), Marking::new(&names, &self.settings, &table));
        let mut marked = 0;
        for entries in found {
            let rows = matching.find(&mut work, &entries?).await?;
            marked += rows.0.len() as u64;
            marking.only_rows(&mut work, rows).await.map_err(mark_refused("what lies in the topics"))?;
        }
        let at = write.await?;
        work.execute(insert_base(&names, name, at)).await?;
        work.execute(statement(&names.sql(settle::END_HALT)).bind(name.to_owned()).bind(claim.0)).await?;
        let detail = reconciled(halt, at, (marked, undecided));
        audit_change(&mut work, &names, name, "reconcile", request, &detail).await?;
        work.commit().await?;
        Ok((at, marked))
    }
}
