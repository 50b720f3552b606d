//! `outboxd pause`, `resume`, `adopt`, `repin`: what a person decides. Each shows what it rests on and leaves a row in the audit.

use super::{EXIT_DONE, Failure, assembly, operator};
use crate::config::Config;
use crate::fault::EXIT_NO;
use crate::source::postgres::Request;

/// Whether to change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rehearse {
    /// Only show what it rests on.
    Yes,
    /// Do it.
    No,
}

impl From<bool> for Rehearse {
    fn from(dry_run: bool) -> Self {
        if dry_run { Self::Yes } else { Self::No }
    }
}

fn request(reason: &str) -> Request {
    Request { who: operator(), reason: reason.to_owned() }
}

/// Stops publishing until [`resume`].
pub async fn pause(config: &Config, reason: &str) -> Result<u8, Failure> {
    let paused = assembly::database(config, config.kafka.delivery).pause(&request(reason)).await?;
    println!("{}", if paused { "paused: what is begun is finished, then nothing is published" } else { "paused already" });
    Ok(EXIT_DONE)
}

/// Goes on publishing.
pub async fn resume(config: &Config, reason: &str) -> Result<u8, Failure> {
    let resumed = assembly::database(config, config.kafka.delivery).resume(&request(reason)).await?;
    println!("{}", if resumed { "resumed" } else { "not paused" });
    Ok(EXIT_DONE)
}

/// Accepts this database as one that the outbox may be published from.
pub async fn adopt_database(config: &Config, reason: &str, rehearse: Rehearse) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let here = source.acceptance().await?;
    println!("this database        {}, system identifier {}", here.address, here.database.system);
    println!("accepted addresses   {}", here.addresses.join(", "));
    println!("accepted systems     {}", here.systems.join(", "));
    if here.holds() {
        println!("it is accepted already");
        return Ok(EXIT_DONE);
    }
    if rehearse == Rehearse::Yes {
        println!("it would be accepted beside those: do that only if it is not a copy of a database that is still published from");
        return Ok(EXIT_DONE);
    }
    source.adopt_database(&here, &request(reason)).await?;
    println!("it is accepted now; a halted relay looks again within six leases");
    Ok(EXIT_DONE)
}

/// Accepts the present partitions of a topic.
pub async fn repin(config: &Config, topic: &str, reason: &str, rehearse: Rehearse) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let pinned = source.pins().await?.get(topic).copied();
    let Some(pinned) = pinned else {
        eprintln!("topic {topic} has no pin: nothing was published to it yet");
        return Ok(EXIT_NO);
    };
    let name = config.kafka.topic.apply(topic);
    let found = assembly::kafka(config, config.kafka.delivery)?.describe(&[&name]).await?;
    let Some(found) = found.first() else {
        eprintln!("topic {name} is not there. Create it first");
        return Ok(EXIT_NO);
    };
    println!("topic {topic} is published to with {pinned} partitions, it has {}", found.partitions);
    if found.partitions == pinned {
        return Ok(EXIT_DONE);
    }
    println!(
        "most keys get another partition: events of one key before and after this are in order only for a consumer that has read"
    );
    println!("everything before it goes on. Pause, let the consumers catch up, repin, resume keeps the order for all.");
    if rehearse == Rehearse::No {
        source.repin(topic, &request(reason)).await?;
        println!("done: the next event of {topic} is published with {} partitions", found.partitions);
    }
    Ok(EXIT_DONE)
}
