//! Each finding by the facts that lead to it, and the promises by the findings. No servers.

mod cases;
mod files;

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::config::{
    Brokers, Column, Columns, DatabaseTls, Host, Mark, OnPoison, Order, Retention, Security, TopicPattern, TopicPatterns,
};
use crate::fault::{EXIT_UNREACHABLE, Halt, HaltCode};
use crate::journal::DatabaseIdentity;
use crate::sink::kafka::{Operation, TopicFacts, TopicState};
use crate::source::Pin;
use crate::source::postgres::{
    Acceptance, Activity, Aside, Covers, Fit, Index, Obstacle, OpenWriter, Outbox, Policy, Right, Row, Sequence, ServerFacts,
    Shape, TopicInUse,
};
use cases::{DATABASE, KAFKA, Plant, REFUSED, UNREACHABLE, WARNING, obstacle};

const JOURNAL: &str = "outboxd.shop.journal";

fn config() -> Config {
    let mut config = Config::default();
    config.outbox.name = "shop".into();
    config
}

fn server() -> ServerFacts {
    ServerFacts {
        version: 180_001,
        in_recovery: false,
        read_only: false,
        fsync: true,
        full_page_writes: true,
        synchronous_commit: "on".into(),
        autovacuum: true,
        ahead_us: -200_000,
    }
}

/// A sound one; unique where it is that of a primary key.
fn index(name: &str, covers: Covers) -> Index {
    Index { name: name.into(), valid: true, unique: covers == Covers::All, covers }
}

fn shape() -> Shape {
    Shape {
        kind: "r".into(),
        logged: true,
        inherits: false,
        subscribed: false,
        autovacuum_off: false,
        always: true,
        sequence: Some(Sequence { increment: 1, cache: 1, cycles: false }),
        triggers: Vec::new(),
        rules: Vec::new(),
        policies: None,
        indexes: vec![index("outbox_pkey", Covers::All), index("outbox_unsent", Covers::Unsent)],
        create_unique: "CREATE UNIQUE INDEX;".into(),
        create_unsent: Some("CREATE INDEX;".into()),
    }
}

fn outbox() -> Outbox {
    let (address, system) = ("127.0.0.1:5432/shop".to_owned(), "1".to_owned());
    Outbox {
        table: "public.outbox".into(),
        view: "\"public\".\"outbox_pending\"".into(),
        schema: Ok(()),
        fit: Ok(Fit { payload_is_jsonb: false, allows_cursor: true }),
        rights: Ok(vec![Right { what: "SELECT on outbox".into(), had: true }]),
        shape: Ok(shape()),
        activity: Ok(Activity { inserted: 5_000, updated: 5_000, deleted: 4_900, seconds: Some(1_000.0), applied: 9 }),
        writers: Ok(Vec::new()),
        row: Ok(Some(Row {
            table: "outbox".into(),
            delivery: "exactly_once".into(),
            halted: None,
            paused: None,
            owner: Some("one".into()),
            pins: [("orders".to_owned(), Pin { id: Some("old".into()), ..Pin::of(3) })].into(),
        })),
        acceptance: Ok(Acceptance {
            address: address.clone(),
            database: DatabaseIdentity { system: system.clone(), timeline: 1 },
            addresses: vec![address],
            systems: vec![system],
        }),
        aside: Ok(Aside { parked: 0, held: Vec::new() }),
        neighbours: Ok(Vec::new()),
        topics: Ok(Vec::new()),
    }
}

fn postgres(server: ServerFacts, outbox: Result<Outbox, Fault>) -> Checkup {
    Checkup::Postgres(Box::new(crate::source::postgres::Checkup { server, outbox }))
}

fn topic(name: &str, partitions: i32) -> TopicFacts {
    let settings = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("max.message.bytes", "1048588"),
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "false"),
        ("message.timestamp.type", "CreateTime"),
        ("message.timestamp.before.max.ms", "9223372036854775807"),
        ("message.timestamp.after.max.ms", "3600000"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let rights = [Operation::Read, Operation::Write, Operation::Describe, Operation::Delete].into();
    let state = TopicState { name: name.into(), partitions, replicas: 3, settings, id: None };
    TopicFacts { name: name.into(), state: Some(state), rights: Some(rights), hidden: false }
}

fn cluster() -> ClusterFacts {
    let settings = [
        ("transaction.max.timeout.ms", "900000"),
        ("transaction.state.log.replication.factor", "3"),
        ("transaction.state.log.min.isr", "2"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    ClusterFacts { brokers: 3, settings, topics: vec![topic("orders", 3), topic(JOURNAL, 1)], transactions: Some(Ok(())) }
}

/// All that can be looked at, and the configuration.
struct World {
    config: Config,
    server: ServerFacts,
    outbox: Outbox,
    cluster: ClusterFacts,
    agreement: Result<(), Fault>,
}

impl World {
    fn sound() -> World {
        World { config: config(), server: server(), outbox: outbox(), cluster: cluster(), agreement: Ok(()) }
    }

    fn shape(&mut self) -> &mut Shape {
        self.outbox.shape.as_mut().expect("the shape is known")
    }

    fn row(&mut self) -> &mut Row {
        self.outbox.row.as_mut().expect("the row is known").as_mut().expect("there is a row")
    }

    fn pin(&mut self) -> &mut Pin {
        self.row().pins.get_mut("orders").expect("it is pinned")
    }

    fn set(&mut self, topic: &str, setting: &str, value: &str) {
        self.state(topic).settings.insert(setting.into(), value.into());
    }

    fn state(&mut self, topic: &str) -> &mut TopicState {
        self.topic(topic).state.as_mut().expect("the topic is there")
    }

    fn topic(&mut self, topic: &str) -> &mut TopicFacts {
        self.cluster.topics.iter_mut().find(|found| found.name == topic).expect("the topic is known")
    }

    fn report(self) -> Report {
        let settings = vec![("max.message.bytes", "1048588".to_owned())];
        let plan = TopicPlan { name: JOURNAL.into(), partitions: 1, replicas: 3, settings };
        let seen = Seen {
            database: Some(Ok(postgres(self.server, Ok(self.outbox)))),
            cluster: Some(Ok(self.cluster)),
            journal: Some(plan),
            agreement: Some(self.agreement),
        };
        Report::new(&self.config, &seen)
    }
}

fn not_ok(report: &Report) -> Vec<(Name, State)> {
    let findings = report.findings.iter().filter(|finding| finding.state != State::Ok);
    findings.map(|finding| (finding.name, finding.state)).collect()
}

fn verdict(report: &Report, promise: Promise) -> Verdict {
    report.guarantees.iter().find(|found| found.promise == promise).expect("each promise is judged").verdict
}

#[test]
fn all_is_ok_and_every_promise_holds_when_nothing_is_wrong() {
    let report = World::sound().report();
    assert_eq!(not_ok(&report), []);
    assert_eq!(report.exit_code(), 0);
    assert!(report.guarantees.iter().all(|guarantee| guarantee.verdict == Verdict::Holds && guarantee.because.is_empty()));
    let told: BTreeSet<Name> = report.findings.iter().map(|finding| finding.name).collect();
    assert_eq!(told, Name::ALL.iter().copied().filter(|name| name.is_of(Kind::Server)).collect(), "every name is told");
    assert!(report.findings.iter().all(|finding| finding.remedy.is_none()), "nothing is to be done where all is well");
}

#[test]
fn each_fault_is_named_and_nothing_else_is() {
    for (place, (plant, expected)) in DATABASE.iter().chain(KAFKA).enumerate() {
        let mut world = World::sound();
        plant(&mut world);
        let report = world.report();
        assert_eq!(not_ok(&report), **expected, "case {place}");
        for finding in report.findings.iter().filter(|finding| finding.state != State::Ok) {
            assert!(finding.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "{finding:?} has no remedy");
        }
        let worst = expected.iter().map(|(_, state)| if let State::Failed(code) = state { *code } else { 0 }).max();
        assert_eq!(report.exit_code(), worst.unwrap_or(0), "case {place}");
    }
}

#[test]
fn promises_fall_with_what_they_rest_on() {
    use Promise::{CopiesDetected, ExactlyOnce, NoLoss, OrderPerKey, WritersNeverWait};
    use Verdict::{DoesNotHold, Holds, HoldsIf};
    let cases: [(Plant, [Verdict; 5]); 9] = [
        (|w| w.server.fsync = false, [DoesNotHold, Holds, DoesNotHold, Holds, Holds]),
        (|w| w.config.outbox.order = Order::None, [Holds, DoesNotHold, Holds, Holds, Holds]),
        (|w| w.shape().policies = Some(Vec::new()), [HoldsIf, Holds, DoesNotHold, Holds, Holds]),
        (|w| w.shape().triggers = vec![obstacle()], [HoldsIf, Holds, HoldsIf, HoldsIf, Holds]),
        (|w| w.outbox.acceptance.as_mut().expect("known").systems.clear(), [HoldsIf, Holds, Holds, Holds, DoesNotHold]),
        (|w| w.state("orders").partitions = 4, [Holds, HoldsIf, Holds, Holds, Holds]),
        (|w| w.pin().truncated = Some("lost".into()), [Holds, Holds, DoesNotHold, Holds, Holds]),
        (|w| w.state("orders").id = Some("new".into()), [Holds, Holds, HoldsIf, Holds, Holds]),
        (|w| w.topic(JOURNAL).rights = None, [HoldsIf, Holds, Holds, Holds, Holds]),
    ];
    for (place, (plant, expected)) in cases.into_iter().enumerate() {
        let mut world = World::sound();
        plant(&mut world);
        let report = world.report();
        let found = [ExactlyOnce, OrderPerKey, NoLoss, WritersNeverWait, CopiesDetected].map(|promise| verdict(&report, promise));
        assert_eq!(found, expected, "case {place}");
    }
}

#[test]
fn at_least_once_gives_up_two_promises_and_misses_no_journal() {
    let mut world = World::sound();
    world.config.kafka.delivery = Delivery::AtLeastOnce;
    world.row().delivery = "at_least_once".into();
    let report = world.report();
    assert_eq!(not_ok(&report), [(Name::Delivery, WARNING)]);
    assert!(!report.findings.iter().any(|finding| finding.name.needs_journal()));
    let found = Promise::ALL.map(|promise| verdict(&report, promise));
    assert_eq!(found, [Verdict::DoesNotHold, Verdict::DoesNotHold, Verdict::Holds, Verdict::Holds, Verdict::HoldsIf]);
}

#[test]
fn what_was_not_looked_at_is_not_promised() {
    let report = Report::new(&config(), &Seen::default());
    assert!(report.findings.iter().all(|finding| finding.name.part() == Part::Configuration), "{:?}", report.findings);
    assert_eq!((not_ok(&report), report.exit_code()), (vec![], 0));
    for guarantee in &report.guarantees {
        assert_eq!(guarantee.verdict, Verdict::HoldsIf, "{guarantee:?}");
        assert!(guarantee.because.iter().all(|reason| reason.state == NOT_LOOKED));
    }
}

#[test]
fn a_server_that_does_not_answer_is_one_finding_with_its_exit_code() {
    let refused = Fault::Refused { detail: "no such role".into(), remedy: "correct it".into() };
    let seen = |database, cluster| Seen { database: Some(Err(database)), cluster: Some(Err(cluster)), ..Seen::default() };
    for (database, cluster, expected) in [
        (Fault::database("connection", ""), Fault::kafka("unreachable", ""), [UNREACHABLE, UNREACHABLE]),
        (refused, Fault::kafka("authentication", ""), [REFUSED, REFUSED]),
    ] {
        let report = Report::new(&config(), &seen(database, cluster));
        assert_eq!(not_ok(&report), [(Name::DatabaseReachable, expected[0]), (Name::KafkaReachable, expected[1])]);
    }
}

fn refused() -> Fault {
    Fault::Refused { detail: "permission denied".into(), remedy: "grant".into() }
}

#[test]
fn a_schema_that_may_not_be_used_fails_as_it_does_for_the_relay() {
    for (fault, exit) in [(refused(), EXIT_REFUSED), (Fault::Standby, 0)] {
        let checkup = postgres(server(), Err(fault));
        let report = Report::new(&config(), &Seen { database: Some(Ok(checkup)), ..Seen::default() });
        assert_eq!(not_ok(&report)[0].0, Name::Table);
        assert_eq!(report.exit_code(), exit, "a standby is told of where the server is: {report:?}");
    }
}

#[test]
fn a_missing_right_is_no_failure_of_what_it_hides() {
    let mut world = World::sound();
    world.outbox.row = Err(refused());
    world.outbox.aside = Err(refused());
    world.outbox.shape = Err(refused());
    let report = world.report();
    assert_eq!(report.exit_code(), 0, "{:?}", not_ok(&report));
    assert!(not_ok(&report).iter().all(|(_, state)| *state == State::Unseen) && not_ok(&report).len() > 6);
    assert_eq!(verdict(&report, Promise::NoLoss), Verdict::HoldsIf);
}

#[test]
fn far_hosts_are_told_from_near_ones() {
    let with = |host: &str, tls, brokers: &str, security| {
        let mut config = config();
        config.database.url.address.host = Host::Name(host.into());
        (config.database.tls, config.kafka.security) = (tls, security);
        config.kafka.brokers = Brokers(vec!["localhost:9092".into(), brokers.into()]);
        not_ok(&Report::new(&config, &Seen::default())).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let (near, far) = ("::1", "db.example");
    assert_eq!(with(near, DatabaseTls::Prefer, "[::1]:9092", Security::Plaintext), []);
    assert_eq!(with(far, DatabaseTls::Prefer, "k.example:9092", Security::SaslPlaintext), [Name::DatabaseTls, Name::KafkaTls]);
    assert_eq!(with(far, DatabaseTls::Require, "k.example:9092", Security::Ssl), []);
}

#[test]
fn topics_are_those_published_to_waiting_or_named() {
    let mut world = World::sound();
    world.config.kafka.allow_topics = TopicPatterns(["orders", "wait*", "later", "__x"].map(str::to_owned).into());
    world.outbox.topics = Ok(["waiting", "forbidden"].map(|topic| TopicInUse { topic: topic.into(), without_key: true }).into());
    let checkup = postgres(world.server, Ok(world.outbox));
    let found = wanted(&world.config, Some(&checkup));
    let partitions = |topic: &Wanted| topic.pinned.as_ref().map(|pin| pin.partitions);
    let shown = |topic: &Wanted| (topic.name.clone(), partitions(topic), topic.in_use, topic.without_key);
    let expected = [("orders", Some(3), true, false), ("waiting", None, true, true), ("later", None, false, false)];
    let expected = expected.map(|(name, partitions, in_use, without_key)| (name.to_owned(), partitions, in_use, without_key));
    assert_eq!(found.topics.iter().map(shown).collect::<Vec<_>>(), expected, "those in use come first");
    assert_eq!(found.left_out, 0);
}

#[test]
fn topics_that_are_left_out_are_told() {
    let mut world = World::sound();
    world.config.kafka.allow_topics = TopicPatterns((0..150).map(|n| format!("a{n}")).chain(["orders".into()]).collect());
    let checkup = postgres(server(), Ok(world.outbox.clone()));
    let found = wanted(&world.config, Some(&checkup));
    assert_eq!((found.topics.len(), found.left_out, found.topics[0].name.as_str()), (100, 51, "orders"));
    assert_eq!(not_ok(&world.report()), [(Name::Topics, State::Unseen)]);
}

#[test]
fn a_held_topic_is_accepted_only_where_it_is_another_one() {
    let remedy = |held: &[(&str, &str)]| {
        let mut world = World::sound();
        let held = held.iter().map(|(topic, code)| ((*topic).to_owned(), (*code).to_owned())).collect();
        world.outbox.aside = Ok(Aside { parked: 0, held });
        let report = world.report();
        report.findings.into_iter().find(|finding| finding.name == Name::Held).and_then(|finding| finding.remedy).expect("one")
    };
    let (gone, anew, less) = (("a", "topic_missing"), ("b", "topic_recreated"), ("c", "topic_shrunk"));
    assert!(remedy(&[gone]).starts_with("Create") && !remedy(&[gone]).contains("repin"));
    assert!(
        remedy(&[anew, less]).ends_with("`outboxd repin b --reason …`, `outboxd repin c --reason …`"),
        "{}",
        remedy(&[anew, less])
    );
    assert!(remedy(&[gone, anew]).contains("`outboxd repin b --reason …`. The others: create"), "{}", remedy(&[gone, anew]));
}

#[test]
fn commands_are_told_the_topic_of_the_rows() {
    let remedy = |partitions: Option<i32>| {
        let mut world = World::sound();
        world.config.kafka.topic = TopicPattern { prefix: "live.".into(), suffix: String::new() };
        world.cluster.topics.push(topic("live.orders", partitions.unwrap_or_default()));
        if partitions.is_none() {
            world.topic("live.orders").state = None;
        }
        let report = world.report();
        let finding = report.findings.into_iter().find(|finding| finding.name.is_by_topic() && finding.remedy.is_some());
        let finding = finding.expect("something is wrong");
        assert_eq!(finding.about.as_deref(), Some("live.orders"), "it is told of by its name in Kafka");
        finding.remedy.unwrap_or_default()
    };
    assert_eq!(remedy(None), "Create it: outboxd migrate --topics orders:PARTITIONS");
    for partitions in [2, 4] {
        assert!(remedy(Some(partitions)).contains("outboxd repin orders --reason …"), "{}", remedy(Some(partitions)));
    }
}

#[test]
fn the_journal_grows_as_the_table_did() {
    let told = |inserted| {
        let mut world = World::sound();
        world.outbox.activity = Ok(Activity { inserted, updated: inserted, deleted: 0, seconds: Some(1_000.0), applied: 1 });
        let report = world.report();
        report.findings.iter().find(|finding| finding.name == Name::JournalGrowth).expect("it is told").found.clone()
    };
    assert!(told(50_000).starts_with("at 50.0 events a second (the table's rate so far) about 57.7 MiB a day"), "{}", told(50_000));
    assert!(told(10).starts_with("at 1000.0 events a second (an example) about 1.1 GiB a day"), "{}", told(10));
}

#[test]
fn the_text_has_a_line_for_each_finding_and_the_json_has_the_same() {
    let mut world = World::sound();
    world.server.fsync = false;
    world.row().halted = Some(("old-primary".into(), "a\n  ok   fake".into()));
    let report = world.report();
    let (text, json) = (report.text(), report.json());
    assert!(text.contains("  failed          fsync                 off: a crash"), "{text}");
    assert!(text.contains("because of: fsync\n") && text.contains("it is halted, old-primary: a ok fake"), "{text}");
    let lines = text.lines().filter(|line| line.starts_with("  ok  ") || line.starts_with("  failed  ")).count();
    assert_eq!(lines, report.findings.len(), "{text}");
    let finding = json["findings"].as_array().expect("a list").iter().find(|finding| finding["name"] == "fsync").expect("told");
    assert_eq!(
        (&finding["part"], &finding["state"], &finding["about"]),
        (&"database".into(), &"failed".into(), &serde_json::Value::Null)
    );
    assert_eq!((json["exit_code"].as_u64(), json["outbox"].as_str()), (Some(1), Some("shop")));
    let verdict = &json["guarantees"][0];
    assert_eq!((&verdict["name"], &verdict["verdict"]), (&"exactly-once".into(), &"does_not_hold".into()));
    assert_eq!(verdict["because"][0], serde_json::json!({ "finding": "fsync", "state": "failed", "verdict": "does_not_hold" }));
}
