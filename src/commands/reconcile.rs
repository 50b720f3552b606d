//! `outboxd reconcile`: finds out from the topics what was published already, when the journal cannot tell, and goes on from there.

use std::ops::ControlFlow;

use super::steer::Rehearse;
use super::{EXIT_DONE, Failure, NO_JOURNAL, WITHOUT_JOURNAL, adopt, assembly, operator};
use crate::config::{Config, Delivery};
use crate::fault::{EXIT_NO, Fault, Halt, HaltCode};
use crate::identity;
use crate::reconcile::{Finding, Searching, Unsent};
use crate::sink::Sink;
use crate::sink::kafka::{Bounds, KafkaSink, Lane, Scan, Scanner};
use crate::source::any::AnySource;
use crate::source::desk::Request;
use crate::source::{Source, Standing};
use crate::verify::{Extent, Holes, Ids};

/// Halts that this leads out of.
const OURS: [HaltCode; 2] = [HaltCode::JournalWindow, HaltCode::KafkaBehind];

/// Shows which unsent rows lie in the topics already. Then, unless it is a rehearsal, marks them, and has the outbox go on from the
/// journal's end. Everybody else is shut out before the topics are read: whoever published after that would have had to shut us out, and
/// then the record at the journal's end is refused and nothing is changed.
pub async fn reconcile(config: &Config, undecided: u64, reason: &str, rehearse: Rehearse) -> Result<u8, Failure> {
    if config.kafka.delivery == Delivery::AtLeastOnce {
        let cause = "kafka.delivery is at_least_once: there is no journal that could fail to tell";
        return Err(Failure::new(NO_JOURNAL, cause, WITHOUT_JOURNAL));
    }
    let (source, sink) = (assembly::database(config, config.kafka.delivery), assembly::kafka(config, config.kafka.delivery)?);
    let standing = source.look().await?;
    identity::judge_database(&standing).map_err(Fault::from)?;
    let Some(halt) = fitting(&source, &sink, &standing).await? else { return Ok(EXIT_NO) };
    println!("{}: {}", halt.code.name(), halt.evidence);
    if rehearse == Rehearse::Yes {
        let finding = find(config, &source, &sink).await?;
        print!("{}", told(&finding));
        return Ok(EXIT_DONE);
    }
    let fenced = sink.fence().await?;
    let finding = find(config, &source, &sink).await?;
    print!("{}", told(&finding));
    let unknown = finding.undecided();
    if unknown != undecided {
        println!("nothing is changed: {unknown} rows are undecided, --undecided says {undecided}");
        return Ok(EXIT_NO);
    }
    let (writer, last) = adopt::successor(&standing, &sink.tail().await?);
    let request = Request { who: operator(), reason: reason.to_owned() };
    let found = finding.map(|entries| entries.map_err(Fault::unkept));
    let write = fenced.adopt(writer, last);
    let (at, marked) = source.reconcile((found, unknown), write, &standing, &halt, &request).await?;
    println!(
        "reconciled: {marked} rows are marked, and the outbox goes on after batch {} at offset {}; \
         a halted relay notices that within a second or two",
        at.n, at.offset
    );
    Ok(EXIT_DONE)
}

/// The halt that stands in the way, if this leads out of it. What leads out of another one is told.
async fn fitting(source: &AnySource, sink: &KafkaSink, standing: &Standing) -> Result<Option<Halt>, Fault> {
    let figures = source.figures().await?;
    let Some(halt) = adopt::halt(sink, standing, &figures).await? else {
        eprintln!("the journal fits this database: there is nothing to reconcile");
        return Ok(None);
    };
    if !OURS.contains(&halt.code) {
        eprintln!("{halt}\nreconciling does not lead out of this: {}", halt.code.remedy());
        return Ok(None);
    }
    if adopt::unseen(sink, standing, &halt).await?.is_some() {
        eprintln!("{halt}\nthe journal still has that batch: `outboxd adopt --journal --reason …` un-marks exactly its rows");
        return Ok(None);
    }
    Ok(Some(halt))
}

fn told(finding: &Finding) -> String {
    let (found, published, undecided) = (finding.text(), finding.published(), finding.undecided());
    let marked = format!("{published} rows are marked, since they lie in the topics; what is marked already is not looked at.\n");
    if undecided == 0 {
        return found + &marked;
    }
    let unknown = format!(
        "{undecided} rows are UNDECIDED: they are published, perhaps for the second time, and then behind later ones of their key.\n\
         only `outboxd reconcile --undecided {undecided} --reason …` goes on with that.\n"
    );
    found + &marked + &unknown
}

/// Looks for every unsent row in its topic.
async fn find(config: &Config, source: &AnySource, sink: &KafkaSink) -> Result<Finding, Failure> {
    let footing = source.footing().await?;
    let ids = if footing.has_uuids { Ids::Uuid } else { Ids::Content };
    let mut unsent = Unsent::new(ids, config.kafka.topic.clone(), footing.pins, std::env::temp_dir());
    let (mut kept, mut after) = (Ok(()), Some(i64::MIN));
    while let Some(last) = after {
        after = source
            .unsent_after(last, |row| {
                if kept.is_ok() {
                    kept = unsent.row(&row);
                }
            })
            .await?;
        std::mem::replace(&mut kept, Ok(())).map_err(Fault::unkept)?;
    }
    let topics = unsent.topics();
    let searching = unsent.search();
    let searched = sink.scan(move |scanner| search(scanner, searching, &topics)).await?;
    Ok(searched.finish().map_err(Fault::unkept)?)
}

fn search(scanner: &Scanner<'_>, mut searching: Searching, topics: &[String]) -> Result<Searching, Fault> {
    if topics.is_empty() {
        return Ok(searching);
    }
    let traits = scanner.traits(topics)?;
    for (number, topic) in topics.iter().enumerate() {
        let (Some(partitions), Some(found)) = (scanner.partitions(topic)?, traits.get(topic)) else {
            searching.no_topic(number);
            continue;
        };
        searching.is_topic(number, found.id.as_deref());
        let holes = Holes::from(found.compacted);
        for partition in 0..partitions {
            read(scanner, &mut searching, number, Lane { topic, partition }, holes)?;
        }
    }
    Ok(searching)
}

fn read(scanner: &Scanner<'_>, searching: &mut Searching, number: usize, lane: Lane<'_>, holes: Holes) -> Result<(), Fault> {
    let Bounds { start, high, .. } = scanner.bounds(lane)?;
    searching.begin(number, lane.partition, Extent { start, holes });
    let (mut from, mut kept) = (start, Ok(()));
    loop {
        let scan = scanner.read(lane, from, high, |record| {
            kept = searching.record(record);
            if kept.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        std::mem::replace(&mut kept, Ok(())).map_err(Fault::unkept)?;
        match scan {
            Scan::To(end) => {
                if end < high {
                    searching.stops_short();
                }
                break;
            }
            Scan::BeginsLater => {
                from = scanner.bounds(lane)?.start;
                searching.begins_later(from);
            }
        }
    }
    searching.end();
    Ok(())
}
