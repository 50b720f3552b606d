//! `outboxd adopt --journal`: goes on from the journal's end as it is now, because a person says so.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::steer::Rehearse;
use super::{EXIT_DONE, Failure, assembly, operator};
use crate::config::{Config, Delivery};
use crate::fault::{EXIT_NO, Fault, Halt, HaltCode};
use crate::identity;
use crate::journal::{Applied, Checksum, Owner, Record, Writer};
use crate::sink::Sink;
use crate::sink::kafka::{KafkaSink, Tail};
use crate::source::postgres::{Figures, Postgres, Request};
use crate::source::{Source, Standing};

/// Halts that this leads out of.
const OURS: [HaltCode; 4] = [HaltCode::ForeignJournal, HaltCode::TwoDatabases, HaltCode::JournalWindow, HaltCode::KafkaBehind];

/// Shows the evidence and what may come twice; then fences everybody else, writes a record without events at the journal's end, and takes
/// that for the newest applied batch. `foreign` is the identity of another outbox whose journal is taken over.
pub async fn adopt_journal(config: &Config, foreign: Option<Uuid>, reason: &str, rehearse: Rehearse) -> Result<u8, Failure> {
    if config.kafka.delivery == Delivery::AtLeastOnce {
        return Err(Failure::new("kafka.delivery is at_least_once: there is no journal"));
    }
    let (source, sink) = (assembly::database(config, config.kafka.delivery), assembly::kafka(config, config.kafka.delivery)?);
    let (standing, figures) = (source.look().await?, source.figures().await?);
    identity::judge_database(&standing).map_err(Fault::from)?;
    let Some(halt) = halt(&sink, &standing, &figures).await? else {
        eprintln!("the journal fits this database: there is nothing to adopt");
        return Ok(EXIT_NO);
    };
    if let Some(record) = unseen(&sink, &standing, &halt).await? {
        return unmark((&source, &sink), &standing, &halt, &record, reason, rehearse).await;
    }
    if !OURS.contains(&halt.code) {
        eprintln!("{halt}\nadopting the journal does not lead out of this: {}", halt.code.remedy());
        return Ok(EXIT_NO);
    }
    let tail = sink.tail().await?;
    show(&halt, &standing, &tail, &figures);
    let written_by = tail.newest.as_ref().map(|(_, record)| record.writer.outbox).filter(|outbox| *outbox != standing.outbox);
    if let Some(other) = written_by.filter(|other| foreign != Some(*other)) {
        println!("to take the journal of that outbox over, write its identity behind --journal: {other}");
        return Ok(if rehearse == Rehearse::Yes { EXIT_DONE } else { EXIT_NO });
    }
    if rehearse == Rehearse::Yes {
        return Ok(EXIT_DONE);
    }
    let (writer, last) = successor(&standing, &tail);
    let write = sink.fence().await?.adopt(writer, last);
    let request = Request { who: operator(), reason: reason.to_owned() };
    let at = source.adopt_journal(write, &standing, &halt, &request).await?;
    println!(
        "adopted: the outbox goes on after batch {} at offset {}; a halted relay notices that within a second or two",
        at.n, at.offset
    );
    Ok(EXIT_DONE)
}

/// What stands in the way now: found by a look, or written down by the relay where a look alone cannot tell.
async fn halt(sink: &KafkaSink, standing: &Standing, figures: &Figures) -> Result<Option<Halt>, Fault> {
    let (looked, is_open) = match sink.look(standing.outbox, standing.applied).await {
        Ok(view) => (identity::judge_journal(standing, &view, u64::MAX).err(), view.stable < view.end),
        Err(Fault::Unsafe(halt)) => (Some(halt), false),
        Err(fault) => return Err(fault),
    };
    let stands = |code: HaltCode| code == HaltCode::TwoDatabases || code == HaltCode::JournalBlocked && is_open;
    let written = figures.halted.as_ref().and_then(|(code, evidence, _)| {
        let code = HaltCode::ALL.into_iter().find(|known| known.name() == code && stands(*known))?;
        Some(Halt::new(code, evidence.clone()))
    });
    Ok(looked.or(written))
}

/// The newest batch marked here, when readers cannot see it: a lone broker that was killed hard lost its markers, and its transaction is
/// open for ever, or was aborted by a person.
async fn unseen(sink: &KafkaSink, standing: &Standing, halt: &Halt) -> Result<Option<Record>, Fault> {
    match halt.code {
        HaltCode::JournalBlocked | HaltCode::KafkaBehind if standing.applied.n > 0 => sink.unseen(standing.applied).await,
        _ => Ok(None),
    }
}

async fn unmark(
    (source, sink): (&Postgres, &KafkaSink),
    standing: &Standing,
    halt: &Halt,
    record: &Record,
    reason: &str,
    rehearse: Rehearse,
) -> Result<u8, Failure> {
    let (n, events) = (record.n, record.entries.len());
    println!("{}: {}", halt.code.name(), halt.evidence);
    println!("batch {n}, {events} events, is marked here, and its transaction has no end: readers will never see it.");
    println!("its rows are un-marked and published again; nothing comes twice for those who read committed records only, unless");
    println!("a partition of a topic shows its part of the batch although the journal does not.");
    if halt.code == HaltCode::JournalBlocked {
        show_ends(sink, standing, record);
    }
    if rehearse == Rehearse::Yes {
        return Ok(EXIT_DONE);
    }
    let detail = serde_json::json!({ "halt": halt.code.name(), "batch": n, "events": events }).to_string();
    let request = Request { who: operator(), reason: reason.to_owned() };
    let unmarked = source.unmark(record, standing, &detail, &request).await?;
    println!("un-marked: {unmarked} of {events} rows; the others are not in the table any more");
    Ok(EXIT_DONE)
}

/// How the transaction of a batch is ended by hand. The journal comes last: as soon as that is readable a relay goes on with the same
/// producer, and what is still open in a topic would be committed together with what it writes there.
fn show_ends(sink: &KafkaSink, standing: &Standing, record: &Record) {
    println!("then end its transaction, in this order, the journal last:");
    println!("  kafka-transactions.sh --bootstrap-server … abort --topic … --partition … --start-offset …");
    let journal = (sink.journal_topic().to_owned(), 0, standing.applied.offset);
    for (topic, partition, offset) in first_offsets(record).into_iter().chain([journal]) {
        println!("  {topic} {partition} {offset}");
    }
}

/// Where a batch begins in each partition.
fn first_offsets(record: &Record) -> Vec<(String, i32, i64)> {
    let mut first: BTreeMap<(u32, i32), i64> = BTreeMap::new();
    for entry in &record.entries {
        first.entry((entry.topic, entry.partition)).or_insert(entry.offset);
    }
    let named = |((topic, partition), offset): ((u32, i32), i64)| (record.topics[topic as usize].clone(), partition, offset);
    first.into_iter().map(named).collect()
}

fn show(halt: &Halt, standing: &Standing, tail: &Tail, figures: &Figures) {
    println!("{}: {}", halt.code.name(), halt.evidence);
    println!("newest batch marked here   {} at offset {}", standing.applied.n, standing.applied.offset);
    println!("journal                    offsets {} to {}", tail.start, tail.end);
    match &tail.newest {
        Some((offset, record)) => println!(
            "its newest record          batch {} of outbox {} by {} at offset {offset}",
            record.n, record.writer.outbox, record.writer.owner.instance
        ),
        None => println!("its newest record          none among the last ones"),
    }
    println!("after this, every event that is not marked here is published: of these, what was published before comes twice.");
    println!(
        "not marked now: {} (counted up to 10,000), {} more wait behind parked events or held topics",
        figures.pending.min(10_000),
        figures.blocked
    );
    if halt.code == HaltCode::KafkaBehind {
        println!("what is marked here and was lost in Kafka is not published again.");
    }
}

/// Who writes the record that the outbox goes on from, and after which batch.
pub(super) fn successor(standing: &Standing, tail: &Tail) -> (Writer, Applied) {
    let owner = Owner { instance: "adopt".into(), start: fastrand::u64(..), epoch: standing.epoch };
    let writer = Writer { outbox: standing.outbox, owner, database: standing.database.clone() };
    let newest =
        tail.newest.as_ref().filter(|(_, record)| record.writer.outbox == standing.outbox).map_or(0, |(_, record)| record.n);
    (writer, Applied { n: newest.max(standing.applied.n), offset: tail.end, checksum: Checksum(0) })
}
