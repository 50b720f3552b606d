//! The real binary on a file: what a person is told when it starts beside a Kafka that is down, and when it leaves.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::SystemTime;

use outboxd::demo::Broker;
use serde_json::Value;

use super::*;

/// A process that does not outlive a test that fails.
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn outboxd(world: &World, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    let database = format!("database.url=sqlite://{}", world.file().display());
    command.env_clear().env("OUTBOXD_CONFIG", "/dev/null").arg("run");
    for setting in ["outbox.name=test", "http.listen=off", "log.format=json", &database].iter().chain(settings) {
        command.args(["--set", *setting]);
    }
    command.stdin(Stdio::null());
    command
}

/// When a log line was written.
fn moment(line: &Value) -> SystemTime {
    humantime::parse_rfc3339(line["timestamp"].as_str().expect("a line has a time")).expect("in the usual form")
}

/// Librdkafka would go on asking for 10 s, and the relay would try a second time before it told anything.
#[tokio::test]
async fn a_kafka_that_is_down_from_the_start_is_told_within_seconds() {
    let world = World::fresh(Setup::default()).await;
    let mut command = outboxd(&world, &["kafka.brokers=127.0.0.1:1"]);
    let mut relay = Relay(command.stderr(Stdio::piped()).spawn().expect("started"));
    let lines = BufReader::new(relay.0.stderr.take().expect("piped")).lines();
    let mut begun = None;
    for line in lines {
        let line: Value = serde_json::from_str(&line.expect("text")).expect("the log is JSON");
        if line["message"] == "lease taken" {
            begun = Some(moment(&line));
        }
        if line["error"] == "OBX301" {
            assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"backing off".into()));
            assert_eq!(line["remedy"], "Are the brokers up, and kafka.brokers right?");
            let took = moment(&line).duration_since(begun.expect("the lease comes first")).expect("one clock");
            assert!(took < Duration::from_secs(9), "an operator waits for {took:?}");
            return;
        }
    }
    panic!("it left without a word");
}

/// The last line of a run until drained, and its exit code.
fn drained(world: &World, brokers: &str) -> (Option<i32>, Value) {
    let settings = [&format!("kafka.brokers={brokers}"), "kafka.delivery=at_least_once"];
    let Output { status, stderr, .. } = outboxd(world, &settings).arg("--once").output().expect("started");
    let log = String::from_utf8(stderr).expect("text");
    let line = log.lines().last().unwrap_or_default();
    (status.code(), serde_json::from_str(line).unwrap_or_else(|_| panic!("{log}")))
}

#[tokio::test]
async fn a_run_until_drained_tells_what_is_left_and_says_no_then() {
    let world = World::fresh(Setup { at_least_once: true, ..Setup::default() }).await;
    let broker = Broker::start().expect("a broker with the topic orders");
    world.sql("INSERT INTO outbox (topic, key, payload) VALUES ('orders', 'a', '1')").await;
    let (code, line) = drained(&world, broker.address());
    assert_eq!((code, line["message"].as_str()), (Some(0), Some("drained: nothing is left")), "{line}");
    world
        .sql("INSERT INTO outbox (topic, key, payload, headers) VALUES ('orders', 'a', '2', '[1]'), ('orders', 'a', '3', NULL)")
        .await;
    let (code, line) = drained(&world, broker.address());
    assert_eq!((code, line["message"].as_str()), (Some(3), Some("drained, but this is left")), "{line}");
    assert_eq!(["parked", "behind_these", "exit_code"].map(|field| line[field].as_u64()), [1, 1, 3].map(Some), "{line}");
    world.sql("DELETE FROM outbox WHERE headers IS NOT NULL").await;
    let (code, line) = drained(&world, broker.address());
    assert_eq!((code, line["message"].as_str()), (Some(0), Some("drained: nothing is left")), "{line}");
    assert!(world.unsent().await.is_empty());
}
