//! Every wait of the protocol in one place, so that tests can shorten them.

use std::time::Duration;

/// How long the relay waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Life of a lease without renewal.
    pub lease: Duration,
    /// Between two renewals.
    pub renewal: Duration,
    /// Between two looks of a standby at the lease: most of what a takeover after a clean stop takes.
    pub standby: Duration,
    /// Between the two times that the evidence for a halt is taken.
    pub evidence: Duration,
    /// Between two looks of a halted relay at the journal.
    pub halted: Duration,
    /// How long the journal is watched for another publisher before a database that went back is published from.
    pub went_back: Duration,
    /// A leader that has work but finishes nothing for this long gives its lease up.
    pub stuck: Duration,
    /// First pause after a fault that a claim may cure; doubles up to `back_off_most`.
    pub back_off_least: Duration,
    /// Longest pause between two tries.
    pub back_off_most: Duration,
    /// Between two full-form fetches that prove the cursor right.
    pub proof_scan: Duration,
    /// Between two looks of a paused or halted relay at what a person did.
    pub paused: Duration,
    /// Between two looks at topics that are held.
    pub held: Duration,
    /// Least time between two transactions, and between polls while there was work lately.
    pub linger: Duration,
    /// Polls back off to this when there is nothing.
    pub idle: Duration,
}

impl Waits {
    /// The waits that follow from the configured ones. What belongs to the lease grows and shrinks with it.
    pub fn new(lease: Duration, linger: Duration, idle: Duration) -> Self {
        Self {
            lease,
            renewal: lease / 4,
            standby: (lease / 50).clamp(Duration::from_millis(20), Duration::from_millis(200)),
            evidence: lease,
            halted: 6 * lease,
            went_back: 3 * lease,
            stuck: 3 * lease,
            back_off_least: Duration::from_millis(50),
            back_off_most: Duration::from_secs(5).min(lease),
            proof_scan: Duration::from_secs(60),
            paused: (lease / 20).clamp(Duration::from_millis(50), Duration::from_secs(1)),
            held: Duration::from_secs(10),
            linger,
            idle: idle.max(linger),
        }
    }
}
