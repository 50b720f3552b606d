//! Getting, keeping and giving back the lease. For efficiency only: should two processes ever lead at once, claim and fence keep them
//! apart.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use super::{Outcome, Settings};
use crate::fault::{Dependency, Fault, Verdict};
use crate::metrics::Metrics;
use crate::pace::Pause;
use crate::relay::{Until, outlives};
use crate::source::{Lease, Leases, Takeover};
use crate::stop::{Stop, Stopping};

/// A process that leaves waits this long for the database's last answer.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What a run until something is done waits for its turn, beyond the life of a dead owner's lease.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lease row as this process uses it.
pub(super) struct Tenancy<S> {
    leases: Arc<S>,
    settings: Settings,
    metrics: Metrics,
    takeover: Takeover,
    /// Highest grant that this process was ever given.
    granted: u64,
}

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) epoch: u64,
    /// When it runs out by our own clock, counted from when it was asked for: never later than by the database's.
    until: Instant,
}

/// How a lease was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It could not be renewed in time.
    RanOut,
    /// Another process has it.
    Taken { by: String, start: u64, epoch: u64 },
}

impl<S: Leases> Tenancy<S> {
    /// A process that begins takes the lease of its own instance name at once: its predecessor is dead. A run until something is done is
    /// nobody's successor.
    pub(super) fn new(leases: Arc<S>, settings: &Settings, metrics: Metrics) -> Self {
        let takeover = match settings.until {
            Until::Stopped => Takeover::OwnInstance,
            Until::Drained | Until::Settled => Takeover::Expired,
        };
        Self { leases, settings: settings.clone(), metrics, takeover, granted: 0 }
    }

    /// Asks for the lease until it is granted, or until the process has to leave.
    pub(super) async fn await_grant(&mut self, asked: &mut Stop) -> Result<Grant, Outcome> {
        let mut waiting = Waiting::new(&self.settings);
        while asked.now() == Stopping::No {
            let sent = Instant::now();
            let Some(answer) = self.take(asked).await else { break };
            note(&self.metrics, &answer);
            let pause = match answer {
                Ok(Lease::Held { epoch }) => {
                    self.granted = self.granted.max(epoch);
                    self.takeover = Takeover::Expired;
                    return Ok(Grant { epoch, until: sent + self.settings.waits.lease });
                }
                Ok(Lease::Taken { by, start, epoch }) => {
                    self.takeover = Takeover::Expired;
                    self.refuse_shared_name(&by, start, epoch)?;
                    waiting.behind(by, self.settings.waits.standby)?
                }
                Err(fault) if outlives(&fault, self.settings.until, &self.metrics) => waiting.behind_fault(&fault),
                Err(fault) => waiting.failed(fault)?,
            };
            let _ = timeout(pause, asked.asked()).await;
        }
        Err(Outcome::Done)
    }

    /// Asks once; nothing when asked to stop meanwhile. The answer is still waited for a moment then, since a lease that is granted to
    /// a process that leaves would keep the others waiting.
    async fn take(&self, asked: &mut Stop) -> Option<Result<Lease, Fault>> {
        let mut answer = pin!(self.leases.take(&self.settings.instance, self.settings.start, self.takeover));
        tokio::select! {
            answer = &mut answer => return Some(answer),
            _ = asked.asked() => {}
        }
        if let Ok(Ok(Lease::Held { .. })) = timeout(LAST_WORD, answer).await {
            self.release().await;
        }
        None
    }

    /// Renews until the lease is lost. A renewal that fails is tried again until the lease has run out.
    pub(super) async fn hold(&self, grant: Grant) -> Loss {
        let (mut until, mut failing) = (grant.until, false);
        loop {
            sleep_until(until.min(Instant::now() + self.settings.waits.renewal)).await;
            let sent = Instant::now();
            if sent >= until {
                return Loss::RanOut;
            }
            let within = until.min(sent + self.settings.waits.renewal);
            let answer = timeout_at(within, self.leases.renew(self.settings.start)).await;
            let answer = answer.unwrap_or_else(|_| Err(Fault::database("timeout", "no answer to the renewal of the lease")));
            note(&self.metrics, &answer);
            match answer {
                Ok(Lease::Held { .. }) => {
                    until = sent + self.settings.waits.lease;
                    if std::mem::replace(&mut failing, false) {
                        info!("lease renewed again");
                    }
                }
                Ok(Lease::Taken { by, start, epoch }) => return Loss::Taken { by, start, epoch },
                Err(fault) if !std::mem::replace(&mut failing, true) => {
                    let left_ms = (until - sent).as_millis() as u64;
                    warn!(error = fault.obx(), %fault, remedy = fault.remedy(), left_ms, "the lease could not be renewed yet");
                }
                Err(_) => {}
            }
        }
    }

    /// Gives the lease back, so that the next process need not wait until it has run out.
    pub(super) async fn release(&self) {
        let released = timeout(LAST_WORD, self.leases.release(self.settings.start)).await;
        if !matches!(released, Ok(Ok(()))) {
            warn!("the lease could not be released: it runs out by itself");
        }
    }

    /// A process took over the lease of its own instance name when it started. Who has it after that under the same name is another
    /// living process, which would do the same, and so on for ever. Not so when the database went back to a time before our own grant:
    /// there the dead predecessor still has it.
    pub(super) fn refuse_shared_name(&self, by: &str, start: u64, epoch: u64) -> Result<(), Outcome> {
        let (instance, ours) = (&self.settings.instance, self.settings.start);
        if self.settings.until != Until::Stopped || by != instance || start == ours || epoch < self.granted {
            return Ok(());
        }
        let detail = format!("two processes share relay.instance = \"{instance}\" (start numbers {ours} and {start})");
        let remedy = "Give each process of this outbox its own relay.instance, or stop one of them.";
        Err(Outcome::misconfigured(detail, remedy))
    }
}

/// Every question to the lease row also tells whether the database answers.
fn note<T>(metrics: &Metrics, answer: &Result<T, Fault>) {
    match answer {
        Ok(_) => metrics.dependency(Dependency::Database, true),
        Err(fault) => metrics.fault(fault),
    }
}

/// What stands between a process and the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Obstacle {
    Owner(String),
    Fault(&'static str),
}

/// One wait for the lease. An obstacle is logged when it is met, not each time it is still there.
struct Waiting {
    obstacle: Option<Obstacle>,
    pause: Pause,
    chance: fastrand::Rng,
    /// A run until something is done waits no longer than this.
    patience: Option<Instant>,
}

impl Waiting {
    fn new(settings: &Settings) -> Self {
        let waits = &settings.waits;
        let patience = match settings.until {
            Until::Stopped => None,
            Until::Drained | Until::Settled => Some(Instant::now() + waits.lease + PATIENCE),
        };
        let pause = Pause::new(waits.back_off_least, waits.back_off_most);
        Self { obstacle: None, pause, chance: fastrand::Rng::with_seed(settings.start), patience }
    }

    /// Another process has the lease. Returns the time until the next try, which is most of what a takeover takes.
    fn behind(&mut self, by: String, pause: Duration) -> Result<Duration, Outcome> {
        self.pause.reset();
        if self.is_new(Obstacle::Owner(by.clone())) {
            info!(held_by = by, "standby: another process has the lease");
        }
        if self.is_over() { Err(Outcome::NotNow) } else { Ok(pause) }
    }

    /// The lease could not be asked for. Returns the time until the next try.
    fn failed(&mut self, fault: Fault) -> Result<Duration, Outcome> {
        if let Verdict::Exit(_) = fault.verdict() {
            return Err(Outcome::failed(fault));
        }
        let pause = self.behind_fault(&fault);
        if self.is_over() { Err(Outcome::Unreachable) } else { Ok(pause) }
    }

    /// The same, for as long as it takes.
    fn behind_fault(&mut self, fault: &Fault) -> Duration {
        if self.is_new(Obstacle::Fault(fault.label())) {
            warn!(error = fault.obx(), %fault, remedy = fault.remedy(), "standby: the lease cannot be asked for");
        }
        self.pause.next(&mut self.chance)
    }

    fn is_new(&mut self, obstacle: Obstacle) -> bool {
        let known = self.obstacle.replace(obstacle.clone());
        known != Some(obstacle)
    }

    fn is_over(&self) -> bool {
        self.patience.is_some_and(|patience| Instant::now() >= patience)
    }
}
