//! Bounded waiting: the only place of the tests that sleeps.

use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(15);

/// Polls until `condition` holds; panics with `what` when it does not within `within`.
#[track_caller]
pub fn eventually(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    eventually_get(what, within, || condition().then_some(()))
}

/// Polls until `attempt` gives something and returns it; panics with `what` when it does not within `within`.
#[track_caller]
pub fn eventually_get<T>(what: &str, within: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(STEP);
    }
}

/// [`eventually_get`] for conditions that have to be awaited.
pub async fn eventually_async<T>(what: &str, within: Duration, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(STEP).await;
    }
}

/// Lets time pass while a fault lasts, or between two faults; never a way to wait for something.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}
