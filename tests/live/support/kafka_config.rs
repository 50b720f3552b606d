//! The files of a Kafka node: `server.properties`, and what `format` would write.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::certificates::Certificates;
use super::kafka::{KafkaOptions, Node};
use super::{place, process};

/// Name and password of the one user who may log in.
pub const USER: (&str, &str) = ("relay", "secret");

/// Listeners with authentication or encryption, in the order of `Node::secure_ports`.
pub const SECURE_LISTENERS: [(&str, &str); 4] =
    [("SSL", "SSL"), ("MTLS", "SSL"), ("SASL_PLAINTEXT", "SASL_PLAINTEXT"), ("SASL_SSL", "SASL_SSL")];

/// Which Kafka.
pub const VERSION: &str = "4.3.0";

/// Partitions of the topic in which coordinators keep transactions.
pub const TRANSACTION_PARTITIONS: i32 = 4;

/// A JVM command with Kafka on its class path.
pub fn java(heap_mb: u32) -> Command {
    let home = place::downloaded(&format!("kafka-{VERSION}"));
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xms64m"]).arg(format!("-Xmx{heap_mb}m"));
    if let Some(archive) = newest_archive(&home) {
        command.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
    }
    command.arg("-cp").arg(home.join("lib/*"));
    command
}

/// The archive of prepared classes that halves the start; another Java version ignores it.
fn newest_archive(home: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(home).ok()?.flatten().filter(|file| file.path().extension().is_some_and(|e| e == "jsa"));
    files.max_by_key(|file| file.metadata().and_then(|m| m.modified()).ok()).map(|file| file.path())
}

/// Writes the properties of `node` (one of `nodes`) and formats its data folder.
pub fn write(node: &Node, nodes: &[Node], options: &KafkaOptions, cluster_id: &str) {
    let mut text = common(nodes);
    text += &format!("node.id={}\nlog.dirs={}\n", node.id, node.data().display());
    text += &format!("auto.create.topics.enable={}\n", options.auto_create_topics);
    text += &listeners(node, options);
    if options.secure {
        text += &security();
    }
    for (name, value) in &options.settings {
        text += &format!("{name}={value}\n");
    }
    std::fs::write(node.properties(), text).unwrap();
    std::fs::create_dir_all(node.data()).unwrap();
    std::fs::copy(bootstrap_checkpoint(), node.data().join("bootstrap.checkpoint")).unwrap();
    let meta = format!("version=1\nnode.id={}\ncluster.id={cluster_id}\n", node.id);
    std::fs::write(node.data().join("meta.properties"), meta).unwrap();
}

fn common(nodes: &[Node]) -> String {
    let voters: Vec<String> = nodes.iter().map(|node| format!("{}@127.0.0.1:{}", node.id, node.controller_port)).collect();
    let (replicas, in_sync) = (nodes.len(), if nodes.len() == 1 { 1 } else { 2 });
    format!(
        "process.roles=broker,controller\ncontroller.quorum.voters={voters}\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
         default.replication.factor={replicas}\nmin.insync.replicas={in_sync}\n\
         offsets.topic.replication.factor={replicas}\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr={in_sync}\n\
         transaction.state.log.num.partitions={TRANSACTION_PARTITIONS}\nshare.coordinator.state.topic.replication.factor={replicas}\n\
         share.coordinator.state.topic.min.isr={in_sync}\ngroup.initial.rebalance.delay.ms=0\n\
         log.cleaner.dedupe.buffer.size=16777216\nnum.network.threads=2\n\
         broker.heartbeat.interval.ms=500\nbroker.session.timeout.ms=4000\n",
        voters = voters.join(","),
    )
}

fn listeners(node: &Node, options: &KafkaOptions) -> String {
    let mut all = vec![("PLAINTEXT".to_owned(), "PLAINTEXT", node.port, node.port)];
    for (i, (port, proxy_port)) in node.proxied_ports.iter().enumerate() {
        all.push((format!("PROXIED{i}"), "PLAINTEXT", *port, *proxy_port));
    }
    if options.secure {
        for ((name, protocol), port) in SECURE_LISTENERS.iter().zip(node.secure_ports) {
            all.push((name.to_string(), protocol, port, port));
        }
    }
    let mut listeners = format!("listeners=CONTROLLER://127.0.0.1:{}", node.controller_port);
    let mut advertised = Vec::new();
    let mut protocols = "listener.security.protocol.map=CONTROLLER:PLAINTEXT".to_owned();
    for (name, protocol, port, advertised_port) in all {
        listeners += &format!(",{name}://127.0.0.1:{port}");
        advertised.push(format!("{name}://127.0.0.1:{advertised_port}"));
        protocols += &format!(",{name}:{protocol}");
    }
    format!("{listeners}\nadvertised.listeners={}\n{protocols}\n", advertised.join(","))
}

fn security() -> String {
    let certificates = Certificates::shared();
    let (name, password) = USER;
    let mut text = format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
         listener.name.mtls.ssl.client.auth=required\nsasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n",
        certificates.key_store("server").display(),
        certificates.ca().display(),
    );
    let modules = "org.apache.kafka.common.security";
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        let prefix = format!("listener.name.{listener}");
        text += &format!("{prefix}.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_{name}=\"{password}\";\n");
        for scram in ["scram-sha-256", "scram-sha-512"] {
            text += &format!("{prefix}.{scram}.sasl.jaas.config={modules}.scram.ScramLoginModule required;\n");
        }
        let module = format!("{modules}.oauthbearer.OAuthBearerLoginModule");
        text += &format!("{prefix}.oauthbearer.sasl.jaas.config={module} required unsecuredLoginStringClaim_sub=\"broker\";\n");
    }
    text
}

/// What a format writes about features and SCRAM users; it holds for every node, so it is made once.
fn bootstrap_checkpoint() -> &'static Path {
    static CHECKPOINT: OnceLock<PathBuf> = OnceLock::new();
    CHECKPOINT.get_or_init(|| {
        let folder = place::folder("kafka-format");
        let properties = folder.join("server.properties");
        let text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:9093\n\
             listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\ncontroller.listener.names=CONTROLLER\nlog.dirs={}/data\n",
            folder.display()
        );
        std::fs::write(&properties, text).unwrap();
        let mut command = java(200);
        command.args(["kafka.tools.StorageTool", "format", "-t", &random_id(), "-c"]).arg(&properties);
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            command.args(["--add-scram", &format!("{mechanism}=[name={},password={}]", USER.0, USER.1)]);
        }
        process::run(command);
        folder.join("data/bootstrap.checkpoint")
    })
}

/// A Kafka uuid: 16 bytes as base64, of which the last character carries two bits only.
pub fn random_id() -> String {
    (0..21).map(|_| fastrand::alphanumeric()).chain(['A']).collect()
}
