//! How soon a halted relay notices what a person did, and what it takes to halt.

use outboxd::fault::Halt;

use super::*;

/// What the command `adopt --database` does.
fn adopt_database(world: &World) {
    let mut database = world.source.database();
    let address = database.standing.address.clone();
    database.standing.accepted_addresses.push(address);
    database.standing.claim.0 += 1;
}

async fn halted_elsewhere() -> (World, Running) {
    let world = World::new();
    world.source.insert("orders", Some("k"), "1");
    world.source.database().standing.address = "elsewhere".into();
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Halted).await;
    (world, relay)
}

#[tokio::test(start_paused = true)]
async fn a_command_is_noticed_within_two_seconds_of_a_halt() {
    let (world, _relay) = halted_elsewhere().await;
    sleep(waits().halted / 3).await;
    let begun = Instant::now();
    adopt_database(&world);
    world.drained().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_halted_relay_that_watches_the_state_row_leaves_the_journal_alone() {
    let world = world_with_history().await;
    world.sink.log().journal.clear();
    world.sink.log().journal_end = 0;
    let relay = world.start("a", 2).await;
    relay.phase(Phase::Halted).await;
    // whoever reads the journal takes one of these
    world.sink.log().look_failures.extend((0..9).map(|_| outage()));
    let looks = world.source.database().calls.len();
    sleep(waits().halted - Duration::from_secs(10)).await;
    assert_eq!(world.sink.log().look_failures.len(), 9);
    assert!(world.source.database().calls.len() > looks + 50, "it watches the state row");
    world.source.database().standing.claim.0 += 1;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.sink.log().look_failures.len(), 8, "one look for one command");
    assert_eq!(relay.metrics.vitals().phase, Phase::Halted);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_database_while_it_is_watched_changes_nothing() {
    let (world, relay) = halted_elsewhere().await;
    (0..20).for_each(|_| world.source.fail(Verb::Look, TableFailure::Before(Fault::database("connection", "test"))));
    sleep(waits().halted / 2).await;
    assert_eq!((relay.metrics.vitals().phase, world.fences()), (Phase::Halted, 0));
    let begun = Instant::now();
    adopt_database(&world);
    world.drained().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn evidence_begins_anew_when_the_state_row_changes_meanwhile() {
    let world = World::new();
    world.source.database().standing.address = "elsewhere".into();
    let relay = world.start("a", 1).await;
    sleep(waits().evidence / 2).await;
    world.source.database().standing.claim.0 += 1;
    sleep(waits().evidence * 3 / 4).await;
    assert_ne!(relay.metrics.vitals().phase, Phase::Halted, "the first evidence was another one");
    relay.phase(Phase::Halted).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_halt_at_once() {
    let (_world, relay) = halted_elsewhere().await;
    let begun = Instant::now();
    assert!(matches!(relay.stop().await, End::Stopped));
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
}

fn mark_refused() -> TableFailure {
    TableFailure::Before(Halt::new(HaltCode::MarkRefused, "test").into())
}

/// A batch that is published and not marked.
fn unmarked(world: &World) {
    world.source.insert("orders", Some("k"), "1");
    world.source.fail(Verb::Mark, TableFailure::Before(Fault::database("refused", "test")));
}

#[tokio::test(start_paused = true)]
async fn marks_that_are_refused_once_are_tried_again_before_it_halts() {
    let world = World::new();
    unmarked(&world);
    // the first claim has nothing to settle
    world.source.fail(Verb::Settle, mark_refused());
    let _relay = world.start("a", 1).await;
    let begun = Instant::now();
    world.drained().await;
    assert!(begun.elapsed() < 2 * waits().evidence, "{:?}", begun.elapsed());
    world.check();
}

#[tokio::test(start_paused = true)]
async fn marks_that_are_refused_twice_halt_it_and_are_tried_once_in_six_leases() {
    let world = World::new();
    unmarked(&world);
    (0..4).for_each(|_| world.source.fail(Verb::Settle, mark_refused()));
    let relay = world.start("a", 1).await;
    let begun = Instant::now();
    relay.phase(Phase::Halted).await;
    assert!(begun.elapsed() >= waits().evidence && world.fences() == 3, "{:?}, {}", begun.elapsed(), world.fences());
    sleep(waits().halted - Duration::from_secs(1)).await;
    assert_eq!((relay.metrics.vitals().phase, world.fences()), (Phase::Halted, 3));
    sleep(Duration::from_secs(4)).await;
    assert_eq!((relay.metrics.vitals().phase, world.fences()), (Phase::Halted, 4));
    world.drained().await;
    assert_eq!(relay.metrics.vitals().halted, None);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn marks_that_a_trigger_undoes_halt_it_before_anything_comes_twice() {
    let world = World::new();
    world.insert("orders", "k", 25);
    world.source.database().undoes_marks = true;
    let relay = world.start("a", 1).await;
    relay.phase(Phase::Halted).await;
    assert_eq!(relay.metrics.vitals().halted, Some(HaltCode::MarkRefused));
    sleep(3 * waits().halted).await;
    // one batch is marked while the next is published
    assert!(world.sink.log().topics["orders"].len() <= 2 * LIMITS.events);
    world.source.database().undoes_marks = false;
    world.drained().await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_trigger_that_comes_later_makes_no_more_than_two_batches_come_twice() {
    for by_cursor in [true, false] {
        let world = World::new();
        world.source.database().allows_cursor = by_cursor;
        let relay = world.start("a", 1).await;
        world.insert("orders", "k", 25);
        world.drained().await;
        sleep(waits().proof_scan / 2).await;
        world.source.database().undoes_marks = true;
        world.insert("orders", "k", 25);
        relay.phase(Phase::Halted).await;
        assert_eq!(relay.metrics.vitals().halted, Some(HaltCode::MarkRefused));
        let published = world.sink.log().topics["orders"].len();
        assert!(published <= 50 + 2 * LIMITS.events, "{published}, by cursor: {by_cursor}");
        sleep(3 * waits().halted).await;
        assert_eq!(world.sink.log().topics["orders"].len(), published);
    }
}
