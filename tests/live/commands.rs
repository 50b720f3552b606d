//! The commands on real servers: what they do, and the JSON that scripts rely on.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::history;
use crate::stage::{Mark, Stage, answer, status};
use crate::support::{DaemonOptions, Kafka, Postgres, PostgresOptions, Version, eventually};

const SOON: Duration = Duration::from_secs(30);

fn stage(name: &str) -> Stage<'static> {
    Stage::new(name, Mark::Row, Postgres::shared(Version::V18), Kafka::shared())
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What differs from run to run is masked: numbers, the name of the outbox, identities.
fn masked(value: Value, name: &str) -> Value {
    match value {
        Value::Number(_) => "NUMBER".into(),
        Value::String(text) if uuid::Uuid::parse_str(&text).is_ok() => "ID".into(),
        Value::String(text) => text.replace(name, "NAME").into(),
        Value::Array(values) => values.into_iter().map(|value| masked(value, name)).collect(),
        Value::Object(values) => values.into_iter().map(|(key, value)| (key, masked(value, name))).collect(),
        Value::Null | Value::Bool(_) => value,
    }
}

/// Compares with the file of that name under `tests/live/snapshots`; with OUTBOXD_TEST_BLESS writes it.
#[track_caller]
fn assert_snapshot(file: &str, value: Value, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/snapshots").join(file);
    let text = format!("{}\n", serde_json::to_string_pretty(&masked(value, name)).unwrap());
    if std::env::var_os("OUTBOXD_TEST_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; write it anew with OUTBOXD_TEST_BLESS=1 and look at the difference", path.display());
}

#[test]
fn an_event_that_is_sent_is_published_and_its_place_is_told() {
    let stage = stage("sending");
    let (topic, writer) = (format!("{}-of-3", stage.name), stage.options.of_role("shop"));
    let send = ["send", "--topic", &topic, "--key", "k", "--type", "Placed", "{\"a\":  1}"];
    assert_snapshot("status-idle.json", status(&stage.options), &stage.name);
    let sent = json(&answer(&writer, &[&send[..], &["--json"]].concat()));
    let id = sent["id"].as_str().unwrap().to_owned();
    assert_snapshot("send.json", sent, &stage.name);
    let (code, stdout, stderr) = writer.run_command(&[&send[..], &["--wait", "--timeout", "1s"]].concat());
    assert!(code == 75 && stderr.contains("was not published within 1s"), "{code} {stdout} {stderr}");
    assert_eq!(stage.pending(), 2, "in the table nevertheless");
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    eventually("both are marked", SOON, || stage.pending() == 0);
    let sent = json(&answer(&writer, &[&send[..], &["--wait", "--json"]].concat()));
    let text = answer(&writer, &[&send[..], &["--wait"]].concat());
    let seen = history::read(stage.kafka, &topic, 3);
    let header = |i: usize| String::from_utf8(seen[i].headers[0].1.clone().unwrap()).unwrap();
    assert_eq!((seen.len(), header(0), &seen[0].payload), (4, id, &Some(b"{\"a\":  1}".to_vec())));
    let place = &sent["published"];
    assert_eq!((&place["topic"], sent["id"].as_str()), (&topic.clone().into(), Some(&*header(2))));
    assert_eq!((place["partition"].as_i64(), place["offset"].as_i64()), (Some(seen[2].partition.into()), Some(seen[2].offset)));
    let said = format!("{} {topic}[{}]@{} after ", header(3), seen[3].partition, seen[3].offset);
    assert!(text.starts_with(&said), "{text}, expected {said}");
    assert_snapshot("send-wait.json", sent, &stage.name);
    eventually("all are marked", SOON, || stage.pending() == 0);
    assert_snapshot("status-relaying.json", status(&stage.options), &stage.name);
}

#[test]
fn a_plan_is_done_by_migrate_and_then_nothing_is_left() {
    let (postgres, kafka) = (Postgres::shared(Version::V15), Kafka::shared());
    let (database, name) = (postgres.create_database("planned"), kafka.unique_topic("planned"));
    let options = DaemonOptions::new(&name, &postgres.url(&database, "outboxd"), &kafka.brokers());
    let (topic, journal) = (format!("{name}-events"), format!("outboxd.{name}.journal"));
    let topics = format!("{topic}:3");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let plan = answer(&options, &["migrate", "--plan", "--topics", &topics]);
    for step in [
        "-- 0001 outbox\n",
        "CREATE TABLE ",
        &format!("-- outbox {name}\n"),
        &format!("-- Kafka topic {journal}: would be created, "),
    ] {
        assert!(plan.contains(step), "{step} is not in the plan: {plan}");
    }
    assert!(plan.contains(&format!("-- Kafka topic {topic}: would be created, partitions=3 ")), "{plan}");
    assert_eq!(postgres.sql(&database, tables), "0", "a plan does nothing");
    assert!(!kafka.topics().iter().any(|found| [&topic, &journal].contains(&found)), "a plan creates no topic");
    let done = answer(&options, &["migrate", "--topics", &topics]);
    for step in ["done: 0001 outbox\n", &format!("done: outbox {name}\n"), &format!("done: Kafka topic {topic}, partitions=3 ")] {
        assert!(done.contains(step), "{step} was not done: {done}");
    }
    assert!(kafka.topics().contains(&topic) && kafka.topics().contains(&journal));
    assert_eq!(answer(&options, &["migrate", "--topics", &topics]), "nothing to do\n");
    assert_eq!(answer(&options, &["migrate", "--plan", "--topics", &topics]), "-- nothing to do\n");
    let grown = answer(&options, &["migrate", "--plan", "--topics", &format!("{topic}:4")]);
    assert!(grown.contains(&format!("-- Kafka topic {topic}: partitions is 3, should be 4")), "{grown}");
}

#[test]
fn roles_are_printed_and_on_request_granted() {
    let postgres = Postgres::start(Version::V15, PostgresOptions::default());
    postgres.sql("postgres", "CREATE ROLE clerk LOGIN; CREATE ROLE porter LOGIN");
    let stage = Stage::new("roles", Mark::Row, &postgres, Kafka::shared());
    let of = |role: &str| stage.options.clone().set("database.url", &postgres.url(&stage.database, role));
    let send = ["send", "--topic", "t", "{}"];
    let roles = ["migrate", "--roles", "--writer", "clerk", "--relay", "porter"];
    let printed = answer(&of("postgres"), &roles);
    assert!(printed.contains("INSERT") && printed.contains("\"clerk\"") && printed.contains("\"porter\""), "{printed}");
    let (code, _, stderr) = of("clerk").run_command(&send);
    assert!(code == 77 && stderr.contains("OBX203"), "printing grants nothing: {code} {stderr}");
    assert_eq!(answer(&of("postgres"), &[&roles[..], &["--apply"]].concat()), printed);
    answer(&of("clerk"), &send);
    let (code, _, stderr) = of("clerk").run_command(&["status"]);
    assert_eq!(code, 77, "a writer may not look: {stderr}");
    postgres.sql(&stage.database, "DELETE FROM outbox");
    let relay = of("porter").argument("--once").start();
    assert_eq!(relay.wait_exit(SOON), 0, "{}", relay.log());
    postgres.sql(&stage.database, &printed);
}

#[test]
fn the_delivery_is_changed_by_migrate_and_back() {
    let stage = stage("changing");
    let topic = format!("{}-of-1", stage.name);
    let lesser = stage.options.clone().set("kafka.delivery", "at_least_once");
    let once = |options: &DaemonOptions| {
        let daemon = options.clone().argument("--once").start();
        (daemon.wait_exit(SOON), daemon.log())
    };
    let relays = |options: &DaemonOptions| {
        answer(&options.of_role("shop"), &["send", "--topic", &topic, "{}"]);
        let (code, log) = once(options);
        assert_eq!((code, stage.pending()), (0, 0), "{log}");
    };
    relays(&stage.options);
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    let (code, _, stderr) = lesser.run_command(&["migrate"]);
    assert!(code == 75 && stderr.contains("is being relayed. Stop its relay"), "{code} {stderr}");
    daemon.sigterm();
    assert_eq!(daemon.wait_exit(SOON), 0);
    let (code, log) = once(&lesser);
    assert_eq!(code, 78, "{log}");
    let remedies = log.lines().find(|line| line.contains("OBX204")).map(|line| line.matches("outboxd migrate").count());
    assert_eq!(remedies, Some(1), "the remedy is told once: {log}");
    for (options, now, was) in [(&lesser, "at_least_once", "exactly_once"), (&stage.options, "exactly_once", "at_least_once")] {
        let said = answer(options, &["migrate"]);
        assert!(said.contains(&format!("done: delivery is {now} now, it was {was}\n")), "{said}");
        assert_eq!(status(options)["delivery"], now);
        assert_eq!(answer(options, &["migrate"]), "nothing to do\n");
        relays(options);
    }
    assert_eq!(history::read(stage.kafka, &topic, 1).len(), 3, "nothing came twice without a crash");
}

#[test]
fn a_healthcheck_answers_as_the_relay_is() {
    let stage = stage("healthy");
    let listen = format!("127.0.0.1:{}", crate::support::place::free_port());
    let options = stage.options.clone().set("http.listen", &listen);
    let daemon = options.clone().set("relay.instance", "one").start();
    daemon.wait_log("claimed");
    for arguments in [&["healthcheck"][..], &["healthcheck", "--strict"]] {
        assert_eq!(answer(&options, arguments), "ready\n");
        assert_snapshot("healthcheck-ready.json", json(&answer(&options, &[arguments, &["--json"]].concat())), &stage.name);
    }
    stage.postgres.sql(&stage.database, "UPDATE outboxd_state SET accepted_addresses = '{elsewhere}'");
    daemon.sigkill();
    let daemon = options.clone().set("relay.instance", "one").start();
    daemon.wait_log("\"halted\"");
    answer(&options, &["healthcheck"]);
    let (code, stdout, _) = options.run_command(&["healthcheck", "--strict", "--json"]);
    assert_eq!(code, 3, "{stdout}");
    assert_snapshot("healthcheck-halted.json", json(&stdout), &stage.name);
    let mut halted = status(&options);
    let evidence = halted["halted"]["evidence"].take();
    assert!(evidence.as_str().is_some_and(|text| text.contains("elsewhere")), "{evidence}");
    assert_snapshot("status-halted.json", halted, &stage.name);
}
