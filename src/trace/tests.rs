//! The stage follows from what is known, and nothing else.

use std::time::Duration;

use super::*;

fn row(marked: bool, waits: Option<Waits>) -> Option<EventRow> {
    Some(EventRow {
        seq: 7,
        id: "3f0c1f6e-7a51-4c06-9d2e-b1a0c3a9f4d1".into(),
        fingerprint: Fingerprint(1),
        topic: "orders".into(),
        key: Some(b"k".to_vec()),
        payload: Some(b"{}".to_vec()),
        kind: "Placed".into(),
        created_us: Some(1_800_000_000_000_000),
        marked_us: marked.then_some(1_800_000_001_000_000),
        waits,
        transaction: None,
        committed_us: None,
    })
}

fn entry() -> Option<Journalled> {
    let topic = "orders".into();
    Some(Journalled { seq: 7, n: 3, time_ms: Some(1_800_000_000_500), instance: "one".into(), topic, partition: 2, offset: 41 })
}

fn consumer(next: i64) -> Consumer {
    Consumer { group: "mail".into(), next, behind: 1, is_more: false, behind_seconds: Some(2.0) }
}

fn life() -> Life {
    Life { batches: Some((1, 9)), ..Life::new("3f0c1f6e-7a51-4c06-9d2e-b1a0c3a9f4d1", true) }
}

fn waits(which: u8) -> Option<Waits> {
    Some(match which {
        0 => Waits::Parked { code: "too_large".into(), detail: "it is".into() },
        1 => Waits::Held { code: "topic_missing".into(), detail: "it is".into() },
        _ => Waits::Behind { seq: 3, id: "x".into(), code: "too_large".into() },
    })
}

#[test]
fn each_stage_has_its_facts() {
    let writer = OpenWriter { pid: Some(1), gid: None, age: Some(Duration::from_secs(2)) };
    let discarded = Discarded { n: 1, seq: 7, id: "x".into(), topic: "orders".into() };
    let published = |found| Life { row: row(true, None), entry: entry(), found: Some(found), ..life() };
    let in_flight = Some(("orders".to_owned(), 2, 41));
    let cases = [
        (Stage::Unknown, life()),
        (Stage::Uncommitted, Life { writers: vec![writer.clone()], ..life() }),
        (Stage::Pending, Life { row: row(false, None), writers: vec![writer], ..life() }),
        (Stage::Parked, Life { row: row(false, waits(0)), ..life() }),
        (Stage::Held, Life { row: row(false, waits(1)), ..life() }),
        (Stage::Blocked, Life { row: row(false, waits(2)), ..life() }),
        (Stage::InFlight, Life { row: row(false, None), in_flight, ..life() }),
        (Stage::Published, published(Found::Equal)),
        (Stage::Published, Life { row: row(false, None), ..published(Found::Equal) }),
        (Stage::Published, Life { row: None, ..published(Found::Same) }),
        (Stage::Published, published(Found::Trimmed { start: 90 })),
        (Stage::Published, Life { consumers: vec![consumer(41)], ..published(Found::Equal) }),
        (Stage::Consumed, Life { consumers: vec![consumer(3), consumer(42)], ..published(Found::Equal) }),
        (Stage::Vanished, published(Found::Nothing)),
        (Stage::Vanished, published(Found::NoTopic)),
        (Stage::Hidden, published(Found::Hidden)),
        (Stage::Hidden, Life { consumers: vec![consumer(42)], row: None, ..published(Found::Hidden) }),
        (Stage::Published, Life { consumers: vec![consumer(42)], ..published(Found::EarlierTopic) }),
        (Stage::Vanished, Life { consumers: vec![consumer(42)], ..published(Found::Different { what: "id" }) }),
        (Stage::Unaccounted, Life { row: row(true, None), ..life() }),
        (Stage::Unaccounted, Life { row: row(true, None), journalled: false, ..life() }),
        (Stage::Discarded, Life { row: row(true, None), discarded: Some(discarded), ..life() }),
    ];
    for (stage, life) in cases {
        assert_eq!(life.stage(), stage, "{life:?}");
        assert_eq!(life.json()["stage"], stage.name());
        assert!(life.text().starts_with(&life.sentence()), "{}", life.text());
    }
}

#[test]
fn a_record_is_compared_with_its_row() {
    let stored =
        Stored { id: row(true, None).map(|row| row.id.into_bytes()), key: Some(b"k".to_vec()), value: Some(b"{}".to_vec()) };
    let row = row(true, None);
    assert_eq!(stored.compare(row.as_ref(), ""), Found::Equal);
    assert_eq!(stored.compare(None, "3f0c1f6e-7a51-4c06-9d2e-b1a0c3a9f4d1"), Found::Same);
    assert_eq!(stored.compare(None, "another"), Found::Different { what: "id" });
    assert_eq!(Stored { key: None, ..stored.clone() }.compare(row.as_ref(), ""), Found::Different { what: "key" });
    assert_eq!(Stored { value: None, ..stored }.compare(row.as_ref(), ""), Found::Different { what: "value" });
}

#[test]
fn what_readers_cannot_see_yet_is_hidden_only_if_it_is_this_event() {
    let hidden = [Found::Equal, Found::Same, Found::Nothing, Found::Different { what: "value" }].map(Found::out_of_sight);
    assert_eq!(hidden, [Found::Hidden, Found::Hidden, Found::Nothing, Found::Different { what: "value" }]);
}

#[test]
fn what_an_earlier_topic_had_did_not_vanish_from_this_one() {
    let gone = [Found::Nothing, Found::NoTopic, Found::Different { what: "id" }].map(Found::before_acceptance);
    assert_eq!(gone, [Found::EarlierTopic, Found::EarlierTopic, Found::EarlierTopic]);
    let same = [Found::Equal, Found::Hidden, Found::Different { what: "value" }, Found::Trimmed { start: 3 }];
    assert_eq!(same.clone().map(Found::before_acceptance), same);
}

#[test]
fn a_life_reads_as_a_timeline() {
    let arithmetic = Some(Arithmetic { hash: 1_000_001, partitions: 3 });
    let consumers = vec![consumer(42), Consumer { group: "slow".into(), ..consumer(40) }];
    let life = Life { row: row(true, None), entry: entry(), found: Some(Found::Equal), arithmetic, consumers, ..life() };
    let expected = "\
event 3f0c1f6e-7a51-4c06-9d2e-b1a0c3a9f4d1 is published: batch 3, orders-2@41, and was consumed

  event        3f0c1f6e-7a51-4c06-9d2e-b1a0c3a9f4d1 Placed, topic orders, key k
  inserted     2027-01-15T08:00:00Z  seq 7
  picked up    batch 3 by instance one
  published    orders-2@41  2027-01-15T08:00:00.5Z
               murmur2 of the key is 1000001; divided by 3 partitions, 2 is left
  marked       2027-01-15T08:00:01Z
  read back    it lies there, and says what the row says
  group        mail has passed it, 1 events and 2.0 s behind
  group        slow has not come to it, 1 events and 2.0 s behind
";
    assert_eq!(life.text(), expected);
}

#[test]
fn what_nobody_knows_is_explained() {
    let text = life().text();
    assert!(text.contains("looked at: the table, the journal's batches 1 to 9, the audit"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("  ") && line.contains(". ")).count(), 3, "{text}");
    let text = Life { is_sought: false, ..life() }.text();
    assert!(text.contains("looked at: the table, not the journal, which"), "{text}");
}
