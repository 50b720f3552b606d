//! What `check` looks at in the cluster. It fences nobody: the outbox's transactional id is never initialised here, only one beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::metadata::Metadata;
use rdkafka::producer::Producer as _;

use super::admin::{TopicState, describe_visible, with_admin};
use super::blocking::{self, wait};
use super::client::{self, Context};
use super::native::rights::{Operation, topic_rights};
use super::{KafkaSink, Settings, faults, names};
use crate::config::Delivery;
use crate::fault::Fault;

/// How long one question may take.
const MOST: Duration = Duration::from_secs(10);
/// One try to reach a broker, and after how long without any connection none is tried any more.
const STEP: Duration = Duration::from_millis(500);
const UNREACHABLE_AFTER: Duration = Duration::from_secs(3);
/// How long the coordinator may take to take up the transactional id of the check. On a cluster that has never had a transaction, the
/// brokers first make the topic that they keep them in.
const INIT_MOST: Duration = Duration::from_secs(20);
/// Follows upon the outbox's transactional id: a right on every id with that prefix covers it, and no outbox can have a name with it.
const BESIDE: &str = "/check";

/// A topic as `check` found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its name in Kafka.
    pub name: String,
    /// What it is; nothing when it does not exist. Without settings where they may not be read.
    pub state: Option<TopicState>,
    /// What we may do with it; nothing where that is not told.
    pub rights: Option<BTreeSet<Operation>>,
    /// Whether we may not even see whether it exists.
    pub hidden: bool,
}

/// The cluster as `check` found it.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// How many brokers there are.
    pub brokers: i32,
    /// Settings of one broker; empty where they may not be read.
    pub settings: BTreeMap<String, String>,
    /// The topics that were asked for, in that order.
    pub topics: Vec<TopicFacts>,
    /// Whether a producer with transactions can be had; nothing in a mode without them.
    pub transactions: Option<Result<(), Fault>>,
}

impl KafkaSink {
    /// Looks at the cluster and at the topics with these names in Kafka. Fails only when no broker can be asked.
    pub async fn checkup(&self, topics: Vec<String>) -> Result<ClusterFacts, Fault> {
        let shared = Arc::clone(&self.shared);
        let mut facts = blocking::run("kafka-checkup", move |_| look_at_cluster(&shared.settings, &topics)).await?;
        if self.shared.settings.kafka.delivery == Delivery::ExactlyOnce {
            let shared = Arc::clone(&self.shared);
            facts.transactions = Some(blocking::run("kafka-checkup", move |_| try_transactions(&shared.settings)).await);
        }
        Ok(facts)
    }
}

fn beside(settings: &Settings) -> String {
    format!("{}{BESIDE}", names::transactional_id(&settings.name))
}

fn look_at_cluster(settings: &Settings, topics: &[String]) -> Result<ClusterFacts, Fault> {
    with_admin(settings, |admin| {
        let metadata = ask_brokers(admin)?;
        let broker = metadata.brokers().iter().map(|broker| broker.id()).min();
        let settings = broker.map_or_else(BTreeMap::new, |broker| broker_settings(admin, broker));
        let brokers = i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX);
        Ok(ClusterFacts { brokers, settings, topics: look_at_topics(admin, topics)?, transactions: None })
    })
}

/// Asks again and again, because a question alone waits for brokers that are not there as long as for slow ones; only what librdkafka
/// reports of its own accord tells them apart.
fn ask_brokers(admin: &AdminClient<Context>) -> Result<Metadata, Fault> {
    let started = Instant::now();
    loop {
        let error = match admin.inner().fetch_metadata(None, STEP) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        let trouble = admin.inner().context().trouble();
        let cause = trouble.as_ref().map(|trouble| trouble.code).filter(|&code| faults::is_no_connection(code));
        let shut_out = cause.is_some_and(|code| faults::short(code) == "authentication");
        if shut_out || started.elapsed() > if cause.is_some() { UNREACHABLE_AFTER } else { MOST } {
            let code = cause.or(error.rdkafka_error_code()).unwrap_or(Code::Unknown);
            return Err(faults::unavailable(code, "the brokers cannot be asked", trouble));
        }
    }
}

fn broker_settings(admin: &AdminClient<Context>, broker: i32) -> BTreeMap<String, String> {
    let options = AdminOptions::new().request_timeout(Some(MOST));
    let answer = wait(admin.describe_configs(&[ResourceSpecifier::Broker(broker)], &options));
    let found = answer.unwrap_or_default().into_iter().flatten();
    let entries =
        found.filter(|found| matches!(found.specifier, OwnedResourceSpecifier::Broker(_))).flat_map(|found| found.entries);
    entries.filter_map(|entry| entry.value.map(|value| (entry.name, value))).collect()
}

fn look_at_topics(admin: &AdminClient<Context>, topics: &[String]) -> Result<Vec<TopicFacts>, Fault> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let (visible, hidden) = describe_visible(admin, topics)?;
    let mut states: BTreeMap<String, TopicState> = visible.into_iter().map(|state| (state.name.clone(), state)).collect();
    // older brokers do not tell rights: then they stay unknown
    let rights = topic_rights(admin.inner(), topics, MOST).unwrap_or_default();
    let facts = topics.iter().map(|name| {
        let told = rights.get(name);
        TopicFacts {
            name: name.clone(),
            state: states.remove(name),
            rights: told.and_then(|told| told.as_ref().ok().cloned().flatten()),
            hidden: hidden.contains(name) || matches!(told, Some(Err(Code::TopicAuthorizationFailed))),
        }
    });
    Ok(facts.collect())
}

/// Takes up the transactional id beside the outbox's own, as the relay would. Nothing is begun with it. The brokers keep a line about it
/// until `transactional.id.expiration.ms`. Another check of the same outbox may take it away, which proves as much.
fn try_transactions(settings: &Settings) -> Result<(), Fault> {
    let producer = client::beside(settings, &beside(settings))?;
    let answer = producer.init_transactions(INIT_MOST);
    let trouble = producer.client().context().trouble();
    blocking::drop_aside(producer);
    match answer {
        Ok(()) => Ok(()),
        Err(KafkaError::Transaction(error)) if faults::is_fenced(error.code()) => Ok(()),
        Err(KafkaError::Transaction(error)) if error.code() == Code::TransactionalIdAuthorizationFailed => Err(Fault::Refused {
            detail: format!("the transactional id {} may not be used", beside(settings)),
            remedy: format!(
                "Grant WRITE and DESCRIBE on transactional ids with the prefix {}",
                names::transactional_id(&settings.name)
            ),
        }),
        Err(KafkaError::Transaction(error)) => Err(faults::init(&error, INIT_MOST, trouble)),
        Err(error) => Err(faults::asked(&error, "init_transactions")),
    }
}
