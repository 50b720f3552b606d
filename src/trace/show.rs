//! The life of an event for a person, and for a script.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Consumer, Found, Journalled, Life, Stage};
use crate::check::printable;
use crate::source::desk::{EventRow, OpenWriter, Waits};

impl Life {
    /// Where it stands, in one sentence.
    pub fn sentence(&self) -> String {
        let event = format!("event {}", printable(&self.asked));
        match self.stage() {
            Stage::Unknown => format!("{event} is known to nobody"),
            Stage::Uncommitted => {
                format!("{event} is not committed: nobody knows it, and what was written to the outbox is not all committed")
            }
            Stage::Pending => match &self.standstill {
                Some(why) => format!("{event} is pending: {why}"),
                None => format!("{event} is pending: its turn has not come"),
            },
            Stage::Parked => format!("{event} is parked: {}", self.why()),
            Stage::Blocked => format!("{event} is blocked: {}", self.why()),
            Stage::Held => format!("{event} waits for its topic: {}", self.why()),
            Stage::InFlight => format!("{event} is in flight: it lies in a transaction that has not ended"),
            Stage::Published => format!("{event} is published: {}", self.place()),
            Stage::Consumed => format!("{event} is published: {}, and was consumed", self.place()),
            Stage::Hidden => {
                format!(
                    "{event} is hidden: {}, and a transaction before it has not ended, so readers stand still there",
                    self.place()
                )
            }
            Stage::Discarded => format!("{event} was discarded: a person gave it up"),
            Stage::Vanished => format!("{event} has vanished: it should be at {}", self.place()),
            Stage::Unaccounted => format!("{event} is marked as published: {}", self.unaccounted()),
        }
    }

    fn why(&self) -> String {
        match self.row.as_ref().and_then(|row| row.waits.as_ref()) {
            Some(Waits::Parked { code, detail } | Waits::Held { code, detail }) => printable(&format!("{code}, {detail}")),
            Some(Waits::Behind { seq, id, code }) => printable(&format!("event {id} (seq {seq}) of its key is parked, {code}")),
            None => String::new(),
        }
    }

    fn place(&self) -> String {
        let told =
            |entry: &Journalled| format!("batch {}, {}-{}@{}", entry.n, printable(&entry.topic), entry.partition, entry.offset);
        self.entry.as_ref().map_or_else(String::new, told)
    }

    fn unaccounted(&self) -> String {
        match self.batches {
            Some((first, _)) => {
                format!("the journal, which begins with batch {first}, does not name it: it is older, or never was")
            }
            None if self.journalled => "the journal is empty, so somebody else has published it, or nobody".into(),
            None => "where it went is not recorded without a journal".into(),
        }
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut lines = vec![self.sentence(), String::new()];
        lines.extend(self.row.iter().flat_map(row_lines));
        if let Some(entry) = &self.entry {
            lines.extend(self.entry_lines(entry));
        }
        if let Some((topic, partition, offset)) = &self.in_flight {
            lines.push(line(
                "sent",
                &format!("{}-{partition}@{offset}, which readers of committed records do not see", printable(topic)),
            ));
        }
        if let Some(marked) = self.row.as_ref().and_then(|row| row.marked_us) {
            lines.push(line("marked", &moment(marked)));
        }
        if let Some(found) = &self.found {
            lines.push(line("read back", &read_back(found)));
        }
        if let Some(discarded) = &self.discarded {
            lines.push(line("discarded", &format!("entry {} of the audit", discarded.n)));
        }
        if let Some(entry) = &self.entry {
            lines.extend(self.consumers.iter().map(|consumer| consumer_line(consumer, entry)));
            lines.extend(
                self.hidden_groups.iter().map(|group| line("group", &format!("{}: READ is not granted", printable(group)))),
            );
        }
        lines.extend(self.writers.iter().map(writer_line));
        if matches!(self.stage(), Stage::Unknown | Stage::Uncommitted) {
            lines.extend(self.explanations());
        }
        lines.join("\n") + "\n"
    }

    fn entry_lines(&self, entry: &Journalled) -> Vec<String> {
        let when = entry.time_ms.map_or_else(|| "-".to_owned(), |ms| moment(ms.saturating_mul(1_000)));
        let mut lines = vec![
            line("picked up", &format!("batch {} by instance {}", entry.n, printable(&entry.instance))),
            line("published", &format!("{}-{}@{}  {when}", printable(&entry.topic), entry.partition, entry.offset)),
        ];
        if let Some(sum) = self.arithmetic {
            let remainder = sum.hash % sum.partitions;
            let told = format!("murmur2 of the key is {}; divided by {} partitions, {remainder} is left", sum.hash, sum.partitions);
            lines.push(line("", &told));
        }
        lines
    }

    fn explanations(&self) -> Vec<String> {
        let journal = match self.batches {
            _ if self.journalled && !self.is_sought => {
                "not the journal, which knows such an id only together with what the event says (trace its record: TOPIC:PARTITION:OFFSET)"
                    .to_owned()
            }
            Some((first, last)) => format!("the journal's batches {first} to {last}"),
            None if self.journalled => "the journal, which is empty".to_owned(),
            None => "no journal, since none is kept".to_owned(),
        };
        [
            format!("looked at: the table, {journal}, the audit. What can explain it:"),
            "  1. its transaction was rolled back, or has not ended".into(),
            "  2. it was written to another table or database than the configured one".into(),
            "  3. it was published or deleted, and is older than what table and journal still have".into(),
        ]
        .into()
    }

    /// One object; names are stable, moments are RFC 3339.
    pub fn json(&self) -> Value {
        json!({
            "asked": self.asked,
            "stage": self.stage().name(),
            "sentence": self.sentence(),
            "row": self.row.as_ref().map(row_json),
            "published": self.entry.as_ref().map(|entry| self.entry_json(entry)),
            "in_flight": self.in_flight.as_ref().map(|(topic, partition, offset)| format!("{topic}-{partition}@{offset}")),
            "read_back": self.found.as_ref().map(read_back_word),
            "discarded": self.discarded.is_some(),
            "standstill": self.standstill,
            "open_writers": self.writers.iter().map(|writer| json!({
                "pid": writer.pid, "prepared": writer.gid, "seconds": writer.age.map(|age| age.as_secs_f64()),
            })).collect::<Vec<_>>(),
            "groups": self.consumers.iter().map(|consumer| json!({
                "group": consumer.group,
                "passed": self.entry.as_ref().is_some_and(|entry| consumer.has_passed(entry)),
                "behind_events": consumer.behind,
                "behind_is_more": consumer.is_more,
                "behind_seconds": consumer.behind_seconds,
            })).collect::<Vec<_>>(),
            "hidden_groups": self.hidden_groups,
        })
    }

    fn entry_json(&self, entry: &Journalled) -> Value {
        json!({
            "batch": entry.n,
            "instance": entry.instance,
            "topic": entry.topic,
            "partition": entry.partition,
            "offset": entry.offset,
            "at": entry.time_ms.map(|ms| moment(ms.saturating_mul(1_000))),
            "key_hash": self.arithmetic.map(|sum| sum.hash),
            "partitions": self.arithmetic.map(|sum| sum.partitions),
        })
    }
}

fn line(what: &str, told: &str) -> String {
    format!("  {what:12} {told}")
}

fn row_lines(row: &EventRow) -> Vec<String> {
    let key =
        row.key.as_deref().map_or_else(|| "no key".to_owned(), |key| format!("key {}", printable(&String::from_utf8_lossy(key))));
    let when = row.created_us.map_or_else(|| "-".to_owned(), moment);
    let mut lines = vec![
        line("event", &format!("{} {}, topic {}, {key}", printable(&row.id), printable(&row.kind), printable(&row.topic))),
        line("inserted", &format!("{when}  seq {}", row.seq)),
    ];
    if let Some(transaction) = &row.transaction {
        let at = row.committed_us.map_or_else(String::new, |us| format!("  {}", moment(us)));
        lines.push(line("committed", &format!("by transaction {transaction}{at}")));
    }
    lines
}

fn row_json(row: &EventRow) -> Value {
    let waits = row.waits.as_ref().map(|waits| match waits {
        Waits::Parked { code, detail } | Waits::Held { code, detail } => json!({ "code": code, "detail": detail }),
        Waits::Behind { seq, id, code } => json!({ "code": code, "behind_seq": seq, "behind_id": id }),
    });
    json!({
        "seq": row.seq,
        "id": row.id,
        "topic": row.topic,
        "type": row.kind,
        "key": row.key.as_deref().map(String::from_utf8_lossy),
        "created_at": row.created_us.map(moment),
        "marked_at": row.marked_us.map(moment),
        "transaction": row.transaction,
        "committed_at": row.committed_us.map(moment),
        "waits": waits,
    })
}

fn consumer_line(consumer: &Consumer, entry: &Journalled) -> String {
    let passed = if consumer.has_passed(entry) { "has passed it" } else { "has not come to it" };
    let more = if consumer.is_more { "more than " } else { "" };
    let age = consumer.behind_seconds.map_or_else(String::new, |seconds| format!(" and {seconds:.1} s"));
    line("group", &format!("{} {passed}, {more}{} events{age} behind", printable(&consumer.group), consumer.behind))
}

fn writer_line(writer: &OpenWriter) -> String {
    let who = match (&writer.pid, &writer.gid) {
        (Some(pid), _) => format!("process {pid}"),
        (None, Some(gid)) => format!("prepared transaction {}", printable(gid)),
        (None, None) => "a transaction".to_owned(),
    };
    let age = writer.age.map_or_else(String::new, |age| format!(", for {:.0} s", age.as_secs_f64()));
    line("open writer", &format!("{who}{age}"))
}

fn read_back(found: &Found) -> String {
    match found {
        Found::Equal => "it lies there, and says what the row says".into(),
        Found::Same => "it lies there; there is no row to compare it with".into(),
        Found::Different { what } => format!("a record with another {what} lies there"),
        Found::Trimmed { start } => format!("the topic begins at offset {start} by now: nobody can read it any more"),
        Found::Hidden => {
            "it lies there; a transaction stays open before it, so readers of committed records do not come to it".into()
        }
        Found::Nothing => "nothing lies there".into(),
        Found::NoTopic => "the topic is not there".into(),
        Found::EarlierTopic => "not in the topic of today: a person has accepted another one since".into(),
    }
}

fn read_back_word(found: &Found) -> &'static str {
    match found {
        Found::Equal => "equal",
        Found::Same => "same_id",
        Found::Different { .. } => "different",
        Found::Trimmed { .. } => "trimmed",
        Found::Hidden => "hidden",
        Found::Nothing => "nothing",
        Found::NoTopic => "no_topic",
        Found::EarlierTopic => "earlier_topic",
    }
}

/// `2026-01-31T23:59:59.123456Z`.
fn moment(us: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}
