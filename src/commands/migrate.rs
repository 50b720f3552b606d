//! `outboxd migrate`: tables, state row, journal topic, and on request event topics and rights.

use std::sync::Arc;

use super::{EXIT_DONE, Failure, assembly};
use crate::config::{Config, Delivery};
use crate::fault::Fault;
use crate::metrics::Metrics;
use crate::relay::{self, End, Relay, Until};
use crate::sink::kafka::{Created, KafkaSink, TopicPlan};
use crate::source::postgres::Postgres;
use crate::source::{ClaimNumber, Lease, Leases, Takeover};
use crate::stop;

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
    for step in source.plan().await? {
        println!("-- {}\n{}\n", step.title, step.sql.trim_end());
    }
    for plan in plans(config, &sink, topics).await? {
        match sink.describe(&[&plan.name]).await?.first() {
            None => println!("-- Kafka topic {}: would be created, {}", plan.name, described(&plan)),
            Some(found) => {
                for difference in plan.compare(found) {
                    let found = difference.found.as_deref().unwrap_or("not told");
                    println!("-- Kafka topic {}: {} is {found}, should be {}", plan.name, difference.setting, difference.wanted);
                }
            }
        }
    }
    Ok(EXIT_DONE)
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

/// Says what became of a topic; whether there was anything to say.
fn report(plan: &TopicPlan, created: &Created) -> bool {
    match created {
        Created::New { without } => {
            println!("done: Kafka topic {}, {}", plan.name, described(plan));
            for setting in without {
                println!("warning: Kafka topic {}: the cluster refused {setting}; see docs/operating.md", plan.name);
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
async fn change_delivery(config: &Config, source: &Postgres) -> Result<bool, Failure> {
    let (old, new) = (source.figures().await?.delivery, config.kafka.delivery);
    let Some(old) = [Delivery::ExactlyOnce, Delivery::AtLeastOnce].into_iter().find(|mode| mode.as_str() == old && *mode != new)
    else {
        return Ok(false);
    };
    let mut chance = fastrand::Rng::new();
    settle(config, old, &mut chance).await?;
    source.set_delivery(assembly::mode(new), ClaimNumber(chance.i64(..))).await?;
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

/// Claims and settles under the lease, publishes nothing.
async fn settle(config: &Config, delivery: Delivery, chance: &mut fastrand::Rng) -> Result<(), Failure> {
    let (source, sink) = (Arc::new(assembly::database(config, delivery)), Arc::new(assembly::kafka(config, delivery)?));
    let (instance, start) = (config.relay.instance.clone(), chance.u64(1..=i64::MAX.unsigned_abs()));
    let Lease::Held { epoch } = source.take(&instance, start, Takeover::Expired).await? else {
        return Err(Failure::new("the outbox is being relayed. Stop its relay before you change kafka.delivery"));
    };
    let waits = assembly::waits(config);
    let settings = relay::Settings { waits, limits: assembly::limits(config), instance, start, until: Until::Settled };
    let mut relay = Relay::new(source.clone(), sink, settings, Metrics::new(&config.outbox.name), chance.clone());
    let (_stopper, mut stop) = stop::pair();
    let end = relay.run(epoch, &mut stop).await;
    source.release(start).await?;
    match end {
        End::Stopped => Ok(()),
        End::Exit(fault) => Err(fault.into()),
        End::LeaseLost | End::GaveUp => Err(Failure::new("the last settlement in the old mode was not finished. Try again")),
    }
}
