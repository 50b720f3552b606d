//! Memory is bounded whatever the rows hold: 64 MiB and four times `batch_max_bytes`, measured as the kernel counts it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::stage::{Mark, Stage, is_long};
use crate::support::{Daemon, Kafka, Postgres, Version, eventually, process};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(120);

/// With the default `batch_max_bytes` of 4 MiB.
const BOUND: u64 = (64 + 4 * 4) << 20;

/// Which of the three topics gets the rows: the one with twelve partitions.
fn topic(stage: &Stage<'_>) -> String {
    stage.topics.iter().find(|(_, count)| **count == 12).expect("the stage has one").0.clone()
}

#[track_caller]
fn stays_below_the_bound(what: &str, daemon: &Daemon) {
    let peak = daemon.peak_rss_bytes();
    println!("peak RSS with {what}: {:.1} MiB", peak as f64 / f64::from(1 << 20));
    assert!(peak <= BOUND, "{what}: {} MiB", peak >> 20);
}

fn quiet(name: &str) -> Stage<'static> {
    let lease =
        |options: crate::support::DaemonOptions, _: &str| options.set("relay.lease", "5s").set("kafka.transaction_timeout", "15s");
    Stage::with(name, Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), Habits::default(), lease)
}

#[test]
fn six_hundred_rows_of_900_kb_fit() {
    let stage = quiet("large");
    let fill = format!(
        "INSERT INTO outbox (topic, key, payload) SELECT '{}', n::text, to_json(repeat('x', 900000)) FROM generate_series(1, 600) AS n",
        topic(&stage)
    );
    stage.postgres.sql(&stage.database, &fill);
    let daemon = stage.start("one");
    eventually("all are published", SOON, || stage.pending() == 0);
    assert_eq!(daemon.metric("outboxd_events_published_total"), 600.0);
    stays_below_the_bound("600 rows of 900 KB", &daemon);
}

#[test]
fn a_million_numbers_pinned_and_then_rolled_back_fit() {
    let mut stage = quiet("pinned");
    let daemon = stage.start("one");
    stage.write();
    stage.wait_for_batches(5, SOON);
    let bulk = format!(
        "BEGIN; INSERT INTO outbox (topic, key, payload) SELECT '{}', n::text, '{{}}' FROM generate_series(1, 1000000) AS n;
         SELECT pg_sleep(5); ROLLBACK",
        topic(&stage)
    );
    let mut psql = stage.postgres.command("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", &bulk, &stage.postgres.url(&stage.database, "postgres")]);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| process::run(psql));
        while !writer.is_finished() {
            // Others go on while the numbers are pinned.
            stage.wait_for_batches(3, SOON);
        }
        writer.join().expect("the bulk insert is rolled back");
    });
    stage.wait_for_batches(5, SOON);
    stays_below_the_bound("a million numbers pinned and rolled back", &daemon);
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    stage.prove();
}

/// Whether the last fetch had this form.
fn fetches_by(daemon: &Daemon, form: &str) -> bool {
    let text = daemon.get("/metrics").map(|(_, text)| text).unwrap_or_default();
    let label = format!("form=\"{form}\"");
    let mut lines = text.lines().filter(|line| line.starts_with("outboxd_fetch_form{"));
    lines.any(|line| line.contains(&label) && line.ends_with(" 1"))
}

#[test]
fn a_million_separate_gaps_fit() {
    let (stage, count) = (quiet("gaps"), if is_long() { 1_000_000 } else { 200_000 });
    let sql = |statement: &str| stage.postgres.sql(&stage.database, statement);
    let one = format!("INSERT INTO outbox (topic, key, payload) VALUES ('{}', 'one', '{{}}')", topic(&stage));
    let daemon = stage.start("one");
    sql(&one);
    eventually("the cursor runs", SOON, || fetches_by(&daemon, "cursor"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut holder = runtime.block_on(PgConnection::connect(&stage.postgres.url(&stage.database, "shop"))).unwrap();
    // While this one is open it may still fill each of them.
    for statement in ["BEGIN", &one] {
        runtime.block_on(sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut holder)).unwrap();
    }
    // Every second number is drawn and thrown away.
    sql(&format!(
        "INSERT INTO outbox (topic, key, payload)
         SELECT '{}', nextval('outbox_seq_seq')::text, '{{}}' FROM generate_series(1, {count}); ANALYZE outbox",
        topic(&stage)
    ));
    let (mut most, mut full) = (0.0_f64, 0);
    eventually("all are published", SOON * 4, || {
        most = most.max(daemon.metric("outboxd_open_gaps"));
        full += usize::from(fetches_by(&daemon, "full"));
        stage.pending() == 0
    });
    println!("{count} gaps: at most {most} ranges at once, full form seen {full} times");
    assert!(full > 0 && fetches_by(&daemon, "full"), "the cursor is given up while somebody may fill the gaps");
    assert!(most <= 10_000.0, "{most} ranges");
    assert_eq!(daemon.metric("outboxd_events_published_total"), f64::from(count + 1));
    runtime.block_on(sqlx::raw_sql("ROLLBACK").execute(&mut holder)).unwrap();
    eventually("the cursor runs again", SOON, || fetches_by(&daemon, "cursor"));
    sql(&one);
    eventually("it goes on", SOON, || daemon.metric("outboxd_events_published_total") == f64::from(count + 2));
    assert_eq!((daemon.metric("outboxd_open_gaps"), daemon.metric("outboxd_rescued_events_total")), (0.0, 0.0));
    stays_below_the_bound("a million separate gaps", &daemon);
}

#[test]
fn a_million_small_rows_fit() {
    let stage = quiet("many");
    let count = if is_long() { 1_000_000 } else { 200_000 };
    let fill = format!(
        "INSERT INTO outbox (topic, key, payload) SELECT '{}', n::text, '{{}}' FROM generate_series(1, {count}) AS n; ANALYZE outbox",
        topic(&stage)
    );
    stage.postgres.sql(&stage.database, &fill);
    let (start, daemon) = (std::time::Instant::now(), stage.start("one"));
    eventually("all are published", SOON * 2, || daemon.metric("outboxd_events_published_total") == f64::from(count));
    println!("{count} small rows in {:?}, {:.2} CPU s", start.elapsed(), daemon.cpu_seconds());
    eventually("all are marked", SOON, || stage.pending() == 0);
    stays_below_the_bound("many small rows", &daemon);
}
