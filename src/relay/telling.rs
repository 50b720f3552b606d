//! What the log is told of a trouble that lasts: when it begins, when it changes, and now and then; not at each try.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::fault::{Fault, Halt};

/// The first pauses are short: a brief outage is told step by step.
const FEW: u32 = 3;
/// After those, a trouble that goes on is told this often. One that was not met for as long is a new one.
const TROUBLE_EVERY: Duration = Duration::from_secs(60);
/// A halt that stands is told again this often, for logs that are kept briefly.
const HALT_EVERY: Duration = Duration::from_secs(3600);

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Told {
    troubles: Vec<Trouble>,
    halt: Option<(Halt, Instant)>,
}

/// One kind of fault that the relay backs off from.
#[derive(Debug)]
struct Trouble {
    kind: Kind,
    times: u32,
    told: Instant,
    met: Instant,
}

impl Told {
    /// The relay pauses because of this fault.
    pub(super) fn backing_off(&mut self, fault: &Fault, pause: Duration) {
        let (error, pause_ms) = (fault.obx(), pause.as_millis() as u64);
        if self.is_due(fault) {
            warn!(error, %fault, remedy = fault.remedy(), pause_ms, "backing off");
        } else {
            debug!(error, %fault, remedy = fault.remedy(), pause_ms, "backing off");
        }
    }

    /// There is evidence for a halt, which will be taken again.
    pub(super) fn suspected(&self, halt: &Halt) {
        let (code, evidence) = (halt.code.name(), &halt.evidence);
        if self.halt.as_ref().is_some_and(|(known, _)| known == halt) {
            debug!(code, evidence, "looking again before halting");
        } else {
            warn!(code, evidence, "looking again before halting");
        }
    }

    /// The evidence stands.
    pub(super) fn halted(&mut self, halt: &Halt) {
        if self.halt.as_ref().is_some_and(|(known, told)| known == halt && told.elapsed() < HALT_EVERY) {
            return;
        }
        self.halt = Some((halt.clone(), Instant::now()));
        let (code, remedy) = (halt.code.name(), halt.code.remedy());
        error!(code, error = halt.code.obx(), evidence = halt.evidence, remedy, "halted");
    }

    /// A claim went well: whatever halts the relay from now on is news.
    pub(super) fn claimed(&mut self) {
        self.halt = None;
    }

    fn is_due(&mut self, fault: &Fault) -> bool {
        let (now, kind) = (Instant::now(), kind(fault));
        self.troubles.retain(|trouble| trouble.met.elapsed() < TROUBLE_EVERY);
        let Some(known) = self.troubles.iter_mut().find(|trouble| trouble.kind == kind) else {
            self.troubles.push(Trouble { kind, times: 1, told: now, met: now });
            return true;
        };
        (known.times, known.met) = (known.times.saturating_add(1), now);
        let due = known.times <= FEW || known.told.elapsed() >= TROUBLE_EVERY;
        if due {
            known.told = now;
        }
        due
    }
}

/// What makes two faults the same trouble: code and label; of what was taken away also what it is, since the next one is another.
type Kind = (&'static str, &'static str, Option<String>);

fn kind(fault: &Fault) -> Kind {
    (fault.obx(), fault.label(), fault.may_be_undone().then(|| fault.to_string()))
}
