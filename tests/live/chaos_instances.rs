//! Several instances with one configuration: who takes over, how fast, and that a leader who stood still does no harm.

use std::time::{Duration, Instant};

use crate::stage::{Mark, Stage, is_long};
use crate::support::{Daemon, Kafka, Postgres, Version, eventually, eventually_get, let_pass};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(30);

/// The one that leads.
pub fn leader(daemons: &[Daemon]) -> usize {
    let leads = |daemon: &Daemon| daemon.is_running() && daemon.metric("outboxd_leader") == 1.0;
    eventually_get("somebody leads", SOON, || daemons.iter().position(leads))
}

/// How long it takes from now until one of the others has published a batch.
fn takeover(daemons: &[Daemon], from: usize) -> Duration {
    let others =
        || daemons.iter().enumerate().filter(|(i, _)| *i != from).map(|(_, daemon)| daemon.metric("outboxd_batches_total"));
    let (start, before): (Instant, Vec<f64>) = (Instant::now(), others().collect());
    eventually("another instance publishes", SOON, || others().zip(&before).any(|(now, before)| now > *before));
    start.elapsed()
}

#[test]
fn a_standby_takes_over_soon_after_a_kill_and_at_once_after_a_drain() {
    let lease = Duration::from_secs(2);
    let habits = Habits { events_per_second: 300.0, ..Habits::default() };
    let options = |options: crate::support::DaemonOptions, _: &str| options.set("relay.lease", "2s");
    let mut stage = Stage::with("takeover", Mark::Row, Postgres::shared(Version::V18), Kafka::shared(), habits, options);
    stage.write();
    let names = ["one", "two"];
    let mut daemons: Vec<Daemon> = names.iter().map(|name| stage.start(name)).collect();
    let (mut after_kill, mut after_drain) = (Vec::new(), Vec::new());
    for round in 0..6 {
        let first = leader(&daemons);
        stage.wait_for_batches(3, SOON);
        let is_kill = round % 2 == 0;
        if is_kill {
            daemons[first].sigkill();
            after_kill.push(takeover(&daemons, first));
        } else {
            daemons[first].sigterm();
            after_drain.push(takeover(&daemons, first));
            assert_eq!(daemons[first].wait_exit(SOON), 0, "a drain ends well");
        }
        daemons[first] = stage.start(names[first]);
        eventually("it is there again", SOON, || daemons[first].get("/healthz").is_some());
    }
    println!("takeover after SIGKILL {after_kill:?} (lease {lease:?}), after SIGTERM {after_drain:?}");
    assert!(after_kill.iter().all(|time| *time <= lease + Duration::from_secs(2)), "{after_kill:?}");
    // One second each; beside the other tests one of them may meet a machine that is busy.
    let (second, late) = (Duration::from_secs(1), after_drain.iter().filter(|time| **time > Duration::from_secs(1)).count());
    assert!(late <= usize::from(!is_long()) && after_drain.iter().all(|time| *time <= 2 * second), "{after_drain:?}");
    stage.prove();
}

#[test]
fn a_leader_that_stood_still_finds_itself_replaced() {
    let mut stage = Stage::new("stopped", Mark::Delete, Postgres::shared(Version::V15), Kafka::shared());
    stage.write();
    let daemons: Vec<Daemon> = ["one", "two", "three"].iter().map(|name| stage.start(name)).collect();
    // Past the lease of 1 s; past the transaction timeout of 4 s as well.
    for seconds in [2.0, 6.5, 1.1, 2.5] {
        let first = leader(&daemons);
        stage.wait_for_batches(5, SOON);
        daemons[first].sigstop();
        let took = takeover_while_stopped(&daemons, first);
        let_pass(Duration::from_secs_f64(seconds).saturating_sub(took));
        daemons[first].sigcont();
        stage.wait_for_batches(3, SOON);
        eventually("one leads", SOON, || daemons.iter().map(|daemon| daemon.metric("outboxd_leader")).sum::<f64>() == 1.0);
    }
    assert!(daemons.iter().all(Daemon::is_running), "whoever is replaced stands by");
    let rescued: f64 = daemons.iter().map(|daemon| daemon.metric("outboxd_rescued_events_total")).sum();
    assert_eq!(rescued, 0.0);
    stage.prove();
}

fn takeover_while_stopped(daemons: &[Daemon], first: usize) -> Duration {
    let took = takeover(daemons, first);
    // It may have stopped inside a transaction: then the database keeps the state row locked for it for 5 s.
    assert!(took <= Duration::from_secs(9), "lease 1 s, takeover after {took:?}");
    took
}

#[test]
fn a_lone_instance_that_stood_still_goes_on() {
    let mut stage = Stage::new("paused", Mark::Row, Postgres::shared(Version::V18), Kafka::shared());
    stage.write();
    let daemon = stage.start("one");
    for seconds in [1.5, 6.5, 0.3] {
        stage.wait_for_batches(10, SOON);
        daemon.sigstop();
        let_pass(Duration::from_secs_f64(seconds));
        daemon.sigcont();
    }
    stage.wait_for_batches(3, SOON);
    stage.prove();
}
