//! What the relay tells of itself in numbers. All names, labels and meanings stand here or in `metrics/families.rs`, and nowhere else.
//!
//! What changes by time alone (ages) is computed when somebody asks, so that it grows while the relay is stuck.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{Histogram, Registry, TextEncoder};
use tokio::time::Instant;

use crate::cursor::Form;
use crate::event::Batch;
use crate::fault::{Cause, Dependency, Fault, HaltCode};
use crate::heartbeat::Heartbeat;
use crate::phase::Phase;
use crate::source::Pending;

mod families;
mod topics;

use families::Families;
use topics::Topics;

/// Everything that is counted and measured. A clone is the same metrics.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    families: Families,
    topics: Mutex<Topics>,
    state: Mutex<State>,
    signs: Heartbeat,
}

/// What was told last and is turned into gauges at the scrape.
#[derive(Clone, Copy)]
struct State {
    vitals: Vitals,
    form: Option<Form>,
    pending: Pending,
    oldest_pending: Option<Age>,
    gaps: usize,
    oldest_gap: Option<Instant>,
    truncated: usize,
}

/// An age that was known at one instant, and grows.
#[derive(Clone, Copy)]
struct Age {
    then: Duration,
    at: Instant,
}

/// How the relay is, as it told last: for the health answers and the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// What it is doing.
    pub phase: Phase,
    /// Why it is halted, if it is.
    pub halted: Option<HaltCode>,
    /// Whether this process holds the lease.
    pub leader: bool,
    /// Whether this process ever claimed.
    pub claimed: bool,
    /// Whether the database answered last.
    pub database_up: bool,
    /// Whether the database ever answered.
    pub database_reached: bool,
    /// Whether Kafka answered last; nothing before it was asked.
    pub kafka_up: Option<bool>,
}

impl Metrics {
    /// Metrics of the outbox with this name. Every family is there from the start.
    pub fn new(outbox: &str) -> Self {
        let labels = [("outbox".to_owned(), outbox.to_owned())].into();
        let registry = Registry::new_custom(None, Some(labels)).expect("no prefix is a valid prefix");
        let families = Families::register(&registry);
        let shared =
            Shared { registry, families, topics: Mutex::default(), state: Mutex::new(State::new()), signs: Heartbeat::new() };
        Self { shared: Arc::new(shared) }
    }

    /// The relay is in another phase.
    pub fn phase(&self, phase: Phase) {
        self.heard().vitals.phase = phase;
    }

    /// The relay is halted, or not any more.
    pub fn halted(&self, code: Option<HaltCode>) {
        self.heard().vitals.halted = code;
    }

    /// This process got the lease, or lost it. Who is not the leader knows nothing of the table and is not halted: what was told
    /// of that is withdrawn, or it would grow for ever.
    pub fn leader(&self, leader: bool) {
        let mut state = self.heard();
        state.vitals.leader = leader;
        if !leader {
            let vitals = Vitals { halted: None, ..state.vitals };
            *state = State { vitals, ..State::new() };
        }
    }

    /// A dependency answered, or could not be reached.
    pub fn dependency(&self, dependency: Dependency, up: bool) {
        let vitals = &mut self.state().vitals;
        match dependency {
            Dependency::Database => {
                vitals.database_up = up;
                vitals.database_reached |= up;
            }
            Dependency::Kafka => vitals.kafka_up = Some(up),
        }
    }

    /// How the relay is.
    pub fn vitals(&self) -> Vitals {
        self.state().vitals
    }

    /// For how long the relay has told nothing: no phase, no answer, no fault. While it works, or waits for work, that is short.
    pub fn silence(&self) -> Duration {
        self.shared.signs.silence()
    }

    /// For whoever works long without anything to tell: each beat ends the silence.
    pub fn signs(&self) -> Heartbeat {
        self.shared.signs.clone()
    }

    /// A claim succeeded, so Kafka has answered.
    pub fn claimed(&self, cause: Cause) {
        self.heard().vitals.claimed = true;
        self.dependency(Dependency::Kafka, true);
        self.families().claims.with_label_values(&[cause.name()]).inc();
    }

    /// Something went wrong.
    pub fn fault(&self, fault: &Fault) {
        if let Fault::Unavailable { dependency, .. } = fault {
            self.dependency(*dependency, false);
        }
        self.families().faults.with_label_values(&[fault.label()]).inc();
    }

    /// The table was asked for events and answered.
    pub fn polled(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.families().last_poll.set(now.as_secs_f64());
    }

    /// One fetch answered after `took`.
    pub fn fetched(&self, took: Duration, form: Form) {
        self.families().fetch.observe(took.as_secs_f64());
        self.heard().form = Some(form);
    }

    /// A batch is committed, `took` after its transaction was begun; it had been fetched at `seen`.
    pub fn published(&self, batch: &Batch, seen: Instant, took: Duration) {
        let families = self.families();
        drop(self.heard());
        families.batches.inc();
        families.batch_events.observe(batch.len() as f64);
        families.publish.observe(took.as_secs_f64());
        self.shared.topics.lock().unwrap_or_else(PoisonError::into_inner).count(families, batch);
        let seen = seen.elapsed().as_secs_f64();
        observe_all(&families.seen_to_published, batch.events().map(|_| seen));
        let now_us = now_us();
        let created = batch.events().filter_map(|event| event.created_at_us);
        observe_all(&families.created_to_published, created.map(|created| seconds_between(created, now_us)));
    }

    /// A batch was marked within `took`.
    pub fn marked(&self, took: Duration) {
        drop(self.heard());
        self.families().mark.observe(took.as_secs_f64());
    }

    /// The proof scan found events that the cursor had passed.
    pub fn rescued(&self, events: usize) {
        self.families().rescued.inc_by(events as u64);
    }

    /// Numbers below the head that were never seen, in `count` ranges, the oldest since `oldest`.
    pub fn gaps(&self, count: usize, oldest: Option<Instant>) {
        let mut state = self.state();
        (state.gaps, state.oldest_gap) = (count, oldest);
    }

    /// So many topics lack events that were published to them.
    pub fn truncated(&self, topics: usize) {
        self.state().truncated = topics;
    }

    /// Events were set aside, for this reason.
    pub fn parked(&self, code: &str, events: usize) {
        self.families().parked_total.with_label_values(&[code]).inc_by(events as u64);
    }

    /// What is committed in the table and not published, as counted now.
    pub fn pending(&self, pending: Pending) {
        let age = |created_us| Duration::from_secs_f64(seconds_between(created_us, now_us()));
        let mut state = self.state();
        state.pending = pending;
        state.oldest_pending = pending.oldest_created_us.map(|created_us| Age { then: age(created_us), at: Instant::now() });
    }

    /// All of it in the text format of Prometheus.
    pub fn text(&self) -> String {
        let state = *self.state();
        self.families().show(&state);
        let gathered = self.shared.registry.gather();
        let mut text = TextEncoder::new().encode_to_string(&gathered).expect("a gathered family has samples");
        for (family, kind) in self.families().open() {
            announce_if_empty(&mut text, family, kind);
        }
        text
    }

    fn families(&self) -> &Families {
        &self.shared.families
    }

    fn heard(&self) -> MutexGuard<'_, State> {
        self.shared.signs.beat();
        self.state()
    }

    /// Nothing that holds this lock can panic half way, so a poisoned one is as good.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> Self {
        let vitals = Vitals {
            phase: Phase::Standby,
            halted: None,
            leader: false,
            claimed: false,
            database_up: false,
            database_reached: false,
            kafka_up: None,
        };
        Self { vitals, form: None, pending: Pending::default(), oldest_pending: None, gaps: 0, oldest_gap: None, truncated: 0 }
    }
}

impl Age {
    fn now(self) -> Duration {
        self.then + self.at.elapsed()
    }
}

/// The registry leaves out families without samples; their names are in the text all the same.
fn announce_if_empty(text: &mut String, family: &dyn Collector, kind: &str) {
    let empty = |family: &dyn Collector| family.collect().iter().all(|family| family.get_metric().is_empty());
    for desc in family.desc().into_iter().filter(|_| empty(family)) {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n", name = desc.fq_name, help = desc.help));
    }
}

/// One observation for each event costs some nanoseconds this way; shared counters would cost ten times that.
fn observe_all(histogram: &Histogram, seconds: impl Iterator<Item = f64>) {
    let local = histogram.local();
    seconds.for_each(|one| local.observe(one));
    local.flush();
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as i64)
}

/// Not negative: the database's clock may be ahead of ours.
fn seconds_between(created_us: i64, now_us: i64) -> f64 {
    now_us.saturating_sub(created_us).max(0) as f64 / 1e6
}

#[cfg(test)]
mod tests;
