//! How far a verification has come.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The table.
    Rows,
    /// The journal.
    Journal,
    /// The topics.
    Topics,
    /// Nothing more: what was read is compared.
    Comparing,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Journal => "journal",
            Self::Topics => "topics",
            Self::Comparing => "comparing",
        }
    }
}

/// Written by whoever reads, read by whoever tells.
#[derive(Debug)]
pub struct Progress(Mutex<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    stage: Stage,
    since: Instant,
    done: u64,
    /// Of about how many; 0: nobody knows.
    total: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(State { stage: Stage::Rows, since: Instant::now(), done: 0, total: 0 }))
    }
}

impl Progress {
    /// Begins a stage of about `total` items or offsets, 0 if nobody knows.
    pub fn begin(&self, stage: Stage, total: u64) {
        *self.lock() = State { stage, since: Instant::now(), done: 0, total };
    }

    /// Says how many there were so far.
    pub fn reached(&self, done: u64) {
        self.lock().done = done;
    }

    /// Says that there were so many more.
    pub fn add(&self, more: u64) {
        self.lock().done += more;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = *self.lock();
        state.tell(state.since.elapsed(), out)
    }
}

impl State {
    fn tell(&self, elapsed: Duration, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, done, total, .. } = *self;
        write!(out, "{}: {done}", stage.name())?;
        let seconds = elapsed.as_secs_f64();
        if done == 0 || seconds < 0.001 {
            return Ok(());
        }
        let rate = done as f64 / seconds;
        if total >= done && total > 0 {
            let left = ((total - done) as f64 / rate).ceil();
            write!(out, " of {total}, {rate:.0} a second, {left:.0} s left")
        } else {
            write!(out, ", {rate:.0} a second")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(State, Duration);

    impl fmt::Display for At {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.tell(self.1, out)
        }
    }

    #[test]
    fn rate_and_time_left_are_told_as_far_as_they_are_known() {
        let at = |done, total, seconds| {
            let state = State { stage: Stage::Topics, since: Instant::now(), done, total };
            At(state, Duration::from_secs(seconds)).to_string()
        };
        assert_eq!(at(0, 100, 0), "topics: 0");
        assert_eq!(at(400, 1_000, 2), "topics: 400 of 1000, 200 a second, 3 s left");
        assert_eq!(at(400, 0, 2), "topics: 400, 200 a second");
        assert_eq!(at(1_000, 1_000, 2), "topics: 1000 of 1000, 500 a second, 0 s left");
    }
}
