//! What a claim gives, and the steps of a turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::fetching::{Fetching, Fresh};
use crate::cursor::Form;
use crate::event::{Batch, BatchLimits};
use crate::fault::{Cause, Fault};
use crate::metrics::Metrics;
use crate::park::{Ailing, Done, SetAside, Unfit};
use crate::sink::{Commit, Inspection, Published, Publisher};
use crate::source::{Marker, Pins, Reader};
use crate::stop::Stop;

/// What a claim gives, and what is under way.
pub(super) struct Work<R, M, P> {
    pub(super) publisher: P,
    pub(super) marker: M,
    pub(super) fetching: Fetching<R>,
    pub(super) pins: Pins,
    pub(super) held: Held,
    pub(super) next: Option<Fresh>,
    pub(super) unmarked: Option<Published>,
}

/// Topics that cannot be published to, and when they are asked for again.
pub(super) struct Held {
    topics: BTreeSet<String>,
    every: Duration,
    due: Instant,
}

impl Held {
    /// Asked for at once: a claim often follows upon what a person mended.
    pub(super) fn new(topics: BTreeSet<String>, every: Duration) -> Self {
        Self { topics, every, due: Instant::now() }
    }

    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = !self.topics.is_empty() && now >= self.due;
        if due {
            self.due = now + self.every;
        }
        due
    }
}

impl<R: Reader, M: Marker, P: Publisher> Work<R, M, P> {
    /// Looks at a batch before anything of it is sent, and gives what of it can go: all; or, when something has to be set aside, the
    /// events that come before that; or nothing, because it was set aside. In the latter two cases the table is read anew.
    pub(super) async fn admit(
        &mut self,
        batch: Arc<Batch>,
        suspect: &mut Option<Unfit>,
        metrics: &Metrics,
    ) -> Result<Option<Arc<Batch>>, Fault> {
        let Inspection { mut set_aside, pins } = self.publisher.inspect(&batch, &self.pins).await?;
        let here = |unfit: &Unfit| batch.events().any(|event| (event.seq, event.id) == (unfit.seq, unfit.id));
        set_aside.unfit.extend(suspect.clone().filter(here));
        if set_aside.is_empty() {
            self.pin(pins).await?;
            return Ok(Some(batch));
        }
        let ahead = batch.ahead_of(&set_aside.unfit.iter().map(|unfit| unfit.seq).collect());
        if ahead > 0 && set_aside.ailing.is_empty() {
            let first = Arc::new(batch.first(ahead));
            let Inspection { set_aside, pins } = self.publisher.inspect(&first, &self.pins).await?;
            if set_aside.is_empty() {
                self.pin(pins).await?;
                self.fetching.restart().await?;
                return Ok(Some(first));
            }
        }
        mark(&mut self.marker, self.unmarked.take(), metrics).await?;
        self.set_aside(&set_aside, metrics).await?;
        suspect.take_if(|suspect| set_aside.unfit.contains(suspect));
        self.fetching.restart().await?;
        Ok(None)
    }

    /// Pins the partition counts of topics that occur for the first time.
    async fn pin(&mut self, mut pins: Pins) -> Result<(), Fault> {
        if !pins.is_empty() {
            self.marker.pin(&pins).await?;
            self.pins.append(&mut pins);
        }
        Ok(())
    }

    /// Parks and holds, and tells it: one line for each reason, not for each event. What is neither there any more nor could be set
    /// aside is looked at again after a claim.
    pub(super) async fn set_aside(&mut self, what: &SetAside, metrics: &Metrics) -> Result<(), Fault> {
        let done = self.marker.set_aside(what).await?;
        let mut by_code: BTreeMap<&str, Vec<&Unfit>> = BTreeMap::new();
        what.unfit.iter().for_each(|unfit| by_code.entry(unfit.code).or_default().push(unfit));
        for (code, events) in by_code {
            metrics.parked(code, events.len());
            let (first, remedy) = (events[0], "outboxd parked list");
            warn!(code, events = events.len(), first_seq = first.seq, first_id = %first.id, detail = first.detail, remedy, "parked");
        }
        for Ailing { topic, code, detail } in &what.ailing {
            warn!(code, topic, detail, "topic held: its events wait, those of other topics go on");
            self.held.topics.insert(topic.clone());
        }
        debug!(parked = done.parked, held = done.held, "set aside");
        if done == Done::default() {
            return Err(Fault::in_doubt(
                Cause::SetAside,
                "nothing could be set aside: its rows are gone, or the database ignored it",
            ));
        }
        Ok(())
    }

    /// Looks now and then whether topics that are held can be published to again.
    pub(super) async fn ask_for_held(&mut self, metrics: &Metrics) -> Result<(), Fault> {
        if !self.held.is_due() {
            return Ok(());
        }
        let ailing = self.publisher.ailing(&self.held.topics, &self.pins).await?;
        let still: BTreeSet<String> = ailing.into_iter().map(|ailing| ailing.topic).collect();
        let back = &self.held.topics - &still;
        if back.is_empty() {
            return Ok(());
        }
        mark(&mut self.marker, self.unmarked.take(), metrics).await?;
        self.marker.let_go(&back).await?;
        info!(topics = ?back, "held topics are back");
        self.held.topics = still;
        self.next = None;
        self.fetching.restart().await
    }

    /// Nothing is prepared: marks at once, and fetches when the linger is over. A full-form fetch comes after the mark, since it would
    /// bring unmarked rows again; the cursor leaves them out by itself.
    pub(super) async fn mark_and_look_for_more(
        &mut self,
        limits: BatchLimits,
        metrics: &Metrics,
        stop: &mut Stop,
    ) -> Result<(), Fault> {
        let form = self.fetching.form_now();
        let unmarked = self.unmarked.take();
        self.next = match form {
            Form::Full => {
                mark(&mut self.marker, unmarked, metrics).await?;
                self.fetching.fetch_in_time(form, limits, stop).await?
            }
            Form::Cursor => {
                let marking = mark(&mut self.marker, unmarked, metrics);
                let (marked, fetched) = tokio::join!(marking, self.fetching.fetch_in_time(form, limits, stop));
                marked?;
                fetched?
            }
        };
        Ok(())
    }
}

pub(super) async fn publish<P: Publisher>(
    publisher: &mut P,
    fresh: Fresh,
    pins: &Pins,
    metrics: &Metrics,
) -> Result<Published, Fault> {
    let started = Instant::now();
    let published = publisher.publish(fresh.batch, pins).await?;
    metrics.published(published.batch(), fresh.fetched_at, started.elapsed());
    if published.commit() == Commit::Late {
        metrics.claimed(Cause::SlowCommit);
    }
    Ok(published)
}

pub(super) async fn mark<M: Marker>(marker: &mut M, unmarked: Option<Published>, metrics: &Metrics) -> Result<(), Fault> {
    let Some(published) = unmarked else { return Ok(()) };
    let started = Instant::now();
    marker.mark(&published).await?;
    metrics.marked(started.elapsed());
    Ok(())
}
