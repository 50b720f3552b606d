//! `outboxd pause`, `resume`, `adopt`, `repin`: what a person decides. Each shows what it rests on and leaves a row in the audit.

use super::{EXIT_DONE, Failure, assembly, operator};
use crate::config::Config;
use crate::fault::{EVENTS_TRUNCATED, EXIT_NO};
use crate::sink::kafka::TopicState;
use crate::source::Pin;
use crate::source::desk::Request;

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
    println!("it is accepted now; a halted relay notices that within a second or two");
    Ok(EXIT_DONE)
}

/// Accepts a topic as it is now: its partitions, and which topic of its name it is.
pub async fn repin(config: &Config, topic: &str, reason: &str, rehearse: Rehearse) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let mut pins = source.pins().await?;
    let Some(pinned) = pins.remove(topic) else {
        eprintln!("topic {topic} has no pin: nothing was published to it yet");
        return Ok(EXIT_NO);
    };
    let name = config.kafka.topic.apply(topic);
    let found = assembly::kafka(config, config.kafka.delivery)?.describe(&[&name]).await?;
    let Some(found) = found.first() else {
        eprintln!("topic {name} is not there. Create it first");
        return Ok(EXIT_NO);
    };
    if !explain(topic, &pinned, found) {
        println!("it is as it was: there is nothing to accept");
        return Ok(EXIT_DONE);
    }
    if rehearse == Rehearse::No {
        source.repin(topic, &request(reason)).await?;
        println!("done: the next event of {topic} is published with {} partitions", found.partitions);
    }
    Ok(EXIT_DONE)
}

/// Prints the evidence and what follows; says whether there is anything to accept.
fn explain(topic: &str, pinned: &Pin, found: &TopicState) -> bool {
    println!("topic {topic} is published to with {} partitions, it has {}", pinned.partitions, found.partitions);
    let anew = matches!((&pinned.id, &found.id), (Some(then), Some(now)) if then != now);
    if let (Some(then), Some(now)) = (&pinned.id, &found.id) {
        println!("it was published to with the id {then}, it has the id {now}");
    }
    if let Some(evidence) = &pinned.truncated {
        println!("{}: {evidence}", EVENTS_TRUNCATED.name);
        println!("nothing is published again by this: what is lost has to be found and sent again by the service.");
    }
    if anew {
        println!(
            "it was made anew: what the old one held is not published again, and offsets that consumers have kept mean nothing in it."
        );
        println!("Let its consumers begin at its start before you accept it.");
    }
    let moved = found.partitions != pinned.partitions;
    if moved && !anew {
        println!(
            "most keys get another partition: events of one key before and after this are in order only for a consumer that has read"
        );
        println!("everything before it goes on. Pause, let the consumers catch up, repin, resume keeps the order for all.");
    }
    anew || moved || pinned.truncated.is_some()
}
