//! Whether the process lives, and whether it is ready: what load balancers, orchestrators and people ask.

use serde_json::{Value, json};

use crate::heartbeat::Heartbeat;
use crate::metrics::{Metrics, Vitals};
use crate::phase::Phase;

/// How much must be well for an answer of "ready".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// The process can do its work as far as that is up to it. An outage of Kafka, a standby or a halt is no reason to take the service
    /// beside it down.
    Lenient,
    /// Events are being published, or would be.
    Strict,
}

impl Strictness {
    /// Reads `strict` (or `strict=true`, `strict=1`) out of the query of a request.
    pub(super) fn asked(query: &str) -> Self {
        let strict = query.split('&').any(|part| matches!(part, "strict" | "strict=" | "strict=1" | "strict=true"));
        if strict { Self::Strict } else { Self::Lenient }
    }
}

/// What the health answers are made of. That it exists says that the configuration is valid.
#[derive(Clone)]
pub struct Health {
    heart: Heartbeat,
    metrics: Metrics,
}

/// One answer: well if there is no reason against it.
pub(super) struct Report {
    pub(super) reasons: Vec<Reason>,
    question: Question,
    vitals: Vitals,
}

enum Question {
    Alive,
    Ready(Strictness),
}

/// A stable word, and a sentence.
pub(super) struct Reason {
    code: &'static str,
    detail: String,
}

impl Health {
    /// Health of the relay with this heart, as its metrics tell it.
    pub fn new(heart: Heartbeat, metrics: Metrics) -> Self {
        Self { heart, metrics }
    }

    /// Whether the relay's task runs. Never a matter of database or Kafka.
    pub(super) fn alive(&self) -> Report {
        Report { reasons: self.hangs().into_iter().collect(), question: Question::Alive, vitals: self.metrics.vitals() }
    }

    /// Whether the relay is ready.
    pub(super) fn ready(&self, strictness: Strictness) -> Report {
        let vitals = self.metrics.vitals();
        let mut reasons: Vec<_> = self.hangs().into_iter().chain(never_reached(&vitals)).collect();
        match strictness {
            Strictness::Lenient => {}
            Strictness::Strict => reasons.extend(not_publishing(&vitals)),
        }
        Report { reasons, question: Question::Ready(strictness), vitals }
    }

    fn hangs(&self) -> Option<Reason> {
        let seconds = self.heart.silence().as_secs();
        let detail = || format!("the relay's loop has not ticked for {seconds} s");
        (!self.heart.is_alive()).then(|| Reason::new("loop_hangs", detail()))
    }
}

fn never_reached(vitals: &Vitals) -> Option<Reason> {
    (!vitals.database_reached).then(|| Reason::new("database_never_reached", "the database has not been reached since the start"))
}

/// Every reason for which no event can be published at the moment.
fn not_publishing(vitals: &Vitals) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if vitals.database_reached && !vitals.database_up {
        reasons.push(Reason::new("database_down", "the database cannot be reached"));
    }
    if !vitals.leader {
        reasons.push(Reason::new("standby", "another process holds the lease, or none could be had"));
    } else if vitals.kafka_up == Some(false) {
        reasons.push(Reason::new("kafka_down", "Kafka cannot be reached"));
    }
    if let Some(code) = vitals.halted {
        reasons.push(Reason::new("halted", format!("{}: {}", code.name(), code.remedy())));
    }
    match vitals.phase {
        Phase::BackingOff => reasons.push(Reason::new("backing_off", "something went wrong; the relay tries again")),
        Phase::Paused => reasons.push(Reason::new("paused", "a person has paused the outbox: `outboxd resume --reason …` goes on")),
        Phase::Draining | Phase::Stopped => reasons.push(Reason::new("stopping", "the process was asked to stop")),
        Phase::Standby | Phase::Looking | Phase::Claiming | Phase::Settling | Phase::Relaying | Phase::Halted => {}
    }
    reasons
}

impl Report {
    pub(super) fn json(&self) -> Value {
        let well = self.reasons.is_empty();
        let reasons: Vec<_> = self.reasons.iter().map(|reason| json!({ "code": reason.code, "detail": reason.detail })).collect();
        match self.question {
            Question::Alive => json!({ "alive": well, "reasons": reasons }),
            Question::Ready(strictness) => json!({
                "ready": well,
                "strict": strictness == Strictness::Strict,
                "phase": self.vitals.phase.name(),
                "leader": self.vitals.leader,
                "halted": self.vitals.halted.map(|code| code.name()),
                "reasons": reasons,
            }),
        }
    }
}

impl Reason {
    fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}
