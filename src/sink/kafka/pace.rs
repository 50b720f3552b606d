//! Telling a commit that was asked for once from one that was asked for again.
//!
//! librdkafka sends a commit again when its connection breaks, and tells nobody. The first request can then arrive later and end the
//! *next* transaction of the same producer half-way. The only usable sign is time: a healthy commit takes 0.4–3 ms, one that was sent
//! again at least 0.8 × `retry.backoff.ms` (measured 803 ms at 1000).

use std::time::Duration;

/// `retry.backoff.ms` of a first producer.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Where doubling ends.
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);
/// So many late commits out of ten make the next producer more patient.
const MANY: u32 = 3;
/// The last ten commits.
const WINDOW: u16 = 0b11_1111_1111;

/// What counts as late. On a cluster where commits are always slow the bounds grow, else a producer would be made for each batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    backoff: Duration,
    late: u16,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { backoff: FIRST_BACKOFF, late: 0 }
    }

    /// `retry.backoff.ms` for the next producer.
    pub(super) fn backoff(&self) -> Duration {
        self.backoff
    }

    /// Takes note of a commit and says whether it was late.
    pub(super) fn is_late(&mut self, took: Duration) -> bool {
        let late = took > self.backoff / 2;
        self.late = (self.late << 1 | u16::from(late)) & WINDOW;
        late
    }

    /// A new producer is made: after many late commits a more patient one.
    pub(super) fn renew(&mut self) {
        if self.late.count_ones() >= MANY {
            self.backoff = (2 * self.backoff).min(LONGEST_BACKOFF);
            self.late = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_late_commits_in_ten_double_the_patience_up_to_eight_seconds() {
        let mut pace = Pace::new();
        let (quick, slow) = (Duration::from_millis(3), Duration::from_millis(501));
        for _ in 0..2 {
            assert!(pace.is_late(slow) && !pace.is_late(quick));
            pace.renew();
        }
        assert_eq!(pace.backoff(), FIRST_BACKOFF);
        assert!(pace.is_late(slow));
        pace.renew();
        assert_eq!(pace.backoff(), 2 * FIRST_BACKOFF);
        assert!(!pace.is_late(slow), "half of two seconds is prompt now");
        for _ in 0..30 {
            pace.is_late(Duration::from_secs(10));
            pace.renew();
        }
        assert_eq!(pace.backoff(), LONGEST_BACKOFF);
    }

    #[test]
    fn late_commits_far_apart_are_forgotten() {
        let mut pace = Pace::new();
        for _ in 0..5 {
            pace.is_late(Duration::from_secs(1));
            assert!((0..9).all(|_| !pace.is_late(Duration::ZERO)));
            pace.renew();
        }
        assert_eq!(pace.backoff(), FIRST_BACKOFF);
    }
}
