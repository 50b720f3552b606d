//! What commands do with parked events: list, retry, discard.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::columns::IdKind;
use super::connection::{Statement, Work, statement};
use super::names::{Names, Sql};
use super::table::{self, Table, get};
use super::{Postgres, standing};
use crate::config::Mark;
use crate::fault::{Fault, HaltCode};
use crate::source::ClaimNumber;
use crate::source::desk::{Chosen, Decision, ParkedEvent};

/// `$1` name, `$2` identities, `$3` code, `$4` topic; NULL: any.
const CHOSEN: &str = "p.name = $1 AND ($2::text[] IS NULL OR p.id = ANY ($2)) AND ($3::text IS NULL OR p.code = $3) \
    AND ($4::text IS NULL OR p.topic = $4)";
const LIST: &str = "SELECT p.seq, p.id, p.topic, p.key, p.code, p.detail, p.blocking, \
    greatest(0, extract(epoch FROM clock_timestamp() - p.parked_at) * 1000000)::int8 \
    FROM {parked} p WHERE {chosen} ORDER BY p.code, p.seq LIMIT $5";
const COUNT: &str = "SELECT count(*) FROM {parked} p WHERE {chosen}";
/// What waits behind each key, among the first 100,000 unsent events: one pass, since there is no index on the key.
const WAITING: &str = "SELECT w.topic, w.key, count(*) FROM \
    (SELECT {seq} AS seq, {topic}::text AS topic, {key_text} AS key FROM {outbox} o \
    WHERE {sent_at} IS NULL ORDER BY {seq} LIMIT 100000) w WHERE w.seq NOT IN (SELECT seq FROM {parked} WHERE name = $1) \
    AND (w.topic, w.key) IN (SELECT topic, key FROM {parked} WHERE name = $1 AND blocking) GROUP BY 1, 2";

/// A new claim number: the relay throws away what it has fetched and reads the table anew, in full form, so that what comes back is not
/// overtaken by a later event of its key.
const NEW_CLAIM: &str = "UPDATE {state} SET claim = $2 WHERE name = $1";
/// Entries of events that are sent or gone. By id and not by what the row says: it may have been corrected to be tried again.
const FORGET: &str = "DELETE FROM {parked} p WHERE p.name = $1 AND NOT EXISTS \
    (SELECT FROM {outbox} o WHERE {seq} = p.seq AND ({id}::text = p.id) IS TRUE AND {sent_at} IS NULL)";
const RETRY: &str = "WITH chosen AS (DELETE FROM {parked} p WHERE {chosen} RETURNING p.*), audited AS ({audit_each} RETURNING 1) \
    SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM audited), NULL::text[]";
/// Row security and triggers can keep a row from being marked, without an error: then it would be published after all.
const DISCARD: &str = "WITH chosen AS (DELETE FROM {parked} p WHERE {chosen} RETURNING p.*), marked AS ({mark}), \
    audited AS ({audit_each} RETURNING 1) SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FILTER (WHERE is_marked) FROM marked), \
    ARRAY(SELECT c.id FROM chosen c WHERE c.seq NOT IN (SELECT seq FROM marked WHERE is_marked) ORDER BY c.seq LIMIT 5)";
const MARK: &str = "UPDATE {outbox} o SET {sent_at_column} = {now} FROM chosen p WHERE {seq} = p.seq AND ({is_as_parked}) IS TRUE \
    RETURNING p.seq, {sent_at} IS NOT NULL AS is_marked";
const DELETE: &str = "DELETE FROM {outbox} o USING chosen p WHERE {seq} = p.seq AND ({is_as_parked}) IS TRUE \
    RETURNING p.seq, true AS is_marked";
const AUDIT_EACH: &str = "INSERT INTO {audit} (name, who, action, reason, detail) SELECT $1, session_user || $5, $6, $7, \
    jsonb_build_object('seq', c.seq, 'id', c.id, 'topic', c.topic, 'code', c.code) FROM chosen c";

impl Postgres {
    /// Parked events by reason and number, at most `most`.
    pub async fn parked(&self, chosen: &Chosen, most: u32) -> Result<Vec<ParkedEvent>, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let table = table::look_up(&mut work, &names, &self.settings).await?;
        let waiting = table.sql(&names, WAITING);
        let waiting = waiting_by_key(&work.rows(statement(&waiting).bind(self.settings.name())).await?)?;
        let list = bind(&self.fill(LIST, &names, &table), self.settings.name(), chosen, &table).bind(i64::from(most));
        let rows = work.rows(list).await?;
        work.commit().await?;
        rows.iter().map(|row| read(row, &waiting)).collect()
    }

    /// How many parked events are meant.
    pub async fn count_parked(&self, chosen: &Chosen) -> Result<u64, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let table = table::look_up(&mut work, &names, &self.settings).await?;
        let row = work.row(bind(&self.fill(COUNT, &names, &table), self.settings.name(), chosen, &table)).await?;
        work.commit().await?;
        row.map_or(Ok(0), |row| get::<i64>(&row, 0, "count").map(i64::cast_unsigned))
    }

    /// Retries or discards parked events, with a row in the audit for each, and returns how many. `who` is added to the role's name.
    pub async fn decide(&self, decision: Decision, chosen: &Chosen, who: &str, reason: &str) -> Result<u64, Fault> {
        let (mut link, names) = self.link().await?;
        let template = match decision {
            Decision::Retry => RETRY,
            Decision::Discard => DISCARD,
        };
        let (mut work, _) = standing::begin_locked(&mut link, &names, &self.settings).await?;
        let table = table::look_up(&mut work, &names, &self.settings).await?;
        let sql = self.fill(template, &names, &table);
        let forgotten = work.execute(statement(&names.sql(FORGET)).bind(self.settings.name())).await?;
        let decide =
            bind(&sql, self.settings.name(), chosen, &table).bind(who.to_owned()).bind(decision.action()).bind(reason.to_owned());
        let row = work.row(decide).await?.ok_or_else(|| super::failure::unreadable("count"))?;
        let (decided, done): (i64, i64) = (get(&row, 0, "count")?, get(&row, 1, "count")?);
        if decided != done {
            let first = get::<Option<Vec<String>>>(&row, 2, "ids")?.unwrap_or_default();
            let named: Vec<String> = first.iter().map(|id| id.escape_debug().to_string()).collect();
            let more = if first.len() < (decided - done) as usize { ", …" } else { "" };
            let detail = format!("marking {} of {decided} rows, {}{more}", decided - done, named.join(", "));
            return Err(Fault::Refused { detail, remedy: unmarkable(&table).into() });
        }
        // also for what was only forgotten: the events behind it are free now
        if decided.cast_unsigned() + forgotten > 0 {
            new_claim(&mut work, &names, self.settings.name()).await?;
        }
        work.commit().await?;
        Ok(decided.cast_unsigned())
    }
}

impl Postgres {
    fn fill(&self, template: &str, names: &Names, table: &Table) -> Sql {
        let mark = match self.settings.outbox.mark {
            Mark::Row => MARK,
            Mark::Delete => DELETE,
        };
        table.sql(names, &template.replace("{chosen}", CHOSEN).replace("{mark}", mark).replace("{audit_each}", AUDIT_EACH))
    }
}

/// Whoever relays notices at the next fetch or mark.
pub(super) async fn new_claim(work: &mut Work<'_>, names: &Names, name: &str) -> Result<(), Fault> {
    let claim = ClaimNumber(fastrand::i64(..));
    work.execute(statement(&names.sql(NEW_CLAIM)).bind(name.to_owned()).bind(claim.0)).await.map(drop)
}

/// Why a parked event could not be marked.
fn unmarkable(table: &Table) -> &'static str {
    match table.columns.id {
        IdKind::Uuid => HaltCode::MarkRefused.remedy(),
        IdKind::Content => {
            "Its row was changed since it was parked, and with it the event: retry it, which parks it anew if need be. \
             Otherwise look for a row security policy or a trigger that keeps the relay from updating the table"
        }
    }
}

fn bind(sql: &Sql, name: &str, chosen: &Chosen, table: &Table) -> Statement<'static> {
    let as_stored = |id: &String| match (table.columns.id, Uuid::parse_str(id)) {
        (IdKind::Uuid, Ok(uuid)) => uuid.to_string(),
        (IdKind::Uuid, Err(_)) | (IdKind::Content, _) => id.clone(),
    };
    let ids: Option<Vec<String>> = (!chosen.ids.is_empty()).then(|| chosen.ids.iter().map(as_stored).collect());
    statement(sql).bind(name.to_owned()).bind(ids).bind(chosen.code.clone()).bind(chosen.topic.clone())
}

/// Counts by topic and key.
type Waiting = HashMap<(String, Option<String>), i64>;

fn waiting_by_key(rows: &[PgRow]) -> Result<Waiting, Fault> {
    rows.iter().map(|row| Ok(((get(row, 0, "topic")?, get(row, 1, "key")?), get(row, 2, "count")?))).collect()
}

fn read(row: &PgRow, waiting: &Waiting) -> Result<ParkedEvent, Fault> {
    let (topic, key, blocking): (String, Option<String>, bool) =
        (get(row, 2, "topic")?, get(row, 3, "key")?, get(row, 6, "blocking")?);
    let lane = (topic, key);
    let behind = waiting.get(&lane).copied().filter(|_| blocking && lane.1.is_some()).unwrap_or(0).cast_unsigned();
    Ok(ParkedEvent {
        seq: get(row, 0, "seq")?,
        id: get(row, 1, "id")?,
        topic: lane.0,
        key: lane.1,
        code: get(row, 4, "code")?,
        detail: get(row, 5, "detail")?,
        blocking,
        age: Duration::from_micros(get::<i64>(row, 7, "age")?.cast_unsigned()),
        waiting: behind,
    })
}
