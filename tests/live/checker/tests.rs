//! The checker is fed a clean history, and then the same history with one fault each: it must find exactly that one.

use super::*;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 3;

/// Ten keys with five versions each, all committed, and what readers see of it.
fn history() -> (Vec<Written>, Vec<Seen>) {
    let mut written = Vec::new();
    for version in 1..=5 {
        for key in 0..10 {
            written.push(event(Some(format!("key-{key}")), version));
        }
    }
    written.push(event(None, 0));
    let mut next = BTreeMap::new();
    let seen = written.iter().map(|event| record(event, &mut next)).collect();
    (written, seen)
}

fn event(key: Option<String>, version: i64) -> Written {
    let id = Uuid::new_v4();
    Written { id, topic: TOPIC.into(), key, version, generation: 1, transaction: 7, writer: 1, filler: 3, fate: Fate::Committed }
}

fn record(event: &Written, next: &mut BTreeMap<i32, i64>) -> Seen {
    let partition = event.key.as_ref().map_or(0, |key| partition_of(key.as_bytes(), PARTITIONS));
    let offset = next.entry(partition).or_insert(0);
    *offset += 1;
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    Seen {
        topic: event.topic.to_string(),
        partition,
        offset: *offset,
        key: event.key.as_ref().map(|key| key.as_bytes().to_vec()),
        payload: Some(event.payload().into_bytes()),
        headers: vec![
            header("id", &event.id.to_string()),
            header("type", KIND),
            header("time", "2026-01-02T03:04:05.123456Z"),
            header("trace", &event.trace()),
        ],
    }
}

fn kinds(written: &[Written], seen: &[Seen]) -> Vec<Kind> {
    let partitions = BTreeMap::from([(TOPIC.to_owned(), PARTITIONS)]);
    check(written, seen, &partitions).into_iter().map(|violation| violation.kind).collect()
}

/// The history with one fault, which the checker must find, and nothing else.
#[track_caller]
fn finds(expected: &[Kind], damage: impl FnOnce(&mut Vec<Written>, &mut Vec<Seen>)) {
    let (mut written, mut seen) = history();
    assert_eq!(kinds(&written, &seen), [], "the history is clean at first");
    damage(&mut written, &mut seen);
    assert_eq!(kinds(&written, &seen), expected);
}

#[test]
fn a_committed_event_that_is_missing_is_lost() {
    finds(&[Kind::Lost], |_, seen| drop(seen.remove(20)));
    finds(&[Kind::Lost], |written, _| written.push(event(None, 0)));
}

#[test]
fn an_event_that_comes_twice_is_duplicated() {
    finds(&[Kind::Duplicated], |_, seen| seen.push(seen[20].clone()));
    finds(&[Kind::Duplicated], |_, seen| seen.push(seen[50].clone()));
}

#[test]
fn an_older_version_behind_a_newer_one_is_reordered() {
    finds(&[Kind::Reordered], |_, seen| seen.swap(10, 20));
    finds(&[Kind::Reordered], |_, seen| seen[15..].rotate_left(25));
}

#[test]
fn a_key_in_another_partition_is_split_and_wrong() {
    finds(&[Kind::WrongPartition, Kind::SplitKey], |_, seen| seen[40].partition = (seen[40].partition + 1) % PARTITIONS);
}

#[test]
fn a_key_that_always_lies_in_another_partition_is_wrong() {
    let moved = |seen: &mut Vec<Seen>| {
        let of_key = seen.iter_mut().filter(|record| record.key.as_deref() == Some(b"key-4"));
        of_key.for_each(|record| record.partition = (record.partition + 1) % PARTITIONS);
    };
    finds(&[Kind::WrongPartition; 5], |_, seen| moved(seen));
}

#[test]
fn a_rolled_back_event_that_is_published_is_a_phantom() {
    finds(&[Kind::Phantom], |written, _| written[12].fate = Fate::RolledBack);
}

#[test]
fn any_changed_byte_is_corrupt() {
    finds(&[Kind::Corrupt], |_, seen| seen[3].payload.as_mut().unwrap()[10] ^= 1);
    finds(&[Kind::Corrupt], |_, seen| seen[3].payload = None);
    finds(&[Kind::Corrupt], |_, seen| seen[3].headers.swap(0, 1));
    finds(&[Kind::Corrupt], |_, seen| seen[3].headers[3].1 = None);
    finds(&[Kind::Corrupt], |_, seen| drop(seen[3].headers.pop()));
    finds(&[Kind::Corrupt], |_, seen| seen[50].key = Some(Vec::new()));
    finds(&[Kind::Corrupt], |written, _| written[50].topic = "other".into());
}

#[test]
fn a_record_that_nobody_wrote_is_a_stranger_and_its_event_lost() {
    finds(&[Kind::Stranger, Kind::Lost], |_, seen| seen[50].headers[0].1 = Some(Uuid::new_v4().to_string().into_bytes()));
    finds(&[Kind::Stranger, Kind::Lost], |_, seen| drop(seen[50].headers.remove(0)));
}

#[test]
fn an_event_of_unknown_fate_may_be_there_once_or_not_at_all() {
    finds(&[], |written, _| written[50].fate = Fate::Unknown);
    finds(&[], |written, seen| {
        written[50].fate = Fate::Unknown;
        seen.remove(50);
    });
    finds(&[Kind::Duplicated], |written, seen| {
        written[50].fate = Fate::Unknown;
        seen.push(seen[50].clone());
    });
}

#[test]
fn versions_that_a_restored_database_draws_again_are_no_reordering() {
    finds(&[], |written, seen| {
        let again = Written { generation: 2, id: Uuid::new_v4(), ..written[0].clone() };
        seen.push(record(&again, &mut BTreeMap::from([(seen[0].partition, 100)])));
        written.push(again);
    });
}

#[test]
fn keys_hash_as_in_the_java_client() {
    // From Kafka's own UtilsTest.
    let vectors: [(&str, i32); 4] =
        [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536), ("abc", 479470107)];
    vectors.iter().for_each(|(key, hash)| assert_eq!(murmur2(key.as_bytes()) as i32, *hash, "{key}"));
}
