//! Rows with all that the file knows of their way: what `trace` tells.

use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::Sqlite;
use super::connection::{get, statement};
use super::rows::{bytes, identity};
use crate::fault::Fault;
use crate::source::desk::{EventRow, ROWS_OF_A_KEY, Waits, Wanted};

/// `?1` name, `?2` identity or key, `?3` how many.
const ROWS: &str = "SELECT o.seq, o.id, o.topic, o.key, o.payload, o.type, \
    {micros o.created_at}, CASE WHEN o.sent_at IS NOT NULL THEN \
        coalesce({micros o.sent_at}, 1) END, \
    p.code, p.detail, h.code, h.detail, b.seq, b.id, b.code \
    FROM {outbox} o LEFT JOIN outboxd_parked p ON p.name = ?1 AND p.seq = o.seq AND p.id = lower(o.id) AND o.sent_at IS NULL \
    LEFT JOIN outboxd_held h ON h.name = ?1 AND h.topic = o.topic AND o.sent_at IS NULL \
    LEFT JOIN outboxd_parked b ON o.sent_at IS NULL AND b.name = ?1 AND b.seq = (SELECT min(q.seq) FROM outboxd_parked q \
        WHERE q.name = ?1 AND q.blocking AND q.topic = o.topic AND q.key = {key_text}) \
    WHERE {wanted} ORDER BY o.seq DESC LIMIT ?3";
const BY_ID: &str = "lower(o.id) = ?2";
const BY_KEY: &str = "{key_text} = ?2";

impl Sqlite {
    /// The rows that are meant, the newest first: all with an identity, the last ones of a key.
    pub async fn rows_of(&self, wanted: Wanted<'_>) -> Result<Vec<EventRow>, Fault> {
        let (condition, value) = match wanted {
            Wanted::Key(key) => (BY_KEY, key.to_owned()),
            Wanted::Id(id) => (BY_ID, Uuid::parse_str(id).map_or_else(|_| id.to_ascii_lowercase(), |id| id.to_string())),
        };
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let sql = self.names.sql(&ROWS.replace("{wanted}", condition));
        let rows = work.rows(statement(&sql).bind(self.settings.name().to_owned()).bind(value).bind(ROWS_OF_A_KEY)).await?;
        work.commit().await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &SqliteRow) -> Result<EventRow, Fault> {
    let (seq, id) = identity(row)?;
    let text = |index, name| get::<Option<String>>(row, index, name);
    let (parked, held) = (text(8, "code")?.zip(text(9, "detail")?), text(10, "code")?.zip(text(11, "detail")?));
    let behind = get::<Option<i64>>(row, 12, "seq")?.zip(text(13, "id")?).zip(text(14, "code")?);
    Ok(EventRow {
        seq,
        id: id.to_string(),
        fingerprint: id.fingerprint(),
        topic: text(2, "topic")?.unwrap_or_default(),
        key: bytes(row, 3, "key")?.map(<[u8]>::to_vec),
        payload: bytes(row, 4, "payload")?.map(<[u8]>::to_vec),
        kind: text(5, "type")?.unwrap_or_default(),
        created_us: get(row, 6, "created_at")?,
        marked_us: get(row, 7, "sent_at")?,
        waits: Waits::of(parked, held, behind.map(|((seq, id), code)| (seq, id, code))),
        transaction: None,
        committed_us: None,
    })
}
