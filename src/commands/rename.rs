//! `outboxd adopt --name OLD`: the outbox goes on under the configured name.

use super::steer::Rehearse;
use super::{EXIT_DONE, FOREIGN, Failure, RELAYED, adopt, assembly, migrate, operator, run};
use crate::config::{Config, Delivery};
use crate::fault::{EXIT_NO, Fault, Halt, HaltCode};
use crate::identity;
use crate::journal::Applied;
use crate::sink::Sink;
use crate::sink::kafka::KafkaSink;
use crate::source::any::AnySource;
use crate::source::desk::Request;
use crate::source::{Source, Standing};

/// Settles under the old name, so that nothing is published and unmarked and whoever leads under it is shut out; begins the journal of the
/// new name with a record without events; then renames what the database keeps. A relay of the old name finds no outbox any more.
pub async fn adopt_name(config: &Config, old: &str, reason: &str, rehearse: Rehearse) -> Result<u8, Failure> {
    let (new, delivery) = (config.outbox.name.as_str(), config.kafka.delivery);
    let mut before = config.clone();
    before.outbox.name = old.to_owned();
    let source = assembly::database(&before, delivery);
    if !source.may_be_renamed(new).await? {
        eprintln!("outbox {new} is in this database already: there is nothing to rename");
        return Ok(EXIT_NO);
    }
    let (standing, sink) = (source.look().await?, assembly::kafka(config, delivery)?);
    println!("outbox {old}, newest batch {}, goes on as {new}", standing.applied.n);
    if delivery == Delivery::ExactlyOnce {
        println!("its journal is {} from then on; nothing comes twice, and consumers notice nothing", sink.journal_topic());
    }
    if rehearse == Rehearse::Yes {
        return Ok(EXIT_DONE);
    }
    let is_strangers = is_journal_of_strangers(&before, &standing).await?;
    let settled = if is_strangers { unled(&source, standing, old).await? } else { settle(&source, &before).await? };
    let base = match delivery {
        Delivery::ExactlyOnce => Some(begin_journal(config, &sink, &settled).await?),
        Delivery::AtLeastOnce => None,
    };
    source.rename(new, base, &settled, &Request { who: operator(), reason: reason.to_owned() }).await?;
    let left = assembly::kafka(&before, delivery)?.journal_topic().to_owned();
    let rest = if is_strangers { "belongs to another outbox" } else { "is not needed any more" };
    println!("done: set outbox.name = \"{new}\" for every relay of it. {left} {rest}");
    Ok(EXIT_DONE)
}

/// What to do about a relay that is in the way.
const STOP_IT: &str = "Stop it, and try again. Nothing was renamed";

/// Marks under the old name what is published, and shuts out whoever leads under it.
async fn settle(source: &AnySource, before: &Config) -> Result<Standing, Failure> {
    let start = run::settle(before, before.kafka.delivery).await?;
    let settled = source.look().await?;
    if settled.grants.last() != Some(&start) {
        let old = &before.outbox.name;
        return Err(Failure::new(RELAYED, format!("a relay of {old} took the lease meanwhile"), STOP_IT));
    }
    Ok(settled)
}

/// Whether the old name is another outbox's, and nothing was ever published from here: a topic is pinned before its first event is sent.
/// Then there is nothing to settle, and whoever claims under that name shuts out the relay whose it is.
async fn is_journal_of_strangers(before: &Config, standing: &Standing) -> Result<bool, Failure> {
    if before.kafka.delivery == Delivery::AtLeastOnce || standing.applied.n > 0 || !standing.pins.is_empty() {
        return Ok(false);
    }
    identity::judge_database(standing).map_err(Fault::from)?;
    match assembly::kafka(before, before.kafka.delivery)?.look(standing.outbox, standing.applied).await {
        Err(Fault::Unsafe(Halt { code: HaltCode::ForeignJournal, .. })) => Ok(true),
        Ok(_) => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}

/// What was seen, if no process holds the lease: one that halted holds it. Whoever claims meanwhile changes what was seen.
async fn unled(source: &AnySource, seen: Standing, old: &str) -> Result<Standing, Failure> {
    match source.figures().await?.owner {
        None => Ok(seen),
        Some(owner) => Err(Failure::new(RELAYED, format!("outbox {old} has a relay, {owner}"), STOP_IT)),
    }
}

/// Writes the record that the outbox goes on from into the journal of the new name, which is created where it is missing.
async fn begin_journal(config: &Config, sink: &KafkaSink, settled: &Standing) -> Result<Applied, Failure> {
    migrate::journal(config, sink).await?;
    let tail = sink.tail().await?;
    let newest = tail.newest.as_ref().map(|(_, record)| record);
    if let Some(stranger) = newest.filter(|record| record.writer.outbox != settled.outbox) {
        let whose = format!("{} belongs to outbox {}", sink.journal_topic(), stranger.writer.outbox);
        return Err(Failure::new(FOREIGN, whose, "Choose another outbox.name. Nothing was renamed"));
    }
    let (writer, last) = adopt::successor(settled, &tail);
    Ok(sink.fence().await?.adopt(writer, last).await?)
}
