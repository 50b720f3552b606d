//! The process around the relay: lease, standby, signals, drain.
//!
//! ```text
//!            lease taken                      asked to stop, and drained
//!  standby ---------------> leading ------------------------------------> leaves, the lease released
//!     ^                        |
//!     +------------------------+  lease lost; nothing finished for too long: released, a turn of waiting
//! ```
//! Two tasks: one holds standby, relay, renewals and chores together, so that nobody renews the lease of a relay that keeps its thread;
//! the other one listens to signals, so that the process can be left whatever the first one does.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::heartbeat::Heartbeat;
use crate::metrics::Metrics;
use crate::phase::Phase;
use crate::relay::{End, Relay, Until};
use crate::sink::Sink;
use crate::source::{Leases, Source};
use crate::stop::{Stop, Stopper, Stopping, pair};
use crate::waits::Waits;

mod janitor;
mod lease;
mod outcome;
pub mod signals;
mod systemd;

pub use janitor::Janitor;
pub use outcome::Outcome;

use lease::{Grant, Loss, Tenancy};
use signals::Signal;

/// What leads while the process holds the lease.
pub trait Leader: Send + 'static {
    /// Leads under the grant `epoch` until asked to stop, or until going on makes no sense. Dropping it half way is like a crash: safe,
    /// but what was begun is only settled by the next claim.
    fn lead(&mut self, epoch: u64, stop: &mut Stop) -> impl Future<Output = End> + Send;
}

impl<S: Source, K: Sink> Leader for Relay<S, K> {
    fn lead(&mut self, epoch: u64, stop: &mut Stop) -> impl Future<Output = End> + Send {
        self.run(epoch, stop)
    }
}

/// What is done beside the relay while the process holds the lease.
pub trait Chores: Send + Sync + 'static {
    /// Does it for ever; dropped with the lease.
    fn run(&self) -> impl Future<Output = Infallible> + Send;
}

/// What a daemon needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every wait of the protocol.
    pub waits: Waits,
    /// Instance name of this process.
    pub instance: String,
    /// Random number of this process.
    pub start: u64,
    /// When the relay ends by itself: then the process leaves, and it waits for its turn only as long as a dead owner's lease lasts.
    pub until: Until,
    /// How long a relay may tell nothing at all before it is dropped and begun anew; longer than anything that it waits for by itself.
    pub silence: Duration,
    /// How long a drain may take.
    pub shutdown_grace: Duration,
}

/// One process: a leader, and what is needed to make it lead.
pub struct Daemon<S, L, C> {
    leader: L,
    house: House<S, C>,
    heart: Heartbeat,
}

/// Everything around the leader.
struct House<S, C> {
    tenancy: Tenancy<S>,
    chores: C,
    settings: Settings,
    metrics: Metrics,
}

/// How a time of leading ended.
enum Ended {
    ByItself(End),
    Lost(Loss),
    Hangs,
}

/// What comes after a time of leading.
enum Next {
    /// Standby, after a pause.
    Standby(Duration),
    /// The end.
    Leave(Outcome),
}

impl<S: Leases, L: Leader, C: Chores> Daemon<S, L, C> {
    /// A daemon that has not started. `heart` beats while it runs.
    pub fn new(tenancy: Arc<S>, leader: L, chores: C, settings: Settings, metrics: Metrics, heart: Heartbeat) -> Self {
        let tenancy = Tenancy::new(tenancy, &settings, metrics.clone());
        Self { leader, house: House { tenancy, chores, settings, metrics }, heart }
    }

    /// Runs until it is asked to stop, or until going on makes no sense. When it returns the process should leave at once: on a late drain
    /// something is still under way.
    pub async fn run(self, signals: mpsc::Receiver<Signal>) -> Outcome {
        let (stopper, asked) = pair();
        let (heart, metrics) = (self.heart.clone(), self.house.metrics.clone());
        let grace = self.house.settings.shutdown_grace;
        let mut work = tokio::spawn(self.work(asked));
        tokio::select! {
            outcome = &mut work => outcome.unwrap_or(Outcome::Panicked),
            outcome = shut_down(signals, &stopper, grace) => {
                work.abort();
                outcome
            }
            never = systemd::report(&heart, &metrics) => match never {},
        }
    }

    async fn work(mut self, mut asked: Stop) -> Outcome {
        let heart = self.heart.clone();
        let outcome = heart.beating(self.turns(&mut asked)).await;
        self.house.metrics.phase(Phase::Stopped);
        info!(exit_code = outcome.exit_code(), "stopped");
        outcome
    }

    /// Standby and leading, by turns.
    async fn turns(&mut self, asked: &mut Stop) -> Outcome {
        loop {
            self.house.metrics.phase(Phase::Standby);
            let grant = match self.house.tenancy.await_grant(asked).await {
                Ok(grant) => grant,
                Err(outcome) => return outcome,
            };
            match self.lead(grant, asked).await {
                Next::Leave(outcome) => return outcome,
                Next::Standby(pause) => {
                    self.house.metrics.phase(Phase::Standby);
                    let _ = timeout(pause, asked.asked()).await;
                }
            }
        }
    }

    /// Leads under one grant.
    async fn lead(&mut self, grant: Grant, asked: &mut Stop) -> Next {
        let (house, (stopper, mut stop)) = (&self.house, pair());
        info!(instance = house.settings.instance, epoch = grant.epoch, "lease taken");
        house.metrics.leader(true);
        let ended = {
            let mut leading = pin!(self.leader.lead(grant.epoch, &mut stop));
            let ended = tokio::select! {
                end = &mut leading => Ended::ByItself(end),
                ended = house.interruption(grant, asked, &stopper) => ended,
            };
            house.metrics.leader(false);
            if let Ended::Lost(_) = ended {
                // what it has begun may be finished, but nobody waits for that for ever: the next claim settles it
                stopper.stop(Stopping::LeaseLost);
                let _ = timeout(house.settings.waits.stuck, leading).await;
            }
            ended
        };
        house.after(ended, asked).await
    }
}

/// Passes the first signal on and gives the drain its time; what ends here is not finished.
async fn shut_down(mut signals: mpsc::Receiver<Signal>, stopper: &Stopper, grace: Duration) -> Outcome {
    let signal = signals::next(&mut signals).await;
    info!(signal = signal.name(), grace_ms = grace.as_millis() as u64, "draining");
    systemd::stopping();
    stopper.stop(Stopping::Drain);
    tokio::select! {
        () = sleep(grace) => warn!(grace_ms = grace.as_millis() as u64, "leaving without having drained: the next claim settles it"),
        second = signals::next(&mut signals) => warn!(signal = second.name(), "leaving at once: the next claim settles what was begun"),
    }
    Outcome::NotDrained
}

impl<S: Leases, C: Chores> House<S, C> {
    /// Renews the lease, does the chores and passes a wish to drain on, until the leader must be interrupted.
    async fn interruption(&self, grant: Grant, asked: &mut Stop, stopper: &Stopper) -> Ended {
        let pass_on = async {
            stopper.stop(asked.asked().await);
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            loss = self.tenancy.hold(grant) => Ended::Lost(loss),
            () = self.silence() => Ended::Hangs,
            never = self.chores.run() => match never {},
            never = pass_on => match never {},
        }
    }

    /// Ends when the relay has told nothing for so long that it must hang somewhere. A halted one is silent for good reasons.
    async fn silence(&self) {
        let most = self.settings.silence;
        while self.metrics.silence() < most || self.metrics.vitals().phase == Phase::Halted {
            sleep(most / 8).await;
        }
    }

    /// The leader is gone: what it held is given back, and what comes next follows from why it went.
    async fn after(&self, ended: Ended, asked: &Stop) -> Next {
        match ended {
            Ended::ByItself(End::LeaseLost) => info!("stepped down: the lease was granted to another process"),
            Ended::Lost(Loss::RanOut) => warn!("stepped down: the lease could not be renewed in time"),
            Ended::Lost(Loss::Taken { by, start, epoch }) => {
                warn!(by, start, "stepped down: the lease was granted to another process");
                if asked.now() == Stopping::No
                    && let Err(outcome) = self.tenancy.refuse_shared_name(&by, start, epoch)
                {
                    return Next::Leave(outcome);
                }
            }
            Ended::ByItself(End::GaveUp) => return self.wait_a_turn("nothing could be finished").await,
            Ended::Hangs => return self.wait_a_turn("the relay hung").await,
            Ended::ByItself(End::Stopped) => return self.leave(Outcome::Done).await,
            Ended::ByItself(End::Exit(fault)) => return self.leave(Outcome::failed(fault)).await,
        }
        self.again(self.settings.waits.standby)
    }

    async fn leave(&self, outcome: Outcome) -> Next {
        self.tenancy.release().await;
        Next::Leave(outcome)
    }

    /// Gives the lease up for long enough that every standby looks at it some times.
    async fn wait_a_turn(&self, why: &'static str) -> Next {
        warn!(why, "stepped down: another process may try");
        self.tenancy.release().await;
        self.again(5 * self.settings.waits.standby)
    }

    /// Standby; a process that runs only until something is done leaves instead.
    fn again(&self, pause: Duration) -> Next {
        match self.settings.until {
            Until::Stopped => Next::Standby(pause),
            Until::Drained | Until::Settled => {
                let vitals = self.metrics.vitals();
                let reached = vitals.database_up && vitals.kafka_up == Some(true);
                Next::Leave(if reached { Outcome::NotNow } else { Outcome::Unreachable })
            }
        }
    }
}

#[cfg(test)]
mod tests;
