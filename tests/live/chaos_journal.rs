//! The journal is damaged while the relay runs: deleted, deleted and recreated, or blocked by markers that a lone broker lost.

use std::time::Duration;

use crate::stage::{Mark, Stage, answer, status};
use crate::support::proxy::api_key;
use crate::support::{Daemon, Kafka, KafkaOptions, Postgres, Version, eventually_get, let_pass};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(60);

/// Few events: these tests are not about load.
fn calm() -> Habits {
    Habits { events_per_second: 300.0, ..Habits::default() }
}

/// While writers go on writing, not one offset is used in any topic, and no batch is marked.
fn stands_still(stage: &Stage<'_>, daemon: &Daemon) {
    let state = || (stage.used_offsets(), stage.applied(), daemon.metric("outboxd_batches_total"));
    let before = state();
    stage.wait_for_writers(300);
    let_pass(Duration::from_secs(2));
    assert_eq!(state(), before, "a halted relay publishes nothing:\n{}", daemon.log());
    assert!(stage.pending() > 0 && daemon.is_running());
}

#[test]
fn markers_that_a_lone_broker_lost_halt() {
    // A broker sends the markers of a transaction to itself over the network: there they can be kept from it.
    let settings = vec![("inter.broker.listener.name", "PROXIED0")];
    let kafka = Kafka::start_one(KafkaOptions { proxied: 1, settings, ..KafkaOptions::default() });
    let way = kafka.proxied();
    let mut stage = Stage::with("markers", Mark::Row, Postgres::shared(Version::V18), &kafka, calm(), |options, _| options);
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(5, SOON);
    // Whether they are lost depends on how soon the restarted broker leads its partitions again.
    let lost = (0..6).find_map(|_| {
        let markers = way.nodes[0].hold_request(api_key::WRITE_TXN_MARKERS);
        markers.wait_caught(SOON);
        // The commit was answered, so the batch is marked.
        let_pass(Duration::from_secs(1));
        let batch = stage.applied();
        kafka.kill_hard(0);
        drop(markers);
        kafka.start_again(0);
        eventually_get("it halts or goes on", 2 * SOON, || {
            let suspects = daemon.log().contains("looking again before halting");
            (suspects || stage.applied() > batch + 3).then_some(suspects.then_some(batch))
        })
    });
    let batch = lost.expect("markers are lost once in six times");
    stage.wait_halted(&daemon, "journal-blocked");
    let evidence = status(&stage.options)["halted"]["evidence"].to_string();
    println!("{evidence}");
    assert!(evidence.contains(&format!("batch {batch} of this outbox, written by one")), "{evidence}");
    stands_still(&stage, &daemon);
    assert_eq!(stage.applied(), batch);
    // the way out: exactly the rows of that batch are un-marked, then its transaction is ended by the broker's tool
    let shown = answer(&stage.options, &["adopt", "--journal", "--dry-run"]);
    assert!(shown.contains(&format!("batch {batch}, ")) && shown.contains("readers will never see it"), "{shown}");
    what_is_in_kafka_alone_is_not_given_up_unasked(&stage);
    let told = answer(&stage.options, &["adopt", "--journal", "--reason", "the broker was killed"]);
    println!("{told}");
    assert_eq!(stage.applied(), batch - 1);
    let places = told.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.contains('…'));
    let places = places.map(|line| line.split(' ').collect::<Vec<_>>()).map(|place| (place[0], place[1], place[2]));
    places.for_each(|(topic, partition, offset)| kafka.abort_transaction(topic, partition, offset));
    stage.wait_for_batches(5, SOON);
    stage.prove();
}

/// A row of the batch is taken out of the table, as `mark = "delete"` does, and put back.
fn what_is_in_kafka_alone_is_not_given_up_unasked(stage: &Stage<'_>) {
    let sql = |statement: &str| stage.postgres.sql(&stage.database, statement);
    sql("CREATE TABLE aside AS SELECT * FROM outbox WHERE sent_at IS NOT NULL ORDER BY sent_at DESC LIMIT 1; \
        DELETE FROM outbox WHERE seq IN (SELECT seq FROM aside)");
    let (code, stdout, stderr) = stage.options.run_command(&["adopt", "--journal", "--reason", "not read"]);
    assert!(code == 3 && stdout.contains("1 of its events are NO LONGER IN THE TABLE"), "{code} {stdout} {stderr}");
    assert!(stdout.contains("--missing 1 --reason …`") && stdout.contains("nothing is changed"), "{stdout}");
    sql("INSERT INTO outbox OVERRIDING SYSTEM VALUE SELECT * FROM aside; DROP TABLE aside");
}

/// Damages the journal under a relay that is publishing: it halts, and what was published until then is right.
async fn halts_under_load(name: &str, damage: impl AsyncFnOnce(&Stage<'_>)) {
    let mut stage = Stage::with(name, Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), calm(), |options, _| options);
    let daemon = tokio::task::block_in_place(|| {
        stage.write();
        let daemon = stage.start("one");
        stage.wait_for_batches(10, SOON);
        daemon
    });
    damage(&stage).await;
    tokio::task::block_in_place(|| {
        stage.wait_halted(&daemon, "kafka-behind");
        println!("{name}: {}", status(&stage.options)["halted"]["evidence"]);
        let seen = stage.seen().len();
        let_pass(Duration::from_secs(1));
        stage.wait_for_writers(300);
        let_pass(Duration::from_secs(2));
        assert_eq!(stage.seen().len(), seen, "a halted relay publishes nothing:\n{}", daemon.log());
        stage.stop_writing();
        let (pending, violations) = (stage.pending(), stage.violations_while_halted());
        println!("{name}: {seen} published, {pending} pending");
        assert!(violations.is_empty(), "{name}: {} violations, the first: {}", violations.len(), violations[0]);
        assert!(pending > 0 && daemon.is_running());
        // The next process knows no more than this one.
        drop(daemon);
        let next = stage.start("two");
        next.wait_log("\"halted\"");
        assert_eq!((next.metric("outboxd_batches_total"), stage.seen().len(), stage.pending()), (0.0, seen, pending));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_journal_deleted_under_a_running_relay_halts() {
    halts_under_load("vanished", async |stage| stage.kafka.delete_topic(&stage.journal()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_journal_recreated_under_a_running_relay_halts() {
    let recreate = async |stage: &Stage<'_>| {
        stage.kafka.delete_topic(&stage.journal()).await;
        stage.kafka.create_topic(&stage.journal(), 1, &[]).await;
    };
    halts_under_load("replaced", recreate).await;
}
