//! When and in which form the relay fetches.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::cursor::{Cursor, Form, WentBack};
use crate::event::{Batch, BatchLimits, Event, Fingerprint};
use crate::failpoint::{lacks, pass};
use crate::fault::{Cause, Fault};
use crate::metrics::Metrics;
use crate::pace::{Found, PollInterval};
use crate::source::{Query, Reader};
use crate::stop::Stop;
use crate::waits::Waits;

/// A batch that was just fetched.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) batch: Arc<Batch>,
    pub(super) fetched_at: Instant,
}

/// The reader with its cursor and its clock.
pub(super) struct Fetching<R> {
    reader: R,
    cursor: Cursor,
    interval: PollInterval,
    waits: Waits,
    /// No fetch before this, unless a batch is full.
    not_before: Instant,
    /// After a fetch that found nothing: from when on news make the next one come sooner.
    news_from: Option<Instant>,
    /// When the next proof scan is due.
    proof_due: Instant,
    /// The first event of the batch that was published last.
    published: Option<(i64, Fingerprint)>,
    /// The lowest gap and since when it is the lowest.
    lowest_gap: Option<(i64, Instant)>,
    metrics: Metrics,
}

impl<R: Reader> Fetching<R> {
    pub(super) async fn start(mut reader: R, waits: &Waits, metrics: Metrics) -> Result<Self, Fault> {
        let cursor = begin(&mut reader).await?;
        let (now, interval) = (Instant::now(), PollInterval::new(waits.linger, waits.idle));
        let proof_due = now + waits.proof_scan;
        Ok(Self {
            reader,
            cursor,
            interval,
            waits: *waits,
            not_before: now,
            news_from: None,
            proof_due,
            published: None,
            lowest_gap: None,
            metrics,
        })
    }

    /// Something was set aside or let go: what was learnt of the table does not hold any more. With nothing in flight.
    pub(super) async fn restart(&mut self) -> Result<(), Fault> {
        self.cursor = begin(&mut self.reader).await?;
        self.not_before = Instant::now();
        Ok(())
    }

    /// Whether the next batch may be fetched while one is being published: the cursor leaves out what is in flight. A proof scan cannot,
    /// so when one is due nothing is fetched ahead: it comes also under a backlog that lasts.
    pub(super) fn runs_ahead(&self) -> bool {
        self.cursor.form() == Form::Cursor && Instant::now() < self.proof_due
    }

    /// The form of a fetch with nothing in flight: now and then the full form, which proves that the cursor missed nothing.
    pub(super) fn form_now(&self) -> Form {
        if Instant::now() >= self.proof_due { Form::Full } else { self.cursor.form() }
    }

    /// A batch is about to be published: the next transaction may start a linger later, or at once when the batch was full.
    pub(super) fn publishing(&mut self, batch: &Batch) {
        self.published = batch.events().next().map(|event| (event.seq, event.fingerprint()));
        self.news_from = None;
        let linger = self.interval.after(Found::Work);
        self.not_before = Instant::now() + if batch.is_full() { std::time::Duration::ZERO } else { linger };
    }

    /// Fetches when it is time; nothing when asked to stop before that.
    pub(super) async fn fetch_in_time(&mut self, form: Form, limits: BatchLimits, stop: &mut Stop) -> Result<Option<Fresh>, Fault> {
        tokio::select! {
            biased;
            _ = stop.asked() => return Ok(None),
            () = sleep_until(self.not_before) => {}
            () = news(&mut self.reader, self.news_from) => {}
        }
        self.fetch(form, limits).await
    }

    /// Fetches now.
    pub(super) async fn fetch(&mut self, form: Form, limits: BatchLimits) -> Result<Option<Fresh>, Fault> {
        let gaps = if lacks!(Gaps) { Vec::new() } else { self.cursor.gaps().collect() };
        let query = Query { form, head: self.cursor.head(), gaps, limits };
        let started = Instant::now();
        let fetched = self.reader.fetch(&query).await?;
        pass!(Fetched, await);
        let seqs: Vec<i64> = fetched.batch.iter().flat_map(|batch| batch.seqs()).collect();
        let cut = fetched.batch.as_ref().is_some_and(|batch| batch.is_full());
        let learnt = self.cursor.take(form, fetched.listing, &seqs, cut).map_err(went_back)?;
        if learnt.rescued > 0 {
            warn!(
                events = learnt.rescued,
                first_seq = seqs[0],
                "the proof scan found events below the cursor that nobody waited for"
            );
        }
        self.metrics.polled();
        self.metrics.fetched(started.elapsed(), form);
        self.metrics.rescued(learnt.rescued);
        self.note_gaps();
        if form == Form::Full {
            self.proof_due = Instant::now() + self.waits.proof_scan;
        }
        if fetched.batch.is_none() {
            let now = Instant::now();
            self.not_before = now + self.interval.after(Found::Nothing);
            self.news_from = Some(now + self.waits.linger);
        }
        self.expect_marks_to_last(form, learnt.rescued, fetched.batch.as_deref())?;
        Ok(fetched.batch.map(|batch| Fresh { batch, fetched_at: Instant::now() }))
    }

    /// Rows that were marked, or that nobody waited for, are unsent: somebody set them back, or a trigger undoes marks. A claim looks
    /// which triggers there are, and reads everything that is unsent in full form.
    fn expect_marks_to_last(&self, form: Form, rescued: usize, batch: Option<&Batch>) -> Result<(), Fault> {
        let is_back = |event: Event<'_>| self.published == Some((event.seq, event.fingerprint()));
        // the full form comes with nothing in flight: what was published is marked
        let back = form == Form::Full && batch.is_some_and(|batch| batch.events().any(is_back));
        if rescued == 0 && !back {
            return Ok(());
        }
        Err(Fault::in_doubt(Cause::MarkCount, "rows are unsent again after they were marked, or were never waited for"))
    }

    fn note_gaps(&mut self) {
        let lowest = self.cursor.gaps().next().map(|range| range.high);
        self.lowest_gap = lowest.map(|high| match self.lowest_gap {
            Some((known, since)) if known == high => (high, since),
            Some(_) | None => (high, Instant::now()),
        });
        self.metrics.gaps(self.cursor.gaps().len(), self.lowest_gap.map(|(_, since)| since));
    }
}

/// News that come while the relay is idle; at other times the clock alone decides.
async fn news<R: Reader>(reader: &mut R, from: Option<Instant>) {
    match from {
        Some(from) => {
            sleep_until(from).await;
            reader.news().await;
        }
        None => std::future::pending().await,
    }
}

/// A cursor that knows nothing yet, where the table allows one.
async fn begin<R: Reader>(reader: &mut R) -> Result<Cursor, Fault> {
    Ok(if reader.allows_cursor() { Cursor::start(reader.positions().await?) } else { Cursor::full_only() })
}

fn went_back(WentBack { head, last_value }: WentBack) -> Fault {
    Fault::in_doubt(Cause::SequenceWentBack, format!("the sequence stands at {last_value}, {head} was seen"))
}
