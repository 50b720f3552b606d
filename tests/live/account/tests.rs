//! A clean journal with its topics and tables, and then the same with one fault each: exactly that one must be found. The records are
//! encoded by the program, so that this also shows that they are read as they are written.

use outboxd::event::Fingerprint;
use outboxd::journal::{Checksum, DatabaseIdentity, Entry, Owner, Record, Writer};

use super::*;

const TOPICS: [&str; 2] = ["orders", "bills"];

/// Three batches of four events each, of two topics with three partitions.
struct World {
    records: Vec<Record>,
    seen: Vec<Seen>,
    tables: Tables,
}

fn world() -> World {
    let mut world =
        World { records: Vec::new(), seen: Vec::new(), tables: Tables { rows: 0, marked: Vec::new(), newest: 3, missing: 0 } };
    for n in 1..=3 {
        let entries = (0..4).map(|i| publish(&mut world, i * 100 + i64::try_from(n).unwrap() * 1000)).collect();
        world.records.push(Record {
            writer: writer(),
            n,
            previous: Checksum(n),
            topics: TOPICS.map(str::to_owned).to_vec(),
            entries,
        });
    }
    world
}

/// One event: seen by readers, marked in the table, and how it stands in the journal.
fn publish(world: &mut World, seq: i64) -> Entry {
    let (id, topic, partition) = (Uuid::new_v4(), (seq / 100 % 2) as u32, (seq / 100 % 3) as i32);
    let offset = seq * 2;
    let header = ("id".to_owned(), Some(id.to_string().into_bytes()));
    let topic_name = TOPICS[topic as usize].to_owned();
    world.seen.push(Seen { topic: topic_name, partition, offset, key: None, payload: None, headers: vec![header] });
    world.tables.marked.push((seq, id));
    world.tables.rows += 1;
    Entry { seq, fingerprint: Fingerprint(fingerprint(id)), topic, partition, offset }
}

fn writer() -> Writer {
    let owner = Owner { instance: "relay-7".into(), start: 1 << 50, epoch: 300 };
    Writer { outbox: Uuid::new_v4(), owner, database: DatabaseIdentity { system: "7".into(), timeline: 2 } }
}

impl World {
    fn journal(&self) -> Vec<Seen> {
        let record = |record: &Record| Seen { payload: Some(record.encode().0), ..self.seen[0].clone() };
        self.records.iter().map(record).collect()
    }

    fn violations(&self) -> Vec<String> {
        let account = decode(&self.journal());
        let tables = check_tables(&account, &self.tables, 12);
        check(&account, &self.seen).iter().chain(&tables).map(ToString::to_string).collect()
    }
}

/// The world with one fault, which must be found, and nothing else: what is found begins with `expected`, in this order.
#[track_caller]
fn finds(expected: &[&str], damage: impl FnOnce(&mut World)) {
    let mut world = world();
    assert_eq!(world.violations(), [""; 0], "the world is clean at first");
    damage(&mut world);
    let found = world.violations();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} is not {expected}");
    }
}

const HIDDEN: &str = "Journal: journalled, not visible";
const UNKNOWN: &str = "Journal: visible, not journalled";
const UNPROVED: &str = "Table: marked, not journalled";

#[test]
fn an_event_that_is_journalled_and_not_visible_is_found() {
    finds(&[HIDDEN], |world| drop(world.seen.remove(5)));
}

#[test]
fn an_event_that_is_visible_and_not_journalled_is_found() {
    finds(&[UNKNOWN], |world| {
        let again = Seen { offset: 1, ..world.seen[5].clone() };
        world.seen.push(again);
    });
    finds(&[UNKNOWN, UNPROVED], |world| {
        world.records[1].entries.remove(2);
    });
}

#[test]
fn another_place_than_the_journalled_one_is_found() {
    finds(&[UNKNOWN, HIDDEN], |world| world.seen[5].offset += 1);
    finds(&[UNKNOWN, HIDDEN], |world| world.seen[5].partition += 1);
    finds(&[UNKNOWN, HIDDEN], |world| world.seen[5].topic = "others".into());
    finds(&[UNKNOWN, HIDDEN], |world| world.records[2].entries[3].offset -= 1);
}

#[test]
fn another_event_than_the_journalled_one_is_found() {
    let other = || vec![("id".to_owned(), Some(Uuid::new_v4().to_string().into_bytes()))];
    finds(&[UNKNOWN, HIDDEN], |world| world.seen[5].headers = other());
    finds(&[UNPROVED], |world| world.tables.marked[5].1 = Uuid::new_v4());
    finds(&[UNPROVED], |world| world.tables.marked[5].0 += 1);
}

#[test]
fn an_event_that_is_journalled_twice_is_found() {
    let twice = "Journal: an event stands in two records";
    finds(&[twice], |world| {
        let again = world.records[0].entries[2];
        world.records[2].entries.push(again);
    });
    finds(&[twice], |world| {
        let again = world.records[0].entries[2];
        world.records[0].entries.push(again);
    });
}

#[test]
fn batches_that_are_missing_repeated_or_out_of_order_are_found() {
    finds(&["Journal: batch 3 follows batch 1 as record 1"], |world| drop(swallow(world, 1)));
    finds(&["Journal: the journal begins with batch 2"], |world| drop(swallow(world, 0)));
    finds(&["Journal: batch 2 follows batch 2 as record 2", "Journal: batch 3"][..1], |world| {
        world.records[2].n = 2;
        world.tables.newest = 2;
    });
    let swapped =
        ["Journal: batch 3 follows batch 1", "Journal: batch 2 follows batch 3", "Table: newest applied batch: 3, expected 2"];
    finds(&swapped, |world| world.records.swap(1, 2));
}

/// Takes a record away whose events the one before or after it holds as well: only the number is missing.
fn swallow(world: &mut World, index: usize) -> Record {
    let gone = world.records.remove(index);
    let heir = index.min(world.records.len() - 1);
    world.records[heir].entries.extend(gone.entries.iter().copied());
    gone
}

#[test]
fn rows_that_are_missing_unmarked_or_too_many_are_found() {
    finds(&["Table: rows in the table: 13, expected 12", "Table: rows not marked: 1"], |world| world.tables.rows += 1);
    finds(&["Table: rows not marked: 1, expected 0"], |world| {
        world.tables.marked.pop();
    });
    finds(&["Table: rows in the table: 11, expected 12"], |world| {
        world.tables.marked.pop();
        world.tables.rows -= 1;
    });
}

#[test]
fn applied_batches_that_are_missing_or_too_many_are_found() {
    finds(&["Table: newest applied batch: 2, expected 3"], |world| world.tables.newest = 2);
    finds(&["Table: newest applied batch: 4, expected 3"], |world| world.tables.newest = 4);
    finds(&["Table: numbers missing among the applied batches: 1"], |world| world.tables.missing = 1);
}

#[test]
#[should_panic(expected = "a journal record is complete")]
fn a_record_that_ends_early_is_no_record() {
    let mut journal = world().journal();
    journal[1].payload.as_mut().unwrap().pop();
    decode(&journal);
}

#[test]
#[should_panic(expected = "a journal record is complete")]
fn a_record_that_runs_on_is_no_record() {
    let mut journal = world().journal();
    journal[1].payload.as_mut().unwrap().push(0);
    decode(&journal);
}
