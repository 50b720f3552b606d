//! What is done beside the relay: old rows and old journal records are let go of, and what waits is counted. None of it may stop the relay.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::Chores;
use crate::fault::{Fault, Verdict};
use crate::metrics::Metrics;
use crate::phase::Phase;
use crate::sink::Sink;
use crate::source::{Gauging, Pruned, Pruning, Source};

/// Between two prunings that found nothing more.
const PRUNE_EVERY: Duration = Duration::from_secs(5);
/// Between two steps of one pruning, at least; at most half of the time is spent on it.
const PRUNE_STEP: Duration = Duration::from_millis(10);
/// From the start of leading to the first trim, so that one happens also where processes live briefly.
const FIRST_TRIM: Duration = Duration::from_secs(60);
/// Between two trims.
const TRIM_EVERY: Duration = Duration::from_secs(600);
/// Between two counts of what waits.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// After a chore failed.
const PAUSE: Duration = Duration::from_secs(30);

/// Does the chores of one outbox.
pub struct Janitor<S, K> {
    source: Arc<S>,
    sink: Arc<K>,
    metrics: Metrics,
}

impl<S: Source + Pruning + Gauging, K: Sink> Janitor<S, K> {
    /// A janitor that has nothing to do yet.
    pub fn new(source: Arc<S>, sink: Arc<K>, metrics: Metrics) -> Self {
        Self { source, sink, metrics }
    }

    async fn prune(&self) -> Infallible {
        let mut complaints = Complaints::about("rows past their retention cannot be pruned");
        loop {
            self.relaying().await;
            let started = Instant::now();
            let pause = match complaints.note(self.source.prune().await) {
                Some(Pruned { more: true, .. }) => started.elapsed().max(PRUNE_STEP),
                Some(Pruned { more: false, .. }) => PRUNE_EVERY,
                None => PAUSE,
            };
            sleep(pause).await;
        }
    }

    async fn trim(&self) -> Infallible {
        let mut complaints = Complaints::about("the journal cannot be trimmed");
        sleep(FIRST_TRIM).await;
        loop {
            self.relaying().await;
            complaints.note(self.trim_once().await);
            sleep(TRIM_EVERY).await;
        }
    }

    /// Nothing is let go of unless the relay relays: a halted one keeps its evidence, and may be looking at another outbox's journal.
    async fn relaying(&self) {
        while self.metrics.vitals().phase != Phase::Relaying {
            sleep(PRUNE_EVERY).await;
        }
    }

    /// The record of the newest applied batch stays for ever: every claim begins there.
    async fn trim_once(&self) -> Result<(), Fault> {
        let keep_from = self.source.look().await?.applied.offset;
        let start = self.sink.trim(keep_from).await?;
        debug!(start, keep_from, "journal trimmed");
        Ok(())
    }

    async fn count(&self) -> Infallible {
        let mut complaints = Complaints::about("what waits in the table cannot be counted");
        loop {
            if let Some(pending) = complaints.note(self.source.pending().await) {
                self.metrics.pending(pending);
            }
            sleep(COUNT_EVERY).await;
        }
    }
}

impl<S: Source + Pruning + Gauging, K: Sink> Chores for Janitor<S, K> {
    async fn run(&self) -> Infallible {
        tokio::select! {
            never = self.prune() => never,
            never = self.trim() => never,
            never = self.count() => never,
        }
    }
}

/// Logs what goes wrong with a chore, each kind once until it went well again.
struct Complaints {
    about: &'static str,
    made: Vec<&'static str>,
}

impl Complaints {
    fn about(about: &'static str) -> Self {
        Self { about, made: Vec::new() }
    }

    fn note<T>(&mut self, done: Result<T, Fault>) -> Option<T> {
        match done {
            Ok(done) => {
                if !std::mem::take(&mut self.made).is_empty() {
                    info!(chore = self.about, "a chore is done again");
                }
                Some(done)
            }
            Err(fault) => {
                self.complain(&fault);
                None
            }
        }
    }

    /// Outages are told by the relay and by the lease. What the table refuses, for a foreign key or a trigger, only the chore meets.
    fn complain(&mut self, fault: &Fault) {
        let outage = matches!(fault, Fault::Unavailable { .. } | Fault::Standby | Fault::LeaseLost) && !fault.is_rejection();
        if outage || self.made.contains(&fault.label()) {
            return;
        }
        self.made.push(fault.label());
        let chore = self.about;
        match fault.verdict() {
            Verdict::Exit(_) | Verdict::Halt(_) => {
                error!(chore, error = fault.obx(), %fault, remedy = fault.remedy(), "a chore needs a person");
            }
            Verdict::BackOff | Verdict::Claim(_) | Verdict::StepDown => {
                warn!(chore, error = fault.obx(), %fault, remedy = fault.remedy(), "a chore failed");
            }
        }
    }
}

#[cfg(test)]
mod tests;
