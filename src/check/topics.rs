//! The event topics: which they are, and whether they keep what they acknowledge.

use std::collections::BTreeMap;

use super::journal::{missing_of, untold_rights};
use super::settings::{election, in_sync, number, replicas, text, untold};
use super::{Finding, Name, listed};
use crate::config::{Config, Delivery};
use crate::fault::{Alarm, EVENTS_TRUNCATED, EXIT_FAILED};
use crate::sink::kafka::{self, ClusterFacts, Operation, TopicFacts, TopicState};
use crate::source::Pin;
use crate::source::any::Checkup;

use super::State;

/// Bundles of records are cut to the smallest `max.message.bytes` in use; below this it costs speed.
const USUAL_BUNDLE: i64 = 1_000_000;
/// Most topics that are looked at.
const MOST: usize = 100;

/// An event topic that is worth a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in Kafka.
    pub name: String,
    /// As the rows name it, and commands take it.
    pub topic: String,
    /// As it was when it was published to.
    pub pinned: Option<Pin>,
    /// Whether unsent rows name it, or it was published to before. Else it is only allowed.
    pub in_use: bool,
    /// Whether an unsent row of it has no key.
    pub without_key: bool,
}

/// Topics that were published to, that unsent rows name, and that are allowed by their whole names; by their names in Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Those that are looked at: in order, those that are in use before the others.
    pub topics: Vec<Wanted>,
    /// How many more there are, at least.
    pub left_out: usize,
}

/// Which event topics to look at.
pub fn wanted(config: &Config, database: Option<&Checkup>) -> Choice {
    let mut found: BTreeMap<String, Wanted> = BTreeMap::new();
    let mut add = |topic: &str, pinned: Option<&Pin>, in_use: bool, without_key: bool| {
        let name = config.kafka.topic.apply(topic);
        if kafka::refusal(&name).is_none() && config.kafka.allow_topics.allow(topic) {
            let entry = found.entry(name.clone()).or_insert_with(|| Wanted { name, topic: topic.to_owned(), ..Wanted::default() });
            entry.pinned = entry.pinned.take().or(pinned.cloned());
            entry.in_use |= in_use;
            entry.without_key |= without_key;
        }
    };
    let row = database.and_then(Checkup::row);
    row.iter().flat_map(|row| &row.pins).for_each(|(topic, pin)| add(topic, Some(pin), true, false));
    database.map_or(&[][..], Checkup::topics).iter().for_each(|row| add(&row.topic, None, true, row.without_key));
    let named = config.kafka.allow_topics.0.iter().filter(|pattern| !pattern.contains('*'));
    named.for_each(|topic| add(topic, None, false, false));
    let mut topics: Vec<Wanted> = found.into_values().collect();
    topics.sort_by_key(|topic| !topic.in_use);
    let left_out = topics.len().saturating_sub(MOST);
    topics.truncate(MOST);
    Choice { topics, left_out }
}

pub(super) fn findings(config: &Config, cluster: &ClusterFacts, database: Option<&Checkup>, who: &str) -> Vec<Finding> {
    let choice = wanted(config, database);
    let mut findings = vec![chosen(&choice)];
    for topic in &choice.topics {
        if let Some(facts) = cluster.topics.iter().find(|facts| facts.name == topic.name) {
            let of_topic = one(config, topic, facts, cluster, who);
            findings.extend(of_topic.into_iter().map(|finding| finding.about(&topic.name)));
        }
    }
    findings
}

fn chosen(Choice { topics, left_out }: &Choice) -> Finding {
    if *left_out > 0 {
        return Finding::unseen(
            Name::Topics,
            format!("{} were looked at, and at least {left_out} more were not", topics.len()),
            "Look at the others with the brokers' tools, or write down in kafka.allow_topics those that are meant",
        );
    }
    if topics.is_empty() {
        return Finding::unseen(
            Name::Topics,
            "none is known: nothing was published yet, no row waits, and none is named",
            "Name them in kafka.allow_topics, or look again when there are events",
        );
    }
    Finding::ok(Name::Topics, format!("looked at: {}", listed(topics.iter().map(|topic| &topic.name))))
}

fn one(config: &Config, wanted: &Wanted, facts: &TopicFacts, cluster: &ClusterFacts, who: &str) -> Vec<Finding> {
    let Some(state) = &facts.state else { return vec![missing(wanted, facts, who)] };
    vec![
        Finding::ok(Name::Topic, "it is there"),
        partitions(wanted, state),
        identity(wanted, state),
        complete(wanted),
        replicas(Name::TopicReplicas, state, cluster.brokers),
        in_sync(Name::TopicInSync, state),
        election(Name::TopicElection, state),
        cleanup(wanted, state),
        record_size(state),
        timestamps(config, state),
        rights(facts, who),
    ]
}

/// Its events wait until it is there; those of other topics do not.
fn missing(wanted: &Wanted, facts: &TopicFacts, who: &str) -> Finding {
    if facts.hidden {
        let remedy = format!("Grant {who} WRITE and DESCRIBE on it");
        return Finding::refused(Name::Topic, "it may not be looked at, so it may not be published to", remedy);
    }
    let remedy = format!("Create it: outboxd migrate --topics {}:PARTITIONS", wanted.topic);
    match wanted.in_use {
        true => Finding::new(Name::Topic, State::Failed(EXIT_FAILED), "it does not exist, and its events wait", Some(remedy)),
        false => Finding::warning(Name::Topic, "it does not exist, and kafka.allow_topics names it", remedy),
    }
}

fn partitions(wanted: &Wanted, state: &TopicState) -> Finding {
    let now = state.partitions;
    match wanted.pinned.as_ref().map(|pin| pin.partitions) {
        None => Finding::ok(Name::TopicPartitions, format!("{now}, pinned with the first event")),
        Some(pinned) if pinned == now => Finding::ok(Name::TopicPartitions, format!("{now}, as pinned")),
        Some(pinned) if now < pinned => Finding::failed(
            Name::TopicPartitions,
            format!("{now}, and {pinned} are pinned: it is not the topic that was published to"),
            format!("Bring it back with its partitions, or accept it: outboxd repin {} --reason …", wanted.topic),
        ),
        Some(pinned) => Finding::warning(
            Name::TopicPartitions,
            format!("{now}, and {pinned} are pinned: only those are used"),
            format!("Accept the larger count: outboxd repin {} --reason …; keys move to other partitions then", wanted.topic),
        ),
    }
}

/// One that was deleted and made anew has the name and perhaps the partitions of the old one, and nothing of what it held.
fn identity(wanted: &Wanted, state: &TopicState) -> Finding {
    match (wanted.pinned.as_ref().and_then(|pin| pin.id.as_ref()), &state.id) {
        (Some(then), Some(now)) if then != now => Finding::failed(
            Name::TopicIdentity,
            format!("it was deleted and made anew: its id is {now}, it was published to as {then}; its events wait"),
            format!("Let its consumers begin at its start, then accept it: outboxd repin {} --reason …", wanted.topic),
        ),
        (Some(_), Some(_)) => Finding::ok(Name::TopicIdentity, "it is the one that was published to"),
        (None, _) => Finding::ok(Name::TopicIdentity, "its id is pinned with the next event"),
        (Some(_), None) => Finding::ok(Name::TopicIdentity, "the brokers do not tell which one it is"),
    }
}

/// The alarm that the relay raised.
fn complete(wanted: &Wanted) -> Finding {
    let Alarm { name, obx, .. } = EVENTS_TRUNCATED;
    match wanted.pinned.as_ref().and_then(|pin| pin.truncated.as_ref()) {
        None => Finding::ok(Name::TopicComplete, "no alarm: nothing that was acknowledged is known to be lost"),
        Some(evidence) => Finding::failed(
            Name::TopicComplete,
            format!("{obx}: {name}: {evidence}"),
            format!(
                "Look for an unclean leader election or a restored disk, have the lost events sent again, then end the alarm: \
                 outboxd repin {} --reason …",
                wanted.topic
            ),
        ),
    }
}

fn cleanup(wanted: &Wanted, state: &TopicState) -> Finding {
    match text(state, "cleanup.policy") {
        None => untold(Name::TopicCleanup, &state.name),
        Some(policy) if policy.contains("compact") && wanted.without_key => Finding::warning(
            Name::TopicCleanup,
            format!("{policy}: it takes no event without a key, and rows without one wait; those will be parked"),
            "Set cleanup.policy=delete, or give every event a key",
        ),
        Some(policy) if policy.contains("compact") => Finding::warning(
            Name::TopicCleanup,
            format!("{policy}: older events of a key vanish, and it takes none without a key"),
            "Set cleanup.policy=delete where every event matters",
        ),
        Some(policy) => Finding::ok(Name::TopicCleanup, policy),
    }
}

fn record_size(state: &TopicState) -> Finding {
    let Some(most) = number(state, "max.message.bytes") else { return untold(Name::TopicRecordSize, &state.name) };
    if most >= USUAL_BUNDLE {
        return Finding::ok(Name::TopicRecordSize, format!("max.message.bytes is {most}; larger events are parked"));
    }
    Finding::warning(
        Name::TopicRecordSize,
        format!("max.message.bytes is {most}: larger events are parked, and all topics are written in bundles that small"),
        "Set max.message.bytes=1048588",
    )
}

/// Records carry the time of sending, and may lie a transaction's time before they are taken.
fn timestamps(config: &Config, state: &TopicState) -> Finding {
    let Some(kind) = text(state, "message.timestamp.type") else { return untold(Name::TopicTimestamps, &state.name) };
    if kind == "LogAppendTime" {
        return Finding::ok(Name::TopicTimestamps, "LogAppendTime: the broker's time in place of ours");
    }
    let bounds = ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"].map(|name| (name, number(state, name)));
    let least = match config.kafka.delivery {
        Delivery::ExactlyOnce => config.kafka.transaction_timeout.as_millis(),
        Delivery::AtLeastOnce => 60_000,
    };
    let narrow =
        bounds.iter().find_map(|(name, value)| Some((name, value.filter(|value| u128::from(value.unsigned_abs()) < least)?)));
    match narrow {
        None => Finding::ok(Name::TopicTimestamps, "it takes the time of sending"),
        Some((name, value)) => Finding::warning(
            Name::TopicTimestamps,
            format!("{name} is {value}: it refuses records when two clocks differ so much, or the brokers are slow"),
            format!("Raise {name}"),
        ),
    }
}

fn rights(facts: &TopicFacts, who: &str) -> Finding {
    let Some(rights) = &facts.rights else { return untold_rights(Name::TopicRights) };
    let missing = missing_of(rights, &[Operation::Write, Operation::Describe]);
    if missing.is_empty() {
        return Finding::ok(Name::TopicRights, "WRITE and DESCRIBE are granted");
    }
    Finding::refused(
        Name::TopicRights,
        format!("{missing} is not granted"),
        format!("Grant {who} {missing} on topic {}", facts.name),
    )
}
