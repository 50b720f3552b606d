//! What outlives a claim of what is set aside: who is suspected, and when held topics are asked for and tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Batch;
use crate::park::Unfit;

/// What outlives a claim of what is set aside.
pub(super) struct Aside {
    /// Events that the log has refused. Each is parked when it is fetched again, after those before it. More than one: while those before
    /// the first are published, the log may refuse another one of the same batch.
    suspects: Vec<Unfit>,
    every: Duration,
    /// When held topics are asked for again.
    due: Instant,
    /// Topics that were let go because a look found them well.
    tried: BTreeMap<String, Trial>,
}

/// A look is not enough where the log does not tell what may be written to: then the topic is held again at the first event.
struct Trial {
    /// How often in a row.
    failed: u32,
    /// Not let go before this.
    not_before: Instant,
}

/// The longest time between two trials is the one between two looks, doubled so often.
const MOST_DOUBLINGS: u32 = 5;

impl Aside {
    /// Held topics are asked for at once: a start often follows upon what a person mended. `every`: between two looks.
    pub(super) fn new(every: Duration) -> Self {
        Self { suspects: Vec::new(), every, due: Instant::now(), tried: BTreeMap::new() }
    }

    /// The log has refused an event.
    pub(super) fn suspect(&mut self, unfit: &Unfit) {
        self.suspects.retain(|suspect| suspect.seq != unfit.seq);
        self.suspects.push(unfit.clone());
    }

    /// Whether it is known that the log refuses this event.
    pub(super) fn suspects(&self, unfit: &Unfit) -> bool {
        self.suspects.contains(unfit)
    }

    /// Those that are in a batch. Those that would be and are not are forgotten: they are gone, or wait behind others.
    pub(super) fn suspects_in(&mut self, batch: &Batch) -> impl Iterator<Item = Unfit> {
        let is_in = |unfit: &Unfit| batch.events().any(|event| (event.seq, event.id) == (unfit.seq, unfit.id.id()));
        self.suspects.retain(|unfit| unfit.seq > batch.last_seq() || is_in(unfit));
        self.suspects.iter().filter(move |unfit| is_in(unfit)).cloned()
    }

    /// These were set aside.
    pub(super) fn parked(&mut self, unfit: &[Unfit]) {
        self.suspects.retain(|suspect| unfit.iter().all(|unfit| unfit.seq != suspect.seq));
    }

    /// A person did something: perhaps it was this.
    pub(super) fn ask_now(&mut self) {
        self.due = Instant::now();
        self.tried.clear();
    }

    /// Whether held topics are to be asked for; the next time comes after the configured while.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.due;
        if due {
            self.due = now + self.every;
        }
        due
    }

    /// A topic had to be held. Returns when it is tried again at the earliest: each time later, where a look had found it well.
    pub(super) fn held(&mut self, topic: &str) -> Duration {
        let now = Instant::now();
        // one that was held before this one is not asked for later because of it
        self.due = if self.due <= now { now + self.every } else { self.due };
        let Some(trial) = self.tried.get_mut(topic) else { return self.every };
        let longest = self.every * 2_u32.pow(MOST_DOUBLINGS);
        let anew = now > trial.not_before + longest;
        trial.failed = if anew { 1 } else { (trial.failed + 1).min(MOST_DOUBLINGS) };
        let pause = self.every * 2_u32.pow(trial.failed);
        trial.not_before = now + pause;
        pause
    }

    /// Of the topics that are `held`, those that may be tried: a look found them well, and not all too often in vain.
    pub(super) fn found_well(&mut self, held: &BTreeSet<String>, ailing: &BTreeSet<String>) -> BTreeSet<String> {
        let now = Instant::now();
        // of these the look tells the truth
        self.tried.retain(|topic, _| !ailing.contains(topic));
        let well = held.difference(ailing).filter(|topic| self.tried.get(*topic).is_none_or(|trial| trial.not_before <= now));
        let well: BTreeSet<String> = well.cloned().collect();
        for topic in &well {
            self.tried.entry(topic.clone()).or_insert(Trial { failed: 0, not_before: now });
        }
        well
    }
}
