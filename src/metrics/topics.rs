//! Counters by topic, for a bounded number of topics.

use std::collections::HashMap;

use prometheus::IntCounter;

use super::families::Families;
use crate::event::Batch;

/// Topics with a label of their own; all later ones share [`OTHER`]. A label value costs memory here and in every server that scrapes.
pub(super) const MOST_TOPICS: usize = 100;

/// Label of the topics above the bound.
pub(super) const OTHER: &str = "other";

/// The counters of the topics seen so far.
#[derive(Default)]
pub(super) struct Topics {
    counters: HashMap<Box<str>, Counters>,
}

#[derive(Clone)]
struct Counters {
    events: IntCounter,
    bytes: IntCounter,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    events: u64,
    bytes: u64,
}

impl Topics {
    /// Adds the events of a batch.
    pub(super) fn count(&mut self, families: &Families, batch: &Batch) {
        let mut sums = vec![Sums::default(); batch.topics().len()];
        for (position, event) in batch.events().enumerate() {
            let sum = &mut sums[batch.topic_index(position)];
            sum.events += 1;
            sum.bytes += event.size() as u64;
        }
        for (topic, sum) in batch.topics().iter().zip(sums) {
            let counters = self.counters(families, topic);
            counters.events.inc_by(sum.events);
            counters.bytes.inc_by(sum.bytes);
        }
    }

    fn counters(&mut self, families: &Families, topic: &str) -> Counters {
        if let Some(known) = self.counters.get(topic) {
            return known.clone();
        }
        if self.counters.len() >= MOST_TOPICS {
            return Counters::new(families, OTHER);
        }
        let counters = Counters::new(families, topic);
        self.counters.insert(topic.into(), counters.clone());
        counters
    }
}

impl Counters {
    fn new(families: &Families, label: &str) -> Self {
        Self { events: families.events.with_label_values(&[label]), bytes: families.bytes.with_label_values(&[label]) }
    }
}
