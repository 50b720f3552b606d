//! What a verification reads: the newest applied batch, rows page by page, what the audit says was given up. It only needs SELECT, and a
//! standby will do.

use sqlx::postgres::PgRow;

use super::columns::IdKind;
use super::connection::statement;
use super::identities::identity;
use super::table::{self, get};
use super::{Postgres, standing};
use crate::event::Fingerprint;
use crate::fault::Fault;
use crate::journal::{Applied, Checksum};
use crate::source::desk::{Discarded, Footing, ROWS_AT_ONCE, RowFacts};

/// The estimate is that of the last ANALYZE; a partitioned table has the sum of its parts.
const FOOTING: &str = "SELECT s.outbox, s.delivery, s.pins::text, a.n, a.journal_offset, a.checksum, \
    (SELECT sum(greatest(c.reltuples, 0))::int8 FROM pg_class c WHERE c.oid = $2 \
        OR c.oid IN (SELECT relid FROM pg_partition_tree($2) WHERE isleaf)), \
    f.n, (extract(epoch FROM f.applied_at) * 1000000)::int8, (extract(epoch FROM s.created_at) * 1000000)::int8 \
    FROM {state} s LEFT JOIN LATERAL \
    (SELECT n, journal_offset, checksum FROM {applied} WHERE name = s.name ORDER BY n DESC LIMIT 1) a ON true LEFT JOIN LATERAL \
    (SELECT n, applied_at FROM {applied} WHERE name = s.name ORDER BY n LIMIT 1) f ON true WHERE s.name = $1";

/// A page of rows. Rejected: one statement for all of them, whose snapshot would keep dead rows from being removed for minutes. Pages of
/// different moments do as well: rows of batches that were applied before the first page are marked in each of them. A mark without an end
/// is later than anything else: no relay makes such, and it must not pass for one that is older than the journal.
const ROWS: &str = "SELECT {seq}::int8, {identity}, coalesce({topic}::text, ''), \
    CASE WHEN {sent_at} IS NOT NULL AND isfinite({sent_at}) THEN (extract(epoch FROM {sent_at}) * 1000000)::int8 \
        WHEN {sent_at} = 'infinity' THEN 9223372036854775807 WHEN {sent_at} IS NOT NULL THEN 1 END \
    FROM {outbox} o WHERE {seq} > $1 ORDER BY {seq} LIMIT $2";

const DISCARDED: &str = "SELECT n, (detail->>'seq')::int8, detail->>'id', detail->>'topic' FROM {audit} \
    WHERE name = $1 AND action = 'parked discard' AND detail ?& ARRAY['seq', 'id', 'topic'] \
    AND jsonb_typeof(detail->'seq') = 'number' AND n > $2 ORDER BY n LIMIT $3";

const BY_NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, \
    (SELECT n FROM {applied} WHERE name = $1 ORDER BY n DESC LIMIT 1)";

impl Postgres {
    /// What has to be known before anything else is read.
    pub async fn footing(&self) -> Result<Footing, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let table = table::look_at(&mut work, &names).await?;
        let name = self.settings.name();
        let query = statement(&names.sql(FOOTING)).bind(name.to_owned()).bind(table.oid);
        let row = work.row(query).await?.ok_or_else(|| standing::unknown_outbox(name))?;
        work.commit().await?;
        let number = |index, name| get::<Option<i64>>(&row, index, name).map(Option::unwrap_or_default);
        Ok(Footing {
            outbox: get(&row, 0, "outbox")?,
            delivery: get(&row, 1, "delivery")?,
            pins: standing::pins(get(&row, 2, "pins")?)?,
            applied: Applied {
                n: number(3, "n")?.cast_unsigned(),
                offset: number(4, "journal_offset")?,
                checksum: Checksum(number(5, "checksum")?.cast_unsigned()),
            },
            first_applied: get::<Option<i64>>(&row, 7, "n")?.map(i64::cast_unsigned).zip(get(&row, 8, "applied_at")?),
            set_up_us: get(&row, 9, "created_at")?,
            has_uuids: table.columns.id == IdKind::Uuid,
            rows: number(6, "reltuples")?.cast_unsigned(),
        })
    }

    /// Shows a page of rows above `after`, in order, and returns the number of the last one; nothing when there are no more.
    pub async fn rows_after(&self, after: i64, mut show: impl FnMut(RowFacts<'_>) + Send) -> Result<Option<i64>, Fault> {
        let facts = |row: &PgRow, seq, fingerprint| {
            let (topic, marked_us) = (get(row, 2, "topic")?, get(row, 3, "sent_at")?);
            show(RowFacts { seq, fingerprint, topic, marked_us });
            Ok(())
        };
        self.page(ROWS, after, facts).await
    }

    /// Gives each row of a page to `read`, with its number and what the journal knows it by: the first two columns of `rows`, whose
    /// parameters are the number to begin after and how many. Returns the number of the last one.
    pub(super) async fn page(
        &self,
        rows: &str,
        after: i64,
        mut read: impl FnMut(&PgRow, i64, Fingerprint) -> Result<(), Fault> + Send,
    ) -> Result<Option<i64>, Fault> {
        let names = self.names().await?;
        let mut link = self.chores.link().await;
        let mut work = link.begin_indexed().await?;
        let table = table::look_at(&mut work, &names).await?;
        let mut last = None;
        let query = statement(&table.sql(&names, rows)).bind(after).bind(ROWS_AT_ONCE);
        work.each(query, |row| {
            let seq = get(row, 0, "seq")?;
            last = Some(seq);
            read(row, seq, identity(row, 1, table.columns.id)?.fingerprint())
        })
        .await?;
        work.commit().await?;
        Ok(last)
    }

    /// A page of what the audit says was given up, after its entry `after`.
    pub async fn discarded_after(&self, after: i64) -> Result<Vec<Discarded>, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let query = statement(&names.sql(DISCARDED)).bind(self.settings.name().to_owned()).bind(after).bind(ROWS_AT_ONCE);
        let rows = work.rows(query).await?;
        work.commit().await?;
        let read = |row| {
            Ok(Discarded { n: get(row, 0, "n")?, seq: get(row, 1, "seq")?, id: get(row, 2, "id")?, topic: get(row, 3, "topic")? })
        };
        rows.iter().map(read).collect()
    }

    /// The server's clock, in microseconds since 1970, and the newest applied batch, 0 when there is none.
    pub async fn by_now(&self) -> Result<(i64, u64), Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let query = statement(&names.sql(BY_NOW)).bind(self.settings.name().to_owned());
        let row = work.row(query).await?.ok_or_else(|| super::failure::unreadable("now"))?;
        work.commit().await?;
        Ok((get(&row, 0, "now")?, get::<Option<i64>>(&row, 1, "n")?.unwrap_or(0).cast_unsigned()))
    }
}
