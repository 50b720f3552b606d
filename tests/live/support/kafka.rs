//! Apache Kafka 4.3 from its jars: one node shared by most tests, or private clusters of one or three for faults.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::disk::Disk;
use super::kafka_config::{self, SECURE_LISTENERS};
use super::place;
use super::process::{self, Process};
use super::proxy::Proxy;
use super::wait::{eventually, eventually_async};

pub use super::kafka_config::{TRANSACTION_PARTITIONS, USER, VERSION, java};

const PATIENCE: Duration = Duration::from_secs(90);

/// How a private cluster differs from the shared one.
#[derive(Clone, Default)]
pub struct KafkaOptions {
    /// Whether the broker creates a topic that somebody asks for.
    pub auto_create_topics: bool,
    /// Listeners SSL, MTLS, SASL_PLAINTEXT and SASL_SSL beside the plaintext one.
    pub secure: bool,
    /// How often [`Kafka::proxied`] may be called.
    pub proxied: usize,
    /// Further broker settings; they win.
    pub settings: Vec<(&'static str, &'static str)>,
}

/// One or three nodes, each broker and controller, on 127.0.0.1.
pub struct Kafka {
    nodes: Vec<Node>,
    proxies_taken: AtomicUsize,
}

/// One JVM of a cluster.
pub(super) struct Node {
    pub(super) id: usize,
    folder: PathBuf,
    pub(super) port: u16,
    pub(super) controller_port: u16,
    /// Of each proxied listener: its own port, and the one it advertises.
    pub(super) proxied_ports: Vec<(u16, u16)>,
    pub(super) secure_ports: [u16; SECURE_LISTENERS.len()],
    process: Mutex<Option<Process>>,
}

/// A way to the cluster with a [`Proxy`] before each node; clients stay on it.
pub struct Proxied {
    /// Bootstrap servers of this way.
    pub brokers: String,
    /// One proxy a node, in the order of the nodes.
    pub nodes: Vec<Proxy>,
}

impl Kafka {
    /// The one-node cluster that all tests of the process share (secure listeners, 16 proxied ways): never stop it.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Kafka::start_one(KafkaOptions { secure: true, proxied: 16, ..KafkaOptions::default() }))
    }

    /// A cluster of one. A hard kill of a lone broker can lose commit markers.
    pub fn start_one(options: KafkaOptions) -> Kafka {
        Kafka::start(1, options)
    }

    /// A cluster of three: replication factor 3, `min.insync.replicas` 2.
    pub fn start_three(options: KafkaOptions) -> Kafka {
        Kafka::start(3, options)
    }

    /// A cluster of one whose data lies on a disk of `megabytes`.
    ///
    /// # Errors
    /// What the system said, where nobody may mount.
    pub fn start_on_disk(megabytes: u32) -> Result<(Kafka, Disk), String> {
        let node = Node::new(1, &KafkaOptions::default());
        std::fs::create_dir(node.data()).unwrap();
        let disk = Disk::mount(&node.data(), megabytes)?;
        Ok((Kafka::start_nodes(vec![node], KafkaOptions::default()), disk))
    }

    fn start(count: usize, options: KafkaOptions) -> Kafka {
        let nodes: Vec<Node> = (1..=count).map(|id| Node::new(id, &options)).collect();
        Kafka::start_nodes(nodes, options)
    }

    fn start_nodes(nodes: Vec<Node>, options: KafkaOptions) -> Kafka {
        let count = nodes.len();
        let cluster_id = kafka_config::random_id();
        nodes.iter().for_each(|node| kafka_config::write(node, &nodes, &options, &cluster_id));
        nodes.iter().for_each(Node::spawn);
        let kafka = Kafka { nodes, proxies_taken: AtomicUsize::new(0) };
        (0..count).for_each(|i| kafka.wait_ready(i, count));
        kafka
    }

    /// Bootstrap servers of the plaintext listeners.
    pub fn brokers(&self) -> String {
        self.join_ports(|node| node.port)
    }

    /// Bootstrap servers of the listener `SSL`, `MTLS` (client certificate required), `SASL_PLAINTEXT` or `SASL_SSL`;
    /// the latter two know PLAIN, SCRAM-SHA-256 and -512 for [`USER`], and OAUTHBEARER with unsecured tokens.
    pub fn secure_brokers(&self, listener: &str) -> String {
        let index = SECURE_LISTENERS.iter().position(|(name, _)| *name == listener).expect("a known listener");
        self.join_ports(|node| node.secure_ports[index])
    }

    fn join_ports(&self, port: impl Fn(&Node) -> u16) -> String {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", port(node))).collect::<Vec<_>>().join(",")
    }

    /// A way of one's own to this cluster through proxies.
    ///
    /// # Panics
    /// If [`KafkaOptions::proxied`] ways are taken already.
    pub fn proxied(&self) -> Proxied {
        let way = self.proxies_taken.fetch_add(1, Ordering::Relaxed);
        let ports: Vec<(u16, u16)> =
            self.nodes.iter().map(|node| *node.proxied_ports.get(way).expect("KafkaOptions::proxied is large enough")).collect();
        let nodes: Vec<Proxy> = ports.iter().map(|&(port, proxy_port)| Proxy::before_kafka(proxy_port, port)).collect();
        let brokers = nodes.iter().map(Proxy::address).collect::<Vec<_>>().join(",");
        Proxied { brokers, nodes }
    }

    /// A client configuration with the plaintext bootstrap servers.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }

    /// A topic name of one's own, starting with `name`.
    pub fn unique_topic(&self, name: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates a topic with the cluster's replication factor and waits until every node knows it.
    pub async fn create_topic(&self, name: &str, partitions: usize, configs: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions as i32, TopicReplication::Fixed(self.nodes.len() as i32));
        topic.config.extend_from_slice(configs);
        let results = self.admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
        results.into_iter().for_each(|result| drop(result.unwrap()));
        self.wait_for_partitions(name, partitions).await;
    }

    /// Deletes a topic and waits until every node has forgotten it.
    pub async fn delete_topic(&self, name: &str) {
        let results = self.admin().delete_topics(&[name], &AdminOptions::new()).await.unwrap();
        results.into_iter().for_each(|result| drop(result.unwrap()));
        self.wait_for_partitions(name, 0).await;
    }

    async fn wait_for_partitions(&self, topic: &str, partitions: usize) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            let consumer = node.consumer();
            let what = format!("node {} sees {partitions} partitions of {topic}", node.id);
            eventually_async(&what, PATIENCE, async || {
                // All topics: to ask for one by name could create it.
                let metadata = consumer.fetch_metadata(None, Duration::from_secs(2)).ok()?;
                let found = metadata.topics().iter().find(|t| t.name() == topic).map_or(&[][..], |t| t.partitions());
                (found.len() == partitions && found.iter().all(|p| p.leader() >= 0)).then_some(())
            })
            .await;
        }
    }

    /// Kafka's administration over the plaintext listener.
    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Gives a topic this setting, and no other.
    pub async fn alter_topic(&self, name: &str, setting: &str, value: &str) {
        self.configure_topic(name, &[(setting, value)]).await;
    }

    /// Gives a topic these settings, and no others.
    pub async fn configure_topic(&self, name: &str, settings: &[(&str, &str)]) {
        let altered = AlterConfig::new(ResourceSpecifier::Topic(name));
        let altered = settings.iter().fold(altered, |altered, (setting, value)| altered.set(setting, value));
        let results = self.admin().alter_configs([&altered], &AdminOptions::new()).await.unwrap();
        results.into_iter().for_each(|result| drop(result.unwrap()));
    }

    /// Gives a topic more partitions.
    pub async fn grow_topic(&self, name: &str, partitions: usize) {
        let grown = NewPartitions::new(name, partitions);
        let results = self.admin().create_partitions([&grown], &AdminOptions::new()).await.unwrap();
        results.into_iter().for_each(|result| drop(result.unwrap()));
        self.wait_for_partitions(name, partitions).await;
    }

    /// Ends a hanging transaction in one partition, with the broker's own tool.
    pub fn abort_transaction(&self, topic: &str, partition: &str, offset: &str) {
        let mut command = kafka_config::java(128);
        command.args(["org.apache.kafka.tools.TransactionsCommand", "--bootstrap-server", &self.brokers(), "abort"]);
        command.args(["--topic", topic, "--partition", partition, "--start-offset", offset]);
        println!("{}", process::run(command));
    }

    /// Names of all topics that are not Kafka's own.
    pub fn topics(&self) -> Vec<String> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        names.filter(|name| !name.starts_with("__")).collect()
    }

    /// The node (counted from 0) that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> usize {
        self.find_leader(topic, partition).expect("the partition has a leader")
    }

    /// The same; nothing where there is none now.
    pub fn find_leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).ok()?;
        let found = metadata.topics().first()?.partitions().iter().find(|p| p.id() == partition)?;
        usize::try_from(found.leader() - 1).ok()
    }

    /// SIGKILL to node `i` (counted from 0).
    pub fn kill_hard(&self, i: usize) {
        self.nodes[i].process.lock().unwrap().take().expect("the node runs").kill();
    }

    /// A clean stop of node `i`.
    pub fn stop(&self, i: usize) {
        let process = self.nodes[i].process.lock().unwrap().take().expect("the node runs");
        process.signal(libc::SIGTERM);
        process.wait(PATIENCE);
    }

    /// Starts a stopped or killed node on the same ports and data, and waits until it answers.
    pub fn start_again(&self, i: usize) {
        self.spawn_again(i);
        self.wait_ready(i, 1);
    }

    /// [`Kafka::start_again`] without the waiting.
    pub fn spawn_again(&self, i: usize) {
        self.nodes[i].spawn();
    }

    /// Where node `i` keeps a partition.
    fn log(&self, i: usize, topic: &str, partition: i32) -> PathBuf {
        self.nodes[i].data().join(format!("{topic}-{partition}"))
    }

    /// A copy of a partition on node `i`, which is stopped.
    pub fn copy_records(&self, i: usize, topic: &str, partition: i32) -> PathBuf {
        let copy = place::folder("records");
        copy_files(&self.log(i, topic, partition), &copy);
        copy
    }

    /// Puts the copy of a partition back in place of what node `i`, which is stopped, has of it now.
    pub fn put_records_back(&self, i: usize, topic: &str, partition: i32, copy: &Path) {
        self.lose_records(i, topic, partition);
        copy_files(copy, &self.log(i, topic, partition));
    }

    /// Loses all records of a partition on node `i`, which is stopped: the topic keeps its id.
    pub fn lose_records(&self, i: usize, topic: &str, partition: i32) {
        let folder = self.log(i, topic, partition);
        for file in std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
            if file.file_name().is_some_and(|name| name != "partition.metadata") {
                std::fs::remove_file(file).unwrap();
            }
        }
    }

    /// Whether the process of node `i` has ended by itself.
    pub fn has_ended(&self, i: usize) -> bool {
        self.nodes[i].process.lock().unwrap().as_ref().is_none_or(|process| process.exit_status().is_some())
    }

    /// Starts node `i` again after it has ended by itself, and waits until it answers.
    pub fn start_after_its_end(&self, i: usize) {
        drop(self.nodes[i].process.lock().unwrap().take());
        self.start_again(i);
    }

    /// SIGSTOP to node `i`: connections stay, nothing answers.
    pub fn sigstop(&self, i: usize) {
        self.nodes[i].process.lock().unwrap().as_ref().expect("the node runs").signal(libc::SIGSTOP);
    }

    /// SIGCONT to node `i`.
    pub fn sigcont(&self, i: usize) {
        self.nodes[i].process.lock().unwrap().as_ref().expect("the node runs").signal(libc::SIGCONT);
    }

    /// Waits until node `i` answers and sees itself and at least `count` nodes.
    pub fn wait_ready(&self, i: usize, count: usize) {
        let node = &self.nodes[i];
        let consumer = node.consumer();
        eventually(&format!("Kafka node {} answers", node.id), PATIENCE, || {
            let guard = node.process.lock().unwrap();
            let process = guard.as_ref().expect("the node was started");
            assert!(process.exit_status().is_none(), "Kafka node {} ended:\n{}", node.id, process.last_words());
            let metadata = consumer.fetch_metadata(None, Duration::from_millis(500));
            metadata.is_ok_and(|m| m.brokers().len() >= count && m.brokers().iter().any(|b| b.id() == node.id as i32))
        });
    }
}

fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

impl Node {
    fn new(id: usize, options: &KafkaOptions) -> Node {
        Node {
            id,
            folder: place::folder(&format!("kafka-{id}")),
            port: place::free_port(),
            controller_port: place::free_port(),
            proxied_ports: (0..options.proxied).map(|_| (place::free_port(), place::free_port())).collect(),
            secure_ports: std::array::from_fn(|_| place::free_port()),
            process: Mutex::new(None),
        }
    }

    pub(super) fn properties(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn spawn(&self) {
        let mut command = kafka_config::java(400);
        command.arg("kafka.Kafka").arg(self.properties()).current_dir(&self.folder);
        let process = Process::spawn("Kafka", command, &self.folder.join("log"));
        let before = self.process.lock().unwrap().replace(process);
        assert!(before.is_none(), "the node runs already");
    }

    fn is_running(&self) -> bool {
        self.process.lock().unwrap().is_some()
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.port));
        config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "100").create().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.lock().map(|mut process| process.take()));
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
