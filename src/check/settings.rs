//! What holds for every topic, journal or not: copies, and who may become leader.

use super::{Finding, Name};
use crate::config::Security;
use crate::sink::kafka::TopicState;

/// What the promise rests on.
pub(super) const REPLICAS: i32 = 3;
/// Acknowledged only when so many have it.
const IN_SYNC: i32 = 2;

/// A setting as it is in effect.
pub(super) fn text<'a>(state: &'a TopicState, setting: &str) -> Option<&'a str> {
    state.settings.get(setting).map(String::as_str)
}

/// A setting that is a number.
pub(super) fn number(state: &TopicState, setting: &str) -> Option<i64> {
    text(state, setting)?.parse().ok()
}

/// For a setting that is not told.
pub(super) fn untold(name: Name, topic: &str) -> Finding {
    Finding::unseen(name, "its settings are not told to us", format!("Grant DESCRIBE_CONFIGS on topic {topic} to look at them"))
}

pub(super) fn replicas(name: Name, state: &TopicState, brokers: i32) -> Finding {
    let found = format!("{} replica{}", state.replicas, if state.replicas == 1 { "" } else { "s" });
    if state.replicas >= REPLICAS {
        return Finding::ok(name, found);
    }
    let remedy = if brokers >= REPLICAS {
        "Raise them to 3 with kafka-reassign-partitions.sh"
    } else {
        "Nothing, with so few brokers; three are needed"
    };
    Finding::warning(name, format!("{found}: what was acknowledged is lost with {}", broken(state.replicas)), remedy)
}

fn broken(replicas: i32) -> String {
    if replicas == 1 { "one disk".into() } else { format!("{replicas} disks") }
}

pub(super) fn in_sync(name: Name, state: &TopicState) -> Finding {
    let Some(least) = number(state, "min.insync.replicas") else { return untold(name, &state.name) };
    let found = format!("min.insync.replicas is {least}, of {} in all", state.replicas);
    if least > i64::from(state.replicas) {
        return Finding::failed(name, format!("{found}: nothing can be written"), "Lower it, or add replicas");
    }
    if least >= i64::from(IN_SYNC) {
        return Finding::ok(name, found);
    }
    Finding::warning(name, format!("{found}: acknowledged by one alone"), "Set min.insync.replicas=2, with three replicas")
}

pub(super) fn election(name: Name, state: &TopicState) -> Finding {
    match text(state, "unclean.leader.election.enable") {
        None => untold(name, &state.name),
        Some("false") => Finding::ok(name, "only a replica in sync becomes leader"),
        Some(_) => Finding::warning(
            name,
            "unclean: a replica that lacks what was acknowledged can become leader",
            "Set unclean.leader.election.enable=false",
        ),
    }
}

/// The difference that the way of logging in makes to a refusal.
pub(super) fn user(security: Security, name: Option<&str>) -> String {
    match name.filter(|_| security.uses_sasl()) {
        Some(name) => format!("user {name}"),
        None => "the relay's user".into(),
    }
}
