//! `outboxd trace`: where one event is. It only reads, and needs no relay.

use serde_json::json;
use uuid::Uuid;

use self::kafka::{Reading, record_at};
use super::{EXIT_DONE, Failure, Format, assembly};
use crate::config::{Config, Delivery};
use crate::event::Fingerprint;
use crate::fault::{EXIT_NO, Fault};
use crate::sink::kafka::{Bounds, Lane, Scanner};
use crate::source::any::AnySource;
use crate::source::desk::{EventRow, Footing, Wanted};
use crate::trace::{Life, Sought, Stage, Stored};

mod kafka;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An event by its identity.
    Id(String),
    /// The newest events of a key.
    Key(String),
    /// The event at a place in Kafka: topic, partition, offset.
    Place(String, i32, i64),
}

/// Prints where it is; the exit code says whether anybody knows it.
pub async fn trace(config: &Config, asked: Asked, format: Format) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let footing = source.footing().await?;
    match asked {
        Asked::Key(key) => of_key(config, &source, &footing, &key, format).await,
        Asked::Id(id) => {
            let rows = source.rows_of(Wanted::Id(&id)).await?;
            of_event(config, &source, &footing, (&id, rows, None), format).await
        }
        Asked::Place(topic, partition, offset) => {
            let at = (topic.clone(), partition, offset);
            let stored = assembly::kafka(config, config.kafka.delivery)?.scan(move |scanner| at_place(scanner, &at)).await?;
            let asked = format!("{topic}:{partition}:{offset}");
            let stored = stored.ok_or_else(|| nothing_there(&asked))?;
            let id = stored.id.as_deref().and_then(|id| std::str::from_utf8(id).ok());
            let id = id.ok_or_else(|| Failure::no(format!("{asked} holds a record without an id: it is no event")))?;
            let rows = source.rows_of(Wanted::Id(id)).await?;
            let sought = sought_record(config.kafka.topic.in_table(&topic), id, &stored);
            of_event(config, &source, &footing, (id, rows, sought), format).await
        }
    }
}

fn nothing_there(asked: &str) -> Failure {
    Failure::no(format!("{asked} holds no record that readers of committed records can see"))
}

/// The committed record at a place.
fn at_place(scanner: &Scanner<'_>, (topic, partition, offset): &(String, i32, i64)) -> Result<Option<Stored>, Fault> {
    let lane = Lane { topic, partition: *partition };
    if scanner.partitions(topic)?.is_none_or(|count| *partition >= count) {
        return Ok(None);
    }
    let Bounds { start, stable, .. } = scanner.bounds(lane)?;
    if !(start..stable).contains(offset) { Ok(None) } else { record_at(scanner, lane, *offset) }
}

async fn of_event(
    config: &Config,
    source: &AnySource,
    footing: &Footing,
    (asked, mut rows, of_record): (&str, Vec<EventRow>, Option<Sought>),
    format: Format,
) -> Result<u8, Failure> {
    let mut life = Life::new(asked, footing.delivery == Delivery::ExactlyOnce.as_str());
    life.row = if rows.is_empty() { None } else { Some(rows.remove(0)) };
    let sought = match (&life.row, Uuid::parse_str(asked)) {
        (Some(row), _) => Some(sought_row(row)),
        (None, Ok(id)) if footing.has_uuids => Some(Sought { fingerprint: Fingerprint::of(id), seq: None }),
        // the journal knows it by what else it says too: its record tells that, and nobody else without its row
        (None, _) => of_record,
    };
    life.is_sought = sought.is_some();
    let mut lives = in_kafka(config, footing, vec![life], vec![sought]).await?;
    let life = in_database(source, lives.remove(0)).await?;
    match format {
        Format::Text => print!("{}", life.text()),
        Format::Json => println!("{}", life.json()),
    }
    Ok(if matches!(life.stage(), Stage::Unknown | Stage::Vanished | Stage::Unaccounted) { EXIT_NO } else { EXIT_DONE })
}

/// What explains that it is nowhere else.
async fn in_database(source: &AnySource, mut life: Life) -> Result<Life, Fault> {
    let is_unsent = life.row.as_ref().is_some_and(|row| row.marked_us.is_none());
    if life.entry.is_none() && !is_unsent {
        let mut after = 0;
        loop {
            let page = source.discarded_after(after).await?;
            let Some(last) = page.last() else { break };
            after = last.n;
            let id = life.row.as_ref().map_or(&life.asked, |row| &row.id);
            let found = page.iter().rfind(|entry| entry.id == *id && life.row.as_ref().is_none_or(|row| row.seq == entry.seq));
            life.discarded = found.cloned().or(life.discarded);
        }
    }
    if life.row.is_none() && life.entry.is_none() {
        life.writers = source.open_writers().await?;
    }
    if is_unsent && life.entry.is_none() {
        let figures = source.figures().await?;
        let paused = figures.paused.map(|(by, reason, _)| format!("the outbox is paused by {by}: {reason}"));
        let halted = figures.halted.map(|(code, ..)| format!("the relay is halted, {code}"));
        let nobody = figures.owner.is_none().then(|| "no relay holds the lease".to_owned());
        life.standstill = paused.or(halted).or(nobody);
    }
    Ok(life)
}

/// What Kafka says of some events, each with what the journal knows it by.
async fn in_kafka(config: &Config, footing: &Footing, lives: Vec<Life>, sought: Vec<Option<Sought>>) -> Result<Vec<Life>, Fault> {
    let (pattern, pins) = (config.kafka.topic.clone(), footing.pins.clone());
    let tell = move |scanner: &Scanner<'_>| {
        let mut lives = lives;
        Reading::new(scanner, pattern, pins).tell(&mut lives, &sought)?;
        Ok(lives)
    };
    assembly::kafka(config, config.kafka.delivery)?.scan(tell).await
}

/// The newest events of a key, each with its stage.
async fn of_key(config: &Config, source: &AnySource, footing: &Footing, key: &str, format: Format) -> Result<u8, Failure> {
    let rows = source.rows_of(Wanted::Key(key)).await?;
    if rows.is_empty() {
        return Err(Failure::no("the table has no event of this key: what was published and pruned is found by its id"));
    }
    let sought: Vec<Option<Sought>> = rows.iter().map(|row| Some(sought_row(row))).collect();
    let lives: Vec<Life> = rows.into_iter().map(|row| of_row(row, footing)).collect();
    let lives = in_kafka(config, footing, lives, sought).await?;
    let mut told = Vec::new();
    for life in lives {
        told.push(in_database(source, life).await?);
    }
    match format {
        Format::Text => told.iter().for_each(|life| println!("{}", life.sentence())),
        Format::Json => println!("{}", json!({ "events": told.iter().map(Life::json).collect::<Vec<_>>() })),
    }
    Ok(EXIT_DONE)
}

fn sought_row(row: &EventRow) -> Sought {
    Sought { fingerprint: row.fingerprint, seq: Some(row.seq) }
}

/// What the journal knows the event of a record by, where its id does not tell alone.
fn sought_record(in_table: Option<&str>, id: &str, stored: &Stored) -> Option<Sought> {
    let fingerprint = Fingerprint::of_content(id, in_table?, stored.key.as_deref(), stored.value.as_deref());
    Some(Sought { fingerprint, seq: None })
}

fn of_row(row: EventRow, footing: &Footing) -> Life {
    let life = Life::new(&row.id, footing.delivery == Delivery::ExactlyOnce.as_str());
    Life { row: Some(row), ..life }
}
