//! Topics as numbers: an item of fixed size cannot hold a name.

use std::collections::HashMap;

use super::report::TopicReport;
use crate::config::TopicPattern;

/// Topics by their names in Kafka, each with what was found of it.
pub(super) struct Topics {
    pattern: TopicPattern,
    only: Option<String>,
    numbers: HashMap<String, u32>,
    pub(super) reports: Vec<TopicReport>,
}

impl Topics {
    pub(super) fn new(pattern: TopicPattern, only: Option<String>) -> Self {
        let only = only.map(|topic| pattern.apply(&topic));
        Self { pattern, only, numbers: HashMap::new(), reports: Vec::new() }
    }

    /// Number of a topic of the table; nothing if it is not asked for.
    pub(super) fn of_row(&mut self, topic: &str) -> Option<u32> {
        self.of_kafka(&self.pattern.apply(topic))
    }

    /// Number of a topic in Kafka; nothing if it is not asked for.
    pub(super) fn of_kafka(&mut self, name: &str) -> Option<u32> {
        if let Some(&number) = self.numbers.get(name) {
            return Some(number);
        }
        if self.only.as_deref().is_some_and(|only| only != name) {
            return None;
        }
        let number = u32::try_from(self.reports.len()).expect("a table has fewer topics than rows");
        self.numbers.insert(name.to_owned(), number);
        self.reports.push(TopicReport::new(name));
        Some(number)
    }

    /// The topic of the table that is published to this one; nothing where no row can have it.
    pub(super) fn in_table(&self, number: u32) -> Option<&str> {
        let name = self.reports[number as usize].topic.as_str();
        name.strip_prefix(self.pattern.prefix.as_str())?.strip_suffix(self.pattern.suffix.as_str())
    }

    pub(super) fn report(&mut self, number: u32) -> &mut TopicReport {
        &mut self.reports[number as usize]
    }
}
