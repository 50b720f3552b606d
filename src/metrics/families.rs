//! Every family with its name, help and label values.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, exponential_buckets,
};

use super::State;
use crate::cursor::Form;
use crate::fault::{Cause, Dependency, HaltCode};
use crate::phase::Phase;

/// Steps of an exchange with a server: from half a millisecond to the default transaction timeout.
const EXCHANGE_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0];

/// Steps of an event's way: from one millisecond to an hour of outage.
const WAY_SECONDS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
    3600.0,
];

/// The two forms of fetching, by the value of their label.
const FORMS: [(Form, &str); 2] = [(Form::Full, "full"), (Form::Cursor, "cursor")];

pub(super) struct Families {
    pub(super) events: IntCounterVec,
    pub(super) bytes: IntCounterVec,
    pub(super) batches: IntCounter,
    pub(super) batch_events: Histogram,
    pub(super) seen_to_published: Histogram,
    pub(super) created_to_published: Histogram,
    pub(super) fetch: Histogram,
    pub(super) publish: Histogram,
    pub(super) mark: Histogram,
    pub(super) claims: IntCounterVec,
    pub(super) faults: IntCounterVec,
    pub(super) rescued: IntCounter,
    pub(super) parked_total: IntCounterVec,
    pub(super) last_poll: Gauge,
    pending: IntGauge,
    parked: IntGauge,
    blocked: IntGauge,
    held: IntGauge,
    truncated: IntGauge,
    oldest_pending: Gauge,
    gaps: IntGauge,
    oldest_gap: Gauge,
    form: IntGaugeVec,
    phase: IntGaugeVec,
    leader: IntGauge,
    halted: IntGaugeVec,
    dependency: IntGaugeVec,
}

impl Families {
    /// Makes and registers all of them, with every label value whose set is fixed.
    pub(super) fn register(registry: &Registry) -> Self {
        let new = Maker { registry };
        new.build_info();
        let families = Self {
            events: new.counters("outboxd_events_published_total", "Events published, counted at the commit.", "topic"),
            bytes: new.counters("outboxd_published_bytes_total", "Bytes of the published events.", "topic"),
            batches: new.counter("outboxd_batches_total", "Batches published, one Kafka transaction each."),
            batch_events: new.histogram("outboxd_batch_events", "Events in a batch.", &powers_of_two()),
            seen_to_published: new.histogram(
                "outboxd_seen_to_published_seconds",
                "From the fetch that brought an event to the commit.",
                WAY_SECONDS,
            ),
            created_to_published: new.histogram(
                "outboxd_created_to_published_seconds",
                "From the creation of an event's row to the commit; contains the rest of the writer's transaction.",
                WAY_SECONDS,
            ),
            fetch: new.histogram("outboxd_fetch_seconds", "One fetch from the table.", EXCHANGE_SECONDS),
            publish: new.histogram("outboxd_publish_seconds", "One Kafka transaction, begin to commit.", EXCHANGE_SECONDS),
            mark: new.histogram("outboxd_mark_seconds", "Marking one batch.", EXCHANGE_SECONDS),
            claims: new.counters("outboxd_claims_total", "Claims of the outbox, by what made them necessary.", "cause"),
            faults: new.counters("outboxd_faults_total", "Things that went wrong.", "code"),
            rescued: new.counter("outboxd_rescued_events_total", "Events found by the proof scan only; must stay 0."),
            last_poll: new.gauge("outboxd_last_poll_timestamp_seconds", "When the table last answered, in seconds since 1970."),
            pending: new
                .int_gauge("outboxd_pending_events", "Events that may be published and are not yet, counted up to a bound."),
            parked_total: new.counters("outboxd_parked_total", "Events set aside, by reason.", "code"),
            parked: new.int_gauge("outboxd_parked_events", "Events that are set aside."),
            blocked: new.int_gauge("outboxd_blocked_events", "Events behind a parked one or for a held topic, up to a bound."),
            held: new.int_gauge("outboxd_held_topics", "Topics that cannot be published to now."),
            truncated: new
                .int_gauge("outboxd_truncated_topics", "Topics that lack events that were published to them; must stay 0."),
            oldest_pending: new.gauge("outboxd_oldest_pending_seconds", "Age of the oldest event not yet published."),
            gaps: new.int_gauge("outboxd_open_gaps", "Ranges of numbers that open transactions may still fill."),
            oldest_gap: new.gauge("outboxd_oldest_gap_seconds", "Age of the oldest open gap."),
            form: new.gauges("outboxd_fetch_form", "1 for the form of the last fetch.", "form"),
            phase: new.gauges("outboxd_phase", "1 for what the relay is doing.", "phase"),
            leader: new.int_gauge("outboxd_leader", "1 while this process holds the lease."),
            halted: new.gauges("outboxd_halted", "1 for the reason the relay is halted for.", "code"),
            dependency: new.gauges("outboxd_dependency_up", "1 while this dependency answers.", "dependency"),
        };
        for cause in Cause::ALL {
            families.claims.with_label_values(&[cause.name()]);
        }
        new.add(ProcessCollector::for_self());
        families
    }

    /// Families whose label values are found while running, each with its type.
    pub(super) fn open(&self) -> [(&dyn Collector, &'static str); 4] {
        [(&self.events, "counter"), (&self.bytes, "counter"), (&self.faults, "counter"), (&self.parked_total, "counter")]
    }

    /// Sets every gauge that follows from the state.
    pub(super) fn show(&self, state: &State) {
        let vitals = &state.vitals;
        self.pending.set(state.pending.events as i64);
        self.parked.set(state.pending.parked as i64);
        self.blocked.set(state.pending.blocked as i64);
        self.held.set(state.pending.held as i64);
        self.truncated.set(state.truncated as i64);
        self.oldest_pending.set(state.oldest_pending.map_or(0.0, |age| age.now().as_secs_f64()));
        self.gaps.set(state.gaps as i64);
        self.oldest_gap.set(state.oldest_gap.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        self.leader.set(i64::from(vitals.leader));
        for (form, name) in FORMS {
            set(&self.form, name, state.form == Some(form));
        }
        for phase in Phase::ALL {
            set(&self.phase, phase.name(), vitals.phase == phase);
        }
        for code in HaltCode::ALL {
            set(&self.halted, code.name(), vitals.halted == Some(code));
        }
        set(&self.dependency, Dependency::Database.name(), vitals.database_up);
        set(&self.dependency, Dependency::Kafka.name(), vitals.kafka_up == Some(true));
    }
}

fn set(gauges: &IntGaugeVec, label: &str, on: bool) {
    gauges.with_label_values(&[label]).set(i64::from(on));
}

/// 1, 2, 4 … 16384.
fn powers_of_two() -> Vec<f64> {
    exponential_buckets(1.0, 2.0, 15).expect("start, factor and count are positive")
}

/// Makes families and registers them.
struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn add<C: Collector + 'static>(&self, collector: C) {
        self.registry.register(Box::new(collector)).expect("every family is registered once");
    }

    fn made<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let family = made.expect("names and labels are well formed");
        self.add(family.clone());
        family
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.made(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.made(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.made(Gauge::new(name, help))
    }

    fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.made(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.made(IntGaugeVec::new(Opts::new(name, help), &[label]))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.made(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn build_info(&self) {
        let gauges = self.gauges("outboxd_build_info", "1 for the version that is running.", "version");
        set(&gauges, env!("CARGO_PKG_VERSION"), true);
    }
}
