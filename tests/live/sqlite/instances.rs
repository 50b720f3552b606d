//! Two relays of one file: one publishes, the other one takes over, whatever becomes of the first.

use std::time::{Duration, Instant};

use super::scene::{SOON, Scene};
use crate::chaos_instances::leader;
use crate::stage::Mark;
use crate::support::{Daemon, eventually, let_pass};

/// The lease is one second; a busy machine is slower.
const TAKEOVER: Duration = Duration::from_secs(8);
/// Whoever is frozen just while it writes keeps the file locked: then another moment is tried.
const MOMENTS: usize = 6;

fn batches(daemon: &Daemon) -> f64 {
    daemon.metric("outboxd_batches_total")
}

fn works(daemon: &Daemon) {
    let before = batches(daemon);
    eventually("it publishes", SOON, || batches(daemon) >= before + 3.0);
}

/// Whether this one publishes soon.
fn takes_over(daemon: &Daemon) -> bool {
    let (before, until) = (batches(daemon), Instant::now() + TAKEOVER);
    while batches(daemon) <= before && Instant::now() < until {
        let_pass(Duration::from_millis(20));
    }
    batches(daemon) > before
}

/// Freezes the leader for longer than its lease; says whether the other one took over meanwhile.
fn freeze(daemons: &[Daemon]) -> bool {
    let first = leader(daemons);
    works(&daemons[first]);
    daemons[first].sigstop();
    let taken = takes_over(&daemons[1 - first]);
    daemons[first].sigcont();
    if taken {
        works(&daemons[1 - first]);
    }
    eventually("one leads", SOON, || daemons.iter().map(|daemon| daemon.metric("outboxd_leader")).sum::<f64>() == 1.0);
    taken
}

#[test]
fn of_two_relays_of_one_file_one_publishes_and_the_other_takes_over() {
    let mut scene = Scene::new("file-two", Mark::Row);
    let names = ["one", "two"];
    scene.write();
    let mut daemons: Vec<Daemon> = names.iter().map(|name| scene.start(name)).collect();
    let first = leader(&daemons);
    works(&daemons[first]);
    daemons[first].sigkill();
    assert!(takes_over(&daemons[1 - first]), "after SIGKILL");
    daemons[first] = scene.start(names[first]);
    let second = leader(&daemons);
    works(&daemons[second]);
    daemons[second].sigterm();
    assert!(takes_over(&daemons[1 - second]), "after SIGTERM");
    assert_eq!(daemons[second].wait_exit(SOON), 0, "a drain ends well: {}", daemons[second].log());
    daemons[second] = scene.start(names[second]);
    eventually("it is there again", SOON, || daemons[second].get("/healthz").is_some());
    assert!((0..MOMENTS).any(|_| freeze(&daemons)), "nobody took over from one that stood still");
    assert!(daemons.iter().all(Daemon::is_running), "whoever is replaced stands by");
    scene.prove(false);
}
