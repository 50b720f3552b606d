//! The loop: claim, then fetch, publish and mark side by side. Knows neither which database nor which log it works on.
//!
//! ```text
//! look -> claim -> settle -> loop { join(publish n, mark n-1, fetch n+1) }     any fault -> look again
//! ```
//! Two batches are never published at once; any number may be unmarked, since the journal knows them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::cursor::Form;
use crate::event::BatchLimits;
use crate::fault::{Cause, Fault, Verdict};
use crate::journal::Owner;
use crate::metrics::Metrics;
use crate::pace::{BatchSize, Pause};
use crate::phase::Phase;
use crate::sink::{Fenced, Sink};
use crate::source::{Source, Tenure};
use crate::stop::{Stop, Stopping};
use crate::waits::Waits;

mod aside;
mod claiming;
mod fetching;
mod halting;
mod telling;
mod work;

use aside::Aside;
use fetching::Fresh;
use telling::Told;
use work::{Work, mark, publish};

/// What a relay needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every wait.
    pub waits: Waits,
    /// How much a batch holds.
    pub limits: BatchLimits,
    /// Instance name of this process.
    pub instance: String,
    /// Random number of this process.
    pub start: u64,
    /// When to end.
    pub until: Until,
}

/// When a relay ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Stopped,
    /// When a fetch finds nothing.
    Drained,
    /// When the journal is settled: nothing is published.
    Settled,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum End {
    /// It was asked to, and what was begun is finished; or it has reached what it was to run until.
    Stopped,
    /// Another process has the lease.
    LeaseLost,
    /// There was work, but nothing could be finished for too long: somebody else may have better luck.
    GaveUp,
    /// No retry helps.
    Exit(Fault),
}

/// One relay of one outbox, for as long as the process lives.
pub struct Relay<S, K> {
    source: Arc<S>,
    sink: Arc<K>,
    settings: Settings,
    metrics: Metrics,
    chance: fastrand::Rng,
    size: BatchSize,
    /// When a claim, a batch or a fetch without work was last finished.
    progress: Instant,
    /// When a batch was last published and journalled, or marked, or a fetch found no work: what a claim alone is not.
    finished: Instant,
    /// What outlives a claim of what is set aside.
    aside: Aside,
    /// Highest batch number that was settled or published under the present lease.
    known: u64,
    /// Whether rows that could not be marked were tried a second time, and none was marked since.
    settled_in_vain: bool,
    told: Told,
}

type WorkOf<S, K> = Work<
    <<S as Source>::Tenure as Tenure>::Reader,
    <<S as Source>::Tenure as Tenure>::Marker,
    <<K as Sink>::Fenced as Fenced>::Publisher,
>;

impl<S: Source, K: Sink> Relay<S, K> {
    /// A relay that has not started yet.
    pub fn new(source: Arc<S>, sink: Arc<K>, settings: Settings, metrics: Metrics, chance: fastrand::Rng) -> Self {
        let size = BatchSize::new(settings.limits);
        let now = Instant::now();
        let aside = Aside::new(settings.waits.held);
        let (told, settled_in_vain) = (Told::default(), false);
        Self { source, sink, settings, metrics, chance, size, progress: now, finished: now, aside, known: 0, settled_in_vain, told }
    }

    /// Relays under the lease grant `epoch` until asked to stop, or until going on makes no sense.
    pub async fn run(&mut self, epoch: u64, stop: &mut Stop) -> End {
        let owner = Owner { instance: self.settings.instance.clone(), start: self.settings.start, epoch };
        let mut pause = Pause::new(self.settings.waits.back_off_least, self.settings.waits.back_off_most);
        let mut cause = Cause::Start;
        self.finish();
        self.known = 0;
        self.aside = Aside::new(self.settings.waits.held);
        loop {
            let before = self.finished;
            let fault = match self.tenure(&owner, cause, stop).await {
                Ok(end) => return end,
                Err(fault) => self.source.explain(fault).await,
            };
            if self.finished != before {
                pause.reset();
            }
            self.metrics.fault(&fault);
            cause = match fault.verdict() {
                Verdict::Claim(cause) => cause,
                Verdict::BackOff => Cause::Outage,
                Verdict::StepDown => return End::LeaseLost,
                Verdict::Exit(_) if self.outlives(&fault) => Cause::Outage,
                Verdict::Exit(_) => return End::Exit(fault),
                Verdict::Halt(_) if self.settings.until != Until::Stopped => return End::Exit(fault),
                Verdict::Halt(halt) => match self.halt(halt, &owner, stop).await {
                    Some(end) => return end,
                    None => Cause::HaltCleared,
                },
            };
            if cause == Cause::ClaimChanged {
                self.aside.ask_now();
            }
            if self.is_stuck() {
                warn!(error = fault.obx(), %fault, "nothing could be finished: giving the lease up");
                return End::GaveUp;
            }
            let pause = pause.next(&mut self.chance);
            if let Some(end) = self.back_off(&fault, pause, stop).await {
                return end;
            }
        }
    }

    /// Whether this relay stays in spite of a fault that ends it at its start.
    pub fn outlives(&self, fault: &Fault) -> bool {
        outlives(fault, self.settings.until, &self.metrics)
    }

    /// One claim, and what is published under it.
    async fn tenure(&mut self, owner: &Owner, cause: Cause, stop: &mut Stop) -> Result<End, Fault> {
        let mut asked = stop.clone();
        let claimed = tokio::select! {
            biased;
            claimed = self.claim(owner) => claimed?,
            why = asked.asked() => return Ok(end(why)),
        };
        let mut work = self.settle(claimed).await?;
        self.progress = Instant::now();
        self.metrics.claimed(cause);
        self.metrics.halted(None);
        self.told.claimed();
        info!(cause = cause.name(), epoch = owner.epoch, batch = self.known, "claimed");
        match self.settings.until {
            Until::Settled => Ok(End::Stopped),
            Until::Stopped | Until::Drained if work.paused => self.rest(&mut work, owner, stop).await,
            Until::Stopped | Until::Drained => {
                self.phase(Phase::Relaying);
                let ended = self.relay(&mut work, stop).await;
                let suspected = matches!(&ended, Err(Fault::Poison(unfit)) if self.aside.suspects(unfit));
                if !suspected && let Some(culprit) = ended.as_ref().err().and_then(Fault::culprit) {
                    work.set_aside(&culprit, &mut self.aside, &self.metrics).await?;
                    self.finish();
                }
                ended
            }
        }
    }

    /// The heart: each turn publishes what was fetched, marks what was published, and fetches what comes next.
    async fn relay(&mut self, work: &mut WorkOf<S, K>, stop: &mut Stop) -> Result<End, Fault> {
        loop {
            if stop.now() != Stopping::No {
                self.phase(Phase::Draining);
                mark(&mut work.marker, work.unmarked.take(), &self.metrics).await?;
                return Ok(end(stop.now()));
            }
            work.ask_for_held(&mut self.aside, &self.metrics).await?;
            self.turn(work).await?;
            if work.next.is_none() {
                let marked = work.mark_and_look_for_more(self.size.limits(), &self.metrics, stop).await?;
                self.settled_in_vain &= !marked;
                let idle = work.next.is_none() && stop.now() == Stopping::No;
                if marked || idle {
                    self.finish();
                }
                if idle {
                    self.known = work.refresh().await?.unwrap_or(self.known);
                }
                if idle && self.settings.until == Until::Drained {
                    return Ok(End::Stopped);
                }
            }
        }
    }

    /// Publishes the next batch, marks the one before, and fetches ahead when there is more than one batch.
    async fn turn(&mut self, work: &mut WorkOf<S, K>) -> Result<(), Fault> {
        let Some(fresh) = work.next.take() else { return Ok(()) };
        let Some(batch) = work.admit(fresh.batch, &mut self.aside, &self.metrics).await? else {
            self.finish();
            return Ok(());
        };
        let fresh = Fresh { batch, ..fresh };
        work.fetching.publishing(&fresh.batch);
        let (limits, unmarked) = (self.size.limits(), work.unmarked.take());
        let ahead = fresh.batch.is_full() && work.fetching.runs_ahead();
        let (published, marked, fetched) = tokio::join!(
            publish(&mut work.publisher, fresh, &work.pins, &self.metrics),
            mark(&mut work.marker, unmarked, &self.metrics),
            async { if ahead { work.fetching.fetch(Form::Cursor, limits).await } else { Ok(None) } },
        );
        let published = published.inspect_err(|fault| self.failed(fault))?;
        self.size.succeeded();
        // A batch that no journal knows is finished when it is marked: it is published again when it cannot be.
        if let Some(at) = published.journalled() {
            self.known = at.n;
            self.finish();
        }
        let marked = marked?;
        self.settled_in_vain &= !marked;
        if marked {
            self.finish();
        }
        work.next = fetched?;
        work.unmarked = Some(published);
        Ok(())
    }

    /// A batch could not be published. An event that was refused is set aside when it is fetched again, after those before it.
    fn failed(&mut self, fault: &Fault) {
        self.size.failed(fault);
        if let Fault::Poison(unfit) = fault {
            self.aside.suspect(unfit);
        }
    }

    /// A relay with an end in sight gives up when nothing gets finished; any other one stays as long as it can claim.
    fn is_stuck(&self) -> bool {
        let since = match self.settings.until {
            Until::Stopped => self.progress,
            Until::Drained | Until::Settled => self.finished,
        };
        since.elapsed() > self.settings.waits.stuck
    }

    fn finish(&mut self) {
        let now = Instant::now();
        (self.progress, self.finished) = (now, now);
    }

    fn phase(&self, phase: Phase) {
        self.metrics.phase(phase);
    }
}

/// Whether a process stays in spite of a fault that ends it at its start: what it had when it claimed was taken away since, and who
/// gives it back does not have to start the process again.
pub fn outlives(fault: &Fault, until: Until, metrics: &Metrics) -> bool {
    fault.may_be_undone() && until == Until::Stopped && metrics.vitals().claimed
}

/// Waits; ends early when asked to stop.
async fn wait(pause: Duration, stop: &mut Stop) -> Option<End> {
    timeout(pause, stop.asked()).await.ok().map(end)
}

fn end(why: Stopping) -> End {
    match why {
        Stopping::No | Stopping::Drain => End::Stopped,
        Stopping::LeaseLost => End::LeaseLost,
    }
}
