//! What a verification reads: the newest applied batch, rows page by page, what the audit says was given up.

use sqlx::sqlite::SqliteRow;

use super::connection::{get, statement};
use super::rows::identity;
use super::{Sqlite, failure, standing};
use crate::event::EventId;
use crate::fault::Fault;
use crate::journal::{Applied, Checksum};
use crate::source::desk::{Discarded, Footing, ROWS_AT_ONCE, RowFacts};

/// How many rows there are is estimated by their numbers: to count them would read the whole file.
const FOOTING: &str = "SELECT s.outbox, s.delivery, s.pins, a.n, a.journal_offset, a.checksum, \
    (SELECT max(seq) FROM {outbox}) - (SELECT min(seq) FROM {outbox}) + 1, f.n, \
    {micros f.applied_at}, \
    {micros s.created_at} FROM outboxd_state s \
    LEFT JOIN outboxd_applied a ON a.name = s.name AND a.n = (SELECT max(n) FROM outboxd_applied WHERE name = s.name) \
    LEFT JOIN outboxd_applied f ON f.name = s.name AND f.n = (SELECT min(n) FROM outboxd_applied WHERE name = s.name) WHERE s.name = ?1";
/// A moment that SQLite cannot read is one all the same: the row is marked.
const ROWS: &str = "SELECT o.seq, o.id, o.topic, o.key, o.payload, CASE WHEN o.sent_at IS NOT NULL THEN \
    coalesce({micros o.sent_at}, 1) END \
    FROM {outbox} o WHERE o.seq > ?1 ORDER BY o.seq LIMIT ?2";
const DISCARDED: &str = "SELECT n, detail ->> 'seq', detail ->> 'id', detail ->> 'topic' FROM outboxd_audit \
    WHERE name = ?1 AND action = 'parked discard' AND n > ?2 ORDER BY n LIMIT ?3";
const BY_NOW: &str = "SELECT {micros 'now'}, (SELECT max(n) FROM outboxd_applied WHERE name = ?1)";

impl Sqlite {
    /// What has to be known before anything else is read.
    pub async fn footing(&self) -> Result<Footing, Fault> {
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let name = self.settings.name();
        let row = work.row(statement(&self.names.sql(FOOTING)).bind(name.to_owned())).await?;
        work.commit().await?;
        let row = row.ok_or_else(|| standing::unknown_outbox(name))?;
        let number = |index, name| get::<Option<i64>>(&row, index, name).map(Option::unwrap_or_default);
        Ok(Footing {
            outbox: standing::uuid(&row, 0, "outbox")?,
            delivery: get(&row, 1, "delivery")?,
            pins: standing::pins(get(&row, 2, "pins")?)?,
            applied: Applied {
                n: number(3, "n")?.cast_unsigned(),
                offset: number(4, "journal_offset")?,
                checksum: Checksum(number(5, "checksum")?.cast_unsigned()),
            },
            first_applied: get::<Option<i64>>(&row, 7, "n")?.map(i64::cast_unsigned).zip(get(&row, 8, "applied_at")?),
            set_up_us: get(&row, 9, "created_at")?,
            has_uuids: true,
            rows: number(6, "count")?.cast_unsigned(),
        })
    }

    /// Shows a page of rows above `after`, in order, and returns the number of the last one; nothing when there are no more.
    pub async fn rows_after(&self, after: i64, mut show: impl FnMut(RowFacts<'_>) + Send) -> Result<Option<i64>, Fault> {
        let facts = |row: &SqliteRow, seq, id: EventId<'_>| {
            let (topic, marked_us) = (get::<Option<_>>(row, 2, "topic")?, get(row, 5, "sent_at")?);
            show(RowFacts { seq, fingerprint: id.fingerprint(), topic: topic.unwrap_or_default(), marked_us });
            Ok(())
        };
        self.page(ROWS, after, facts).await
    }

    /// Gives each row of a page to `read`, with its number and identity: what the first five columns of `rows` tell, whose parameters are
    /// the number to begin after and how many. Returns the number of the last one.
    pub(super) async fn page(
        &self,
        rows: &str,
        after: i64,
        mut read: impl FnMut(&SqliteRow, i64, EventId<'_>) -> Result<(), Fault> + Send,
    ) -> Result<Option<i64>, Fault> {
        let mut link = self.chores.link().await;
        let mut work = link.read().await?;
        let rows = work.rows(statement(&self.names.sql(rows)).bind(after).bind(ROWS_AT_ONCE)).await?;
        work.commit().await?;
        let mut last = None;
        for row in &rows {
            let (seq, id) = identity(row)?;
            last = Some(seq);
            read(row, seq, id)?;
        }
        Ok(last)
    }

    /// A page of what the audit says was given up, after its entry `after`.
    pub async fn discarded_after(&self, after: i64) -> Result<Vec<Discarded>, Fault> {
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let query = statement(&self.names.sql(DISCARDED)).bind(self.settings.name().to_owned()).bind(after).bind(ROWS_AT_ONCE);
        let rows = work.rows(query).await?;
        work.commit().await?;
        let read = |row| {
            Ok(Discarded { n: get(row, 0, "n")?, seq: get(row, 1, "seq")?, id: get(row, 2, "id")?, topic: get(row, 3, "topic")? })
        };
        rows.iter().map(read).collect()
    }

    /// This machine's clock, in microseconds since 1970, and the newest applied batch, 0 when there is none.
    pub async fn by_now(&self) -> Result<(i64, u64), Fault> {
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let query = statement(&self.names.sql(BY_NOW)).bind(self.settings.name().to_owned());
        let row = work.row(query).await?.ok_or_else(|| failure::unreadable("now"))?;
        work.commit().await?;
        Ok((get(&row, 0, "now")?, get::<Option<i64>>(&row, 1, "n")?.unwrap_or(0).cast_unsigned()))
    }
}
