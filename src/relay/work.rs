//! What a claim gives, and the steps of a turn.

use tokio::time::Instant;

use super::fetching::{Fetching, Fresh};
use crate::cursor::Form;
use crate::event::{Batch, BatchLimits};
use crate::fault::{Cause, Fault};
use crate::metrics::Metrics;
use crate::sink::{Commit, Published, Publisher};
use crate::source::{Marker, Pins, Reader};
use crate::stop::Stop;

/// What a claim gives, and what is under way.
pub(super) struct Work<R, M, P> {
    pub(super) publisher: P,
    pub(super) marker: M,
    pub(super) fetching: Fetching<R>,
    pub(super) pins: Pins,
    pub(super) next: Option<Fresh>,
    pub(super) unmarked: Option<Published>,
}

impl<R: Reader, M: Marker, P: Publisher> Work<R, M, P> {
    /// Pins the partition counts of topics that occur for the first time, before anything is sent to them.
    pub(super) async fn pin(&mut self, batch: &Batch) -> Result<(), Fault> {
        let mut new = self.publisher.count_partitions(batch, &self.pins).await?;
        if !new.is_empty() {
            self.marker.pin(&new).await?;
            self.pins.append(&mut new);
        }
        Ok(())
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
