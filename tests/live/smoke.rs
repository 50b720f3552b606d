//! Every kind of server starts, answers, survives its faults and leaves nothing behind.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use crate::support::certificates::Certificates;
use crate::support::proxy::api_key;
use crate::support::{Kafka, KafkaOptions, PgBouncer, Postgres, PostgresOptions, Proxy, Version, Weather, kafka, process};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn both_postgresql_versions_serve_a_database_of_ones_own() {
    for version in Version::ALL {
        let server = Postgres::shared(version);
        let (one, two) = (server.create_database("smoke"), server.create_database("smoke"));
        server.sql(&one, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
        assert_eq!(server.sql(&one, "SELECT a, current_setting('wal_level') FROM t"), "1|logical");
        assert!(server.try_sql(&two, "SELECT a FROM t").unwrap_err().contains("does not exist"));
        let major = if version == Version::V15 { "15" } else { "18" };
        assert!(server.sql(&one, "SHOW server_version").starts_with(major));
    }
}

#[test]
fn a_killed_and_a_restored_postgresql_come_back_on_the_same_port() {
    for version in Version::ALL {
        let server = Postgres::start(version, PostgresOptions::default());
        server.sql("postgres", "CREATE TABLE kept (a int); CREATE UNLOGGED TABLE token (a int)");
        let copy = server.copy_data();
        server.sql("postgres", "INSERT INTO kept VALUES (1); INSERT INTO token VALUES (1)");
        server.kill_hard();
        server.start_again();
        let counts = "SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM token)";
        assert_eq!(server.sql("postgres", counts), "1|0");
        let identity = "SELECT system_identifier FROM pg_control_system()";
        let twin = Postgres::start_copy(&copy, PostgresOptions::default());
        assert_eq!(twin.sql("postgres", identity), server.sql("postgres", identity));
        server.restore(&copy);
        assert_eq!(server.sql("postgres", counts), "0|0");
    }
}

#[test]
fn a_killed_backend_makes_postgresql_recover() {
    let server = Postgres::start(Version::V15, PostgresOptions::default());
    server.sql("postgres", "CREATE UNLOGGED TABLE token AS SELECT 1 AS a");
    let mut psql = server.command("psql");
    let mut child = psql.args(["-c", "SELECT pg_sleep(60)", &server.url("postgres", "shop")]);
    child = child.stdout(Stdio::null()).stderr(Stdio::null());
    let mut sleeper = child.spawn().unwrap();
    let backend = "SELECT pid FROM pg_stat_activity WHERE usename = 'shop'";
    crate::support::eventually("the sleeper is there", SOON, || !server.sql("postgres", backend).is_empty());
    server.kill_backend(server.sql("postgres", backend).parse().unwrap());
    assert!(!sleeper.wait().unwrap().success());
    server.wait_ready();
    assert_eq!(server.sql("postgres", "SELECT count(*) FROM token"), "0");
}

#[test]
fn postgresql_offers_tls_with_a_certificate_of_our_authority() {
    let server = Postgres::start(Version::V15, PostgresOptions { tls: true, ..PostgresOptions::default() });
    let connect = |ca: &std::path::Path| {
        let mut psql = Command::new(Version::V15.binaries().join("psql"));
        let url = format!("{}?sslmode=verify-full&sslrootcert={}", server.url("postgres", "postgres"), ca.display());
        psql.args(["-X", "-A", "-t", "-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &url]);
        process::try_run(psql)
    };
    assert_eq!(connect(&Certificates::shared().ca()).unwrap(), "t");
    assert!(connect(&Certificates::shared().other_ca()).unwrap_err().contains("verify failed"));
}

#[test]
fn pgbouncer_pools_transactions() {
    let server = Postgres::shared(Version::V18);
    let database = server.create_database("pooled");
    let pooler = PgBouncer::start(server);
    let mut psql = server.command("psql");
    psql.args(["-X", "-A", "-t", "-c", "SELECT current_user", &pooler.url(&database, "outboxd")]);
    assert_eq!(process::run(psql), "outboxd");
}

#[test]
fn a_proxy_delays_freezes_and_cuts() {
    let server = Postgres::shared(Version::V15);
    let proxy = Proxy::before(server.port());
    let ask = |timeout_s: u32| {
        let mut command = Command::new("timeout");
        command.arg(timeout_s.to_string()).arg(Version::V15.binaries().join("psql"));
        command.args([
            "-X",
            "-A",
            "-t",
            "-c",
            "SELECT 7",
            &format!("postgres://postgres@{}/postgres?sslmode=disable", proxy.address()),
        ]);
        process::try_run(command)
    };
    assert_eq!(ask(10).unwrap(), "7");
    proxy.set(Weather::Delay(Duration::from_millis(100)));
    let start = Instant::now();
    assert_eq!(ask(10).unwrap(), "7");
    assert!(start.elapsed() >= Duration::from_millis(400), "two exchanges, both directions: {:?}", start.elapsed());
    for weather in [Weather::Freeze, Weather::DropAnswers] {
        proxy.set(weather);
        assert!(ask(1).unwrap_err().contains("124"), "{weather:?} lets psql hang");
    }
    proxy.set(Weather::Cut);
    assert!(ask(10).unwrap_err().contains("closed the connection"));
    proxy.set(Weather::Pass);
    assert_eq!(ask(10).unwrap(), "7");
}

/// Produces one record and waits for its acknowledgement; returns how long that took.
fn produce(brokers: &str, topic: &str, more: &[(&str, &str)]) -> Duration {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "0").set("message.timeout.ms", "30000");
    more.iter().for_each(|(name, value)| {
        config.set(*name, *value);
    });
    let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = config.create().unwrap();
    let start = Instant::now();
    producer.send(BaseRecord::to(topic).key("k").payload("v")).map_err(|(e, _)| e).unwrap();
    producer.flush(SOON).unwrap();
    start.elapsed()
}

/// How many records a reader of committed ones finds in partition 0.
fn count(kafka: &Kafka, topic: &str) -> usize {
    let consumer: BaseConsumer = kafka.client().set("group.id", "smoke").set("enable.partition.eof", "true").create().unwrap();
    let mut assignment = rdkafka::TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let mut found = 0;
    loop {
        match consumer.poll(SOON).expect("the broker answers") {
            Ok(message) => found += usize::from(message.payload() == Some(b"v")),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return found,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_lone_kafka_creates_and_deletes_topics_and_restarts() {
    let kafka = Kafka::start_one(KafkaOptions::default());
    kafka.create_topic("orders", 3, &[("max.message.bytes", "2000")]).await;
    kafka.create_topic("gone", 1, &[]).await;
    kafka.delete_topic("gone").await;
    assert_eq!(kafka.topics(), ["orders"]);
    kafka.stop(0);
    kafka.start_again(0);
    assert_eq!(kafka.topics(), ["orders"]);
}

#[tokio::test]
async fn one_of_three_kafka_nodes_may_be_killed_and_frozen() {
    let kafka = Kafka::start_three(KafkaOptions::default());
    kafka.create_topic("orders", 1, &[]).await;
    produce(&kafka.brokers(), "orders", &[("acks", "all")]);
    let leader = kafka.leader("orders", 0);
    kafka.kill_hard(leader);
    produce(&kafka.brokers(), "orders", &[("acks", "all")]);
    kafka.start_again(leader);
    let other = (leader + 1) % 3;
    kafka.sigstop(other);
    kafka.sigcont(other);
    produce(&kafka.brokers(), "orders", &[("acks", "all")]);
    assert_eq!(count(&kafka, "orders"), 3);
}

#[tokio::test]
async fn a_proxy_before_kafka_holds_and_loses_single_frames() {
    let kafka = Kafka::shared();
    let topic = kafka.unique_topic("held");
    kafka.create_topic(&topic, 1, &[]).await;
    let way = kafka.proxied();
    let held = way.nodes[0].hold_request(api_key::PRODUCE);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| produce(&way.brokers, &topic, &[]));
        held.wait_caught(SOON);
        assert_eq!(count(kafka, &topic), 0);
        held.release();
        sending.join().unwrap();
    });
    assert_eq!(count(kafka, &topic), 1);
    let lost = way.nodes[0].lose_answer(api_key::PRODUCE);
    let took = produce(&way.brokers, &topic, &[("socket.timeout.ms", "2000"), ("request.timeout.ms", "1000")]);
    assert!(lost.is_caught() && took >= Duration::from_millis(900), "{took:?}");
    assert_eq!(count(kafka, &topic), 3, "a record whose answer was lost was sent again");
}

#[tokio::test]
async fn a_held_request_outlives_its_clients_connection() {
    let kafka = Kafka::shared();
    let topic = kafka.unique_topic("outlived");
    kafka.create_topic(&topic, 1, &[]).await;
    let way = kafka.proxied();
    let held = way.nodes[0].hold_request(api_key::PRODUCE);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| produce(&way.brokers, &topic, &[]));
        held.wait_caught(SOON);
        held.cut_client();
        sending.join().unwrap();
        assert_eq!(count(kafka, &topic), 1, "the library sent it again on a new connection");
        held.release();
    });
    crate::support::eventually("the held copy arrives as well", SOON, || count(kafka, &topic) == 2);
}

#[tokio::test]
async fn kafka_knows_its_user_and_speaks_tls() {
    let kafka = Kafka::shared();
    let topic = kafka.unique_topic("secured");
    kafka.create_topic(&topic, 1, &[]).await;
    let (name, password) = kafka::USER;
    let plain = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", name),
        ("sasl.password", password),
    ];
    produce(&kafka.secure_brokers("SASL_PLAINTEXT"), &topic, &plain);
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] {
        let listed = list_topics_over_tls(kafka, mechanism);
        assert!(listed.contains(&topic), "{mechanism}: {listed}");
    }
}

/// Kafka's own tool, since the tests' client is built without OpenSSL.
fn list_topics_over_tls(kafka: &Kafka, mechanism: &str) -> String {
    let (name, password) = kafka::USER;
    let modules = "org.apache.kafka.common.security";
    let login = match mechanism {
        "PLAIN" => format!("{modules}.plain.PlainLoginModule required username=\"{name}\" password=\"{password}\";"),
        "OAUTHBEARER" => format!("{modules}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"{name}\";"),
        _ => format!("{modules}.scram.ScramLoginModule required username=\"{name}\" password=\"{password}\";"),
    };
    let path = crate::support::place::folder("tls-client").join("client.properties");
    let mut file = std::fs::File::create(&path).unwrap();
    let ca = Certificates::shared().ca();
    write!(file, "security.protocol=SASL_SSL\nsasl.mechanism={mechanism}\nsasl.jaas.config={login}\n").unwrap();
    write!(file, "ssl.truststore.type=PEM\nssl.truststore.location={}\n", ca.display()).unwrap();
    let mut tool = kafka::java(200);
    tool.args(["org.apache.kafka.tools.TopicCommand", "--list", "--bootstrap-server", &kafka.secure_brokers("SASL_SSL")]);
    process::run({
        tool.arg("--command-config").arg(&path);
        tool
    })
}
