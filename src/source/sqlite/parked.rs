//! What commands do with parked events: list, retry, discard.

use std::collections::HashMap;

use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::batch::Rows;
use super::connection::{Statement, Work, get, statement};
use super::desk::duration;
use super::mark::Marking;
use super::names::{Names, Sql};
use super::standing::{begin_locked, json};
use super::{Sqlite, steering};
use crate::event::{EventId, Fingerprint};
use crate::fault::{Fault, HaltCode};
use crate::source::ClaimNumber;
use crate::source::desk::{Chosen, Decision, ParkedEvent, Request};

/// `?1` name, `?2` identities as JSON, `?3` code, `?4` topic; NULL: any.
const CHOSEN: &str = "p.name = ?1 AND (?2 IS NULL OR p.id IN (SELECT value FROM json_each(?2))) AND (?3 IS NULL OR p.code = ?3) \
    AND (?4 IS NULL OR p.topic = ?4)";
const LIST: &str = "SELECT p.seq, p.id, p.topic, p.key, p.code, p.detail, p.blocking, \
    CAST(round((julianday('now') - julianday(p.parked_at)) * 86400000) AS INTEGER) \
    FROM outboxd_parked p WHERE {chosen} ORDER BY p.code, p.seq LIMIT ?5";
const COUNT: &str = "SELECT count(*) FROM outboxd_parked p WHERE {chosen}";
/// What waits behind each key, among the first 100,000 unsent events: one pass, since there is no index on the key.
const WAITING: &str = "SELECT w.topic, w.key, count(*) FROM (SELECT o.seq, o.topic, {key_text} AS key FROM {outbox} o \
    WHERE o.sent_at IS NULL ORDER BY o.seq LIMIT 100000) w WHERE w.seq NOT IN (SELECT seq FROM outboxd_parked WHERE name = ?1) \
    AND (w.topic, w.key) IN (SELECT topic, key FROM outboxd_parked WHERE name = ?1 AND blocking) GROUP BY 1, 2";

/// A new claim number: the relay throws away what it has fetched and reads the table anew, so that what comes back is not overtaken by a
/// later event of its key.
const NEW_CLAIM: &str = "UPDATE outboxd_state SET claim = ?2 WHERE name = ?1";
/// Entries of events that are sent, gone or others by now.
const FORGET: &str = "DELETE FROM outboxd_parked AS p WHERE p.name = ?1 AND NOT EXISTS \
    (SELECT 1 FROM {outbox} o WHERE o.seq = p.seq AND lower(o.id) = p.id AND o.sent_at IS NULL)";
const RELEASE: &str = "DELETE FROM outboxd_parked AS p WHERE {chosen} RETURNING seq, id, topic, code";

impl Sqlite {
    /// Parked events by reason and number, at most `most`.
    pub async fn parked(&self, chosen: &Chosen, most: u32) -> Result<Vec<ParkedEvent>, Fault> {
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let waiting = statement(&self.names.sql(WAITING)).bind(self.settings.name());
        let waiting = waiting_by_key(&work.rows(waiting).await?)?;
        let rows = work.rows(bind(&fill(LIST, &self.names), self.settings.name(), chosen)?.bind(most)).await?;
        work.commit().await?;
        rows.iter().map(|row| read(row, &waiting)).collect()
    }

    /// How many parked events are meant.
    pub async fn count_parked(&self, chosen: &Chosen) -> Result<u64, Fault> {
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let row = work.row(bind(&fill(COUNT, &self.names), self.settings.name(), chosen)?).await?;
        work.commit().await?;
        row.map_or(Ok(0), |row| get::<i64>(&row, 0, "count").map(i64::cast_unsigned))
    }

    /// Retries or discards parked events, with a row in the audit for each, and returns how many.
    pub async fn decide(&self, decision: Decision, chosen: &Chosen, who: &str, reason: &str) -> Result<u64, Fault> {
        let (names, name) = (&self.names, self.settings.name());
        let mut link = self.place.link();
        let (mut work, _) = begin_locked(&mut link, names, &self.settings).await?;
        let forgotten = work.execute(statement(&names.sql(FORGET)).bind(name)).await?;
        let released = work.rows(bind(&fill(RELEASE, names), name, chosen)?).await?;
        let request = Request { who: who.to_owned(), reason: reason.to_owned() };
        for row in &released {
            steering::audit(&mut work, names, name, decision.action(), &request, &detail(row)?).await?;
        }
        if decision == Decision::Discard {
            self.discard(&mut work, &released).await?;
        }
        // also for what was only forgotten: the events behind it are free now
        if released.len() as u64 + forgotten > 0 {
            new_claim(&mut work, names, name).await?;
        }
        work.commit().await?;
        Ok(released.len() as u64)
    }

    /// Triggers can keep a row from being marked, without an error: then it would be published after all.
    async fn discard(&self, work: &mut Work<'_>, released: &[SqliteRow]) -> Result<(), Fault> {
        let mut rows = Rows::default();
        for row in released {
            // by its text alone: that it is the same event was looked at a moment ago
            let id: String = get(row, 1, "id")?;
            rows.push(get(row, 0, "seq")?, EventId::Text { text: &id, fingerprint: Fingerprint(0) });
        }
        let marked = Marking::new(&self.names, &self.settings).rows(work, &rows).await?;
        if marked == rows.count() {
            return Ok(());
        }
        let detail = format!("marking {} of {} rows", rows.count() - marked, rows.count());
        Err(Fault::Refused { detail, remedy: HaltCode::MarkRefused.remedy().into() })
    }
}

fn fill(template: &str, names: &Names) -> Sql {
    names.sql(&template.replace("{chosen}", CHOSEN))
}

fn detail(row: &SqliteRow) -> Result<String, Fault> {
    let (seq, id, topic, code): (i64, String, String, String) =
        (get(row, 0, "seq")?, get(row, 1, "id")?, get(row, 2, "topic")?, get(row, 3, "code")?);
    Ok(serde_json::json!({ "seq": seq, "id": id, "topic": topic, "code": code }).to_string())
}

/// Whoever relays notices at the next fetch or mark.
pub(super) async fn new_claim(work: &mut Work<'_>, names: &Names, name: &str) -> Result<(), Fault> {
    let claim = ClaimNumber(fastrand::i64(..));
    work.execute(statement(&names.sql(NEW_CLAIM)).bind(name).bind(claim.0)).await.map(drop)
}

fn bind(sql: &Sql, name: &str, chosen: &Chosen) -> Result<Statement<'static>, Fault> {
    let as_stored = |id: &String| Uuid::parse_str(id).map_or_else(|_| id.to_ascii_lowercase(), |uuid| uuid.to_string());
    let ids: Vec<String> = chosen.ids.iter().map(as_stored).collect();
    let ids = if ids.is_empty() { None } else { Some(json(&ids)?) };
    Ok(statement(sql).bind(name.to_owned()).bind(ids).bind(chosen.code.clone()).bind(chosen.topic.clone()))
}

/// Counts by topic and key.
type Waiting = HashMap<(String, Option<String>), i64>;

fn waiting_by_key(rows: &[SqliteRow]) -> Result<Waiting, Fault> {
    rows.iter().map(|row| Ok(((get(row, 0, "topic")?, get(row, 1, "key")?), get(row, 2, "count")?))).collect()
}

fn read(row: &SqliteRow, waiting: &Waiting) -> Result<ParkedEvent, Fault> {
    let (topic, key, blocking): (String, Option<String>, i64) =
        (get(row, 2, "topic")?, get(row, 3, "key")?, get(row, 6, "blocking")?);
    let (lane, blocking) = ((topic, key), blocking != 0);
    let behind = waiting.get(&lane).copied().filter(|_| blocking && lane.1.is_some()).unwrap_or(0).cast_unsigned();
    Ok(ParkedEvent {
        seq: get(row, 0, "seq")?,
        id: get(row, 1, "id")?,
        topic: lane.0,
        key: lane.1,
        code: get(row, 4, "code")?,
        detail: get(row, 5, "detail")?,
        blocking,
        age: duration(get(row, 7, "age")?),
        waiting: behind,
    })
}
