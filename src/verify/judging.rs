//! The end: rows against the journal, and what neither explains against what lies in the topics.

use std::io;

use super::books::{BEFORE_ROWS, DiscardItem, EntryItem, RowItem};
use super::comparing::{BY_JOURNAL, BY_ROW, COVERED, ClaimItem, Comparing, DISPUTED, Holes, NAMED, RecordItem, entry_place};
use super::report::{Example, Kind, Report, Unchecked};
use super::spill::{Sorted, number};
use super::{CLOCKS_MS, Kept};

/// Compares everything that was taken.
pub(super) fn judge(mut all: Comparing) -> io::Result<Report> {
    let numbers =
        Numbers { rows: all.rows.take().sorted()?, discards: all.discards.take().sorted()?, entries: all.entries.take().sorted()? };
    numbers.judge(&mut all)?;
    let identities = Identities { records: all.records.take().sorted()?, claims: all.claims.take().sorted()? };
    identities.judge(&mut all)?;
    let mut topics = all.topics.reports;
    topics.sort_by(|a, b| a.topic.cmp(&b.topic));
    Ok(Report { journal: all.terms.journalled.then_some(all.chain.report), topics })
}

/// Rows, audit and journal, by number.
struct Numbers {
    rows: Sorted<4>,
    discards: Sorted<3>,
    entries: Sorted<6>,
}

/// What was said of one number, which may have been drawn more than once for different events.
#[derive(Default)]
struct OfNumber {
    rows: Vec<RowItem>,
    discards: Vec<DiscardItem>,
    entries: Vec<EntryItem>,
}

impl Numbers {
    fn judge(mut self, all: &mut Comparing) -> io::Result<()> {
        let mut of_number = OfNumber::default();
        while self.gather(&mut of_number)? {
            of_number.judge(all)?;
        }
        Ok(())
    }

    /// Everything of the lowest number that is left; whether there was one.
    fn gather(&mut self, into: &mut OfNumber) -> io::Result<bool> {
        let firsts = [self.rows.peek().map(|row| row[0]), self.discards.peek().map(|d| d[0]), self.entries.peek().map(|e| e[0])];
        let Some(lowest) = firsts.into_iter().flatten().min() else { return Ok(false) };
        into.rows.clear();
        into.discards.clear();
        into.entries.clear();
        while let Some(row) = self.rows.next_if(|row| row[0] == lowest)? {
            into.rows.push(row);
        }
        while let Some(discard) = self.discards.next_if(|discard| discard[0] == lowest)? {
            into.discards.push(discard);
        }
        while let Some(entry) = self.entries.next_if(|entry| entry[0] == lowest)? {
            into.entries.push(entry);
        }
        Ok(true)
    }
}

impl OfNumber {
    fn judge(&self, all: &mut Comparing) -> io::Result<()> {
        self.rows.iter().try_for_each(|row| self.row(row, all))?;
        let mut last = None;
        for entry in &self.entries {
            // the same event in several batches is one event here
            if last.replace(entry[1]) != Some(entry[1]) {
                self.entry(entry, all);
            }
        }
        Ok(())
    }

    /// What the audit says of this event, if it was given up.
    fn discard(&self, fingerprint: u64) -> Option<&DiscardItem> {
        self.discards.iter().find(|discard| discard[1] == 0 || discard[1] == fingerprint)
    }

    fn row(&self, row: &RowItem, all: &mut Comparing) -> io::Result<()> {
        let &[seq, fingerprint, topic, marked] = row;
        let entry = self.entries.iter().find(|entry| entry[1] == fingerprint);
        let discard = self.discard(fingerprint);
        let report = all.topics.report(topic as u32);
        match (entry, marked) {
            (Some(entry), 0) if entry[2] <= all.terms.applied.n => {
                let (_, partition, offset) = entry_place(entry);
                let example = Example::new("its batch counts as applied, and the row is unsent").at(partition, offset);
                report.found(Kind::Unmarked, example.of_row(number(seq)).of_batch(entry[2]));
            }
            (Some(_), 0) => report.underway += 1,
            (Some(_), _) => {}
            (None, 0) if discard.is_some_and(|discard| discard[2] == BEFORE_ROWS) => {
                report.found(Kind::Unmarked, Example::new("it was given up, and the row is unsent").of_row(number(seq)));
            }
            (None, _) if discard.is_some() => report.discarded += 1,
            (None, marked) => {
                if marked == 0 {
                    report.waiting += 1;
                }
                return all.claims.push([topic, fingerprint, BY_ROW, marked, seq, 0, 0]);
            }
        }
        Ok(())
    }

    /// Whether the row of a published event is where it should be.
    fn entry(&self, entry: &EntryItem, all: &mut Comparing) {
        let &[seq, fingerprint, n, _, _, time_ms] = entry;
        let (topic, partition, offset) = entry_place(entry);
        let example = |why| Example::new(why).at(partition, offset).of_row(number(seq)).of_batch(n);
        let has_row = self.rows.iter().any(|row| row[1] == fingerprint);
        if self.discard(fingerprint).is_some() {
            all.topics.report(topic).found(Kind::Phantom, example("it was given up, and published all the same"));
        } else if !has_row && n <= all.terms.applied.n && is_kept(all, number(time_ms)) {
            let why = if self.rows.is_empty() { "no row has its number" } else { "the row of its number is another event" };
            all.topics.report(topic).found(Kind::Phantom, example(why));
        }
    }
}

/// Whether the row of an event that was published at this moment must still be in the table.
fn is_kept(all: &Comparing, published_ms: i64) -> bool {
    match all.terms.kept {
        Kept::NotAtAll => false,
        Kept::Forever => true,
        Kept::For(retention) => {
            let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
            let oldest = (all.rows_read_us / 1_000).saturating_sub(retention_ms).saturating_add(CLOCKS_MS);
            published_ms > oldest
        }
    }
}

/// Records and what nothing explained so far, by identity.
struct Identities {
    records: Sorted<4>,
    claims: Sorted<7>,
}

/// What lies in a topic of one event.
#[derive(Default)]
struct OfIdentity {
    records: u64,
    /// The first one that the journal does not name and should.
    unnamed: Option<RecordItem>,
    /// The first one that is older than the journal.
    older: bool,
    second: Option<RecordItem>,
}

impl Identities {
    fn judge(mut self, all: &mut Comparing) -> io::Result<()> {
        loop {
            let record = self.records.peek().map(|record| (record[0], record[1]));
            let claim = self.claims.peek().map(|claim| (claim[0], claim[1]));
            let Some(lowest) = [record, claim].into_iter().flatten().min() else { return Ok(()) };
            let found = self.gather(lowest)?;
            found.repeated(lowest.0 as u32, all);
            let mut claimed = false;
            while let Some(claim) = self.claims.next_if(|claim| (claim[0], claim[1]) == lowest)? {
                claimed = true;
                found.claim(&claim, all);
            }
            if !claimed {
                found.unclaimed(lowest.0 as u32, all);
            }
        }
    }

    fn gather(&mut self, lowest: (u64, u64)) -> io::Result<OfIdentity> {
        let mut found = OfIdentity::default();
        while let Some(record) = self.records.next_if(|record| (record[0], record[1]) == lowest)? {
            found.records += 1;
            if found.records == 2 {
                found.second = Some(record);
            }
            let flags = record[3] & (NAMED | DISPUTED | COVERED);
            found.older |= flags == 0;
            if flags == COVERED {
                found.unnamed = found.unnamed.or(Some(record));
            }
        }
        Ok(found)
    }
}

fn at(record: &RecordItem, why: &'static str) -> Example {
    Example::new(why).at(((record[3] >> 32) as u32).cast_signed(), number(record[2]))
}

impl OfIdentity {
    fn repeated(&self, topic: u32, all: &mut Comparing) {
        if let Some(second) = &self.second {
            let example = at(second, "its topic has this event before");
            all.topics.report(topic).found_more(Kind::Duplicated, self.records - 1, example);
        }
    }

    /// One record that nobody claims: it is named, or older than the journal, or somebody else's.
    fn unclaimed(&self, topic: u32, all: &mut Comparing) {
        let report = all.topics.report(topic);
        match &self.unnamed {
            Some(record) if self.records == 1 => report.found(Kind::Foreign, at(record, "no journal record names it")),
            Some(_) | None => {}
        }
        if self.older && all.terms.journalled {
            report.unchecked(Unchecked::BeforeJournal);
        }
    }

    fn claim(&self, claim: &ClaimItem, all: &mut Comparing) {
        let &[topic, _, by, of, seq, partition, offset] = claim;
        let topic = topic as u32;
        if by == BY_JOURNAL {
            let place = ((partition as u32).cast_signed(), number(offset));
            let example = |why| Example::new(why).at(place.0, place.1).of_row(number(seq)).of_batch(of);
            let (kind, example) = match self.records {
                0 if all.is_present(of) => (Kind::Torn, example("nothing lies there, and others of its batch are there")),
                0 => (Kind::Lost, example("nothing lies there, nor anything else of its batch")),
                _ => (Kind::Torn, example("nothing lies there, but at another place of its topic")),
            };
            all.topics.report(topic).found(kind, example);
        } else if self.records == 0 {
            absent_row(topic, of, seq, all);
        } else if !all.terms.journalled {
            let report = all.topics.report(topic);
            report.published += 1;
            if of == 0 {
                (report.waiting, report.underway) = (report.waiting - 1, report.underway + 1);
            }
        } else if let Some(record) = self.unnamed.as_ref().filter(|_| self.records == 1) {
            all.topics.report(topic).found(Kind::Torn, at(record, "no journal record names it").of_row(number(seq)));
        } else if of == 0 && self.older {
            all.topics
                .report(topic)
                .found(Kind::Unmarked, Example::new("it is published, and the row is unsent").of_row(number(seq)));
        }
    }
}

/// A row that neither the journal nor the topic knows.
fn absent_row(topic: u32, marked: u64, seq: u64, all: &mut Comparing) {
    if marked == 0 {
        return;
    }
    let marked_us = number(marked);
    if all.terms.journalled {
        let report = all.topics.report(topic);
        if all.chain.names_marks_of(marked_us, all.terms.first_applied) {
            let why = "the row is marked, and neither journal nor topic nor audit knows it";
            report.found(Kind::Lost, Example::new(why).of_row(number(seq)));
        } else if !all.terms.is_hardly_since(marked_us) {
            report.unchecked(Unchecked::Forgotten);
        }
        return;
    }
    let is_ours = marked_us > all.terms.set_up_us;
    let is_whole = marked_us / 1_000 > all.whole_since_ms[topic as usize].saturating_add(CLOCKS_MS);
    let (holes, is_hidden) = (all.compacted[topic as usize], all.hidden.contains(&topic));
    let report = all.topics.report(topic);
    match holes {
        _ if is_hidden => report.unchecked(Unchecked::Hidden),
        Holes::Never if is_ours && is_whole => {
            report.found(Kind::Lost, Example::new("the row is marked, and its topic does not have it").of_row(number(seq)));
        }
        Holes::Never => report.unchecked(Unchecked::Forgotten),
        Holes::Compacted => report.unchecked(Unchecked::Compacted),
        Holes::Untold => report.unchecked(Unchecked::Untold),
    }
}
