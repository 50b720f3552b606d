//! A sign of life of the relay's task, for whoever watches it from another one.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Between two beats.
const BEAT_EVERY: Duration = Duration::from_millis(250);

/// A task that has not beaten for this long hangs, or the machine stood still.
pub const SILENCE_AT_MOST: Duration = Duration::from_secs(10);

/// When a task was last seen alive. A clone is the same heartbeat.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    origin: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// A heart that beats now.
    pub fn new() -> Self {
        Self { origin: Instant::now(), last_ms: Arc::default() }
    }

    /// Alive.
    pub fn beat(&self) {
        self.last_ms.store(self.origin.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Time since the last beat.
    pub fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.origin.elapsed().saturating_sub(last)
    }

    /// Whether the last beat is not too long ago.
    pub fn is_alive(&self) -> bool {
        self.silence() <= SILENCE_AT_MOST
    }

    /// Beats for as long as `work` goes on, in the same task: it stops when the work keeps its thread, and goes on while the work waits for
    /// a database or a broker.
    pub async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        let beats = async {
            loop {
                self.beat();
                tokio::time::sleep(BEAT_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = beats => unreachable!("the heart beats for ever"),
        }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_is_alive() {
        let heart = Heartbeat::new();
        heart.beating(tokio::time::sleep(Duration::from_secs(300))).await;
        assert!(heart.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_keeps_its_thread_is_not() {
        let heart = Heartbeat::new();
        let keeps_the_thread = async {
            tokio::time::advance(SILENCE_AT_MOST + BEAT_EVERY).await;
            heart.is_alive()
        };
        assert!(!keeps_the_thread.await);
    }
}
