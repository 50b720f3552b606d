//! `check` on real servers: a healthy outbox with a living relay, and outboxes with every fault planted that it knows.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use outboxd::check::{Kind, Name};
use serde_json::Value;

use crate::stage::{Mark, Stage, status};
use crate::support::clock::Clock;
use crate::support::kafka::{KafkaOptions, USER, java};
use crate::support::{DaemonOptions, Kafka, Postgres, PostgresOptions, Version, eventually, eventually_get, process};

const SOON: Duration = Duration::from_secs(30);

/// What is never wrong, what another test plants (`tests/quick/cli.rs`, and rights the one below), and what takes an older server.
const NOT_PLANTED: [Name; 10] = [
    Name::Owner,
    Name::Neighbours,
    Name::JournalGrowth,
    Name::Configuration,
    Name::DatabaseReachable,
    Name::KafkaReachable,
    Name::JournalRights,
    Name::JournalTrim,
    Name::TopicRights,
    Name::DatabaseVersion,
];

/// Servers as they should be: everything safely written, three brokers, and an authoriser for whoever comes over SASL.
fn good_servers() -> &'static (Postgres, Kafka) {
    static SERVERS: OnceLock<(Postgres, Kafka)> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let settings = vec![("fsync", "on")];
        let authoriser = ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
        let limits = [("super.users", "User:ANONYMOUS"), ("transaction.max.timeout.ms", "60000")];
        let settings_of_kafka = [&[authoriser][..], &limits].concat();
        let kafka = KafkaOptions { secure: true, settings: settings_of_kafka, ..KafkaOptions::default() };
        (Postgres::start(Version::V15, PostgresOptions { settings, ..PostgresOptions::default() }), Kafka::start_three(kafka))
    })
}

/// The report, and the exit code.
pub struct Checked {
    pub code: i32,
    json: Value,
}

impl Checked {
    #[track_caller]
    pub fn of(options: &DaemonOptions) -> Checked {
        Checked::by(options, &["check", "--json"])
    }

    #[track_caller]
    fn by(options: &DaemonOptions, command: &[&str]) -> Checked {
        let (code, stdout, stderr) = options.run_command(command);
        let json: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {code} {stdout}{stderr}"));
        assert_eq!(json["exit_code"], code, "{json}");
        Checked { code, json }
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.json["findings"].as_array().expect("findings are listed").iter()
    }

    /// Names of the findings in this state, with what they are about.
    pub fn titles(&self, state: &str) -> BTreeSet<String> {
        let of_state = self.findings().filter(|finding| finding["state"] == state);
        let title = |finding: &Value| match finding["about"].as_str() {
            Some(about) => format!("{}({about})", finding["name"].as_str().unwrap()),
            None => finding["name"].as_str().unwrap().to_owned(),
        };
        of_state.map(title).collect()
    }

    fn names_not_ok(&self) -> BTreeSet<String> {
        // which topics to look at is never worse than unknown
        let is_not_ok =
            |finding: &Value| finding["state"] == "warning" || finding["state"] == "failed" || finding["name"] == "topics";
        let not_ok = self.findings().filter(|finding| finding["state"] != "ok" && is_not_ok(finding));
        not_ok.map(|finding| finding["name"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn expect(&self, state: &str, titles: &[&str]) {
        let found = self.titles(state);
        for title in titles {
            assert!(found.contains(*title), "{title} is not {state}: {}", self.shown());
        }
    }

    pub fn verdict(&self, promise: &str) -> &str {
        let guarantees = self.json["guarantees"].as_array().unwrap();
        guarantees.iter().find(|found| found["name"] == promise).unwrap()["verdict"].as_str().unwrap()
    }

    pub fn shown(&self) -> String {
        serde_json::to_string_pretty(&self.json).unwrap()
    }
}

#[test]
fn a_healthy_outbox_is_promised_everything_and_its_relay_is_not_disturbed() {
    let (postgres, kafka) = good_servers();
    let stage = Stage::new("sound", Mark::Row, postgres, kafka);
    let topic = format!("{}-of-3", stage.name);
    let publish = || {
        let (code, _, stderr) =
            stage.options.of_role("shop").run_command(&["send", "--topic", &topic, "--key", "k", "{}", "--wait"]);
        assert_eq!(code, 0, "{stderr}");
    };
    let daemon = stage.start("one");
    daemon.wait_log("claimed");
    publish();
    let before = (status(&stage.options), claims(&stage), postgres.sql(&stage.database, "SELECT claim FROM outboxd_state"));
    let checked = Checked::of(&stage.options);
    let not_ok: Vec<&Value> = checked.findings().filter(|finding| finding["state"] != "ok").collect();
    assert!(not_ok.is_empty() && checked.code == 0, "{not_ok:#?}");
    for promise in ["exactly-once", "order-per-key", "no-loss", "writers-never-wait", "copies-detected"] {
        assert_eq!(checked.verdict(promise), "holds", "{}", checked.shown());
    }
    let told: BTreeSet<&str> = checked.findings().map(|finding| finding["name"].as_str().unwrap()).collect();
    let known: BTreeSet<&str> = Name::ALL.iter().filter(|name| name.is_of(Kind::Server)).map(|name| name.as_str()).collect();
    assert_eq!(told, known, "each name is told of a healthy outbox");
    publish();
    let after = (status(&stage.options), claims(&stage), postgres.sql(&stage.database, "SELECT claim FROM outboxd_state"));
    assert_eq!(
        (&before.0["lease_epoch"], &before.1, &before.2),
        (&after.0["lease_epoch"], &after.1, &after.2),
        "nobody was fenced"
    );
    let log = daemon.log();
    assert!(!log.contains("OBX303") && log.matches("\"claimed\"").count() == 1, "{log}");
    let (code, text, _) = stage.options.run_command(&["check"]);
    assert!(
        code == 0
            && text.contains("\n  holds           exactly-once ")
            && text.ends_with(" 0 warning, 0 failed, 0 could not look\n"),
        "{text}"
    );
}

/// How often the relay has claimed, by its own metric.
fn claims(stage: &Stage<'_>) -> String {
    stage.postgres.sql(&stage.database, "SELECT lease_epoch, lease_start FROM outboxd_state")
}

#[test]
fn whoever_may_not_look_is_told_so_and_that_is_no_failure() {
    let (postgres, kafka) = good_servers();
    let stage = Stage::new("shut", Mark::Row, postgres, kafka);
    let topic = format!("{}-of-3", stage.name);
    let secured = stage
        .options
        .clone()
        .set("kafka.brokers", &kafka.secure_brokers("SASL_PLAINTEXT"))
        .set("kafka.security", "sasl_plaintext")
        .set("kafka.sasl_mechanism", "PLAIN")
        .set("kafka.username", USER.0)
        .set("kafka.password", USER.1)
        .set("kafka.allow_topics", &topic);
    let shut_out = Checked::of(&secured);
    assert_eq!(shut_out.code, 77, "{}", shut_out.shown());
    shut_out.expect("failed", &["journal", &format!("topic({topic})")]);
    shut_out.expect("could_not_look", &["transactions", "transaction-timeout", "transaction-log"]);
    let (journal, id) = (stage.journal(), format!("outboxd-{}", stage.name));
    let write = ["--operation", "Describe", "--operation", "Write"];
    allow(kafka, &[&write[..], &["--topic", &topic, "--topic", &journal, "--transactional-id", &id]].concat());
    allow(kafka, &["--operation", "Read", "--topic", &journal]);
    eventually("the brokers know the rights", SOON, || Checked::of(&secured).titles("failed").is_empty());
    let limited = Checked::of(&secured);
    assert_eq!(limited.code, 0, "{}", limited.shown());
    limited.expect("could_not_look", &["transactions", "journal-retention", "journal-in-sync", &format!("topic-cleanup({topic})")]);
    limited.expect("warning", &["journal-trim"]);
    limited.expect("ok", &["journal-rights", &format!("topic-rights({topic})"), "journal-agrees"]);
    assert_eq!(limited.verdict("exactly-once"), "holds_if");
    deny(kafka, &["--operation", "Write", "--topic", &topic, "--topic", &journal]);
    eventually("the brokers know the rights", SOON, || Checked::of(&secured).code == 77);
    Checked::of(&secured).expect("failed", &["journal-rights", &format!("topic-rights({topic})")]);
    let stranger = stage.options.clone().set("database.url", &postgres.url(&stage.database, "stranger"));
    postgres.sql("postgres", "CREATE ROLE stranger LOGIN");
    let (stranger, hidden) = (Checked::of(&stranger), stranger);
    stranger.expect("could_not_look", &["outbox", "halted", "parked", "held", "identity", "insert-and-delete"]);
    let rights = ["DELETE on \"public\".\"outbox\"", "SELECT on \"public\".\"outboxd_migrations\""];
    stranger.expect("failed", &rights.map(|right| format!("database-right({right})")).each_ref().map(String::as_str));
    let failed: BTreeSet<String> =
        stranger.titles("failed").into_iter().filter(|title| !title.starts_with("database-right(")).collect();
    assert!(stranger.code == 77 && failed == BTreeSet::from(["schema".into()]), "what the relay needs has failed: {failed:?}");
    postgres.sql(&stage.database, "REVOKE USAGE ON SCHEMA public FROM PUBLIC");
    let hidden = Checked::of(&hidden);
    hidden.expect("failed", &["table"]);
    assert_eq!(hidden.code, 77, "as `run` leaves: {}", hidden.shown());
}

fn allow(kafka: &Kafka, what: &[&str]) {
    change_rights(kafka, "--allow-principal", what);
}

fn deny(kafka: &Kafka, what: &[&str]) {
    change_rights(kafka, "--deny-principal", what);
}

fn change_rights(kafka: &Kafka, who: &str, what: &[&str]) {
    let mut command = java(128);
    command.args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &kafka.brokers(), "--add", who]);
    command.arg(format!("User:{}", USER.0)).args(what);
    process::run(command);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_that_can_be_planted_is_named() {
    let settings = vec![("full_page_writes", "off"), ("autovacuum", "off")];
    let postgres = Postgres::start(Version::V18, PostgresOptions { settings, ..PostgresOptions::default() });
    let mut named = BTreeSet::new();
    for round in [sick_table, sick_books] {
        named.extend(round(&postgres).names_not_ok());
    }
    named.extend(sick_topics(&postgres).await.names_not_ok());
    named.extend(sick_limits().names_not_ok());
    named.extend(sick_surroundings().names_not_ok());
    let known = Name::ALL.iter().filter(|name| name.is_of(Kind::Server) && !NOT_PLANTED.contains(name));
    let missed: Vec<String> = known.map(|name| name.as_str().to_owned()).filter(|name| !named.contains(name)).collect();
    assert!(missed.is_empty(), "planted and not named, or never planted: {missed:?}");
}

/// A configuration that gives up what can be given up, and servers far away; a clock that is wrong, and more topics than are looked at.
fn sick_surroundings() -> Checked {
    let stage = Stage::new("sick-clock", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    let far = stage.options.clone().set("database.url", "postgres://o@db.example/shop").set("kafka.brokers", "k.example:9092");
    let lesser = far.set("kafka.delivery", "at_least_once").set("outbox.order", "none");
    let lesser = lesser.set("outbox.columns", "{ sent_at = \"published_at\" }").set("outbox.retention", "24h");
    let configured = Checked::by(&lesser, &["check", "--json", "--offline"]);
    configured.expect("warning", &["delivery", "order", "retention", "database-tls", "kafka-tls"]);
    assert!(configured.code == 0 && configured.verdict("exactly-once") == "does_not_hold", "{}", configured.shown());
    let topics: Vec<String> = (0..101).map(|n| format!("{}-{n}", stage.name)).collect();
    let (clock, options) = Clock::for_daemon(stage.options.clone().set("kafka.allow_topics", &topics.join(",")));
    clock.set(3_660);
    let late = Checked::of(&options);
    late.expect("warning", &["clock"]);
    late.expect("could_not_look", &["topics"]);
    merged(vec![configured, late])
}

/// Everything wrong with server and table that can be so at once.
fn sick_table(postgres: &Postgres) -> Checked {
    let stage = Stage::new("sick-table", Mark::Row, postgres, Kafka::shared());
    postgres.sql(
        &stage.database,
        "INSERT INTO outbox (topic) SELECT 't' FROM generate_series(1, 20); DELETE FROM outbox; \
         DROP VIEW outbox_pending; ALTER TABLE outbox ALTER payload TYPE jsonb; ALTER TABLE outbox SET UNLOGGED; \
         CREATE TABLE offspring () INHERITS (outbox); ALTER SEQUENCE outbox_seq_seq CACHE 50; DROP INDEX outbox_unsent; \
         ALTER TABLE outbox DROP CONSTRAINT outbox_pkey; \
         CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER swallower BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION swallow(); \
         CREATE RULE nothing AS ON UPDATE TO outbox DO INSTEAD NOTHING; \
         ALTER TABLE outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    );
    postgres.sql("postgres", &format!("ALTER DATABASE {} SET synchronous_commit = off", stage.database));
    postgres.sql(&stage.database, "BEGIN; INSERT INTO outbox (topic) VALUES ('t'); PREPARE TRANSACTION 'forgotten'");
    fed_by_a_subscription(postgres, &stage.database);
    let options = stage.options.clone().set("outbox.on_poison", "park_event");
    let checked = eventually_get("the prepared transaction is a second old", SOON, || {
        Some(Checked::of(&options)).filter(|checked| checked.titles("warning").contains("open-transactions"))
    });
    assert_eq!(checked.code, 78, "the sequence asks for it: {}", checked.shown());
    checked.expect("failed", &["fsync", "table-logged", "sequence", "row-security"]);
    let warnings = ["full-page-writes", "synchronous-commit", "table-inheritance", "payload", "fetch-form", "triggers", "rules"];
    checked.expect("warning", &warnings);
    checked.expect("warning", &["table-subscription"]);
    checked.expect(
        "warning",
        &["unsent-index", "unique-numbers", "autovacuum", "insert-and-delete", "open-transactions", "poison", "brokers"],
    );
    checked.expect("warning", &["transaction-log", "journal-replicas", "journal-in-sync"]);
    for (promise, verdict) in [("no-loss", "does_not_hold"), ("exactly-once", "does_not_hold"), ("order-per-key", "holds_if")] {
        assert_eq!(checked.verdict(promise), verdict, "{promise}: {}", checked.shown());
    }
    let told = checked.json.to_string();
    for evidence in [
        "DROP VIEW \\\"public\\\".\\\"outbox_pending\\\"",
        "prepared transaction forgotten",
        ": swallower",
        ": nothing",
        "CACHE 50",
        "20 rows were inserted and 20 deleted",
    ] {
        assert!(told.contains(evidence), "{evidence}: {}", checked.shown());
    }
    postgres.sql(&stage.database, "ROLLBACK PREPARED 'forgotten'");
    checked
}

/// A subscription that may be set up and never runs.
fn fed_by_a_subscription(postgres: &Postgres, database: &str) {
    let publisher = postgres.create_database("publisher");
    postgres.sql(&publisher, "CREATE TABLE outbox (seq bigint PRIMARY KEY); CREATE PUBLICATION all_of_it FOR TABLE outbox");
    let way = format!("host=127.0.0.1 port={} dbname={publisher} user=postgres", postgres.port());
    let idle = "create_slot = false, enabled = false, slot_name = NONE, copy_data = false";
    postgres.sql(database, &format!("CREATE SUBSCRIPTION fed CONNECTION '{way}' PUBLICATION all_of_it WITH ({idle})"));
}

/// Everything wrong with the relay's own tables, its rights and where it stands; then a table that cannot be relayed at all.
fn sick_books(postgres: &Postgres) -> Checked {
    let stage = Stage::new("sick-books", Mark::Delete, postgres, Kafka::shared());
    postgres.sql(
        &stage.database,
        "REVOKE DELETE ON outbox FROM outboxd; UPDATE outboxd_migrations SET version = 99; \
         UPDATE outboxd_state SET delivery = 'at_least_once', accepted_addresses = '{elsewhere:5432/shop}', paused_at = now(), \
             paused_by = 'anna', paused_reason = 'moving', halted_code = 'mark-refused', halted_evidence = '3 rows', halted_at = now(); \
         INSERT INTO outboxd_parked (name, seq, id, topic, code, detail, blocking) \
             SELECT name, 1, gen_random_uuid(), 't', 'too_large', 'x', true FROM outboxd_state; \
         INSERT INTO outboxd_held (name, topic, code, detail) SELECT name, 'gone', 'topic_missing', 'x' FROM outboxd_state",
    );
    let checked = Checked::of(&stage.options);
    assert_eq!(checked.code, 78, "{}", checked.shown());
    checked
        .expect("failed", &["schema", "outbox-delivery", "identity", "halted", "database-right(DELETE on \"public\".\"outbox\")"]);
    checked.expect("warning", &["paused", "parked", "held"]);
    checked.expect("could_not_look", &["journal-agrees"]);
    assert_eq!(checked.verdict("copies-detected"), "does_not_hold", "this is the copy: {}", checked.shown());
    let mut named = Vec::from([checked]);
    postgres.sql(&stage.database, "DROP VIEW outbox_pending; ALTER TABLE outbox DROP COLUMN headers");
    postgres.sql("postgres", &format!("ALTER DATABASE {} SET default_transaction_read_only = on", stage.database));
    let other = Checked::of(&stage.options.clone().set("outbox.name", "somebody-else"));
    other.expect("failed", &["columns", "outbox", "database-primary", "journal"]);
    let gone = Checked::of(&stage.options.clone().set("outbox.table", "nowhere"));
    gone.expect("failed", &["table"]);
    assert!(gone.verdict("order-per-key") == "holds_if" && gone.json.to_string().contains("not_looked_at"), "{}", gone.shown());
    named.extend([other, gone]);
    merged(named)
}

/// One report with the findings of all.
fn merged(all: Vec<Checked>) -> Checked {
    let findings: Vec<Value> = all.iter().flat_map(|checked| checked.findings().cloned()).collect();
    Checked { code: 0, json: serde_json::json!({ "findings": findings }) }
}

/// Everything wrong with journal and event topics that can be so at once.
async fn sick_topics(postgres: &Postgres) -> Checked {
    let kafka = Kafka::shared();
    let stage = Stage::new("sick-topics", Mark::Row, postgres, kafka);
    let (name, journal) = (&stage.name, stage.journal());
    kafka.delete_topic(&journal).await;
    let bad = [
        ("cleanup.policy", "compact"),
        ("retention.ms", "1000"),
        ("max.message.bytes", "2000"),
        ("unclean.leader.election.enable", "true"),
    ];
    kafka.create_topic(&journal, 2, &bad).await;
    let pin = r#"{"partitions": 3}"#;
    let lost = r#"{"partitions": 3, "id": "another", "truncated": "partition 0 ended at 9"}"#;
    let slow = [("message.timestamp.before.max.ms", "100"), ("min.insync.replicas", "2")];
    kafka.create_topic(&format!("{name}-bad"), 1, &[&bad[..], &slow].concat()).await;
    postgres.sql(
        &stage.database,
        &format!(
            "INSERT INTO outbox (topic) VALUES ('{name}-bad'); \
             UPDATE outboxd_state SET pins = '{{\"{name}-gone\": {pin}, \"{name}-of-1\": {pin}, \"{name}-of-12\": {lost}}}'; \
             INSERT INTO outboxd_applied (name, n, journal_offset, checksum) VALUES ('{name}', 7, 40, 1)"
        ),
    );
    let allowed = format!("{name}-bad,{name}-gone,{name}-of-*,{name}-later");
    let checked = Checked::of(&stage.options.clone().set("kafka.allow_topics", &allowed));
    let of = |finding: &str, topic: &str| format!("{finding}({name}-{topic})");
    let failed = [of("topic", "gone"), of("topic-partitions", "of-1"), of("topic-in-sync", "bad")];
    let of_12 = ["topic-identity", "topic-complete"].map(|finding| of(finding, "of-12"));
    checked.expect("failed", &of_12.each_ref().map(String::as_str));
    checked.expect("failed", &failed.each_ref().map(String::as_str));
    checked.expect("failed", &["journal-partitions", "journal-cleanup", "journal-agrees"]);
    checked.expect("warning", &["journal-retention", "journal-record-size", "journal-election", "journal-in-sync"]);
    let warned = [of("topic", "later"), of("topic-partitions", "of-12"), of("topic-in-sync", "of-1"), of("topic-replicas", "of-1")];
    checked.expect("warning", &warned.each_ref().map(String::as_str));
    let bad = ["topic-election", "topic-cleanup", "topic-record-size", "topic-timestamps"].map(|finding| of(finding, "bad"));
    checked.expect("warning", &bad.each_ref().map(String::as_str));
    assert!(checked.json.to_string().contains("OBX406"), "kafka-behind is told as the relay would: {}", checked.shown());
    checked
}

/// A timeout that these brokers do not allow.
fn sick_limits() -> Checked {
    let (postgres, kafka) = good_servers();
    let stage = Stage::new("sick-limits", Mark::Row, postgres, kafka);
    let checked = Checked::of(&stage.options.clone().set("kafka.transaction_timeout", "2m"));
    assert_eq!(checked.code, 78, "{}", checked.shown());
    checked.expect("failed", &["transaction-timeout", "transactions"]);
    checked
}
