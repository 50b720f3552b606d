//! From what `/metrics` answers to a page: every family with its type, labels and meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outboxd::event::{BatchBuilder, BatchLimits, Event};
use outboxd::fault::{Cause, Fault};
use outboxd::metrics::Metrics;
use tokio::time::Instant;

/// Labels whose values are not known before something happens.
const OPEN: [(&str, &str); 2] = [("topic", "as in the table; after 100 of them `other`"), ("version", "of the program")];

struct Family {
    name: String,
    kind: String,
    help: String,
    /// By label.
    values: BTreeMap<String, BTreeSet<String>>,
}

pub(super) fn page() -> String {
    let mut page = format!("# Metrics\n\n{}\n\n", super::WRITTEN);
    page += "`/metrics` answers in the text format of Prometheus. Every name is there from the start. Each series also carries the label\n";
    page += "`outbox`, the name of the outbox. No label ever holds ids, keys or error texts.\n\n";
    page += "| name | type | labels | meaning |\n|---|---|---|---|\n";
    for family in families() {
        let labels: Vec<String> = family.values.iter().map(|(label, values)| told(&family.name, label, values)).collect();
        page += &format!("| `{}` | {} | {} | {} |\n", family.name, family.kind, labels.join("; "), family.help);
    }
    page
}

/// Every family of the text, in its order.
pub(crate) fn names() -> BTreeSet<String> {
    families().into_iter().map(|family| family.name).collect()
}

fn told(family: &str, label: &str, values: &BTreeSet<String>) -> String {
    let note = match (family, label) {
        ("outboxd_faults_total", "code") => Some("the short word of the error"),
        ("outboxd_parked_total", "code") => Some("the reason, as in `outboxd parked list`"),
        _ => OPEN.iter().find(|(open, _)| *open == label).map(|(_, note)| *note),
    };
    match note {
        Some(note) => format!("`{label}`: {note}"),
        None => format!("`{label}`: {}", values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")),
    }
}

/// Where every family has a series at least.
fn busy() -> Metrics {
    let metrics = Metrics::new("shop");
    let mut batch = BatchBuilder::new(BatchLimits { events: 1, bytes: 100 });
    let event = Event {
        seq: 1,
        id: uuid::Uuid::nil().into(),
        topic: "orders",
        key: None,
        kind: "",
        source: None,
        payload: None,
        headers: None,
        created_at_us: None,
    };
    batch.push(&event);
    metrics.published(&batch.build().unwrap(), Instant::now(), Duration::ZERO);
    metrics.fault(&Fault::in_doubt(Cause::Commit, ""));
    metrics.parked("too_large", 1);
    metrics
}

fn families() -> Vec<Family> {
    let text = busy().text();
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                families.push(Family { name: name.into(), kind: String::new(), help: help.into(), values: BTreeMap::new() });
            }
            (Some("#"), Some("TYPE"), Some(_), Some(kind)) => families.last_mut().unwrap().kind = kind.into(),
            _ => note_labels(families.last_mut().unwrap(), line),
        }
    }
    assert!(families.len() > 30 && families.iter().all(|family| !family.kind.is_empty()), "{text}");
    families.sort_by(|one, next| one.name.cmp(&next.name));
    families
}

fn note_labels(family: &mut Family, series: &str) {
    assert!(series.starts_with(&family.name), "{series} is not of {}", family.name);
    let labels = series.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
    for (label, value) in
        labels.split(',').filter_map(|label| label.split_once('=')).filter(|(label, _)| !["outbox", "le"].contains(label))
    {
        family.values.entry(label.into()).or_default().insert(value.trim_matches('"').into());
    }
}
