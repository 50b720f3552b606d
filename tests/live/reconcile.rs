//! `outboxd reconcile` after the journal was lost: what was published and not marked comes once, and what nothing tells of is said.

use std::time::Duration;

use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::halts::{calm, cut_the_journal, lose_a_mark, publish, stands_still};
use crate::stage::{Mark, Stage, answer};
use crate::support::{Kafka, Postgres, Version, eventually};

const SOON: Duration = Duration::from_secs(60);

fn stage(name: &str, mark: Mark) -> Stage<'static> {
    Stage::with(name, mark, Postgres::shared(Version::V18), Kafka::shared(), calm(), |options, _| options).without_journal()
}

/// The number before this text.
#[track_caller]
fn number(told: &str, before: &str) -> u64 {
    let at = told.find(before).unwrap_or_else(|| panic!("{before:?} is not in {told}"));
    told[..at].rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// The journal is lost while a batch is published and not marked, and nothing comes twice.
async fn nothing_comes_twice(name: &str, mark: Mark, code: &str, damage: impl AsyncFnOnce(&Stage<'_>)) {
    let mut stage = stage(name, mark);
    let published = tokio::task::block_in_place(|| lose_a_mark(&mut stage)) as u64;
    damage(&stage).await;
    tokio::task::block_in_place(|| {
        let daemon = stage.start("two");
        stage.wait_halted(&daemon, code);
        stands_still(&stage, &daemon);
        answer(&stage.options, &["migrate"]);
        let (applied, pending) = (stage.applied(), stage.pending());
        let told = answer(&stage.options, &["reconcile", "--dry-run"]);
        assert_eq!(number(&told, " rows are marked, since they lie in the topics"), published, "{told}");
        assert!(!told.contains("UNDECIDED"), "{told}");
        assert_eq!((stage.applied(), stage.pending()), (applied, pending), "a rehearsal changes nothing");
        let (count, _, stderr) = stage.options.run_command(&["reconcile", "--reason", "", "--undecided", "7"]);
        assert!(count == 3, "what is named must be what is undecided: {stderr}");
        let told = answer(&stage.options, &["reconcile", "--reason", "it is gone"]);
        assert!(told.contains(&format!("reconciled: {published} rows are marked")), "{told}");
        let audited = stage.postgres.sql(
            &stage.database,
            "SELECT action, reason, detail->>'halt', detail->>'marked', detail->>'undecided' FROM outboxd_audit WHERE action = 'reconcile'",
        );
        assert_eq!(audited, format!("reconcile|it is gone|{code}|{published}|0"));
        publish(&mut stage);
        let violations = stage.violations(false);
        assert!(violations.is_empty(), "{} of {published}: {:?}", violations.len(), violations.first());
        let (code, _, stderr) = stage.options.run_command(&["reconcile", "--reason", "again"]);
        assert!(code == 3 && stderr.contains("nothing to reconcile"), "{code} {stderr}");
        let (code, stdout, stderr) = stage.options.run_command(&["verify"]);
        assert_eq!(code, 0, "{stdout}{stderr}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_cut_journal_the_topics_tell_what_was_published() {
    nothing_comes_twice("reconciled-cut", Mark::Row, "journal-window", cut_the_journal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_lost_journal_the_topics_tell_what_was_published() {
    let delete = async |stage: &Stage<'_>| stage.kafka.delete_topic(&stage.journal()).await;
    nothing_comes_twice("reconciled-lost", Mark::Delete, "kafka-behind", delete).await;
}

/// Inserts an event that was made an hour ago.
fn insert_old(stage: &Stage<'_>, topic: &str) {
    let insert = format!(
        "INSERT INTO outbox (id, topic, key, payload, created_at) VALUES ('{}', '{topic}', 'k', '{{}}', now() - interval '1 hour')",
        Uuid::new_v4()
    );
    stage.postgres.sql(&stage.database, &insert);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_trimmed_topic_cannot_tell_takes_a_word() {
    let mut stage = stage("reconciled-trimmed", Mark::Row);
    let topic = stage.topics.keys().next().unwrap().clone();
    tokio::task::block_in_place(|| {
        let daemon = stage.start("one");
        publish(&mut stage);
        daemon.sigterm();
        assert_eq!(daemon.wait_exit(SOON), 0);
    });
    let mut to = TopicPartitionList::new();
    for partition in 0..stage.topics[&topic] {
        to.add_partition_offset(&topic, partition, Offset::End).unwrap();
    }
    stage.kafka.admin().delete_records(&to, &AdminOptions::new()).await.unwrap();
    cut_the_journal(&stage).await;
    tokio::task::block_in_place(|| {
        insert_old(&stage, &topic);
        let whole = stage.topics.keys().nth(1).unwrap().clone();
        insert_old(&stage, &whole);
        let daemon = stage.start("two");
        stage.wait_halted(&daemon, "journal-window");
        let told = answer(&stage.options, &["reconcile", "--dry-run"]);
        assert_eq!(number(&told, " rows are UNDECIDED"), 1, "{told}");
        assert!(told.contains("  1 undecided: the topic begins later"), "{told}");
        let applied = stage.applied();
        let (code, told, _) = stage.options.run_command(&["reconcile", "--reason", "no word"]);
        assert!(code == 3 && told.contains("nothing is changed: 1 rows are undecided, --undecided says 0"), "{code} {told}");
        assert_eq!((stage.applied(), stage.pending()), (applied, 2));
        let told = answer(&stage.options, &["reconcile", "--undecided", "1", "--reason", "it may come twice"]);
        assert!(told.contains("reconciled: 0 rows are marked"), "{told}");
        eventually("both are published", SOON, || stage.pending() == 0);
    });
}

/// The last mark is lost by the database, and the journal by Kafka; then the topic is made anew, or nothing is pinned of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_topic_that_was_made_anew_does_not_tell_that_nothing_was_published() {
    let stage = stage("reconciled-anew", Mark::Row);
    let topic = stage.topics.keys().next().unwrap().clone();
    let sql = |sql: &str| stage.postgres.sql(&stage.database, sql);
    tokio::task::block_in_place(|| {
        insert_old(&stage, &topic);
        answer(&stage.options, &["run", "--once"]);
        insert_old(&stage, &topic);
        answer(&stage.options, &["run", "--once"]);
        sql("DELETE FROM outboxd_applied WHERE n = 2; UPDATE outbox SET sent_at = NULL WHERE seq = 2");
    });
    stage.kafka.delete_topic(&stage.journal()).await;
    tokio::task::block_in_place(|| {
        answer(&stage.options.of_role("postgres"), &["migrate"]);
        let told = answer(&stage.options, &["reconcile", "--dry-run"]);
        assert!(told.contains("1 unsent rows; 1 of them lie in the topic"), "{told}");
    });
    stage.kafka.delete_topic(&topic).await;
    stage.kafka.create_topic(&topic, stage.topics[&topic] as usize, &[]).await;
    tokio::task::block_in_place(|| {
        let told = answer(&stage.options, &["reconcile", "--dry-run"]);
        assert!(told.contains("  1 undecided: the topic was deleted and made anew"), "{told}");
        let (code, told, _) = stage.options.run_command(&["reconcile", "--reason", "no word"]);
        assert!(code == 3 && told.contains("nothing is changed: 1 rows are undecided, --undecided says 0"), "{code} {told}");
        // a past of the database that never published there
        sql("UPDATE outboxd_state SET pins = '{}'");
        let told = answer(&stage.options, &["reconcile", "--dry-run"]);
        assert!(told.contains("  1 undecided: nothing tells that the topic is not one that was made anew"), "{told}");
        assert_eq!((stage.applied(), stage.pending()), (1, 1), "nothing is changed");
    });
}
