//! Pause and resume: settled, and then nothing until a person says so.

use super::*;

fn pause(world: &World, paused: bool) {
    let mut database = world.source.database();
    database.standing.paused = paused;
    database.standing.claim.0 += 1;
}

#[tokio::test(start_paused = true)]
async fn a_paused_relay_settles_publishes_nothing_and_goes_on_when_resumed() {
    let world = World::new();
    world.insert("orders", "k", 3);
    let relay = world.start("a", 1).await;
    world.drained().await;
    pause(&world, true);
    world.insert("orders", "k", 5);
    relay.phase(Phase::Paused).await;
    let fences = world.fences();
    sleep(Duration::from_secs(600)).await;
    assert_eq!((world.unsent(), world.fences()), (5, fences), "nothing is published and nobody is fenced");
    pause(&world, false);
    world.drained().await;
    assert_eq!(world.fences(), fences + 1);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn what_was_published_and_not_marked_is_settled_before_the_pause() {
    let world = World::new();
    world.insert("orders", "k", 3);
    pause(&world, true);
    // a predecessor has published and died before its mark
    world.source.database().standing.paused = false;
    world.source.fail(Verb::Mark, TableFailure::Before(Fault::in_doubt(Cause::Mark, "test")));
    world.source.fail(Verb::Claim, TableFailure::Before(outage()));
    let relay = world.start("a", 1).await;
    until("it is published", || world.sink.log().topics.contains_key("orders")).await;
    world.source.database().standing.paused = true;
    relay.phase(Phase::Paused).await;
    assert_eq!(world.unsent(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_relay_stops_when_asked_to_and_steps_down_without_its_lease() {
    let world = World::new();
    pause(&world, true);
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Paused).await;
    assert!(matches!(relay.stop().await, End::Stopped));
    let relay = world.start("a", 2).await;
    relay.phase(Phase::Paused).await;
    world.source.database().lease_ran_out = true;
    world.lease("b", 3).await;
    assert!(matches!(relay.task.await, Ok(End::LeaseLost)));
}

#[tokio::test(start_paused = true)]
async fn a_run_until_drained_does_not_wait_for_a_person() {
    let world = World::new();
    world.insert("orders", "k", 3);
    pause(&world, true);
    let relay = world.start_until("a", 1, Until::Drained).await;
    assert!(matches!(relay.task.await, Ok(End::GaveUp)));
    assert_eq!(world.unsent(), 3);
}
