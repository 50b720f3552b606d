//! Rows with all that the database knows of their way: what `trace` tells. It only needs SELECT.

use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::Postgres;
use super::columns::IdKind;
use super::connection::statement;
use super::identities::identity;
use super::table::{self, get};
use crate::fault::Fault;
use crate::source::desk::{EventRow, ROWS_OF_A_KEY, Waits, Wanted};

/// `$1` name, `$2` identity or key, `$3` how many. Of a row that was marked, xmin is the transaction that did so.
const ROWS: &str = "SELECT {seq}::int8, {id}::text, {identity}, coalesce({topic}::text, ''), {key_bytes}, {payload_bytes}, {type}::text, \
    CASE WHEN isfinite({created}) THEN (extract(epoch FROM {created}) * 1000000)::int8 END, \
    CASE WHEN isfinite({sent_at}) THEN (extract(epoch FROM {sent_at}) * 1000000)::int8 WHEN {sent_at} IS NOT NULL THEN 1 END, \
    p.code, p.detail, h.code, h.detail, b.seq, b.id, b.code, CASE WHEN {sent_at} IS NULL THEN o.xmin::text END, \
    CASE WHEN {sent_at} IS NULL AND current_setting('track_commit_timestamp')::bool \
        THEN (extract(epoch FROM pg_xact_commit_timestamp(o.xmin)) * 1000000)::int8 END \
    FROM {outbox} o LEFT JOIN {parked} p ON p.name = $1 AND p.seq = {seq} AND ({is_as_parked}) IS TRUE AND {sent_at} IS NULL \
    LEFT JOIN {held} h ON h.name = $1 AND h.topic = coalesce({topic}::text, '') AND {sent_at} IS NULL \
    LEFT JOIN LATERAL (SELECT q.seq, q.id, q.code FROM {parked} q WHERE q.name = $1 AND q.blocking AND {sent_at} IS NULL \
        AND q.topic = coalesce({topic}::text, '') AND q.key = {key_text} ORDER BY q.seq LIMIT 1) b ON true \
    WHERE {wanted} ORDER BY {seq} DESC LIMIT $3";

/// The column's index serves only a value of its own type.
const BY_UUID: &str = "{id} = $2::uuid";
const BY_TEXT: &str = "{id}::text = $2";
const BY_KEY: &str = "{key_text} = $2";

impl Postgres {
    /// The rows that are meant, the newest first: all with an identity, the last ones of a key.
    pub async fn rows_of(&self, wanted: Wanted<'_>) -> Result<Vec<EventRow>, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let table = table::look_at(&mut work, &names).await?;
        let kind = table.columns.id;
        let (condition, value) = match (wanted, kind) {
            (Wanted::Key(key), _) => (BY_KEY, key.to_owned()),
            (Wanted::Id(id), IdKind::Content) => (BY_TEXT, id.to_owned()),
            (Wanted::Id(id), IdKind::Uuid) => match Uuid::parse_str(id) {
                Ok(id) => (BY_UUID, id.to_string()),
                Err(_) => return Ok(Vec::new()),
            },
        };
        let sql = table.sql(&names, &ROWS.replace("{wanted}", condition));
        let query = statement(&sql).bind(self.settings.name().to_owned()).bind(value).bind(ROWS_OF_A_KEY);
        let rows = work.rows(query).await?;
        work.commit().await?;
        rows.iter().map(|row| read(row, kind)).collect()
    }
}

fn read(row: &PgRow, kind: IdKind) -> Result<EventRow, Fault> {
    let text = |index, name| get::<Option<String>>(row, index, name);
    let (parked, held) = (text(9, "code")?.zip(text(10, "detail")?), text(11, "code")?.zip(text(12, "detail")?));
    let behind = get::<Option<i64>>(row, 13, "seq")?.zip(text(14, "id")?).zip(text(15, "code")?);
    Ok(EventRow {
        seq: get(row, 0, "seq")?,
        id: get(row, 1, "id")?,
        fingerprint: identity(row, 2, kind)?.fingerprint(),
        topic: get(row, 3, "topic")?,
        key: get(row, 4, "key")?,
        payload: get(row, 5, "payload")?,
        kind: text(6, "type")?.unwrap_or_default(),
        created_us: get(row, 7, "created_at")?,
        marked_us: get(row, 8, "sent_at")?,
        waits: Waits::of(parked, held, behind.map(|((seq, id), code)| (seq, id, code))),
        transaction: text(16, "xmin")?,
        committed_us: get(row, 17, "xmin")?,
    })
}
