//! `outboxd migrate`: tables, state row, journal topic, and on request event topics and rights.

use super::{EXIT_DONE, Failure, assembly};
use crate::config::{Config, Delivery};
use crate::fault::Fault;
use crate::sink::kafka::{Created, KafkaSink, TopicPlan, TopicState};
use crate::source::ClaimNumber;
use crate::source::any::AnySource;

pub use crate::source::postgres::Roles;

/// Whether to run the statements or only to print them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// Only print.
    No,
    /// Run them too.
    Yes,
}

impl From<bool> for Apply {
    fn from(apply: bool) -> Self {
        if apply { Self::Yes } else { Self::No }
    }
}

/// Prints what `migrate` would do.
pub async fn plan(config: &Config, topics: &[(String, i32)]) -> Result<u8, Failure> {
    let (source, sink) = (assembly::database(config, config.kafka.delivery), assembly::kafka(config, config.kafka.delivery)?);
    let steps = source.plan().await?;
    for step in &steps {
        println!("-- {}\n{}\n", step.title, step.sql.trim_end());
    }
    let mut news = !steps.is_empty();
    for plan in plans(config, &sink, topics).await? {
        news |= foretell(&plan, sink.describe(&[&plan.name]).await?.first());
    }
    if !news {
        println!("-- nothing to do");
    }
    advise(&source).await?;
    Ok(EXIT_DONE)
}

/// Prints as comments and statements what a person may do for a table of their own.
async fn advise(source: &AnySource) -> Result<(), Fault> {
    for advice in source.advice().await? {
        match advice.sql {
            Some(sql) => println!("-- recommended, not run by migrate: {}\n{sql}", advice.why),
            None => println!("-- note: {}", advice.why),
        }
    }
    Ok(())
}

/// Creates or upgrades what is missing, and says what it did.
pub async fn migrate(config: &Config, topics: &[(String, i32)]) -> Result<u8, Failure> {
    let (source, sink) = (assembly::database(config, config.kafka.delivery), assembly::kafka(config, config.kafka.delivery)?);
    let steps = source.migrate().await?;
    for step in &steps {
        println!("done: {}", step.title);
    }
    let mut news = !steps.is_empty();
    for plan in plans(config, &sink, topics).await? {
        news |= report(&plan, &sink.create(&plan).await?);
    }
    news |= change_delivery(config, &source).await?;
    if !news {
        println!("nothing to do");
    }
    advise(&source).await?;
    Ok(EXIT_DONE)
}

/// Prints, and on request runs, the statements that give two roles the least rights they need.
pub async fn roles(config: &Config, roles: &Roles, apply: Apply) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    println!("{}", source.grants(roles).await?.trim_end());
    if apply == Apply::Yes {
        source.grant(roles).await?;
        eprintln!("done: both roles have these rights");
    }
    Ok(EXIT_DONE)
}

/// Creates the journal topic where it is missing.
pub(super) async fn journal(config: &Config, sink: &KafkaSink) -> Result<(), Fault> {
    for plan in plans(config, sink, &[]).await? {
        report(&plan, &sink.create(&plan).await?);
    }
    Ok(())
}

async fn plans(config: &Config, sink: &KafkaSink, topics: &[(String, i32)]) -> Result<Vec<TopicPlan>, Fault> {
    let mut plans = Vec::new();
    if config.kafka.delivery == Delivery::ExactlyOnce {
        plans.push(sink.plan_journal(config.relay.batch_max_events as usize).await?);
    }
    for (topic, partitions) in topics {
        plans.push(sink.plan_topic(topic, *partitions).await?);
    }
    Ok(plans)
}

/// Says what would become of a topic; whether there was anything to say.
fn foretell(plan: &TopicPlan, found: Option<&TopicState>) -> bool {
    let Some(found) = found else {
        println!("-- Kafka topic {}: would be created, {}", plan.name, described(plan));
        return true;
    };
    let differences = plan.compare(found);
    for difference in &differences {
        let found = difference.found.as_deref().unwrap_or("not told");
        println!("-- Kafka topic {}: {} is {found}, should be {}", plan.name, difference.setting, difference.wanted);
    }
    !differences.is_empty()
}

/// Says what became of a topic; whether there was anything to say.
fn report(plan: &TopicPlan, created: &Created) -> bool {
    match created {
        Created::New { without } => {
            println!("done: Kafka topic {}, {}", plan.name, described(plan));
            for setting in without {
                println!("warning: Kafka topic {}: the cluster refused {setting}; see docs/guarantees.md", plan.name);
            }
            true
        }
        Created::Exists { differences } => {
            for difference in differences {
                let found = difference.found.as_deref().unwrap_or("not told");
                println!("warning: Kafka topic {}: {} is {found}, should be {}", plan.name, difference.setting, difference.wanted);
            }
            !differences.is_empty()
        }
    }
}

fn described(plan: &TopicPlan) -> String {
    let settings = plan.settings.iter().map(|(name, value)| format!("{name}={value}"));
    let parts = [format!("partitions={}", plan.partitions), format!("replicas={}", plan.replicas)];
    parts.into_iter().chain(settings).collect::<Vec<_>>().join(" ")
}

/// Changes the mode in the state row when another one is configured: after a last settlement in the old mode.
async fn change_delivery(config: &Config, source: &AnySource) -> Result<bool, Failure> {
    let (old, new) = (source.figures().await?.delivery, config.kafka.delivery);
    let Some(old) = [Delivery::ExactlyOnce, Delivery::AtLeastOnce].into_iter().find(|mode| mode.as_str() == old && *mode != new)
    else {
        return Ok(false);
    };
    super::run::settle(config, old).await?;
    source.set_delivery(new, ClaimNumber(fastrand::i64(..))).await?;
    println!("done: delivery is {} now, it was {}", new.as_str(), old.as_str());
    match new {
        Delivery::AtLeastOnce => {
            println!("from now on events may come twice after a crash, and older ones after newer ones of their key")
        }
        Delivery::ExactlyOnce => {
            println!("events published but not marked by the old mode when its relay ended may come once more")
        }
    }
    Ok(true)
}
