//! Where the outbox stands, as far as `check` tells it.

use super::{all, ask, one};
use crate::fault::Fault;
use crate::source::desk::{Aside, Row, TopicInUse};
use crate::source::postgres::connection::Link;
use crate::source::postgres::names::Names;
use crate::source::postgres::standing::pins;
use crate::source::postgres::table::get;

const ROW: &str = "SELECT s.table_name, s.delivery, s.halted_code, s.halted_evidence, s.paused_by, s.paused_reason, \
    CASE WHEN s.lease_until > clock_timestamp() THEN s.lease_instance END, s.pins::text FROM {state} s WHERE s.name = $1";
const ASIDE: &str = "SELECT (SELECT count(*) FROM {parked} WHERE name = $1), \
    ARRAY(SELECT topic FROM {held} WHERE name = $1 ORDER BY topic LIMIT 20), \
    ARRAY(SELECT code FROM {held} WHERE name = $1 ORDER BY topic LIMIT 20)";
const NEIGHBOURS: &str = "SELECT name FROM {state} WHERE name <> $1 ORDER BY name LIMIT 20";
/// Topics of the first unsent rows, one more than are looked at: a look, not a census.
const TOPICS: &str = "SELECT topic::text, bool_or(key IS NULL) FROM (SELECT {topic} AS topic, {key} AS key FROM {outbox} o \
    WHERE {sent_at} IS NULL ORDER BY {seq} LIMIT 10000) first WHERE topic IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT 101";

pub(super) async fn row(link: &mut Link, names: &Names, name: &str) -> Result<Option<Row>, Fault> {
    let Some(row) = one(link, ask(&names.sql(ROW)).bind(name)).await? else { return Ok(None) };
    let pair = |first: Option<String>, second: Option<String>| first.map(|first| (first, second.unwrap_or_default()));
    Ok(Some(Row {
        table: get(&row, 0, "table_name")?,
        delivery: get(&row, 1, "delivery")?,
        halted: pair(get(&row, 2, "halted_code")?, get(&row, 3, "halted_evidence")?),
        paused: pair(get(&row, 4, "paused_by")?, get(&row, 5, "paused_reason")?),
        owner: get(&row, 6, "lease_instance")?,
        pins: pins(get(&row, 7, "pins")?)?,
    }))
}

pub(super) async fn aside(link: &mut Link, names: &Names, name: &str) -> Result<Aside, Fault> {
    let row = one(link, ask(&names.sql(ASIDE)).bind(name)).await?.ok_or_else(|| super::super::failure::unreadable("parked"))?;
    let (topics, codes): (Vec<String>, Vec<String>) = (get(&row, 1, "held")?, get(&row, 2, "held")?);
    Ok(Aside { parked: get(&row, 0, "parked")?, held: topics.into_iter().zip(codes).collect() })
}

pub(super) async fn neighbours(link: &mut Link, names: &Names, name: &str) -> Result<Vec<String>, Fault> {
    let rows = all(link, ask(&names.sql(NEIGHBOURS)).bind(name)).await?;
    rows.iter().map(|row| get(row, 0, "name")).collect()
}

pub(super) async fn topics(link: &mut Link, names: &Names) -> Result<Vec<TopicInUse>, Fault> {
    let mut work = link.begin_indexed().await?;
    let rows = work.rows(ask(&names.sql(TOPICS))).await?;
    work.commit().await?;
    rows.iter().map(|row| Ok(TopicInUse { topic: get(row, 0, "topic")?, without_key: get(row, 1, "without_key")? })).collect()
}
