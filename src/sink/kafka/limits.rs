//! How large records and bundles of records may be: the topics say so.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::blocking::{drop_aside, wait};
use super::client::{self, ProducerShape, SINGLE, lock};
use super::{Settings, faults};
use crate::fault::Fault;

/// `batch.size` where nothing asks for less. 16 KB, the usual default, costs 2.4 times the CPU.
const LARGEST_BUNDLE: u32 = 1_000_000;
/// Kafka's own default of `max.message.bytes`.
const USUAL: u32 = 1_048_588;
/// How long the cluster may take to tell.
const MOST: Duration = Duration::from_secs(10);

/// `max.message.bytes` of every topic that was ever used, kept over claims: it changes rarely, and asking costs a connection. And whether
/// an event is being searched for that the brokers refuse.
#[derive(Default)]
pub(super) struct Limits {
    topics: Mutex<BTreeMap<String, Option<u32>>>,
    searching: AtomicBool,
}

impl Limits {
    /// The shape of a producer that can serve all known topics. A batch that is too large for a topic would be refused as a whole,
    /// and each of its events would look as if it could never be published.
    pub(super) fn shape(&self, retry_backoff: Duration) -> ProducerShape {
        let limits = lock(&self.topics);
        let fits_all = limits.values().flatten().copied().fold(LARGEST_BUNDLE, u32::min).max(SINGLE + 1);
        ProducerShape {
            batch_bytes: if self.searching.load(Ordering::Relaxed) { SINGLE } else { fits_all },
            message_bytes: limits.values().map(|limit| limit.unwrap_or(u32::MAX)).fold(USUAL, u32::max).min(1_000_000_000),
            retry_backoff,
        }
    }

    /// From now on each record goes alone, or not any more.
    pub(super) fn search(&self, searching: bool) {
        self.searching.store(searching, Ordering::Relaxed);
    }

    /// What a topic takes. Where that is not told, nothing is refused before the broker does.
    pub(super) fn of(&self, topic: &str) -> u32 {
        lock(&self.topics).get(topic).copied().flatten().unwrap_or(u32::MAX)
    }

    /// Looks up the topics that are not known yet.
    pub(super) fn learn<'a>(&self, settings: &Settings, topics: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
        let unknown: Vec<&str> = {
            let limits = lock(&self.topics);
            topics.filter(|topic| !limits.contains_key(*topic)).collect()
        };
        if unknown.is_empty() { Ok(()) } else { self.ask(settings, &unknown).map(drop) }
    }

    /// Looks topics up again; says whether one of them takes more or less than was known.
    pub(super) fn refresh<'a>(&self, settings: &Settings, topics: impl Iterator<Item = &'a str>) -> Result<bool, Fault> {
        self.ask(settings, &topics.collect::<Vec<_>>())
    }

    fn ask(&self, settings: &Settings, topics: &[&str]) -> Result<bool, Fault> {
        let found = ask(settings, topics)?;
        let mut limits = lock(&self.topics);
        let mut changed = false;
        for topic in topics {
            let limit = found.get(*topic).copied();
            changed |= limits.insert((*topic).to_owned(), limit) != Some(limit);
        }
        Ok(changed)
    }
}

fn ask(settings: &Settings, topics: &[&str]) -> Result<BTreeMap<String, u32>, Fault> {
    let admin = client::admin(settings)?;
    let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let answer = wait(admin.describe_configs(&resources, &AdminOptions::new().request_timeout(Some(MOST))));
    drop_aside(admin);
    match answer {
        Ok(resources) => Ok(resources.into_iter().filter_map(limit).collect()),
        Err(error) => match error.rdkafka_error_code() {
            Some(code) if is_outage(code) => Err(faults::asked(&error, "max.message.bytes cannot be looked up")),
            code => {
                tracing::debug!(?code, "max.message.bytes of the topics is not told to us");
                Ok(BTreeMap::new())
            }
        },
    }
}

fn is_outage(code: Code) -> bool {
    faults::is_no_connection(code) || faults::short(code) == "timeout"
}

fn limit(resource: Result<ConfigResource, Code>) -> Option<(String, u32)> {
    let resource = resource
        .inspect_err(|code| tracing::debug!(%code, assumed = LARGEST_BUNDLE, "max.message.bytes of a topic is not told to us"))
        .ok()?;
    let bytes = resource.get("max.message.bytes")?.value.as_ref()?.parse().ok()?;
    match resource.specifier {
        OwnedResourceSpecifier::Topic(topic) => Some((topic, bytes)),
        OwnedResourceSpecifier::Group(_) | OwnedResourceSpecifier::Broker(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_fits_the_smallest_and_the_largest_topic() {
        let limits = Limits::default();
        let second = Duration::from_secs(1);
        let shape = |batch_bytes, message_bytes| ProducerShape { batch_bytes, message_bytes, retry_backoff: second };
        assert_eq!(limits.shape(second), shape(1_000_000, 1_048_588));
        lock(&limits.topics).extend([("small".to_owned(), Some(1_000)), ("large".to_owned(), Some(9_000_000))]);
        assert_eq!(limits.shape(second), shape(1_000, 9_000_000));
    }
}
