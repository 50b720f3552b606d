//! How often it publishes, whatever comes in.

use super::*;

fn batches(relay: &Running) -> usize {
    let text = relay.metrics.text();
    let sample = text.lines().find_map(|line| line.strip_prefix("outboxd_batches_total{outbox=\"test\"} "));
    sample.expect("it is always there").parse().expect("a number")
}

#[tokio::test(start_paused = true)]
async fn one_transaction_begins_in_each_linger_at_most() {
    let world = World::new();
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Relaying).await;
    let begun = Instant::now();
    // three events in the time of each linger: no batch is ever full
    while begun.elapsed() < Duration::from_secs(2) {
        world.insert("orders", "k", 1);
        sleep(waits().linger / 3).await;
    }
    world.drained().await;
    let (most, found) = (begun.elapsed().as_nanos() / waits().linger.as_nanos(), batches(&relay));
    assert!((most / 2..=most + 1).contains(&(found as u128)), "{found} transactions in the time of {most} lingers");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn full_batches_wait_for_no_linger_and_an_idle_outbox_costs_none() {
    let world = World::new();
    world.insert("orders", "k", 100 * LIMITS.events);
    let begun = Instant::now();
    let relay = world.start("a", 1).await;
    world.drained().await;
    assert_eq!(batches(&relay), 100);
    assert!(begun.elapsed() < 50 * waits().linger, "a backlog took {:?}", begun.elapsed());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(batches(&relay), 100, "nothing came, and something was published");
    world.check();
}
