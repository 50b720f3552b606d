//! The journal and the tables as an account of what was published: read without the program's own code, and compared with what
//! readers see.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::checker::{Kind, Place, Seen, Violation};

#[cfg(test)]
mod tests;

/// One published event as the journal has it: fingerprint of the id, topic, partition, offset.
type Line = (u64, Arc<str>, i32, i64);

/// What the journal's records say, each decoded, in order of their offsets.
pub struct Account {
    /// Numbers of the batches.
    pub numbers: Vec<u64>,
    lines: Vec<Line>,
    /// Number and fingerprint of each row.
    rows: HashSet<(i64, u64)>,
}

/// What the tables say in the end, when everything is published.
pub struct Tables {
    /// Rows in the outbox.
    pub rows: u64,
    /// Those of them that are marked.
    pub marked: Vec<(i64, Uuid)>,
    /// Newest applied batch.
    pub newest: u64,
    /// Numbers missing between the oldest and the newest applied batch.
    pub missing: u64,
}

/// Decodes a journal topic.
///
/// # Panics
/// If a record is not one.
pub fn decode(journal: &[Seen]) -> Account {
    let mut account = Account { numbers: Vec::new(), lines: Vec::new(), rows: HashSet::new() };
    for record in journal {
        let bytes = record.payload.as_deref().expect("a journal record has a value");
        let mut bytes = Bytes(bytes);
        decode_record(&mut bytes, &mut account).expect("a journal record is complete");
    }
    account
}

/// Everything in which the journal differs from what readers see of the events' topics.
pub fn check(account: &Account, seen: &[Seen]) -> Vec<Violation> {
    check_places(account, seen.iter().map(Seen::place))
}

/// [`check`] of where the events lie.
pub fn check_places(account: &Account, places: impl Iterator<Item = Place>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut found = |what: String| violations.push(Violation { kind: Kind::Journal, what });
    if account.numbers.first().is_some_and(|first| *first != 1) {
        found(format!("the journal begins with batch {}", account.numbers[0]));
    }
    for (pair, position) in account.numbers.windows(2).zip(1..) {
        if pair[1] != pair[0] + 1 {
            found(format!("batch {} follows batch {} as record {position}", pair[1], pair[0]));
        }
    }
    let journalled: HashSet<&Line> = account.lines.iter().collect();
    if journalled.len() != account.lines.len() {
        found("an event stands in two records, or twice in one".into());
    }
    let line = |place: Place| Some((fingerprint(place.id?), place.topic, place.partition, place.offset));
    let visible: HashSet<Line> = places.filter_map(line).collect();
    visible.iter().filter(|line| !journalled.contains(line)).for_each(|line| found(format!("visible, not journalled: {line:?}")));
    journalled.iter().filter(|line| !visible.contains(**line)).for_each(|line| found(format!("journalled, not visible: {line:?}")));
    violations
}

/// Everything in which the tables differ from the journal, in which `rows` rows should be left.
pub fn check_tables(account: &Account, tables: &Tables, rows: u64) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut found = |what: String| violations.push(Violation { kind: Kind::Table, what });
    let mut expect = |what: &str, number: u64, expected: u64| {
        if number != expected {
            found(format!("{what}: {number}, expected {expected}"));
        }
    };
    expect("rows in the table", tables.rows, rows);
    expect("rows not marked", tables.rows.abs_diff(tables.marked.len() as u64), 0);
    expect("newest applied batch", tables.newest, account.numbers.last().copied().unwrap_or(0));
    expect("numbers missing among the applied batches", tables.missing, 0);
    let unknown = tables.marked.iter().filter(|(seq, id)| !account.rows.contains(&(*seq, fingerprint(*id))));
    unknown.for_each(|(seq, id)| found(format!("marked, not journalled: {seq} {id}")));
    violations
}

fn fingerprint(id: Uuid) -> u64 {
    (id.as_u128() >> 64) as u64 ^ id.as_u128() as u64
}

/// The layout is documented in src/journal.rs; this reads it anew.
fn decode_record(bytes: &mut Bytes<'_>, account: &mut Account) -> Option<()> {
    bytes.take(1 + 16)?;
    account.numbers.push(bytes.varint()?);
    bytes.text()?;
    bytes.take(8)?;
    bytes.varint()?;
    bytes.text()?;
    bytes.varint()?;
    bytes.take(8)?;
    let topics: Vec<Arc<str>> = (0..bytes.varint()?).map(|_| bytes.text().map(Arc::from)).collect::<Option<_>>()?;
    let mut lanes = Vec::new();
    for _ in 0..bytes.varint()? {
        let (topic, partition, offset) = (bytes.varint()?, bytes.zigzag()?, bytes.zigzag()?);
        lanes.push((topics.get(topic as usize)?.clone(), partition as i32, offset));
    }
    let mut seq = 0;
    for _ in 0..bytes.varint()? {
        seq += bytes.zigzag()?;
        let fingerprint = u64::from_le_bytes(bytes.take(8)?.try_into().ok()?);
        let lane = lanes.get_mut(bytes.varint()? as usize)?;
        let offset = lane.2 + bytes.zigzag()?;
        account.rows.insert((seq, fingerprint));
        account.lines.push((fingerprint, lane.0.clone(), lane.1, offset));
        lane.2 = offset + 1;
    }
    bytes.take(8)?;
    bytes.0.is_empty().then_some(())
}

/// What is left of a record.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        self.varint().map(|value| (value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.varint()? as usize;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }
}
