//! `outboxd adopt --name OLD`: the outbox goes on under the configured name.

use super::steer::Rehearse;
use super::{EXIT_DONE, Failure, adopt, assembly, migrate, operator, run};
use crate::config::{Config, Delivery};
use crate::fault::{EXIT_NO, EXIT_NOT_NOW};
use crate::journal::Applied;
use crate::sink::Sink;
use crate::sink::kafka::KafkaSink;
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
    let start = run::settle(&before, delivery).await?;
    let settled = source.look().await?;
    if settled.grants.last() != Some(&start) {
        let detail = format!("a relay of {old} took the lease meanwhile. Stop it, and try again. Nothing was renamed");
        return Err(Failure::coded(EXIT_NOT_NOW, detail));
    }
    let base = match delivery {
        Delivery::ExactlyOnce => Some(begin_journal(config, &sink, &settled).await?),
        Delivery::AtLeastOnce => None,
    };
    source.rename(new, base, &settled, &Request { who: operator(), reason: reason.to_owned() }).await?;
    println!(
        "done: set outbox.name = \"{new}\" for every relay of it. {} is not needed any more",
        assembly::kafka(&before, delivery)?.journal_topic()
    );
    Ok(EXIT_DONE)
}

/// Writes the record that the outbox goes on from into the journal of the new name, which is created where it is missing.
async fn begin_journal(config: &Config, sink: &KafkaSink, settled: &Standing) -> Result<Applied, Failure> {
    migrate::journal(config, sink).await?;
    let tail = sink.tail().await?;
    let newest = tail.newest.as_ref().map(|(_, record)| record);
    if let Some(stranger) = newest.filter(|record| record.writer.outbox != settled.outbox) {
        let whose = format!("{} belongs to outbox {}", sink.journal_topic(), stranger.writer.outbox);
        return Err(Failure::new(format!("{whose}: choose another outbox.name. Nothing was renamed")));
    }
    let (writer, last) = adopt::successor(settled, &tail);
    Ok(sink.fence().await?.adopt(writer, last).await?)
}
