//! What `reconcile` reads and does: unsent rows page by page; marks those that lie in their topics already.

use std::future::Future;

use sqlx::sqlite::SqliteRow;

use super::Sqlite;
use super::connection::{get, statement};
use super::mark::Marking;
use super::settle::{END_HALT, matching};
use super::steering::{audit_change, begin_as_seen, insert_base};
use crate::event::EventId;
use crate::fault::{Cause, Fault, Halt};
use crate::journal::{Applied, Entry};
use crate::source::Standing;
use crate::source::desk::{Request, UnsentRow, reconciled};

const UNSENT: &str = "SELECT o.seq, o.id, o.topic, o.key, o.payload, \
    {micros o.created_at} \
    FROM {outbox} o WHERE o.seq > ?1 AND o.sent_at IS NULL ORDER BY o.seq LIMIT ?2";

impl Sqlite {
    /// Shows a page of unsent rows above `after`, in order, and returns the number of the last one; nothing when there are no more.
    pub async fn unsent_after(&self, after: i64, mut show: impl FnMut(UnsentRow<'_>) + Send) -> Result<Option<i64>, Fault> {
        let unsent = |row: &SqliteRow, seq, id: EventId<'_>| {
            let (topic, text, created_us) = (get::<Option<_>>(row, 2, "topic")?, id.to_string(), get(row, 5, "created_at")?);
            show(UnsentRow { seq, id: &text, fingerprint: id.fingerprint(), topic: topic.unwrap_or_default(), created_us });
            Ok(())
        };
        self.page(UNSENT, after, unsent).await
    }

    /// Marks what was found to be published, has a journal record written, takes that for the newest applied batch and ends the halt,
    /// provided that nobody claimed or marked since `seen`. Returns the record and how many rows were marked; how many nothing was known
    /// of goes into the audit. All of it is one transaction as the only writer; the record comes last, so that nothing is written if a
    /// mark is refused.
    pub async fn reconcile(
        &self,
        (found, undecided): (impl Iterator<Item = Result<Vec<Entry>, Fault>> + Send, u64),
        write: impl Future<Output = Result<Applied, Fault>>,
        seen: &Standing,
        halt: &Halt,
        request: &Request,
    ) -> Result<(Applied, u64), Fault> {
        let (names, name) = (&self.names, self.settings.name());
        let mut link = self.place.link();
        let (mut work, claim) = begin_as_seen(&mut link, names, &self.settings, seen).await?;
        let marking = Marking::new(names, &self.settings);
        let mut marked = 0;
        for entries in found {
            let rows = matching(&mut work, names, &entries?).await?;
            let count = marking.rows(&mut work, &rows).await?;
            if count != rows.count() {
                return Err(Fault::in_doubt(Cause::MarkCount, format!("{count} of {} rows could be marked", rows.count())));
            }
            marked += count;
        }
        let at = write.await?;
        work.execute(insert_base(names, name, at)).await?;
        work.execute(statement(&names.sql(END_HALT)).bind(name).bind(claim.0)).await?;
        let detail = reconciled(halt, at, (marked, undecided));
        audit_change(&mut work, names, name, "reconcile", request, &detail).await?;
        work.commit().await?;
        Ok((at, marked))
    }
}
