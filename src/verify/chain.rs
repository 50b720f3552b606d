//! The journal as a chain: dense numbers, each record naming the checksum of the one before, the newest applied batch among them.

use uuid::Uuid;

use super::CLOCKS_MS;
use super::report::JournalReport;
use crate::journal::{Applied, Checksum, Damage, Record};

/// Follows the journal record by record.
pub(super) struct Chain {
    outbox: Uuid,
    applied: Applied,
    /// Newest applied batch when the last row had been read: so far the journal may have been trimmed meanwhile.
    by_now: u64,
    /// Whether only the newer part is read, because that was asked for.
    partly: bool,
    last: Option<Applied>,
    /// From where on everything that was published can be expected to be named: number, and milliseconds since 1970.
    from: Option<(u64, i64)>,
    pub(super) report: JournalReport,
}

/// What a record is to the chain.
pub(super) enum Link {
    /// It follows, or begins.
    Follows(Record),
    /// A person has decided to go on from here.
    Anew,
    /// It cannot be read, or belongs to another outbox.
    Unreadable,
}

impl Chain {
    pub(super) fn new(outbox: Uuid, applied: Applied, partly: bool) -> Self {
        Self { outbox, applied, by_now: applied.n, partly, last: None, from: None, report: JournalReport::default() }
    }

    /// Says which batch is the newest applied one by now.
    pub(super) fn applied_by_now(&mut self, n: u64) {
        self.by_now = self.by_now.max(n);
    }

    /// Takes the next record.
    pub(super) fn accept(&mut self, offset: i64, time_ms: i64, bytes: &[u8]) -> Link {
        self.report.records += 1;
        let (record, checksum) = match Record::decode(bytes) {
            Ok(decoded) => decoded,
            Err(Damage::Format(format)) => return self.unreadable(offset, &format!("a record of the unknown format {format}")),
            Err(Damage::Broken(why)) => return self.unreadable(offset, &format!("no record: {why}")),
        };
        if record.writer.outbox != self.outbox {
            return self.unreadable(offset, &format!("a record of outbox {}", record.writer.outbox));
        }
        let found = Applied { n: record.n, offset, checksum };
        let anew = self.follow(&record, found);
        if anew || self.last.is_none() {
            self.from = Some((record.n, time_ms));
        }
        self.last = Some(found);
        self.report.first = self.report.first.or(Some(record.n));
        self.report.last = Some(record.n);
        self.report.events += record.entries.len() as u64;
        if anew { Link::Anew } else { Link::Follows(record) }
    }

    fn unreadable(&mut self, offset: i64, what: &str) -> Link {
        self.report.broken(format!("offset {offset} holds {what}"));
        Link::Unreadable
    }

    /// Whether the chain begins anew here; what breaks it is told.
    fn follow(&mut self, record: &Record, found: Applied) -> bool {
        // what `adopt` writes: no events, nothing before it
        let adopts = record.entries.is_empty() && record.previous == Checksum::default();
        let follows = self.last.is_none_or(|last| record.n == last.n + 1 && record.previous == last.checksum);
        let begins = self.last.is_none() && self.report.records == 1;
        if adopts && !begins {
            // a person has looked at what went before and went on all the same
            self.report.adopted += 1;
            self.report.broken = 0;
            self.report.examples.clear();
        } else if !follows {
            let last = self.last.map_or(0, |last| last.n);
            self.report.broken(format!("offset {} holds batch {}, which does not follow batch {last}", found.offset, record.n));
        }
        if record.n == self.applied.n && found != self.applied {
            let (offset, applied) = (found.offset, self.applied.offset);
            self.report.broken(format!(
                "batch {} lies at offset {offset} with checksum {:016x}, the table has it at offset {applied} with {:016x}",
                record.n, found.checksum.0, self.applied.checksum.0
            ));
        }
        adopts && !begins
    }

    /// Takes note of the end.
    pub(super) fn finish(&mut self) {
        let applied = self.applied.n;
        match (self.report.first, self.report.last) {
            (_, Some(last)) if last < applied => {
                self.report.broken(format!("batch {applied} is marked in the table, the journal ends with batch {last}"));
            }
            (Some(first), _) if first > self.by_now && applied > 0 && !self.partly => {
                self.report
                    .broken(format!("batch {} is the newest marked one, the journal begins with batch {first}", self.by_now));
            }
            (None, _) if applied > 0 && !self.partly => {
                self.report.broken(format!("batch {applied} is marked in the table, the journal is empty"));
            }
            _ => {}
        }
    }

    /// Whether what was published at this moment must be named, if it was published by this outbox.
    pub(super) fn is_after_beginning(&self, time_ms: i64) -> bool {
        self.from.is_some_and(|(_, from_ms)| time_ms >= from_ms.saturating_add(CLOCKS_MS))
    }

    /// Whether a row that was marked at this moment must be named. The database tells when the rows of a batch were marked, by the same
    /// clock: what was marked later belongs to a later batch.
    pub(super) fn names_marks_of(&self, marked_us: i64, first_applied: Option<(u64, i64)>) -> bool {
        let is_later = |(n, at_us): (u64, i64)| marked_us > at_us && self.from.is_some_and(|(first, _)| first <= n);
        first_applied.is_some_and(is_later) || self.is_after_beginning(marked_us / 1_000)
    }
}
