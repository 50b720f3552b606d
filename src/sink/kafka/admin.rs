//! What the commands ask of the cluster and change in it: topics and their settings. The relay itself creates nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;

use super::blocking::{self, drop_aside, wait};
use super::client::{self, Context};
use super::{KafkaSink, Settings, faults, native};
use crate::fault::Fault;

/// How long the cluster may take for one order.
const MOST: Duration = Duration::from_secs(15);
/// Kafka's default of `max.message.bytes`: the journal gets no less.
const LEAST_RECORD: usize = 1_048_588;
/// A journal record takes 11 to 16 bytes an event: twice that, for topics and lanes.
const BYTES_AN_EVENT: usize = 32;
/// For the names of many topics.
const BYTES_BESIDE: usize = 256 << 10;

/// A topic as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name in Kafka.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Number of replicas of each.
    pub replicas: i32,
    /// Settings that differ from the cluster's.
    pub settings: Vec<(&'static str, String)>,
}

/// A topic as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicState {
    /// Its name in Kafka.
    pub name: String,
    /// Which topic of its name it is; nothing where the cluster is too old to tell.
    pub id: Option<String>,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of its first partition.
    pub replicas: i32,
    /// Effective settings by name; empty when we may not read them.
    pub settings: BTreeMap<String, String>,
}

/// A difference between a topic and its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the setting, or `partitions`, or `replicas`.
    pub setting: String,
    /// What it should be.
    pub wanted: String,
    /// What it is; nothing where the cluster does not tell.
    pub found: Option<String>,
}

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The topic is new. Settings that the platform refuses are left out.
    New {
        /// Names of the settings that were left out.
        without: Vec<&'static str>,
    },
    /// It was there already and was not changed.
    Exists {
        /// Where it differs from the plan.
        differences: Vec<Difference>,
    },
}

impl TopicPlan {
    /// Where `found` falls short of this plan. More replicas, and larger bounds, are no difference.
    pub fn compare(&self, found: &TopicState) -> Vec<Difference> {
        let number = |setting: &str, wanted: i32, found: i32| Difference {
            setting: setting.to_owned(),
            wanted: wanted.to_string(),
            found: Some(found.to_string()),
        };
        let mut differences = Vec::new();
        if found.partitions != self.partitions {
            differences.push(number("partitions", self.partitions, found.partitions));
        }
        if found.replicas < self.replicas {
            differences.push(number("replicas", self.replicas, found.replicas));
        }
        for (setting, wanted) in &self.settings {
            let value = found.settings.get(*setting).cloned();
            if !value.as_deref().is_some_and(|found| suffices(setting, wanted, found)) {
                differences.push(Difference { setting: (*setting).to_owned(), wanted: wanted.clone(), found: value });
            }
        }
        differences
    }
}

fn suffices(setting: &str, wanted: &str, found: &str) -> bool {
    match (setting, wanted.parse::<i64>(), found.parse::<i64>()) {
        ("min.insync.replicas" | "max.message.bytes", Ok(wanted), Ok(found)) => found >= wanted,
        _ => wanted == found,
    }
}

impl KafkaSink {
    /// Name of the journal topic.
    pub fn journal_topic(&self) -> &str {
        &self.shared.journal
    }

    /// The journal topic as it is to be on this cluster. Its records are kept until outboxd lets go of them itself: Kafka's own
    /// retention would delete the last record of an idle outbox too, and nothing could tell that from a loss.
    pub async fn plan_journal(&self, batch_max_events: usize) -> Result<TopicPlan, Fault> {
        let name = self.shared.journal.clone();
        let brokers = self.ask("kafka-admin", count_brokers).await?;
        let replicas = brokers.min(3);
        let largest = LEAST_RECORD.max(BYTES_AN_EVENT * batch_max_events + BYTES_BESIDE);
        let mut settings = vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", "-1".to_owned()),
            ("retention.bytes", "-1".to_owned()),
            ("unclean.leader.election.enable", "false".to_owned()),
            ("max.message.bytes", largest.to_string()),
        ];
        if replicas >= 3 {
            settings.push(("min.insync.replicas", "2".to_owned()));
        }
        Ok(TopicPlan { name, partitions: 1, replicas, settings })
    }

    /// An event topic as `migrate --topics` creates it. `topic` is its name in the table.
    pub async fn plan_topic(&self, topic: &str, partitions: i32) -> Result<TopicPlan, Fault> {
        let name = self.shared.settings.kafka.topic.apply(topic);
        let replicas = self.ask("kafka-admin", count_brokers).await?.min(3);
        let settings = if replicas >= 3 { vec![("min.insync.replicas", "2".to_owned())] } else { Vec::new() };
        Ok(TopicPlan { name, partitions, replicas, settings })
    }

    /// Creates a topic, or says how the existing one differs.
    pub async fn create(&self, plan: &TopicPlan) -> Result<Created, Fault> {
        let plan = plan.clone();
        self.ask("kafka-admin", move |admin| create(admin, &plan)).await
    }

    /// The topics with these names in Kafka, as far as they exist.
    pub async fn describe(&self, topics: &[&str]) -> Result<Vec<TopicState>, Fault> {
        let topics: Vec<String> = topics.iter().map(ToString::to_string).collect();
        self.ask("kafka-admin", move |admin| describe(admin, &topics)).await
    }

    /// One question with a client of its own.
    async fn ask<T: Send + 'static>(
        &self,
        name: &str,
        question: impl FnOnce(&AdminClient<Context>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let shared = Arc::clone(&self.shared);
        blocking::run(name, move |_| with_admin(&shared.settings, question)).await
    }
}

/// Asks `question` of the cluster, on this thread.
pub(super) fn with_admin<T>(
    settings: &Settings,
    question: impl FnOnce(&AdminClient<Context>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let admin = client::admin(settings)?;
    let answer = question(&admin);
    drop_aside(admin);
    answer
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(MOST)).operation_timeout(Some(MOST))
}

fn count_brokers(admin: &AdminClient<Context>) -> Result<i32, Fault> {
    let metadata = admin.inner().fetch_metadata(None, MOST).map_err(|error| faults::asked(&error, "brokers cannot be counted"))?;
    Ok(i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX))
}

fn create(admin: &AdminClient<Context>, plan: &TopicPlan) -> Result<Created, Fault> {
    match order(admin, plan, |_| true, &options())? {
        Ok(()) => Ok(Created::New { without: Vec::new() }),
        Err(Code::TopicAlreadyExists) => existing(admin, plan),
        Err(Code::InvalidConfig | Code::PolicyViolation) if !plan.settings.is_empty() => create_without(admin, plan),
        Err(code) => Err(refused(code, plan)),
    }
}

fn existing(admin: &AdminClient<Context>, plan: &TopicPlan) -> Result<Created, Fault> {
    let found = describe(admin, std::slice::from_ref(&plan.name))?.pop().unwrap_or_default();
    Ok(Created::Exists { differences: plan.compare(&found) })
}

/// The cluster refuses a setting and does not say which: each is tried alone, without creating anything.
fn create_without(admin: &AdminClient<Context>, plan: &TopicPlan) -> Result<Created, Fault> {
    let mut without = Vec::new();
    for (setting, _) in &plan.settings {
        if order(admin, plan, |name| name == *setting, &options().validate_only(true))?.is_err() {
            without.push(*setting);
        }
    }
    match order(admin, plan, |name| !without.contains(&name), &options())? {
        Ok(()) => Ok(Created::New { without }),
        Err(code) => Err(refused(code, plan)),
    }
}

/// Orders a topic with those settings that `keep` keeps.
fn order(
    admin: &AdminClient<Context>,
    plan: &TopicPlan,
    keep: impl Fn(&str) -> bool,
    options: &AdminOptions,
) -> Result<Result<(), Code>, Fault> {
    let mut topic = NewTopic::new(&plan.name, plan.partitions, TopicReplication::Fixed(plan.replicas));
    topic.config.extend(plan.settings.iter().filter(|(name, _)| keep(name)).map(|(name, value)| (*name, value.as_str())));
    let unasked = |error: KafkaError| faults::asked(&error, &format!("topic {} cannot be created", plan.name));
    let results = wait(admin.create_topics([&topic], options)).map_err(unasked)?;
    Ok(results.into_iter().next().map_or(Ok(()), |result| result.map(drop).map_err(|(_, code)| code)))
}

fn refused(code: Code, plan: &TopicPlan) -> Fault {
    match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Fault::Refused {
            detail: format!("topic {} may not be created", plan.name),
            remedy: format!("Grant CREATE on topic {}, or create it by hand", plan.name),
        },
        code => faults::unavailable(code, &format!("topic {} cannot be created", plan.name), None),
    }
}

/// The topics with these names, as far as they exist. One that may not be looked at is no missing topic: then the right is named.
pub(super) fn describe(admin: &AdminClient<Context>, topics: &[String]) -> Result<Vec<TopicState>, Fault> {
    let (states, hidden) = describe_visible(admin, topics)?;
    hidden.first().map_or(Ok(states), |topic| Err(may_not_be_seen(topic)))
}

fn may_not_be_seen(topic: &str) -> Fault {
    Fault::Refused {
        detail: format!("DESCRIBE on topic {topic} is not granted, so nothing tells whether it exists"),
        remedy: format!("Grant DESCRIBE on topic {topic}"),
    }
}

/// Whether the cluster shows a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    There,
    Missing,
    Hidden,
}

fn sight(topic: &str, error: Option<Code>) -> Result<Sight, Fault> {
    match error {
        None => Ok(Sight::There),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic) => Ok(Sight::Missing),
        Some(Code::TopicAuthorizationFailed) => Ok(Sight::Hidden),
        Some(code) => Err(faults::unavailable(code, &format!("topic {topic} cannot be described"), None)),
    }
}

/// The topics that exist and may be looked at, and the names of those that may not.
pub(super) fn describe_visible(admin: &AdminClient<Context>, topics: &[String]) -> Result<(Vec<TopicState>, Vec<String>), Fault> {
    let (mut states, mut hidden) = (Vec::new(), Vec::new());
    for topic in topics {
        let metadata = admin.inner().fetch_metadata(Some(topic), MOST).map_err(|error| faults::asked(&error, topic))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { continue };
        match sight(topic, found.error().map(Code::from))? {
            Sight::There => states.push(state(topic, found)),
            Sight::Hidden => hidden.push(topic.clone()),
            Sight::Missing => {}
        }
    }
    tell_more(admin, &mut states)?;
    Ok((states, hidden))
}

fn state(topic: &str, found: &MetadataTopic) -> TopicState {
    let replicas = found.partitions().first().map_or(0, |partition| partition.replicas().len());
    let (partitions, replicas) = (found.partitions().len() as i32, replicas as i32);
    TopicState { name: topic.to_owned(), id: None, partitions, replicas, settings: BTreeMap::new() }
}

/// Ids and settings, as far as they are told.
fn tell_more(admin: &AdminClient<Context>, states: &mut [TopicState]) -> Result<(), Fault> {
    if states.is_empty() {
        return Ok(());
    }
    tell_ids(admin, states)?;
    let resources: Vec<_> = states.iter().map(|state| ResourceSpecifier::Topic(&state.name)).collect();
    let mut settings = BTreeMap::new();
    for found in wait(admin.describe_configs(&resources, &options())).unwrap_or_default().into_iter().flatten() {
        if let OwnedResourceSpecifier::Topic(topic) = found.specifier {
            let known = found.entries.into_iter().filter_map(|entry| entry.value.map(|value| (entry.name, value)));
            settings.insert(topic, known.collect::<BTreeMap<_, _>>());
        }
    }
    for state in states {
        state.settings = settings.remove(&state.name).unwrap_or_default();
    }
    Ok(())
}

fn tell_ids(admin: &AdminClient<Context>, states: &mut [TopicState]) -> Result<(), Fault> {
    let names: Vec<&str> = states.iter().map(|state| &*state.name).collect();
    let told = native::describe_topics(admin.inner(), &names, MOST);
    let told = told.map_err(|failure| faults::unavailable(failure.code, "topics cannot be described", None))?;
    let mut ids: BTreeMap<_, _> = told.into_iter().map(|topic| (topic.name, topic.id)).collect();
    for state in states {
        state.id = ids.remove(&state.name).flatten();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_may_not_be_seen_is_no_missing_one() {
        assert!(matches!(sight("t", None), Ok(Sight::There)));
        assert!(matches!(sight("t", Some(Code::UnknownTopicOrPartition)), Ok(Sight::Missing)));
        assert!(matches!(sight("t", Some(Code::TopicAuthorizationFailed)), Ok(Sight::Hidden)));
        let fault = sight("t", Some(Code::LeaderNotAvailable)).expect_err("an outage is neither");
        assert_eq!(fault.label(), "no_leader");
        assert!(may_not_be_seen("t").to_string().contains("DESCRIBE on topic t"));
    }

    #[test]
    fn only_what_falls_short_is_a_difference() {
        let settings = vec![("retention.ms", "-1".to_owned()), ("max.message.bytes", "1000".to_owned())];
        let plan = TopicPlan { name: "j".into(), partitions: 1, replicas: 3, settings };
        let state = |partitions, replicas, retention: &str, largest: &str| TopicState {
            name: "j".into(),
            id: None,
            partitions,
            replicas,
            settings: [("retention.ms", retention), ("max.message.bytes", largest)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        assert_eq!(plan.compare(&state(1, 3, "-1", "1000")), []);
        assert_eq!(plan.compare(&state(1, 5, "-1", "2000")), []);
        let short: Vec<_> = plan.compare(&state(2, 1, "604800000", "999")).into_iter().map(|found| found.setting).collect();
        assert_eq!(short, ["partitions", "replicas", "retention.ms", "max.message.bytes"]);
        let unreadable = TopicState { settings: BTreeMap::new(), ..state(1, 3, "", "") };
        assert!(plan.compare(&unreadable).iter().all(|difference| difference.found.is_none()));
    }
}
