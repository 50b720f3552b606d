//! A lease row, leaders that do as they are told, and processes made of them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::*;
use crate::fault::{Fault, HaltCode};
use crate::source::{Lease, Takeover};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// The lease row, as a database keeps it.
#[derive(Clone, Default)]
pub(super) struct Row(Arc<Mutex<Content>>);

#[derive(Default)]
pub(super) struct Content {
    held: Option<Held>,
    pub(super) epoch: u64,
    pub(super) takeovers: Vec<Takeover>,
    /// What every question is answered with while it is there.
    fault: Option<Fault>,
    /// How long an answer takes.
    pub(super) answers_after: Duration,
    /// No question is answered.
    pub(super) mute: bool,
}

pub(super) struct Held {
    by: String,
    start: u64,
    until: Instant,
}

impl Row {
    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn give(&self, by: &str, start: u64, life: Duration) {
        let mut content = self.content();
        content.epoch += 1;
        content.held = Some(Held { by: by.into(), start, until: Instant::now() + life });
    }

    pub(super) fn holder(&self) -> Option<u64> {
        self.content().held.as_ref().map(|held| held.start)
    }

    pub(super) fn fails_with(&self, fault: Option<Fault>) {
        self.content().fault = fault;
    }

    async fn question(&self) -> Result<MutexGuard<'_, Content>, Fault> {
        let mute = self.content().mute;
        if mute {
            std::future::pending::<()>().await;
        }
        let answers_after = self.content().answers_after;
        sleep(answers_after).await;
        let content = self.content();
        match content.fault.clone() {
            Some(fault) => Err(fault),
            None => Ok(content),
        }
    }
}

impl Leases for Row {
    async fn take(&self, instance: &str, start: u64, takeover: Takeover) -> Result<Lease, Fault> {
        let taken = {
            let mut content = self.question().await?;
            content.takeovers.push(takeover);
            let alive = content.held.as_ref().filter(|held| held.until > Instant::now() && held.start != start);
            alive.filter(|held| takeover == Takeover::Expired || held.by != instance).map(|held| Lease::Taken {
                by: held.by.clone(),
                start: held.start,
                epoch: content.epoch,
            })
        };
        if taken.is_none() {
            self.give(instance, start, LEASE);
        }
        Ok(taken.unwrap_or_else(|| Lease::Held { epoch: self.content().epoch }))
    }

    async fn renew(&self, start: u64) -> Result<Lease, Fault> {
        let mut content = self.question().await?;
        let epoch = content.epoch;
        Ok(match &mut content.held {
            Some(held) if held.start == start => {
                held.until = Instant::now() + LEASE;
                Lease::Held { epoch }
            }
            Some(held) => Lease::Taken { by: held.by.clone(), start: held.start, epoch },
            None => Lease::Taken { by: String::new(), start: 0, epoch },
        })
    }

    async fn release(&self, start: u64) -> Result<(), Fault> {
        self.question().await?.held.take_if(|held| held.start == start);
        Ok(())
    }
}

/// What one time of leading does.
#[derive(Clone)]
pub(super) enum Act {
    /// Relays until it is asked to stop, and drains this long.
    Relays { drain: Duration },
    /// Ends by itself after this long.
    Ends(Duration, fn() -> End),
    /// Tells nothing more, and hears nothing.
    Hangs,
    /// Is halted until it is asked to stop.
    Halts,
}

/// A leader that does as it is told, and relays when there is nothing more to do.
pub(super) struct Actor {
    acts: VecDeque<Act>,
    diary: Diary,
    metrics: Metrics,
}

/// What a leader went through, with the time since the start.
#[derive(Clone)]
pub(super) struct Diary(Arc<Mutex<Vec<(&'static str, Duration)>>>, Instant);

impl Diary {
    pub(super) fn new() -> Self {
        Self(Arc::default(), Instant::now())
    }

    fn note(&self, what: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((what, self.1.elapsed()));
    }

    pub(super) fn words(&self) -> Vec<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(word, _)| *word).collect()
    }

    /// When this happened last.
    pub(super) fn when(&self, what: &str) -> Duration {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().rev().find(|(word, _)| *word == what).unwrap_or_else(|| panic!("{what} never happened: {entries:?}")).1
    }
}

impl Actor {
    pub(super) fn new(acts: &[Act], diary: Diary, metrics: Metrics) -> Self {
        Self { acts: acts.iter().cloned().collect(), diary, metrics }
    }
}

impl Leader for Actor {
    async fn lead(&mut self, _epoch: u64, stop: &mut Stop) -> End {
        self.diary.note("leads");
        let act = self.acts.pop_front().unwrap_or(Act::Relays { drain: Duration::ZERO });
        match act {
            Act::Ends(after, end) => {
                sleep(after).await;
                end()
            }
            Act::Hangs => std::future::pending().await,
            Act::Halts => {
                self.metrics.phase(Phase::Halted);
                self.metrics.halted(Some(HaltCode::KafkaBehind));
                stopped(stop.asked().await, &self.diary)
            }
            Act::Relays { drain } => {
                while stop.now() == Stopping::No {
                    self.metrics.phase(Phase::Relaying);
                    let _ = timeout(SECOND, stop.asked()).await;
                }
                sleep(drain).await;
                stopped(stop.now(), &self.diary)
            }
        }
    }
}

pub(super) fn stopped(why: Stopping, diary: &Diary) -> End {
    match why {
        Stopping::LeaseLost => {
            diary.note("lost");
            End::LeaseLost
        }
        Stopping::No | Stopping::Drain => {
            diary.note("drained");
            End::Stopped
        }
    }
}

pub(super) struct NoChores;

impl Chores for NoChores {
    async fn run(&self) -> Infallible {
        std::future::pending().await
    }
}

/// One process under test.
pub(super) struct Process {
    signals: mpsc::Sender<Signal>,
    outcome: JoinHandle<(Outcome, Instant)>,
    pub(super) diary: Diary,
    pub(super) metrics: Metrics,
    started: Instant,
}

pub(super) fn settings(instance: &str, start: u64) -> Settings {
    Settings {
        waits: Waits::new(LEASE, Duration::from_millis(10), Duration::from_millis(100)),
        instance: instance.into(),
        start,
        until: Until::Stopped,
        silence: 6 * LEASE,
        shutdown_grace: 25 * SECOND,
    }
}

pub(super) fn start(row: &Row, instance: &str, number: u64, acts: &[Act]) -> Process {
    start_with(row, settings(instance, number), acts)
}

pub(super) fn start_with(row: &Row, settings: Settings, acts: &[Act]) -> Process {
    let (signals, received) = mpsc::channel(2);
    let (metrics, started) = (Metrics::new("shop"), Instant::now());
    let diary = Diary::new();
    let actor = Actor::new(acts, diary.clone(), metrics.clone());
    let daemon = Daemon::new(Arc::new(row.clone()), actor, NoChores, settings, metrics.clone(), Heartbeat::new());
    let outcome = tokio::spawn(async move { (daemon.run(received).await, Instant::now()) });
    Process { signals, outcome, diary, metrics, started }
}

impl Process {
    pub(super) async fn signal(&self) {
        self.signals.send(Signal::Terminate).await.expect("the process listens");
    }

    /// Why it left, and how long after its start.
    pub(super) async fn left(self) -> (Outcome, Duration) {
        let (outcome, at) = timeout(1000 * SECOND, self.outcome).await.expect("it leaves").expect("it does not panic");
        (outcome, at - self.started)
    }

    pub(super) fn is_running(&self) -> bool {
        !self.outcome.is_finished()
    }
}
