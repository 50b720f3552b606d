//! A log that lets go of old journal records by itself: the newest one is followed by one without events in time.

use super::*;

/// Number of the newest applied batch.
fn applied(world: &World) -> u64 {
    world.source.database().applied.last().map_or(0, |at| at.n)
}

/// The log is about to let go of the newest record; waits until another one follows.
async fn fade(world: &World) {
    let records = world.sink.log().journal.len();
    world.sink.log().fading = true;
    until("a record without events follows", || world.sink.log().journal.len() == records + 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_relay_keeps_its_journal_from_running_out() {
    let world = World::new();
    world.insert("orders", "k", 3);
    let relay = world.start("a", 1).await;
    world.drained().await;
    for _ in 0..3 {
        fade(&world).await;
    }
    world.insert("orders", "k", 5);
    world.drained().await;
    until("everything is applied", || applied(&world) == 5).await;
    assert_eq!((world.fences(), relay.claims(Cause::Start)), (1, 1.0), "no claim is needed for it");
    world.check();
    relay.stop().await;
    let _next = world.start("a", 2).await;
    world.insert("orders", "k", 2);
    world.drained().await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_paused_relay_keeps_its_journal_from_running_out() {
    let world = World::new();
    world.source.database().standing.paused = true;
    world.insert("orders", "k", 3);
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Paused).await;
    fade(&world).await;
    until("it is applied", || applied(&world) == 1).await;
    assert_eq!(world.unsent(), 3, "nothing is published by it");
}

#[tokio::test(start_paused = true)]
async fn a_record_without_events_that_was_not_marked_is_settled() {
    for failure in [TableFailure::Before(outage()), TableFailure::After(Fault::in_doubt(Cause::Mark, "test"))] {
        let world = World::new();
        world.insert("orders", "k", 3);
        let _relay = world.start("a", 1).await;
        world.drained().await;
        world.source.fail(Verb::Mark, failure);
        fade(&world).await;
        until("it is applied", || applied(&world) == 2).await;
        world.insert("orders", "k", 3);
        world.drained().await;
        assert_eq!(world.fences(), 2);
        world.check();
    }
}
