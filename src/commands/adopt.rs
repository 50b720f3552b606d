//! `outboxd adopt --journal`: goes on from the journal's end as it is now, because a person says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use uuid::Uuid;

use super::steer::Rehearse;
use super::{EXIT_DONE, Failure, NO_JOURNAL, WITHOUT_JOURNAL, assembly, operator};
use crate::config::{Config, Delivery};
use crate::fault::{EXIT_NO, Fault, Halt, HaltCode};
use crate::identity;
use crate::journal::{Applied, Checksum, Entry, Owner, Record, Writer};
use crate::sink::Sink;
use crate::sink::kafka::{KafkaSink, Tail};
use crate::source::any::AnySource;
use crate::source::desk::{Figures, Request};
use crate::source::{Source, Standing};

/// Halts that this leads out of.
const OURS: [HaltCode; 4] = [HaltCode::ForeignJournal, HaltCode::TwoDatabases, HaltCode::JournalWindow, HaltCode::KafkaBehind];

/// What a person typed in, so that it is certain that they have read what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// The identity of another outbox whose journal is taken over.
    pub foreign: Option<Uuid>,
    /// How many events of a batch are given up because they are no longer in the table.
    pub missing: usize,
}

/// Shows the evidence and what may come twice; then fences everybody else, writes a record without events at the journal's end, and takes
/// that for the newest applied batch.
pub async fn adopt_journal(config: &Config, consent: Consent, reason: &str, rehearse: Rehearse) -> Result<u8, Failure> {
    if config.kafka.delivery == Delivery::AtLeastOnce {
        return Err(Failure::new(NO_JOURNAL, "kafka.delivery is at_least_once: there is no journal", WITHOUT_JOURNAL));
    }
    let (source, sink) = (assembly::database(config, config.kafka.delivery), assembly::kafka(config, config.kafka.delivery)?);
    let (standing, figures) = (source.look().await?, source.figures().await?);
    identity::judge_database(&standing).map_err(Fault::from)?;
    let Some(halt) = halt(&sink, &standing, &figures).await? else {
        eprintln!("the journal fits this database: there is nothing to adopt");
        return Ok(EXIT_NO);
    };
    if let Some(record) = unseen(&sink, &standing, &halt).await? {
        let there = source.still_there(&record).await?;
        let batch = Unseen { record, there, halt };
        print!("{}", batch.told(sink.journal_topic(), standing.applied.offset));
        if rehearse == Rehearse::Yes {
            return Ok(EXIT_DONE);
        }
        return unmark(&source, &standing, &batch, consent, reason).await;
    }
    if !OURS.contains(&halt.code) {
        eprintln!("{halt}\nadopting the journal does not lead out of this: {}", halt.code.remedy());
        return Ok(EXIT_NO);
    }
    let tail = sink.tail().await?;
    show(&halt, &standing, &tail, &figures);
    let written_by = tail.newest.as_ref().map(|(_, record)| record.writer.outbox).filter(|outbox| *outbox != standing.outbox);
    if let Some(other) = written_by.filter(|other| consent.foreign != Some(*other)) {
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
pub(super) async fn halt(sink: &KafkaSink, standing: &Standing, figures: &Figures) -> Result<Option<Halt>, Fault> {
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
pub(super) async fn unseen(sink: &KafkaSink, standing: &Standing, halt: &Halt) -> Result<Option<Record>, Fault> {
    match halt.code {
        HaltCode::JournalBlocked | HaltCode::KafkaBehind if standing.applied.n > 0 => sink.unseen(standing.applied).await,
        _ => Ok(None),
    }
}

/// The newest batch marked here, which readers cannot see.
struct Unseen {
    record: Record,
    /// Numbers of its events that are still in the table.
    there: BTreeSet<i64>,
    halt: Halt,
}

async fn unmark(source: &AnySource, standing: &Standing, batch: &Unseen, consent: Consent, reason: &str) -> Result<u8, Failure> {
    let (n, events, missing) = (batch.record.n, batch.record.entries.len(), batch.missing().count());
    if consent.missing != missing {
        println!("nothing is changed: {missing} events are missing, --missing says {}", consent.missing);
        return Ok(EXIT_NO);
    }
    let detail = serde_json::json!({ "halt": batch.halt.code.name(), "batch": n, "events": events, "missing": missing });
    let request = Request { who: operator(), reason: reason.to_owned() };
    source.unmark(&batch.record, batch.there.len(), standing, &detail.to_string(), &request).await?;
    println!("un-marked: {} of {events} rows", batch.there.len());
    Ok(EXIT_DONE)
}

impl Unseen {
    /// Its events that are no longer in the table: deleted by the mark, pruned, or removed by hand.
    fn missing(&self) -> impl Iterator<Item = &Entry> {
        self.record.entries.iter().filter(|entry| !self.there.contains(&entry.seq))
    }

    /// What a person has to know before anything is changed: above all, what exists in Kafka alone.
    fn told(&self, journal: &str, offset: i64) -> String {
        let (n, events, missing) = (self.record.n, self.record.entries.len(), self.missing().count());
        let mut told = format!(
            "{}: {}\nbatch {n}, {events} events, is marked here, and its transaction has no end: readers will never see it.\n",
            self.halt.code.name(),
            self.halt.evidence
        );
        if missing > 0 {
            let _ = writeln!(
                told,
                "{missing} of its events are NO LONGER IN THE TABLE. Their only copy are the records of that transaction."
            );
            told.push_str("read them with isolation.level=read_uncommitted before you end it, and have them sent again:\n");
            for (topic, partition, first, last) in self.places() {
                let _ = writeln!(told, "- topic {topic}, partition {partition}, offsets {first} to {last}");
            }
            let _ = writeln!(told, "only `outboxd adopt --journal --missing {missing} --reason …` goes on without them.");
        }
        if !self.there.is_empty() {
            let _ = writeln!(
                told,
                "{} rows are un-marked and published again; nothing comes twice for those who read committed records only, unless\n\
                 a partition of a topic shows its part of the batch although the journal does not.",
                self.there.len()
            );
        }
        if self.halt.code == HaltCode::JournalBlocked {
            told.push_str(&ends(&self.record, journal, offset));
        }
        told
    }

    /// Where the missing events lie, as runs of offsets: topic, partition, first and last offset.
    fn places(&self) -> Vec<(&str, i32, i64, i64)> {
        let mut offsets: BTreeMap<(u32, i32), Vec<i64>> = BTreeMap::new();
        self.missing().for_each(|entry| offsets.entry((entry.topic, entry.partition)).or_default().push(entry.offset));
        let mut places: Vec<(&str, i32, i64, i64)> = Vec::new();
        for ((topic, partition), offsets) in &offsets {
            let topic = self.record.topics[*topic as usize].as_str();
            for &offset in offsets {
                match places.last_mut() {
                    Some((run, at, _, last)) if (*run, *at, *last + 1) == (topic, *partition, offset) => *last = offset,
                    _ => places.push((topic, *partition, offset, offset)),
                }
            }
        }
        places
    }
}

/// How the transaction of a batch is ended by hand. The journal comes last: as soon as that is readable a relay goes on with the same
/// producer, and what is still open in a topic would be committed together with what it writes there.
fn ends(record: &Record, journal: &str, offset: i64) -> String {
    let mut told = String::from(
        "then end its transaction, in this order, the journal last:\n  \
         kafka-transactions.sh --bootstrap-server … abort --topic … --partition … --start-offset …\n",
    );
    for (topic, partition, offset) in first_offsets(record).into_iter().chain([(journal.to_owned(), 0, offset)]) {
        let _ = writeln!(told, "  {topic} {partition} {offset}");
    }
    told
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Fingerprint;
    use crate::journal::DatabaseIdentity;

    fn unseen(there: &[i64]) -> String {
        let entry = |(seq, partition, offset)| Entry { seq, fingerprint: Fingerprint(0), topic: 0, partition, offset };
        let owner = Owner { instance: "one".into(), start: 1, epoch: 1 };
        let database = DatabaseIdentity { system: "1".into(), timeline: 1 };
        let record = Record {
            writer: Writer { outbox: Uuid::nil(), owner, database },
            n: 7,
            previous: Checksum(0),
            topics: vec!["orders".into()],
            entries: [(1, 0, 10), (2, 1, 20), (3, 0, 11), (4, 0, 12), (5, 1, 21), (6, 0, 13)].map(entry).into(),
        };
        let halt = Halt::new(HaltCode::JournalBlocked, "open");
        Unseen { record, there: there.iter().copied().collect(), halt }.told("outboxd.shop.journal", 90)
    }

    #[test]
    fn what_is_in_kafka_alone_is_said_before_the_abort_is_told() {
        let told = unseen(&[1, 5]);
        let places = "- topic orders, partition 0, offsets 11 to 13\n- topic orders, partition 1, offsets 20 to 20\n";
        let (before, after) = told.split_once(places).expect("where they lie");
        assert!(before.contains("4 of its events are NO LONGER IN THE TABLE"), "{told}");
        assert!(after.contains("2 rows are un-marked") && after.contains("abort --topic"), "{told}");
        assert!(after.ends_with("  orders 0 10\n  orders 1 20\n  outboxd.shop.journal 0 90\n"), "{told}");
        assert!(!unseen(&[]).contains("published again"), "nothing is");
        assert!(!unseen(&[1, 2, 3, 4, 5, 6]).contains("NO LONGER"), "all are there");
    }
}
