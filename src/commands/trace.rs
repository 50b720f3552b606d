//! `outboxd trace`: where one event is. It only reads, and needs no relay.

use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use uuid::Uuid;

use super::{EXIT_DONE, Failure, Format, assembly};
use crate::config::{Config, Delivery};
use crate::event::Fingerprint;
use crate::fault::{EXIT_NO, Fault};
use crate::journal::Record;
use crate::sink::kafka::{Bounds, Lane, Scan, Scanned, Scanner, hash_of_key};
use crate::source::any::AnySource;
use crate::source::desk::{EventRow, Footing, Wanted};
use crate::trace::{Arithmetic, Consumer, Found, Journalled, Life, Sought, Stage, Stored};

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

/// Records that a group has not read are counted so far.
const COUNTED: u64 = 100_000;

/// Prints where it is; the exit code says whether anybody knows it.
pub async fn trace(config: &Config, asked: Asked, format: Format) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let footing = source.footing().await?;
    match asked {
        Asked::Key(key) => of_key(config, &source, &footing, &key, format).await,
        Asked::Id(id) => {
            let rows = source.rows_of(Wanted::Id(&id)).await?;
            of_event(config, &source, &footing, &id, rows, format).await
        }
        Asked::Place(topic, partition, offset) => {
            let at = (topic.clone(), partition, offset);
            let stored = assembly::kafka(config, config.kafka.delivery)?.scan(move |scanner| at_place(scanner, &at)).await?;
            let asked = format!("{topic}:{partition}:{offset}");
            let id = stored.ok_or_else(|| nothing_there(&asked))?.id.and_then(|id| String::from_utf8(id).ok());
            let id = id.ok_or_else(|| Failure::no(format!("{asked} holds a record without an id: it is no event")))?;
            let rows = source.rows_of(Wanted::Id(&id)).await?;
            of_event(config, &source, &footing, &id, rows, format).await
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

fn record_at(scanner: &Scanner<'_>, lane: Lane<'_>, offset: i64) -> Result<Option<Stored>, Fault> {
    let mut stored = None;
    scanner.read(lane, offset, offset + 1, |record| {
        let kept = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        stored = Some(Stored { id: kept(record.id), key: kept(record.key), value: kept(record.value) });
        ControlFlow::Break(())
    })?;
    Ok(stored)
}

async fn of_event(
    config: &Config,
    source: &AnySource,
    footing: &Footing,
    asked: &str,
    mut rows: Vec<EventRow>,
    format: Format,
) -> Result<u8, Failure> {
    let mut life = Life::new(asked, footing.delivery == Delivery::ExactlyOnce.as_str());
    life.row = if rows.is_empty() { None } else { Some(rows.remove(0)) };
    let sought = match (&life.row, Uuid::parse_str(asked)) {
        (Some(row), _) => Some(sought_row(row)),
        (None, Ok(id)) if footing.has_uuids => Some(Sought { fingerprint: Fingerprint::of(id), seq: None }),
        // what else it says is not known without its row, and the journal knows it by that too
        (None, _) => None,
    };
    let life = in_kafka(config, footing, life, sought).await?;
    let life = in_database(source, life).await?;
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

async fn in_kafka(config: &Config, footing: &Footing, life: Life, sought: Option<Sought>) -> Result<Life, Fault> {
    let sink = assembly::kafka(config, config.kafka.delivery)?;
    let topic = life.row.as_ref().map(|row| config.kafka.topic.apply(&row.topic));
    let pins: Vec<(String, i32, u64)> =
        footing.pins.iter().map(|(name, pin)| (config.kafka.topic.apply(name), pin.partitions, pin.since)).collect();
    sink.scan(move |scanner| {
        let mut life = life;
        if life.journalled {
            let mut found = vec![None];
            life.batches = search(scanner, &[sought], &mut found)?;
            life.entry = found.remove(0);
        }
        match (life.entry.clone(), topic) {
            (Some(entry), _) => {
                life.arithmetic = arithmetic(&life, &entry, &pins);
                read_back(scanner, &mut life, &entry)?;
            }
            (None, Some(topic)) if life.row.as_ref().is_some_and(|row| row.marked_us.is_none() && row.waits.is_none()) => {
                life.in_flight = in_flight(scanner, &topic, life.row.as_ref().map_or("", |row| &row.id))?;
            }
            (None, _) => {}
        }
        Ok(life)
    })
    .await
}

/// Looks through the whole journal for several events at once: the newest batch that names each. Returns its first and last batch.
fn search(scanner: &Scanner<'_>, sought: &[Option<Sought>], found: &mut [Option<Journalled>]) -> Result<Option<(u64, u64)>, Fault> {
    let topic = scanner.journal();
    let lane = Lane { topic, partition: 0 };
    if scanner.partitions(topic)?.is_none() {
        return Ok(None);
    }
    let Bounds { start, stable, .. } = scanner.bounds(lane)?;
    let mut batches: Option<(u64, u64)> = None;
    let scan = scanner.read(lane, start, stable, |stored| {
        let Some((record, _)) = stored.value.and_then(|bytes| Record::decode(bytes).ok()) else { return ControlFlow::Continue(()) };
        batches = Some((batches.map_or(record.n, |(first, _)| first), record.n));
        for (sought, found) in sought.iter().zip(found.iter_mut()) {
            *found = sought.as_ref().and_then(|sought| sought.find(&record, stored.time_ms)).or(found.take());
        }
        ControlFlow::Continue(())
    })?;
    match scan {
        Scan::To(_) => Ok(batches),
        Scan::BeginsLater => Err(Fault::kafka("trimmed", format!("{topic} was trimmed while it was read"))),
    }
}

/// Of an event with a key that was published when as many partitions were counted as are now.
fn arithmetic(life: &Life, entry: &Journalled, pins: &[(String, i32, u64)]) -> Option<Arithmetic> {
    let key = life.row.as_ref()?.key.as_deref()?;
    let (_, partitions, since) = pins.iter().find(|(topic, ..)| *topic == entry.topic)?;
    (*partitions > 0 && entry.n > *since).then(|| Arithmetic { hash: hash_of_key(key), partitions: *partitions })
}

/// What lies where the journal says, and who has read it.
fn read_back(scanner: &Scanner<'_>, life: &mut Life, entry: &Journalled) -> Result<(), Fault> {
    let lane = Lane { topic: &entry.topic, partition: entry.partition };
    if scanner.partitions(&entry.topic)?.is_none_or(|count| entry.partition >= count) {
        life.found = Some(Found::NoTopic);
        return Ok(());
    }
    let Bounds { start, stable, high } = scanner.bounds(lane)?;
    let found = match entry.offset {
        offset if offset < start => Found::Trimmed { start },
        offset if offset >= high => Found::Nothing,
        offset if offset >= stable => Found::Hidden,
        offset => match record_at(scanner, lane, offset)? {
            Some(stored) => stored.compare(life.row.as_ref(), &life.asked),
            None => Found::Nothing,
        },
    };
    life.found = Some(found);
    let groups = scanner.groups(lane)?;
    for position in groups.positions {
        life.consumers.push(consumer(scanner, lane, position.group, position.next, (start, stable))?);
    }
    life.hidden_groups = groups.hidden;
    Ok(())
}

fn consumer(
    scanner: &Scanner<'_>,
    lane: Lane<'_>,
    group: String,
    next: i64,
    (start, stable): (i64, i64),
) -> Result<Consumer, Fault> {
    let (mut behind, mut first_ms) = (0, None);
    scanner.read(lane, next.max(start), stable, |record| {
        behind += 1;
        first_ms = first_ms.or(record.time_ms);
        if behind > COUNTED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let behind_seconds = first_ms.map(|ms| (now - ms as f64 / 1_000.0).max(0.0));
    Ok(Consumer { group, next, behind: behind.min(COUNTED), is_more: behind > COUNTED, behind_seconds })
}

/// Where the event lies in a transaction that has not ended.
fn in_flight(scanner: &Scanner<'_>, topic: &str, id: &str) -> Result<Option<(String, i32, i64)>, Fault> {
    let everything = scanner.of_everything()?;
    for partition in 0..scanner.partitions(topic)?.unwrap_or(0) {
        let lane = Lane { topic, partition };
        let Bounds { stable, high, .. } = scanner.bounds(lane)?;
        let mut found = None;
        everything.read(lane, stable, high, |record: &Scanned<'_>| {
            if record.id == Some(id.as_bytes()) {
                found = Some((topic.to_owned(), partition, record.offset));
            }
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The newest events of a key, each with its stage.
async fn of_key(config: &Config, source: &AnySource, footing: &Footing, key: &str, format: Format) -> Result<u8, Failure> {
    let rows = source.rows_of(Wanted::Key(key)).await?;
    if rows.is_empty() {
        return Err(Failure::no("the table has no event of this key: what was published and pruned is found by its id"));
    }
    let sought: Vec<Option<Sought>> = rows.iter().map(|row| Some(sought_row(row))).collect();
    let mut lives: Vec<Life> = rows.into_iter().map(|row| of_row(row, footing)).collect();
    if footing.delivery == Delivery::ExactlyOnce.as_str() {
        let search = move |scanner: &Scanner<'_>| {
            let mut found = vec![None; sought.len()];
            search(scanner, &sought, &mut found).map(|batches| (batches, found))
        };
        let (batches, found) = assembly::kafka(config, config.kafka.delivery)?.scan(search).await?;
        for (life, entry) in lives.iter_mut().zip(found) {
            (life.batches, life.entry) = (batches, entry);
        }
    }
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

fn of_row(row: EventRow, footing: &Footing) -> Life {
    let life = Life::new(&row.id, footing.delivery == Delivery::ExactlyOnce.as_str());
    Life { row: Some(row), ..life }
}
