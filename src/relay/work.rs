//! What a claim gives, and the steps of a turn.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::aside::Aside;
use super::fetching::{Fetching, Fresh};
use crate::cursor::Form;
use crate::event::{Batch, BatchLimits, Place};
use crate::failpoint::pass;
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
    pub(super) held: BTreeSet<String>,
    /// Whether nothing may be published now.
    pub(super) paused: bool,
    pub(super) next: Option<Fresh>,
    pub(super) unmarked: Option<Published>,
}

impl<R: Reader, M: Marker, P: Publisher> Work<R, M, P> {
    /// Looks at a batch before anything of it is sent, and gives what of it can go: all; or, where something cannot, first the events that
    /// are not behind that; or nothing, because something was set aside. In the latter two cases the table is read anew.
    pub(super) async fn admit(
        &mut self,
        batch: Arc<Batch>,
        aside: &mut Aside,
        metrics: &Metrics,
    ) -> Result<Option<Arc<Batch>>, Fault> {
        let Inspection { mut set_aside, pins } = self.publisher.inspect(&batch, &self.pins).await?;
        set_aside.unfit.extend(aside.suspects_in(&batch));
        if set_aside.is_empty() {
            self.pin(pins, metrics).await?;
            return Ok(Some(batch));
        }
        let places = batch.places(&set_aside.unfit.iter().map(|unfit| unfit.seq).collect());
        let first: HashSet<i64> =
            batch.seqs().zip(&places).filter(|(_, place)| **place == Place::FirstUnfit).map(|(seq, _)| seq).collect();
        set_aside.unfit.retain(|unfit| first.contains(&unfit.seq));
        if !set_aside.is_empty() {
            mark(&mut self.marker, self.unmarked.take(), metrics).await?;
            self.set_aside(&set_aside, aside, metrics).await?;
            self.fetching.restart().await?;
            return Ok(None);
        }
        let free = batch.select(|position| places[position] == Place::Free).map(Arc::new);
        let free = free.ok_or_else(|| Fault::in_doubt(Cause::SetAside, "every event is behind another one"))?;
        let Inspection { set_aside, pins } = self.publisher.inspect(&free, &self.pins).await?;
        if !set_aside.is_empty() {
            return Err(Fault::in_doubt(Cause::SetAside, "two looks at the same events found something else"));
        }
        self.pin(pins, metrics).await?;
        self.fetching.restart().await?;
        Ok(Some(free))
    }

    /// Pins topics that occur for the first time, or of which something new is known.
    async fn pin(&mut self, mut pins: Pins, metrics: &Metrics) -> Result<(), Fault> {
        if !pins.is_empty() {
            pass!(Pinning, await);
            self.marker.pin(&pins).await?;
            pass!(Pinned, await);
            self.pins.append(&mut pins);
            metrics.truncated(truncated(&self.pins));
        }
        Ok(())
    }

    /// Parks and holds, and tells it: one line for each reason, not for each event. What is neither there any more nor could be set
    /// aside is looked at again after a claim.
    pub(super) async fn set_aside(&mut self, what: &SetAside, aside: &mut Aside, metrics: &Metrics) -> Result<(), Fault> {
        let unfit: BTreeMap<i64, &Unfit> = what.unfit.iter().map(|unfit| (unfit.seq, unfit)).collect();
        let once = SetAside { unfit: unfit.into_values().cloned().collect(), ailing: what.ailing.clone() };
        pass!(SettingAside, await);
        let done = self.marker.set_aside(&once).await?;
        pass!(SetAside, await);
        aside.parked(&once.unfit);
        if done == Done::default() {
            return Err(Fault::in_doubt(
                Cause::SetAside,
                "nothing could be set aside: its rows are gone, or the database ignored it",
            ));
        }
        let mut by_code: BTreeMap<&str, Vec<&Unfit>> = BTreeMap::new();
        once.unfit.iter().for_each(|unfit| by_code.entry(unfit.code).or_default().push(unfit));
        for (code, events) in by_code {
            metrics.parked(code, events.len());
            let (first, fault) = (events[0], Fault::from(events[0].clone()));
            let (error, remedy) = (fault.obx(), fault.remedy());
            let (first_seq, first_id, detail) = (first.seq, &first.id, &first.detail);
            warn!(code, error, events = events.len(), first_seq, %first_id, detail, remedy, "parked");
        }
        for ailing @ Ailing { topic, code, detail } in &once.ailing {
            let (tried_again_s, fault) = (aside.held(topic).as_secs(), Fault::from(ailing.clone()));
            let (error, remedy) = (fault.obx(), fault.remedy());
            warn!(code, error, topic, detail, remedy, tried_again_s, "topic held: its events wait, those of other topics go on");
            self.held.insert(topic.clone());
        }
        debug!(parked = done.parked, held = done.held, "set aside");
        Ok(())
    }

    /// Looks now and then whether topics that are held can be published to again.
    pub(super) async fn ask_for_held(&mut self, aside: &mut Aside, metrics: &Metrics) -> Result<(), Fault> {
        if self.held.is_empty() || !aside.is_due() {
            return Ok(());
        }
        let ailing = self.publisher.ailing(&self.held, &self.pins).await?;
        self.hold_anew(&ailing).await?;
        let ailing: BTreeSet<String> = ailing.into_iter().map(|ailing| ailing.topic).collect();
        let back = aside.found_well(&self.held, &ailing);
        if back.is_empty() {
            return Ok(());
        }
        mark(&mut self.marker, self.unmarked.take(), metrics).await?;
        self.marker.let_go(&back).await?;
        info!(topics = ?back, "held topics are back");
        self.held.retain(|topic| !back.contains(topic));
        self.next = None;
        self.fetching.restart().await
    }

    /// Topics that are still held may be so for another reason by now.
    async fn hold_anew(&mut self, ailing: &[Ailing]) -> Result<(), Fault> {
        if ailing.is_empty() {
            return Ok(());
        }
        let changed = self.marker.set_aside(&SetAside { unfit: Vec::new(), ailing: ailing.to_vec() }).await?.held > 0;
        for Ailing { topic, code, detail } in ailing.iter().filter(|_| changed) {
            warn!(code, topic, detail, "topic still held");
        }
        Ok(())
    }

    /// Everything is marked: keeps the journal from running out where the log lets go of old records by itself. Gives the number of the
    /// record without events that this took.
    pub(super) async fn refresh(&mut self) -> Result<Option<u64>, Fault> {
        let Some(noted) = self.publisher.refresh().await? else { return Ok(None) };
        self.marker.note(&noted).await?;
        Ok(Some(noted.at().n))
    }

    /// Nothing is prepared: marks at once, and fetches when the linger is over. A full-form fetch comes after the mark, since it would
    /// bring unmarked rows again; the cursor leaves them out by itself.
    pub(super) async fn mark_and_look_for_more(
        &mut self,
        limits: BatchLimits,
        metrics: &Metrics,
        stop: &mut Stop,
    ) -> Result<bool, Fault> {
        let form = self.fetching.form_now();
        let marking = mark(&mut self.marker, self.unmarked.take(), metrics);
        let (marked, fetched) = match form {
            Form::Full => {
                let marked = marking.await?;
                (marked, self.fetching.fetch_in_time(form, limits, stop).await?)
            }
            Form::Cursor => {
                let (marked, fetched) = tokio::join!(marking, self.fetching.fetch_in_time(form, limits, stop));
                (marked?, fetched?)
            }
        };
        self.next = fetched;
        Ok(marked)
    }
}

/// How many topics lack events that were published to them.
pub(super) fn truncated(pins: &Pins) -> usize {
    pins.values().filter(|pin| pin.truncated.is_some()).count()
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

/// Marks what there is to mark; says whether there was anything.
pub(super) async fn mark<M: Marker>(marker: &mut M, unmarked: Option<Published>, metrics: &Metrics) -> Result<bool, Fault> {
    let Some(published) = unmarked else { return Ok(false) };
    let started = Instant::now();
    marker.mark(&published).await?;
    metrics.marked(started.elapsed());
    Ok(true)
}
