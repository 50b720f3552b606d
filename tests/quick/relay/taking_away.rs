//! A right, a table or a column is taken away from a relay that runs, and given back.

use super::*;

fn refused() -> Fault {
    Fault::Refused { detail: "INSERT on applied".into(), remedy: "Grant it.".into() }
}

fn missing() -> Fault {
    Fault::Missing { detail: "no column payload".into(), remedy: "Bring it back.".into() }
}

#[tokio::test(start_paused = true)]
async fn what_was_there_at_the_claim_is_waited_for() {
    for fault in [refused(), missing()] {
        for verb in [Verb::Look, Verb::Claim, Verb::Fetch, Verb::Mark] {
            let world = World::new();
            let relay = world.start("a", 1).await;
            world.insert("orders", "k", 5);
            world.drained().await;
            // the relay meets the first fault in its loop, the others when it tries to claim again
            world.source.fail(Verb::Fetch, TableFailure::Before(fault.clone()));
            (0..3).for_each(|_| world.source.fail(verb, TableFailure::Before(fault.clone())));
            world.insert("orders", "k", 5);
            world.drained().await;
            assert!(relay.metrics.text().contains(&format!("outboxd_faults_total{{code=\"{}\"", fault.label())), "{verb:?}");
            assert!(relay.claims(Cause::Outage) >= 1.0, "{verb:?}");
            world.check();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_there_ends_the_process() {
    for fault in [refused(), missing()] {
        let world = World::new();
        world.source.fail(Verb::Claim, TableFailure::Before(fault.clone()));
        let ended = world.start("a", 1).await.task.await;
        assert!(matches!(ended, Ok(End::Exit(_))), "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_until_drained_waits_for_nobody() {
    let world = World::new();
    world.insert("orders", "k", 5);
    world.source.fail(Verb::Mark, TableFailure::Before(refused()));
    let ended = world.start_until("a", 1, Until::Drained).await.task.await;
    assert!(matches!(ended, Ok(End::Exit(Fault::Refused { .. }))), "{ended:?}");
}
