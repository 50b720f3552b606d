//! Looking before fencing, and halting: what happens before and instead of the loop.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{End, Relay, Until, WorkOf, end, wait};
use crate::fault::{Cause, Dependency, Fault, Halt, HaltCode, Verdict};
use crate::identity;
use crate::journal::{Owner, View};
use crate::phase::Phase;
use crate::sink::Sink;
use crate::source::{Source, Standing};
use crate::stop::Stop;

/// How a rest ended.
enum Rested {
    /// Somebody asked for an end.
    Asked(End),
    /// The state row says something else.
    Changed,
    /// Nothing happened.
    Over,
}

impl<S: Source, K: Sink> Relay<S, K> {
    /// Looks at database and journal, fencing nobody. When the database seems to have gone back in time (a restore, a failover, or a
    /// copy of a living one), watches first whether somebody else still publishes.
    pub(super) async fn look(&mut self, owner: &Owner) -> Result<View, Fault> {
        let (standing, view) = self.examine(owner).await?;
        if !identity::went_back(&standing, &view) {
            return Ok(view);
        }
        if self.known > 0 {
            identity::judge_journal(&standing, &view, self.known)?;
        }
        warn!(batch = view.last.n, applied = standing.applied.n, "the database went back in time: watching for another publisher");
        // who held the lease before us has noticed after one lease, even when it stood still meanwhile
        sleep(self.settings.waits.lease).await;
        let (_, before) = self.examine(owner).await?;
        sleep(self.settings.waits.went_back.saturating_sub(self.settings.waits.lease)).await;
        self.progress = Instant::now();
        let (standing, later) = self.examine(owner).await?;
        identity::judge_journal(&standing, &later, view.last.n)?;
        identity::judge_silence(&before, &later)?;
        Ok(later)
    }

    async fn examine(&self, owner: &Owner) -> Result<(Standing, View), Fault> {
        let standing = self.source.look().await?;
        self.metrics.dependency(Dependency::Database, true);
        if standing.epoch != owner.epoch {
            return Err(Fault::LeaseLost);
        }
        identity::judge_database(&standing)?;
        let view = self.sink.look(standing.outbox, standing.applied).await?;
        identity::judge_journal(&standing, &view, u64::MAX)?;
        Ok((standing, view))
    }

    /// Publishes nothing until a person resumes. A run with an end in sight does not wait for that.
    pub(super) async fn rest(&mut self, work: &mut WorkOf<S, K>, owner: &Owner, stop: &mut Stop) -> Result<End, Fault> {
        info!("paused: nothing is published until `outboxd resume`");
        while self.settings.until == Until::Stopped {
            self.phase(Phase::Paused);
            if let Some(end) = wait(self.settings.waits.paused, stop).await {
                return Ok(end);
            }
            let standing = self.source.look().await?;
            self.finish();
            if standing.epoch != owner.epoch {
                return Err(Fault::LeaseLost);
            }
            if !standing.paused {
                return Err(Fault::in_doubt(Cause::ClaimChanged, "resumed"));
            }
            self.known = work.refresh().await?.unwrap_or(self.known);
        }
        Ok(End::GaveUp)
    }

    /// Pauses before the next claim.
    pub(super) async fn back_off(&mut self, fault: &Fault, pause: Duration, stop: &mut Stop) -> Option<End> {
        // who has just started it is told of an outage at the first try: the next one may take many seconds to find nothing new
        if pause.is_zero() && fault.verdict() == Verdict::BackOff && !self.metrics.vitals().claimed {
            self.told.backing_off(fault, pause);
            return None;
        }
        if pause.is_zero() {
            debug!(error = fault.obx(), %fault, "claiming again");
            return None;
        }
        self.phase(Phase::BackingOff);
        self.told.backing_off(fault, pause);
        wait(pause, stop).await
    }

    /// Takes the evidence again, writes the halt, and looks now and then whether the evidence is gone: then there is no end. What only a
    /// settlement can tell is tried once more before it is believed.
    pub(super) async fn halt(&mut self, first: Halt, owner: &Owner, stop: &mut Stop) -> Option<End> {
        let by_settling = first.code == HaltCode::MarkRefused;
        let mut seen = None;
        if !(by_settling && self.settled_in_vain) {
            self.told.suspected(&first);
            let rested = self.rest_until_changed(self.settings.waits.evidence, &mut seen, stop).await;
            self.progress = Instant::now();
            match rested {
                Rested::Asked(end) => return Some(end),
                // what was seen does not hold any more: the evidence begins anew
                Rested::Changed => return None,
                Rested::Over if by_settling => {
                    self.settled_in_vain = true;
                    return None;
                }
                Rested::Over => {}
            }
        }
        loop {
            match self.declare(&first, owner, &mut seen).await {
                Ok(Some(halt)) => {
                    self.told.halted(&halt);
                    self.phase(Phase::Halted);
                    self.metrics.halted(Some(halt.code));
                }
                Ok(None) => return None,
                Err(fault) if fault.verdict() == Verdict::StepDown => return Some(End::LeaseLost),
                // an outage is no evidence for anything: what was declared stands
                Err(_) if self.metrics.vitals().halted.is_some() => {}
                Err(_) => return None,
            }
            if let Rested::Asked(end) = self.rest_until_changed(self.settings.waits.halted, &mut seen, stop).await {
                return Some(end);
            }
            self.progress = Instant::now();
        }
    }

    /// Lets time pass until something is asked, or the state row says something else than was `seen`: a command was run, or the database
    /// is another one. The journal is not read for that. Who has not seen anything yet compares with the first look that is answered.
    async fn rest_until_changed(&self, most: Duration, seen: &mut Option<Standing>, stop: &mut Stop) -> Rested {
        let over = Instant::now() + most;
        while Instant::now() < over {
            let step = self.settings.waits.paused.min(over - Instant::now());
            if let Some(end) = wait(step, stop).await {
                return Rested::Asked(end);
            }
            let looked = tokio::select! {
                biased;
                why = stop.asked() => return Rested::Asked(end(why)),
                looked = self.source.look() => looked,
            };
            match (looked, &seen) {
                (Ok(now), Some(then)) if now != *then => return Rested::Changed,
                (Ok(now), None) => *seen = Some(now),
                // where nobody answers nothing is known to have changed
                (Ok(_) | Err(_), _) => {}
            }
        }
        Rested::Over
    }

    /// Writes the halt into the state row if its evidence still stands and nobody claimed or marked since. Nothing when it is gone.
    async fn declare(&mut self, first: &Halt, owner: &Owner, seen: &mut Option<Standing>) -> Result<Option<Halt>, Fault> {
        let standing = self.source.look().await?;
        *seen = Some(standing.clone());
        let halt = match self.examine(owner).await {
            Err(Fault::Unsafe(halt)) => halt,
            Err(fault) => return Err(fault),
            Ok((standing, view)) if self.stands(first, &standing, &view) => first.clone(),
            Ok(_) => return Ok(None),
        };
        Ok(self.source.halt(&halt, &standing).await?.then_some(halt))
    }

    /// Whether what a look cannot judge by itself is still as it was.
    fn stands(&self, first: &Halt, standing: &Standing, view: &View) -> bool {
        match first.code {
            HaltCode::JournalBlocked => view.stable < view.end,
            HaltCode::TwoDatabases => identity::went_back(standing, view),
            // only another settlement can tell: what it said last is believed, and tried again later
            HaltCode::MarkRefused => self.metrics.vitals().phase != Phase::Halted,
            HaltCode::ForeignJournal
            | HaltCode::MovedDatabase
            | HaltCode::OldPrimary
            | HaltCode::JournalWindow
            | HaltCode::KafkaBehind
            | HaltCode::JournalVersion => false,
        }
    }
}
