//! Halts after a person did something else first: restored a backup, ended a transaction. The way out that is printed leads out from there
//! as well.

use std::time::Duration;

use outboxd::journal::{Checksum, Record};
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use crate::checker::Kind;
use crate::halts::{calm, printed, publish, stands_still};
use crate::stage::{Mark, Stage, answer, status};
use crate::support::proxy::api_key;
use crate::support::{DaemonOptions, Kafka, Postgres, PostgresOptions, Version, eventually, eventually_get};

const SOON: Duration = Duration::from_secs(60);

/// Lets go of the journal below its newest applied record, as the relay does when records are older than `kafka.journal_retention`.
async fn trim(stage: &Stage<'_>) {
    let newest = "SELECT journal_offset FROM outboxd_applied ORDER BY n DESC LIMIT 1";
    let newest: i64 = stage.postgres.sql(&stage.database, newest).parse().expect("an offset");
    let mut to = TopicPartitionList::new();
    to.add_partition_offset(&stage.journal(), 0, Offset::Offset(newest)).unwrap();
    stage.kafka.admin().delete_records(&to, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_backup_older_than_the_journal_halts_and_both_ways_lead_out() {
    let postgres = Postgres::start(Version::V18, PostgresOptions::default());
    let mut stage = Stage::with("backup", Mark::Row, &postgres, Kafka::shared(), calm(), |options, _| options).without_journal();
    let (backup, younger, daemon) = tokio::task::block_in_place(|| {
        let predecessor = stage.start("zero");
        publish(&mut stage);
        drop(predecessor);
        // committed before the backup, published after it
        stage.write();
        stage.wait_for_writers(100);
        stage.stop_writing();
        let backup = postgres.copy_data();
        let daemon = stage.start("one");
        publish(&mut stage);
        (backup, postgres.copy_data(), daemon)
    });
    trim(&stage).await;
    tokio::task::block_in_place(|| {
        postgres.restore(&backup);
        stage.wait_halted(&daemon, "journal-window");
        let evidence = status(&stage.options)["halted"]["evidence"].to_string();
        assert!(evidence.contains("the journal starts at"), "{evidence}");
        stands_still(&stage, &daemon);
        // one way out: a younger copy
        postgres.restore(&younger);
        publish(&mut stage);
        assert_eq!(daemon.metric("outboxd_halted"), 0.0);
        // the other one: go on from here, and what was published since the backup comes twice
        postgres.restore(&backup);
        stage.wait_halted(&daemon, "journal-window");
        let told = printed(&answer(&stage.options, &["adopt", "--journal", "--dry-run"]));
        assert!(told >= 100 && told as u64 == stage.pending(), "{told}");
        assert_eq!(printed(&answer(&stage.options, &["adopt", "--journal", "--reason", "no younger copy"])), told);
        eventually("what was unsent is published", SOON, || stage.pending() == 0);
        publish(&mut stage);
        let violations = stage.violations(true);
        let twice = violations.iter().filter(|violation| violation.kind == Kind::Duplicated).count();
        let other = violations.iter().find(|violation| violation.kind != Kind::Duplicated);
        assert_eq!((twice, other), (told, None), "exactly what was told comes twice");
        assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    });
}

/// The journal's last record, whose transaction is open: its offset, what it says, its checksum.
fn open_record(stage: &Stage<'_>) -> (i64, Record, Checksum) {
    let mut config = stage.kafka.client();
    config.set("group.id", "witness").set("isolation.level", "read_uncommitted").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let (_, end) = consumer.fetch_watermarks(&stage.journal(), 0, SOON).unwrap();
    let mut at = TopicPartitionList::new();
    at.add_partition_offset(&stage.journal(), 0, Offset::Offset(end - 1)).unwrap();
    consumer.assign(&at).unwrap();
    let bytes = eventually_get("the record is read", SOON, || {
        let message = consumer.poll(Duration::from_secs(1))?.ok()?;
        message.payload().map(<[u8]>::to_vec)
    });
    let (record, checksum) = Record::decode(&bytes).expect("a record");
    (end - 1, record, checksum)
}

/// Takes the transactional id over: whatever is open under it is aborted.
fn abort_what_is_open(stage: &Stage<'_>) {
    let mut config = stage.kafka.client();
    config.set("transactional.id", format!("outboxd-{}", stage.name));
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
    producer.init_transactions(SOON).unwrap();
}

/// What a lone broker does that loses the markers of a commit, when the transaction is ended before the journal is adopted: the batch is
/// marked here, and nobody will ever see it.
#[test]
fn a_batch_that_was_aborted_before_it_was_adopted_is_un_marked_and_published_once() {
    let way = Kafka::shared().proxied();
    let adapt = |options: DaemonOptions, _: &str| options.set("kafka.brokers", &way.brokers);
    let mut stage = Stage::with("aborted", Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), calm(), adapt);
    let daemon = stage.start("one");
    publish(&mut stage);
    let marked = stage.applied();
    let commit = way.nodes[0].hold_request(api_key::END_TXN);
    stage.write();
    commit.wait_caught(SOON);
    let (offset, record, checksum) = open_record(&stage);
    let (n, events) = (record.n, record.entries.len());
    assert_eq!((n, stage.applied()), (marked + 1, marked));
    drop(daemon);
    stage.stop_writing();
    let seqs: Vec<String> = record.entries.iter().map(|entry| entry.seq.to_string()).collect();
    let mark = format!("UPDATE outbox SET sent_at = now() WHERE seq IN ({})", seqs.join(","));
    let columns = format!("('{}', {n}, {offset}, {})", stage.name, checksum.0.cast_signed());
    let apply = format!("INSERT INTO outboxd_applied (name, n, journal_offset, checksum) VALUES {columns}");
    stage.postgres.sql(&stage.database, &format!("BEGIN; {mark}; {apply}; COMMIT"));
    abort_what_is_open(&stage);
    drop(commit);
    let daemon = stage.start("two");
    stage.write();
    stage.wait_halted(&daemon, "kafka-behind");
    let evidence = status(&stage.options)["halted"]["evidence"].to_string();
    assert!(evidence.contains(&format!("batch {n} was journalled at offset {offset}")), "{evidence}");
    stands_still(&stage, &daemon);
    let shown = answer(&stage.options, &["adopt", "--journal", "--dry-run"]);
    assert!(shown.contains(&format!("batch {n}, {events} events, is marked here")), "{shown}");
    assert!(shown.contains(&format!("{events} rows are un-marked")) && !shown.contains("NO LONGER IN THE TABLE"), "{shown}");
    assert!(!shown.contains("kafka-transactions"), "it has an end already: {shown}");
    assert_eq!(stage.applied(), n, "a rehearsal changes nothing");
    let told = answer(&stage.options, &["adopt", "--journal", "--reason", "it was aborted"]);
    assert!(told.contains(&format!("un-marked: {events} of {events} rows")), "{told}");
    let audited = stage.postgres.sql(&stage.database, "SELECT action, reason, detail->>'halt' FROM outboxd_audit");
    assert_eq!(audited, "adopt --journal|it was aborted|kafka-behind");
    stage.wait_for_batches(3, SOON);
    stage.prove();
}
