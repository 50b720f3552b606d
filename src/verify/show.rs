//! The report for a person, and for a script.

use serde_json::{Value, json};

use super::report::{Example, JournalReport, Kind, Report, TopicReport};
use crate::check::printable;

impl Report {
    /// One plain sentence.
    pub fn sentence(&self) -> String {
        let (breaches, published) = (self.breaches(), self.topics.iter().map(|topic| topic.published).sum::<u64>());
        let unchecked: u64 = self.topics.iter().flat_map(|topic| topic.unchecked.values()).sum();
        let looked = if unchecked == 0 { String::new() } else { format!("; {unchecked} could not be looked at") };
        match (breaches, &self.journal) {
            (0, Some(_)) => format!("Table, journal and topics agree: {published} events{looked}."),
            (0, None) => format!("No event is missing, as far as can be told without a journal{looked}."),
            (count, _) => format!("{count} breaches were found{looked}."),
        }
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut lines = vec![self.sentence()];
        if let Some(journal) = &self.journal {
            lines.push(String::new());
            lines.extend(journal_lines(journal));
        }
        for topic in &self.topics {
            lines.push(String::new());
            lines.extend(self.topic_lines(topic));
        }
        lines.join("\n") + "\n"
    }

    fn topic_lines(&self, topic: &TopicReport) -> Vec<String> {
        let name = printable(&topic.topic);
        let mut lines = vec![format!(
            "{name}: {} records, {} of them published by this outbox; {} rows, {} waiting",
            topic.records, topic.published, topic.rows, topic.waiting
        )];
        let expected = [("published, not marked yet", topic.underway), ("discarded", topic.discarded)];
        lines.extend(expected.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("  {what:25}  {count}")));
        for (why, count) in &topic.unchecked {
            lines.push(format!("  {:25}  {count}: {}", "not checkable", why.sentence()));
        }
        for kind in Kind::ALL.into_iter().filter(|kind| topic.count(*kind) > 0) {
            let word = if self.is_breach(kind) { kind.name().to_uppercase() } else { kind.name().to_owned() };
            lines.push(format!("  {word:25}  {}", topic.count(kind)));
            let examples = topic.examples.get(&kind).into_iter().flatten();
            lines.extend(examples.map(|example| format!("    {}", example.told(&name))));
        }
        lines
    }

    /// One object about the outbox of this name; the names in it are stable.
    pub fn json(&self, outbox: &str) -> Value {
        json!({
            "outbox": outbox,
            "sentence": self.sentence(),
            "breaches": self.breaches(),
            "journal": self.journal.as_ref().map(journal_json),
            "topics": self.topics.iter().map(|topic| self.topic_json(topic)).collect::<Vec<_>>(),
        })
    }

    fn topic_json(&self, topic: &TopicReport) -> Value {
        let kinds = Kind::ALL.into_iter().filter(|kind| topic.count(*kind) > 0);
        let found = kinds.map(|kind| {
            let examples = topic.examples.get(&kind).into_iter().flatten();
            json!({
                "kind": kind.name(),
                "is_breach": self.is_breach(kind),
                "count": topic.count(kind),
                "examples": examples.map(|example| example.json(&topic.topic)).collect::<Vec<_>>(),
            })
        });
        let unchecked = topic.unchecked.iter();
        json!({
            "topic": topic.topic,
            "records": topic.records,
            "published": topic.published,
            "rows": topic.rows,
            "waiting": topic.waiting,
            "not_marked_yet": topic.underway,
            "discarded": topic.discarded,
            "found": found.collect::<Vec<_>>(),
            "not_checkable": unchecked.map(|(why, events)| json!({ "reason": why.name(), "events": events })).collect::<Vec<_>>(),
        })
    }
}

impl Example {
    fn told(&self, topic: &str) -> String {
        let mut parts = Vec::new();
        parts.extend(self.place.map(|(partition, offset)| format!("{topic}-{partition}@{offset}")));
        parts.extend(self.seq.map(|seq| format!("seq {seq}")));
        parts.extend(self.batch.map(|batch| format!("batch {batch}")));
        format!("{}: {}", parts.join(", "), self.why)
    }

    fn json(&self, topic: &str) -> Value {
        json!({
            "place": self.place.map(|(partition, offset)| format!("{topic}-{partition}@{offset}")),
            "seq": self.seq,
            "batch": self.batch,
            "why": self.why,
        })
    }
}

fn journal_lines(journal: &JournalReport) -> Vec<String> {
    let range = match (journal.first, journal.last) {
        (Some(first), Some(last)) => format!("batches {first} to {last}, {} events", journal.events),
        _ => "empty".to_owned(),
    };
    let mut lines = vec![format!("journal: {range}")];
    if journal.adopted > 0 {
        lines.push(format!("  {:25}  {}", "begun anew by a person", journal.adopted));
    }
    if journal.broken > 0 {
        lines.push(format!("  {:25}  {}", "BROKEN", journal.broken));
        lines.extend(journal.examples.iter().map(|what| format!("    {what}")));
    }
    lines
}

fn journal_json(journal: &JournalReport) -> Value {
    json!({
        "first_batch": journal.first,
        "last_batch": journal.last,
        "batches": journal.records,
        "events": journal.events,
        "begun_anew": journal.adopted,
        "broken": journal.broken,
        "broken_examples": journal.examples,
    })
}
