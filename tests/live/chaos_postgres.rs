//! PostgreSQL goes away: killed hard, restarted, a backend killed, a pooler in between, the network frozen and cut.

use std::time::{Duration, Instant};

use crate::stage::{Mark, Stage, accept_address, is_long};
use crate::support::{Kafka, PgBouncer, Postgres, PostgresOptions, Proxy, Version, Weather, eventually, let_pass};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(45);

fn survives_restarts(version: Version, mark: Mark) {
    let postgres = Postgres::start(version, PostgresOptions::default());
    let mut stage = Stage::new("crashed", mark, &postgres, Kafka::shared());
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(5, SOON);
    let (rounds, claims) = (if is_long() { 15 } else { 3 }, || daemon.metric("outboxd_claims_total"));
    for _ in 0..rounds {
        let_pass(Duration::from_millis(fastrand::u64(100..1000)));
        postgres.kill_hard();
        postgres.start_again();
        stage.wait_for_batches(5, SOON);
        let backends = stage.relay_backends();
        postgres.kill_backend(backends[fastrand::usize(0..backends.len())]);
        postgres.wait_ready();
        stage.wait_for_batches(5, SOON);
    }
    postgres.restart();
    stage.wait_for_batches(5, SOON);
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'outboxd'";
    for _ in 0..5 {
        postgres.sql("postgres", terminate);
        let_pass(Duration::from_millis(fastrand::u64(50..500)));
    }
    stage.wait_for_batches(5, SOON);
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    assert!(claims() >= f64::from(1 + 2 * rounds), "one at the start and one a crash: {}", claims());
    stage.prove();
}

#[test]
fn postgresql_18_crashes_under_load() {
    survives_restarts(Version::V18, Mark::Row);
}

#[test]
fn postgresql_15_crashes_under_load() {
    survives_restarts(Version::V15, Mark::Delete);
}

#[test]
fn a_pooler_between_changes_nothing() {
    let postgres = Postgres::start(Version::V18, PostgresOptions::default());
    let way = Proxy::before(postgres.port());
    let pooler = PgBouncer::start_before(way.port());
    let mut stage = Stage::with("pooled", Mark::Row, &postgres, Kafka::shared(), Habits::default(), |options, database| {
        options.set("database.url", &pooler.url(database, "outboxd"))
    });
    stage.write();
    let mut daemon = stage.start("one");
    for _ in 0..4 {
        stage.wait_for_batches(5, SOON);
        daemon.sigkill();
        daemon = stage.start("one");
        stage.wait_for_batches(5, SOON);
        way.cut_once();
    }
    // The pooler hides the crash: only the token tells.
    stage.wait_for_batches(5, SOON);
    postgres.kill_hard();
    postgres.start_again();
    stage.wait_for_batches(5, SOON);
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    stage.prove();
}

#[test]
fn the_network_to_the_database_is_cut_and_frozen() {
    let postgres = Postgres::start(Version::V15, PostgresOptions::default());
    let ways = [Proxy::before(postgres.port()), Proxy::before(postgres.port())];
    let url = |way: &Proxy, database: &str| format!("postgres://outboxd@{}/{database}", way.address());
    let mut stage = Stage::with("half-open", Mark::Delete, &postgres, Kafka::shared(), Habits::default(), |options, database| {
        let options = options.set("database.url", &url(&ways[0], database));
        options.set("database.statement_timeout", "3s").set("database.connect_timeout", "2s")
    });
    accept_address(&postgres, &stage.database, &format!("{}/{}", ways[1].address(), stage.database));
    stage.write();
    let one = stage.start("one");
    stage.wait_for_batches(5, SOON);
    for (weather, seconds) in [(Weather::Cut, 2), (Weather::Freeze, 2), (Weather::DropAnswers, 6), (Weather::Freeze, 6)] {
        ways[0].set(weather);
        let_pass(Duration::from_secs(seconds));
        ways[0].set(Weather::Pass);
        stage.wait_for_batches(5, SOON);
    }
    // Whoever hangs on a dead connection must not keep a healthy one from the work.
    let two = stage.options.clone().set("relay.instance", "two").set("database.url", &url(&ways[1], &stage.database)).start();
    eventually("the second is there", SOON, || two.get("/healthz").is_some());
    ways[0].set(Weather::Freeze);
    let start = Instant::now();
    eventually("the other one leads", SOON, || two.metric("outboxd_leader") == 1.0);
    println!("the other one leads after {:?}", start.elapsed());
    // One second of the lease; if the first one was frozen inside a transaction, the state row is locked until the server ends that after
    // five seconds; and two for the second one's next try.
    assert!(start.elapsed() <= Duration::from_secs(8), "{:?}", start.elapsed());
    let_pass(Duration::from_secs(6));
    ways[0].set(Weather::Pass);
    stage.wait_for_batches(5, SOON);
    eventually("the first stands by", SOON, || one.metric("outboxd_leader") == 0.0);
    stage.prove();
}
