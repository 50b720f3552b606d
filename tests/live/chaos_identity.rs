//! A database that went back in time, a journal that was lost, a second database: where going on cannot be proved right, the relay
//! halts with a name and publishes nothing, and a living one beside it is not disturbed.

use std::time::Duration;

use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};

use crate::checker::Seen;
use crate::history;
use crate::stage::{Mark, Stage, accept_address, answer, status, wait_halted};
use crate::support::{DaemonOptions, Kafka, Postgres, PostgresOptions, Version, eventually, eventually_get, let_pass};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(45);

/// Few events: these tests are not about load.
fn calm() -> Habits {
    Habits { events_per_second: 300.0, ..Habits::default() }
}

#[test]
fn a_database_put_back_to_an_older_copy_publishes_each_event_once() {
    let postgres = Postgres::start(Version::V18, PostgresOptions::default());
    for mark in [Mark::Row, Mark::Delete] {
        let mut stage = Stage::with("restored", mark, &postgres, Kafka::shared(), calm(), |options, _| options);
        stage.write();
        let mut daemon = stage.start("one");
        stage.wait_for_batches(10, SOON);
        let copy = postgres.copy_data();
        stage.wait_for_writers(300);
        stage.wait_for_batches(10, SOON);
        stage.stop_writing();
        let drawn = last_number(&stage);
        if mark == Mark::Delete {
            // A relay of another life: it cannot remember anything.
            daemon.sigkill();
        }
        postgres.restore(&copy);
        assert!(last_number(&stage) < drawn, "the restore lost something");
        stage.write();
        stage.wait_for_writers(1000);
        if !daemon.is_running() {
            daemon = stage.start("two");
        }
        stage.stop_writing();
        assert!(last_number(&stage) > drawn, "all of what was lost is drawn again: {} after {drawn}", last_number(&stage));
        eventually("the table is drained", SOON, || stage.pending() == 0);
        assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
        stage.prove_after_restore();
    }
}

fn last_number(stage: &Stage<'_>) -> i64 {
    stage.postgres.sql(&stage.database, "SELECT last_value FROM outbox_seq_seq").parse().unwrap()
}

/// Publishes something, ends the relay, damages the journal, and expects the next relay to halt for `code` and to publish nothing.
async fn halts_after(name: &str, code: &str, damage: impl AsyncFnOnce(&Stage<'_>)) {
    let mut stage = Stage::with(name, Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), calm(), |options, _| options);
    let before = tokio::task::block_in_place(|| {
        stage.write();
        let daemon = stage.start("one");
        stage.wait_for_batches(5, SOON);
        stage.stop_writing();
        eventually("the table is drained", SOON, || stage.pending() == 0);
        daemon.sigterm();
        assert_eq!(daemon.wait_exit(SOON), 0);
        stage.seen().len()
    });
    damage(&stage).await;
    tokio::task::block_in_place(|| {
        let daemon = stage.start("one");
        stage.write();
        stage.wait_for_writers(50);
        stage.wait_halted(&daemon, code);
        let_pass(Duration::from_secs(2));
        stage.stop_writing();
        assert_eq!(stage.seen().len(), before, "a halted relay publishes nothing");
        assert_eq!(daemon.metric("outboxd_batches_total"), 0.0);
        assert!(stage.pending() > 0 && daemon.is_running());
        // the way out; for a journal that is not there any more, a new one first
        answer(&stage.options, &["migrate"]);
        let shown = answer(&stage.options, &["adopt", "--journal", "--dry-run"]);
        assert!(shown.contains(code) && shown.contains("comes twice"), "{shown}");
        assert_eq!(status(&stage.options)["halted"]["code"], code, "a rehearsal changes nothing");
        answer(&stage.options, &["adopt", "--journal", "--reason", "it is what it is"]);
        assert_eq!(stage.options.run_command(&["adopt", "--journal", "--reason", "again"]).0, 3, "nothing is left to adopt");
        // everything was marked before the damage, so nothing comes twice
        stage.without_journal().prove();
    });
}

async fn truncate(stage: &Stage<'_>) {
    let mut to = TopicPartitionList::new();
    to.add_partition_offset(&stage.journal(), 0, Offset::End).unwrap();
    stage.kafka.admin().delete_records(&to, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_truncated_journal_halts() {
    halts_after("truncated", "journal-window", truncate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_journal_that_was_recreated_halts() {
    let recreate = async |stage: &Stage<'_>| {
        stage.kafka.delete_topic(&stage.journal()).await;
        stage.kafka.create_topic(&stage.journal(), 1, &[]).await;
    };
    halts_after("recreated", "kafka-behind", recreate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_journal_that_was_deleted_halts() {
    let delete = async |stage: &Stage<'_>| stage.kafka.delete_topic(&stage.journal()).await;
    halts_after("deleted", "kafka-behind", delete).await;
}

/// What a living relay must not notice.
fn claims(daemon: &crate::support::Daemon) -> f64 {
    daemon.metric("outboxd_claims_total")
}

#[test]
fn a_second_database_of_the_same_name_halts_and_disturbs_nobody() {
    let kafka = Kafka::shared();
    let mut stage = Stage::with("namesake", Mark::Row, Postgres::shared(Version::V18), kafka, calm(), |options, _| options);
    stage.write();
    let living = stage.start("one");
    stage.wait_for_batches(5, SOON);
    let other = Postgres::shared(Version::V15);
    let database = other.create_database("namesake");
    let options = DaemonOptions::new(&stage.name, &other.url(&database, "outboxd"), &kafka.brokers()).set("relay.lease", "1s");
    let (code, _, stderr) = options.run_command(&["migrate"]);
    assert_eq!(code, 0, "{stderr}");
    let topic = stage.topics.keys().next().unwrap();
    other.sql(&database, &format!("INSERT INTO outbox (topic, key, payload) VALUES ('{topic}', 'intruder', '{{}}')"));
    let before = claims(&living);
    let second = options.start();
    wait_halted(&options, &second, "foreign-journal");
    stage.wait_for_batches(20, SOON);
    assert_eq!(claims(&living), before, "the living relay was disturbed:\n{}", living.log());
    assert_eq!(other.sql(&database, "SELECT count(*) FROM outbox WHERE sent_at IS NULL"), "1");
    drop(second);
    let owner = stage.postgres.sql(&stage.database, "SELECT outbox FROM outboxd_state");
    an_outbox_of_a_name_that_is_taken_gets_another(other, &stage.name);
    assert_eq!(claims(&living), before, "the living relay was disturbed:\n{}", living.log());
    let topics = stage.topics.clone();
    let seen = || -> Vec<Seen> { topics.iter().flat_map(|(topic, count)| history::read(kafka, topic, *count)).collect() };
    stage.prove();
    // the other way out, for whoever means it: the journal of that outbox, by its identity
    drop(living);
    let before = seen().len();
    let (code, shown, _) = options.run_command(&["adopt", "--journal", "--reason", "the other one is gone"]);
    assert!(code == 3 && shown.contains(&owner) && shown.contains("not marked now: 1 "), "{code} {shown}");
    answer(&options, &["adopt", "--journal", &owner, "--reason", "the other one is gone"]);
    let _heir = options.start();
    eventually("the heir publishes", SOON, || other.sql(&database, "SELECT count(*) FROM outbox WHERE sent_at IS NULL") == "0");
    let all = seen();
    let of_intruder = all.iter().filter(|record| record.key.as_deref() == Some(b"intruder")).count();
    assert_eq!((all.len(), of_intruder), (before + 1, 1), "what waited is published once, and nothing else");
}

/// The way out of whoever took a name that another service has: it never published, so it leaves that name without claiming under it.
fn an_outbox_of_a_name_that_is_taken_gets_another(postgres: &Postgres, taken: &str) {
    let (kafka, database) = (Kafka::shared(), postgres.create_database("latecomer"));
    let latecomer = DaemonOptions::new(taken, &postgres.url(&database, "outboxd"), &kafka.brokers()).set("relay.lease", "1s");
    answer(&latecomer, &["migrate"]);
    let topic = kafka.unique_topic("latecomer");
    postgres.sql(&database, &format!("INSERT INTO outbox (topic, key, payload) VALUES ('{topic}', 'k', '7')"));
    let halted = latecomer.start();
    wait_halted(&latecomer, &halted, "foreign-journal");
    let renamed = latecomer.set("outbox.name", &topic);
    let (code, _, told) = renamed.run_command(&["migrate"]);
    assert!(code == 78 && told.contains("outboxd adopt --name OLD"), "{code} {told}");
    let rename = ["adopt", "--name", taken, "--reason", "the name was taken"];
    let (code, _, told) = renamed.run_command(&rename);
    assert!(code == 75 && told.contains("Nothing was renamed"), "its halted relay may go on any moment: {code} {told}");
    drop(halted);
    let told = eventually_get("the lease has run out", SOON, || {
        let (code, told, _) = renamed.run_command(&rename);
        (code == 0).then_some(told)
    });
    assert!(told.contains("belongs to another outbox") && !told.contains("not needed"), "{told}");
    answer(&renamed, &["migrate", "--topics", &format!("{topic}:1")]);
    let once = renamed.clone().argument("--once").start();
    assert_eq!(once.wait_exit(SOON), 0, "{}", once.log());
    let published: Vec<_> = history::read(kafka, &topic, 1).into_iter().map(|record| record.payload).collect();
    assert_eq!(published, [Some(b"7".to_vec())]);
    let audited = postgres.sql(&database, "SELECT name, action, reason FROM outboxd_audit");
    assert_eq!(audited, format!("{topic}|adopt --name|the name was taken"));
}

/// How a copy is reached and what it says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copy {
    /// Another port.
    Elsewhere,
    /// As if it were reached by the same host name and port.
    SameAddress,
    /// At the same address as well, but its data went through a dump into another server.
    OtherSystem,
}

/// A copy of a living database beside it.
fn copies_halt(name: &str, code: &str, kind: Copy) {
    let postgres = Postgres::start(Version::V18, PostgresOptions::default());
    let mut stage = Stage::with(name, Mark::Row, &postgres, Kafka::shared(), calm(), |options, _| options);
    stage.write();
    // not published when the copy is made: these would come twice
    stage.wait_for_writers(50);
    let copy = postgres.copy_data();
    let living = stage.start("one");
    stage.wait_for_batches(10, SOON);
    let twin = Postgres::start_copy(&copy, PostgresOptions::default());
    let options = stage.options.clone().set("database.url", &twin.url(&stage.database, "outboxd"));
    if kind != Copy::Elsewhere {
        accept_address(&twin, &stage.database, &format!("127.0.0.1:{}/{}", twin.port(), stage.database));
    }
    if kind == Copy::OtherSystem {
        twin.sql(&stage.database, "UPDATE outboxd_state SET accepted_systems = '{7}'");
    }
    let before = claims(&living);
    let second = options.clone().set("relay.instance", "two").start();
    wait_halted(&options, &second, code);
    let_pass(Duration::from_secs(3));
    assert_eq!(claims(&living), before, "the living relay was disturbed:\n{}", living.log());
    assert_eq!(second.metric("outboxd_batches_total"), 0.0, "the copy published:\n{}", second.log());
    drop(second);
    let (database, topics) = (stage.database.clone(), stage.topics.clone());
    stage.prove();
    if code == "two-databases" {
        // the way out: the other one is stopped, this one stays; whatever it has not marked comes again, as it says
        drop(living);
        let unsent = || twin.sql(&database, "SELECT id FROM outbox WHERE sent_at IS NULL ORDER BY id");
        let published = || -> Vec<String> {
            let records = topics.iter().flat_map(|(topic, count)| history::read(Kafka::shared(), topic, *count));
            records.map(|record| record.id().expect("an id").to_string()).collect()
        };
        let (before, unmarked) = (published(), unsent());
        let count = unmarked.lines().count();
        let told = answer(&options, &["adopt", "--journal", "--reason", "the other one is gone"]);
        assert!(count > 0 && told.contains(&format!("not marked now: {count} ")), "{count} of {told}");
        let _heir = options.start();
        eventually("the heir publishes", SOON, || unsent().is_empty());
        let mut again = published();
        before
            .iter()
            .for_each(|id| drop(again.swap_remove(again.iter().position(|found| found == id).expect("it is still there"))));
        again.sort();
        assert_eq!(again, unmarked.lines().collect::<Vec<_>>(), "exactly what was told");
    }
}

#[test]
fn a_copy_at_another_address_halts_and_disturbs_nobody() {
    copies_halt("moved", "moved-database", Copy::Elsewhere);
}

#[test]
fn a_copy_in_another_server_halts_and_disturbs_nobody() {
    copies_halt("dumped", "moved-database", Copy::OtherSystem);
}

#[test]
fn a_copy_at_the_same_address_halts_and_disturbs_nobody() {
    copies_halt("copied", "two-databases", Copy::SameAddress);
}

#[test]
fn a_copy_made_under_the_present_lease_halts_and_disturbs_nobody() {
    let postgres = Postgres::start(Version::V18, PostgresOptions::default());
    // Long enough that the lease outlives the copying.
    let lease = |options: DaemonOptions, _: &str| options.set("relay.lease", "6s");
    let mut stage = Stage::with("copied", Mark::Row, &postgres, Kafka::shared(), calm(), lease);
    stage.write();
    let living = stage.start("one");
    stage.wait_for_batches(10, SOON);
    let copy = postgres.copy_data();
    stage.wait_for_batches(10, SOON);
    let twin = Postgres::start_copy(&copy, PostgresOptions::default());
    accept_address(&twin, &stage.database, &format!("127.0.0.1:{}/{}", twin.port(), stage.database));
    let options = stage.options.clone().set("database.url", &twin.url(&stage.database, "outboxd"));
    let before = claims(&living);
    let second = options.clone().set("relay.instance", "two").start();
    wait_halted(&options, &second, "two-databases");
    assert_eq!(claims(&living), before, "the living relay was disturbed:\n{}", living.log());
    assert_eq!(second.metric("outboxd_batches_total"), 0.0, "the copy published:\n{}", second.log());
    drop(second);
    let journal = history::read(Kafka::shared(), &stage.journal(), 1);
    assert!(!journal.is_empty());
    stage.prove();
}
