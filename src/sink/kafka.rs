//! Kafka as the log: events and journal record in one transaction of a producer with the transactional id `outboxd-<name>`.
//!
//! The way of a batch: [`KafkaSink`] fences and gives a [`KafkaFenced`], whose recovery reads the journal (`journal`) and gives the
//! [`KafkaPublisher`]; that hands each batch to a thread of its own (`worker`), which drives the producer (`producer`).
//!
//! Two rules shape the code. *Never interpret*: whatever fails before the commit is dropped with its producer, never aborted, and
//! whatever the commit says besides a prompt OK is decided by the journal. *Never block the runtime*: librdkafka's transaction calls
//! block for up to a minute, so each client lives on a thread, and a dropped future leaves that thread to end by itself.

mod admin;
mod blocking;
mod checkup;
mod client;
mod deliveries;
mod ends;
mod faults;
mod groups;
mod headers;
mod history;
mod journal;
mod limits;
mod names;
mod native;
mod pace;
mod partition;
mod producer;
mod publisher;
mod retention;
mod scan;
mod topics;
mod trim;
mod watch;
mod worker;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

pub use admin::{Created, Difference, TopicPlan, TopicState};
pub use checkup::{ClusterFacts, TopicFacts};
pub use groups::{GroupPosition, Groups};
pub use history::KafkaHistory;
pub use journal::Tail;
pub use names::refusal;
pub use native::rights::Operation;
pub use partition::{hash as hash_of_key, of_key as partition_of_key};
pub use publisher::{KafkaFenced, KafkaPublisher};
pub use scan::{Bounds, Lane, Scan, Scanned, Scanner, Traits};
pub use watch::{Place, Watch};

use crate::config::{Delivery, Kafka};
use crate::fault::Fault;
use crate::heartbeat::Heartbeat;
use crate::journal::{Applied, Record, View};
use crate::sink::Sink;
use ends::Ends;
use limits::Limits;
use publisher::Warned;

/// What the Kafka sink needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the outbox: names the journal topic and the transactional id.
    pub name: String,
    /// Header `source` of events whose row has none.
    pub source: Option<String>,
    /// The section `[kafka]`.
    pub kafka: Kafka,
    /// Beats while the journal is read and settled, which takes hours after a long absence.
    pub signs: Heartbeat,
}

/// A Kafka cluster as the log of one outbox.
#[derive(Clone, Debug)]
pub struct KafkaSink {
    shared: Arc<Shared>,
}

/// What the parts of one sink share.
struct Shared {
    settings: Settings,
    /// Name of the journal topic.
    journal: String,
    limits: Limits,
    ends: Ends,
    warned: Mutex<Warned>,
    overruled: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// A sink that has not spoken to the cluster yet. Refuses settings that this build cannot serve.
    pub fn new(settings: Settings) -> Result<Self, Fault> {
        client::check(&settings)?;
        let journal = names::journal(&settings.name);
        let (limits, ends, warned, overruled) = (Limits::default(), Ends::default(), Mutex::default(), AtomicU64::new(0));
        Ok(Self { shared: Arc::new(Shared { settings, journal, limits, ends, warned, overruled }) })
    }

    /// How many headers of rows were left out because a column says the same.
    pub fn overruled_headers(&self) -> u64 {
        self.shared.overruled.load(Ordering::Relaxed)
    }

    /// The end of the journal, whoever wrote it. Fences nobody.
    pub async fn tail(&self) -> Result<Tail, Fault> {
        let shared = Arc::clone(&self.shared);
        blocking::run("kafka-tail", move |caller| journal::tail(&shared, caller)).await
    }

    /// The record of `batch` as it lies in the journal although readers cannot see it: its transaction is open or was aborted.
    pub async fn unseen(&self, batch: Applied) -> Result<Option<Record>, Fault> {
        let shared = Arc::clone(&self.shared);
        let stored = blocking::run("kafka-unseen", move |caller| journal::unseen(&shared, batch.offset, caller)).await?;
        Ok(stored.filter(|(record, checksum)| record.n == batch.n && *checksum == batch.checksum).map(|(record, _)| record))
    }

    fn has_journal(&self) -> bool {
        self.shared.settings.kafka.delivery == Delivery::ExactlyOnce
    }
}

impl Sink for KafkaSink {
    type Fenced = KafkaFenced;

    async fn look(&self, outbox: Uuid, base: Applied) -> Result<View, Fault> {
        if !self.has_journal() {
            return Ok(journal::nothing_above(base));
        }
        let shared = Arc::clone(&self.shared);
        blocking::run("kafka-look", move |caller| journal::look(&shared, outbox, base, caller)).await
    }

    async fn fence(&self) -> Result<KafkaFenced, Fault> {
        publisher::fence(Arc::clone(&self.shared)).await
    }

    async fn trim(&self, keep_from: i64) -> Result<i64, Fault> {
        if !self.has_journal() {
            return Ok(keep_from);
        }
        let shared = Arc::clone(&self.shared);
        blocking::run("kafka-trim", move |caller| trim::trim(&shared, keep_from, caller)).await
    }
}
