//! Halts with their ways out: what stands in `docs/errors.md` leads out, and what comes twice then is what was told before.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::admin::AdminOptions;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::checker::Kind;
use crate::history;
use crate::stage::{Mark, Stage, answer, status};
use crate::support::{Daemon, Kafka, Postgres, PostgresOptions, Version, eventually, eventually_get, let_pass};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(60);

/// Few events: these tests are not about load.
pub fn calm() -> Habits {
    Habits { events_per_second: 300.0, ..Habits::default() }
}

fn stage(name: &str) -> Stage<'static> {
    Stage::with(name, Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), calm(), |options, _| options)
}

/// Publishes something, and lets the writers rest when everything is marked.
pub fn publish(stage: &mut Stage<'_>) {
    stage.write();
    stage.wait_for_batches(5, SOON);
    stage.stop_writing();
    eventually("the table is drained", SOON, || stage.pending() == 0);
}

/// Not one offset is used in the topics of events, whatever the writers write.
pub fn stands_still(stage: &Stage<'_>, daemon: &Daemon) {
    let used = || stage.topics.iter().map(|(topic, count)| history::used_offsets(stage.kafka, topic, *count)).sum::<i64>();
    let before = used();
    let_pass(Duration::from_secs(2));
    assert_eq!(used(), before, "a halted relay publishes nothing:\n{}", daemon.log());
    assert!(daemon.is_running());
}

/// `adopt --journal` says that it does not lead out of this, and what does.
fn is_not_adopted(stage: &Stage<'_>, remedy: &str) {
    let (code, _, stderr) = stage.options.run_command(&["adopt", "--journal", "--reason", "I insist"]);
    assert!(code == 3 && stderr.contains("does not lead out") && stderr.contains(remedy), "{code} {stderr}");
}

#[test]
fn an_old_primary_halts_until_the_relay_is_back_on_the_later_one() {
    let postgres = Postgres::start(Version::V18, PostgresOptions::default());
    let mut stage = Stage::with("timelines", Mark::Row, &postgres, Kafka::shared(), calm(), |options, _| options);
    let daemon = stage.start("one");
    publish(&mut stage);
    let old = postgres.copy_data();
    let signal =
        "DO $$ BEGIN EXECUTE format('COPY (SELECT 1) TO %L', current_setting('data_directory') || '/standby.signal'); END $$";
    postgres.sql("postgres", signal);
    postgres.restart();
    postgres.sql("postgres", "SELECT pg_promote()");
    publish(&mut stage);
    let promoted = postgres.copy_data();
    postgres.restore(&old);
    stage.wait_halted(&daemon, "old-primary");
    let evidence = status(&stage.options)["halted"]["evidence"].to_string();
    assert!(evidence.contains("timeline here 1, in the journal's last record 2"), "{evidence}");
    stands_still(&stage, &daemon);
    is_not_adopted(&stage, "point the relay at the primary");
    // the way out: the primary is back where the relay looks for it
    postgres.restore(&promoted);
    stage.write();
    stage.wait_for_batches(3, SOON);
    stage.prove();
}

#[test]
fn rows_that_cannot_be_marked_halt_until_the_trigger_is_gone() {
    let mut stage = stage("unmarkable");
    let daemon = stage.start("one");
    publish(&mut stage);
    // it says nothing, it raises, or it undoes the mark
    for (when, body) in [
        ("BEFORE", "RETURN NULL"),
        ("BEFORE", "RAISE EXCEPTION ''no''"),
        ("AFTER", "UPDATE outbox SET sent_at = NULL WHERE seq = NEW.seq AND sent_at IS NOT NULL; RETURN NULL"),
    ] {
        let applied = stage.applied();
        let function = format!("CREATE OR REPLACE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body}; END'");
        let trigger = format!("CREATE TRIGGER keep {when} UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION keep()");
        // a claim finds the trigger: under a relay that knows of none, marks that are undone show with the next proof scan only
        let claim = "UPDATE outboxd_state SET claim = claim + 1";
        stage.postgres.sql(&stage.database, &format!("BEGIN; {function}; {trigger}; {claim}; COMMIT"));
        stage.write();
        stage.wait_halted(&daemon, "mark-refused");
        stands_still(&stage, &daemon);
        assert!(stage.applied() <= applied + 1, "{when} {body}");
        is_not_adopted_because_it_fits(&stage);
        stage.postgres.sql(&stage.database, "DROP TRIGGER keep ON outbox");
        stage.wait_for_batches(3, SOON);
        stage.stop_writing();
        eventually("the table is drained", SOON, || stage.pending() == 0);
    }
    stage.write();
    stage.wait_for_batches(3, SOON);
    stage.prove();
}

/// The journal is right, only the table does not do as it is told.
fn is_not_adopted_because_it_fits(stage: &Stage<'_>) {
    let (code, _, stderr) = stage.options.run_command(&["adopt", "--journal", "--reason", "I insist"]);
    assert!(code == 3 && stderr.contains("nothing to adopt"), "{code} {stderr}");
}

#[test]
fn a_record_of_a_newer_version_halts_and_is_not_adopted() {
    let mut stage = stage("newer");
    let daemon = stage.start("one");
    publish(&mut stage);
    daemon.sigterm();
    assert_eq!(daemon.wait_exit(SOON), 0);
    let last = history::read(stage.kafka, &stage.journal(), 1).pop().expect("a record");
    let mut newer = last.payload.expect("a value");
    newer[0] += 1;
    let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = stage.kafka.client().create().unwrap();
    producer.send(BaseRecord::<(), _>::to(&stage.journal()).payload(&newer)).map_err(|(error, _)| error).unwrap();
    producer.flush(SOON).unwrap();
    let daemon = stage.start("one");
    stage.write();
    stage.wait_halted(&daemon, "journal-version");
    stands_still(&stage, &daemon);
    is_not_adopted(&stage, "newer outboxd");
    let wrong = {
        stage.stop_writing();
        stage.violations_while_halted()
    };
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_transaction_of_somebody_else_on_the_journal_halts_until_it_ends() {
    let mut stage = stage("intruded");
    let daemon = stage.start("one");
    publish(&mut stage);
    let mut config = stage.kafka.client();
    config.set("transactional.id", stage.kafka.unique_topic("somebody")).set("transaction.timeout.ms", "120000");
    let intruder: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = config.create().unwrap();
    intruder.init_transactions(SOON).unwrap();
    intruder.begin_transaction().unwrap();
    intruder.send(BaseRecord::<(), str>::to(&stage.journal()).payload("mine")).map_err(|(error, _)| error).unwrap();
    intruder.flush(SOON).unwrap();
    stage.write();
    stage.wait_halted(&daemon, "journal-blocked");
    stands_still(&stage, &daemon);
    is_not_adopted(&stage, "kafka-transactions");
    intruder.abort_transaction(SOON).unwrap();
    stage.wait_for_batches(3, SOON);
    stage.prove();
}

/// Who keeps the lock, of this database alone.
const SLEEPS: &str = "datname = current_database() AND wait_event = 'PgSleep'";

/// Somebody keeps the state row locked: what is published meanwhile is not marked.
fn lock_the_state_row(stage: &Stage<'_>) -> std::process::Child {
    let mut psql: Command = stage.postgres.command("psql");
    let statement = "BEGIN; SELECT FROM outboxd_state FOR UPDATE; SELECT pg_sleep(60)";
    psql.args(["-X", "-q", "-c", statement, &stage.postgres.url(&stage.database, "postgres")]);
    let child = psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql starts");
    let sleeping = format!("SELECT count(*) FROM pg_stat_activity WHERE {SLEEPS}");
    eventually("the row is locked", SOON, || stage.postgres.sql(&stage.database, &sleeping) == "1");
    child
}

/// Published and not marked.
fn unmarked(stage: &Stage<'_>) -> usize {
    let unsent = stage.postgres.sql(&stage.database, "SELECT id FROM outbox WHERE sent_at IS NULL");
    let unsent: HashSet<Uuid> = unsent.lines().map(|id| id.parse().unwrap()).collect();
    stage.seen().iter().filter_map(|record| record.id()).filter(|id| unsent.contains(id)).count()
}

/// The number behind `not marked now:`.
pub fn printed(shown: &str) -> usize {
    let line = shown.lines().find_map(|line| line.strip_prefix("not marked now: ")).expect("it is told");
    line.split(' ').next().unwrap().parse().expect("a number")
}

/// Kills a relay while a batch is published and not marked; returns how many events that are.
pub fn lose_a_mark(stage: &mut Stage<'_>) -> usize {
    let daemon = stage.start("one");
    publish(stage);
    let mut lock = lock_the_state_row(stage);
    let before = history::used_offsets(stage.kafka, &stage.journal(), 1);
    stage.write();
    eventually("a batch is published", SOON, || history::used_offsets(stage.kafka, &stage.journal(), 1) > before + 1);
    daemon.sigkill();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {SLEEPS}");
    stage.postgres.sql(&stage.database, &end);
    lock.wait().expect("psql ends");
    stage.stop_writing();
    eventually_get("it is seen", SOON, || Some(unmarked(stage)).filter(|count| *count > 0))
}

/// Lets go of the whole journal.
pub async fn cut_the_journal(stage: &Stage<'_>) {
    let mut to = TopicPartitionList::new();
    to.add_partition_offset(&stage.journal(), 0, Offset::End).unwrap();
    stage.kafka.admin().delete_records(&to, &AdminOptions::new()).await.unwrap();
}

/// The journal is lost while a batch is published and not marked: nobody can tell that any more, and exactly that comes twice.
async fn comes_twice_as_told(name: &str, code: &str, damage: impl AsyncFnOnce(&Stage<'_>)) {
    let mut stage = stage(name).without_journal();
    let twice = tokio::task::block_in_place(|| lose_a_mark(&mut stage));
    damage(&stage).await;
    tokio::task::block_in_place(|| {
        let daemon = stage.start("one");
        stage.wait_halted(&daemon, code);
        stands_still(&stage, &daemon);
        answer(&stage.options, &["migrate"]);
        let told = printed(&answer(&stage.options, &["adopt", "--journal", "--dry-run"]));
        assert_eq!(told as u64, stage.pending());
        assert_eq!(printed(&answer(&stage.options, &["adopt", "--journal", "--reason", "it is gone"])), told);
        let violations = stage.violations(false);
        let duplicates = violations.iter().filter(|violation| violation.kind == Kind::Duplicated).count();
        println!("{name}: {told} told, {duplicates} came twice");
        assert_eq!(
            (duplicates, violations.len()),
            (twice, twice),
            "{:?}",
            violations.iter().find(|one| one.kind != Kind::Duplicated)
        );
        assert!(duplicates <= told, "{duplicates} of {told}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_cut_journal_exactly_what_was_told_comes_twice() {
    comes_twice_as_told("cut", "journal-window", cut_the_journal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_lost_journal_exactly_what_was_told_comes_twice() {
    let delete = async |stage: &Stage<'_>| stage.kafka.delete_topic(&stage.journal()).await;
    comes_twice_as_told("lost", "kafka-behind", delete).await;
}
