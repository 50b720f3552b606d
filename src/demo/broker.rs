//! The broker inside the demo: librdkafka's mock cluster on a port of the loopback interface. kcat and other clients built on librdkafka
//! can read from it. Java's cannot: they ask for its versions in a version that it does not know, its refusal is not in the form of
//! version 0, as they expect (KIP-511), and what they read out of it is to wait for 1,179,648 ms (seen with Kafka 4.3). It keeps records
//! in memory (the newest 5 MiB of a partition), knows no isolation and fences nobody: what a relay promises with it is at_least_once. The
//! demo is its only place in outboxd.

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};

use super::native;
use super::trouble::Trouble;

/// The topic of the shop.
pub const TOPIC: &str = "orders";
/// Its partitions.
pub const PARTITIONS: i32 = 3;

/// The cluster calls the broker of this number its controller, and does not make one. Questions about topics go there.
const CONTROLLER: i32 = 0;

/// A running broker; it ends when this is dropped.
pub struct Broker {
    /// The client that the cluster belongs to; it sends nothing.
    _owner: BaseProducer,
    address: String,
}

impl Broker {
    /// Starts a broker with the shop's topic on a free port.
    pub fn start() -> Result<Self, Trouble> {
        let owner: BaseProducer = ClientConfig::new().set("test.mock.num.brokers", "1").create()?;
        native::add_broker(owner.client(), CONTROLLER).map_err(KafkaError::MockCluster)?;
        let cluster = owner.client().mock_cluster().ok_or(KafkaError::MockCluster(Code::Fail))?;
        cluster.create_topic(TOPIC, PARTITIONS, 1)?;
        let address = cluster.bootstrap_servers();
        drop(cluster);
        Ok(Self { _owner: owner, address })
    }

    /// Where clients reach it: `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The command with which kcat reads the topic.
    pub fn kcat(&self) -> String {
        format!("kcat -C -b {} -t {TOPIC} -o beginning", self.address)
    }
}
