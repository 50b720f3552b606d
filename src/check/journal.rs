//! The journal topic: what keeps its records, who may use it, how large it becomes.

use std::collections::BTreeSet;

use super::settings::{election, in_sync, number, replicas, text, untold};
use super::{Finding, Name, Seen, State, listed};
use crate::config::Config;
use crate::fault::EXIT_CONFIG;
use crate::sink::kafka::{ClusterFacts, Operation, TopicFacts, TopicPlan, TopicState};
use crate::source::postgres::Activity;

/// Bytes of a record for each of its events, measured.
const BYTES_AN_EVENT: f64 = 14.0;
/// Below so many events the rate of the past says nothing.
const ENOUGH_EVENTS: i64 = 1_000;
const DAY_SECONDS: f64 = 86_400.0;
/// Told where nothing was measured.
const EXAMPLE_RATE: f64 = 1_000.0;

pub(super) fn findings(
    config: &Config,
    cluster: &ClusterFacts,
    seen: &Seen,
    activity: Option<&Activity>,
    who: &str,
) -> Vec<Finding> {
    let Some(plan) = &seen.journal else {
        return vec![Finding::unseen(Name::Journal, "the journal was not asked for", "Let Kafka be reached first")];
    };
    let growth = growth(config, activity);
    let facts = cluster.topics.iter().find(|topic| topic.name == plan.name);
    let Some((facts, state)) = facts.and_then(|facts| Some((facts, facts.state.as_ref()?))) else {
        return vec![missing(plan, facts, who), growth];
    };
    let mut findings = vec![
        Finding::ok(Name::Journal, format!("topic {} is there", plan.name)),
        partitions(state),
        cleanup(state),
        retention(state),
        record_size(plan, state),
        replicas(Name::JournalReplicas, state, cluster.brokers),
        in_sync(Name::JournalInSync, state),
        election(Name::JournalElection, state),
        rights(facts, who),
        trim(facts, who),
        growth,
    ];
    findings.push(match &seen.agreement {
        Some(Ok(())) => Finding::ok(Name::JournalAgrees, "its records go on where the database has marked"),
        Some(Err(fault)) => Finding::essential(Name::JournalAgrees, fault),
        None => Finding::unseen(Name::JournalAgrees, "the state row could not be read", "Correct what is told of the outbox first"),
    });
    findings
}

fn missing(plan: &TopicPlan, facts: Option<&TopicFacts>, who: &str) -> Finding {
    if facts.is_some_and(|facts| facts.hidden) {
        let found = format!("topic {} may not be looked at", plan.name);
        return Finding::refused(Name::Journal, found, format!("Grant {who} READ, WRITE and DESCRIBE on it"));
    }
    let remedy = Some("Run `outboxd migrate`; if it was there before, bring it back as it was".to_owned());
    Finding::new(Name::Journal, State::Failed(EXIT_CONFIG), format!("topic {} does not exist", plan.name), remedy)
}

fn partitions(state: &TopicState) -> Finding {
    match state.partitions {
        1 => Finding::ok(Name::JournalPartitions, "one partition"),
        count => Finding::misconfigured(
            Name::JournalPartitions,
            format!("{count} partitions: only the first is used, and nobody can say that of another writer"),
            "It was not made by outboxd: use another outbox.name, or delete it before the first event",
        ),
    }
}

fn cleanup(state: &TopicState) -> Finding {
    match text(state, "cleanup.policy") {
        None => untold(Name::JournalCleanup, &state.name),
        Some("delete") => Finding::ok(Name::JournalCleanup, "delete"),
        Some(policy) => Finding::misconfigured(
            Name::JournalCleanup,
            format!("{policy}: a compacted topic takes no record without a key, and the journal's have none"),
            "Set cleanup.policy=delete",
        ),
    }
}

fn retention(state: &TopicState) -> Finding {
    let settings = ["retention.ms", "retention.bytes"].map(|name| (name, number(state, name)));
    if settings.iter().any(|(_, value)| value.is_none()) {
        return untold(Name::JournalRetention, &state.name);
    }
    let finite: Vec<String> = settings
        .iter()
        .filter_map(|(name, value)| value.filter(|value| *value >= 0).map(|value| format!("{name}={value}")))
        .collect();
    if finite.is_empty() {
        return Finding::ok(Name::JournalRetention, "Kafka deletes none of its records by itself");
    }
    Finding::warning(
        Name::JournalRetention,
        format!("{}: Kafka can delete the record that a claim needs, which ends in a halt", finite.join(", ")),
        "Set retention.ms=-1 and retention.bytes=-1; outboxd trims it by itself",
    )
}

fn record_size(plan: &TopicPlan, state: &TopicState) -> Finding {
    let wanted = plan.settings.iter().find(|(name, _)| *name == "max.message.bytes").and_then(|(_, value)| value.parse().ok());
    let (Some(wanted), Some(found)): (Option<i64>, _) = (wanted, number(state, "max.message.bytes")) else {
        return untold(Name::JournalRecordSize, &state.name);
    };
    if found >= wanted {
        return Finding::ok(Name::JournalRecordSize, format!("max.message.bytes is {found}, {wanted} are enough"));
    }
    Finding::warning(
        Name::JournalRecordSize,
        format!("max.message.bytes is {found}: the record of a full batch may need {wanted}"),
        format!("Set max.message.bytes={wanted}, or lower relay.batch_max_events"),
    )
}

fn rights(facts: &TopicFacts, who: &str) -> Finding {
    let needed = [Operation::Read, Operation::Write, Operation::Describe];
    let Some(rights) = &facts.rights else { return untold_rights(Name::JournalRights) };
    let missing = missing_of(rights, &needed);
    if missing.is_empty() {
        return Finding::ok(Name::JournalRights, "READ, WRITE and DESCRIBE are granted");
    }
    Finding::refused(
        Name::JournalRights,
        format!("{missing} is not granted"),
        format!("Grant {who} {missing} on topic {}", facts.name),
    )
}

fn trim(facts: &TopicFacts, who: &str) -> Finding {
    let Some(rights) = &facts.rights else { return untold_rights(Name::JournalTrim) };
    if rights.contains(&Operation::Delete) {
        return Finding::ok(Name::JournalTrim, "DELETE is granted: old records are let go of");
    }
    Finding::warning(
        Name::JournalTrim,
        "DELETE is not granted: the journal only grows",
        format!("Grant {who} DELETE on topic {}", facts.name),
    )
}

/// Names of what is needed and not there.
pub(super) fn missing_of(rights: &BTreeSet<Operation>, needed: &[Operation]) -> String {
    listed(needed.iter().filter(|operation| !rights.contains(operation)).map(|operation| operation.name()))
}

pub(super) fn untold_rights(name: Name) -> Finding {
    Finding::unseen(
        name,
        "the brokers do not tell our rights",
        "Nothing, where brokers are older than 2.3; the relay names what it lacks",
    )
}

/// From the rate of the past where there is one.
fn growth(config: &Config, activity: Option<&Activity>) -> Finding {
    let measured = activity.and_then(|activity| {
        let seconds = activity.seconds.filter(|seconds| *seconds >= 1.0)?;
        (activity.inserted >= ENOUGH_EVENTS).then(|| activity.inserted as f64 / seconds)
    });
    let rate = measured.unwrap_or(EXAMPLE_RATE);
    let a_day = rate * DAY_SECONDS * BYTES_AN_EVENT;
    let kept = a_day * config.kafka.journal_retention.as_secs_f64() / DAY_SECONDS;
    let from = if measured.is_some() { "the table's rate so far" } else { "an example" };
    let found = format!("at {rate:.1} events a second ({from}) about {} a day; {} are kept", shown_bytes(a_day), shown_bytes(kept));
    Finding::ok(Name::JournalGrowth, found)
}

fn shown_bytes(bytes: f64) -> String {
    // a figure far below 2^53
    bytesize::ByteSize::b(bytes as u64).to_string()
}
