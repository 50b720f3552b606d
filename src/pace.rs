//! How long to pause and how much to take: small rules with state, free of clocks.

use std::time::Duration;

use crate::event::BatchLimits;
use crate::fault::{Fault, REFUSED_RECORD, TIMEOUT};

/// Pauses between tries: none at first, then doubling up to a bound, with a random part so that two relays do not march in step.
#[derive(Debug)]
pub struct Pause {
    least: Duration,
    most: Duration,
    current: Duration,
}

impl Pause {
    /// Doubles from `least` to `most`.
    pub fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, current: Duration::ZERO }
    }

    /// Something was finished: the next try follows at once.
    pub fn reset(&mut self) {
        self.current = Duration::ZERO;
    }

    /// The next pause: between half and all of the current step.
    pub fn next(&mut self, chance: &mut fastrand::Rng) -> Duration {
        let step = self.current;
        self.current = (step * 2).clamp(self.least, self.most);
        step.mul_f64(0.5 + chance.f64() / 2.0)
    }
}

/// Time between polls: the linger while there was work lately, then longer with each poll, up to the idle interval.
#[derive(Debug)]
pub struct PollInterval {
    linger: Duration,
    idle: Duration,
    current: Duration,
}

/// Polls without work until the interval starts to grow.
const LATELY: u32 = 8;

impl PollInterval {
    /// Starts at `linger`.
    pub fn new(linger: Duration, idle: Duration) -> Self {
        Self { linger, idle, current: linger }
    }

    /// Time to let pass before the next poll, after one that found something or nothing.
    pub fn after(&mut self, found: Found) -> Duration {
        self.current = match found {
            Found::Work => self.linger,
            Found::Nothing => (self.current + self.idle / LATELY).min(self.idle),
        };
        self.current
    }
}

/// What the last poll brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Events.
    Work,
    /// None.
    Nothing,
}

/// Events a batch may hold: halved when a batch ran into a timeout, doubled again after ten good ones.
#[derive(Debug)]
pub struct BatchSize {
    limits: BatchLimits,
    events: usize,
    good: u32,
}

/// Good batches before a halved batch size is doubled.
const GOOD_BEFORE_DOUBLING: u32 = 10;

impl BatchSize {
    /// Starts at the configured limits.
    pub fn new(limits: BatchLimits) -> Self {
        Self { limits, events: limits.events, good: 0 }
    }

    /// Limits of the next batch.
    pub fn limits(&self) -> BatchLimits {
        BatchLimits { events: self.events, bytes: self.limits.bytes }
    }

    /// A batch could not be published. A timeout says that it was too much at once, a refused journal record that it names too many.
    pub fn failed(&mut self, fault: &Fault) {
        if [TIMEOUT, REFUSED_RECORD].contains(&fault.label()) {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.events = (self.events / 2).max(1);
        self.good = 0;
    }

    /// A batch was published.
    pub fn succeeded(&mut self) {
        self.good += 1;
        if self.good >= GOOD_BEFORE_DOUBLING {
            self.good = 0;
            self.events = (self.events * 2).min(self.limits.events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_try_follows_at_once_and_pauses_are_bounded() {
        let mut chance = fastrand::Rng::with_seed(1);
        let mut pause = Pause::new(50 * MS, 400 * MS);
        assert_eq!(pause.next(&mut chance), Duration::ZERO);
        for expected in [50, 100, 200, 400, 400] {
            let next = pause.next(&mut chance);
            assert!(next >= expected * MS / 2 && next <= expected * MS, "{next:?} for {expected}");
        }
        pause.reset();
        assert_eq!(pause.next(&mut chance), Duration::ZERO);
    }

    #[test]
    fn polls_back_off_to_the_idle_interval() {
        let mut interval = PollInterval::new(10 * MS, 100 * MS);
        assert_eq!(interval.after(Found::Work), 10 * MS);
        assert!((0..20).map(|_| interval.after(Found::Nothing)).is_sorted());
        assert_eq!(interval.after(Found::Nothing), 100 * MS);
        assert_eq!(interval.after(Found::Work), 10 * MS);
    }

    #[test]
    fn a_timed_out_batch_is_halved_and_grows_back() {
        let mut size = BatchSize::new(BatchLimits { events: 5, bytes: 9 });
        size.halve();
        size.halve();
        size.halve();
        assert_eq!(size.limits(), BatchLimits { events: 1, bytes: 9 });
        (0..30).for_each(|_| size.succeeded());
        assert_eq!(size.limits().events, 5);
    }
}
