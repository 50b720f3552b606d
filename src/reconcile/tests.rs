//! What lies in a topic is found, what does not is told apart by whether the topic can still tell.

use proptest::prelude::*;

use super::*;
use crate::source::Pin;

const START_MS: i64 = 1_800_000_000_000;

/// An event: its row, if it is unsent, and whether it lies in the topic.
#[derive(Clone, Debug)]
struct Event {
    seq: i64,
    id: Uuid,
    topic: &'static str,
    created_ms: i64,
}

fn event(seq: i64) -> Event {
    Event { seq, id: Uuid::from_u128(0x1234_5678_9abc_def0_u128 << 64 | seq as u128), topic: "a", created_ms: START_MS }
}

fn unsent(ids: Ids, rows: &[Event]) -> Unsent {
    let pattern = TopicPattern { prefix: "pre.".into(), suffix: String::new() };
    let pin = Pin { id: Some("one".into()), ..Pin::of(1) };
    let pins = Pins::from([("a".to_owned(), pin.clone()), ("b".to_owned(), pin)]);
    let mut unsent = Unsent::new(ids, pattern, pins, std::env::temp_dir());
    for Event { seq, id, topic, created_ms } in rows {
        let (id, created_us) = (id.to_string(), Some(created_ms * 1_000));
        let fingerprint = match ids {
            Ids::Uuid => Fingerprint::of(Uuid::parse_str(&id).expect("a uuid")),
            Ids::Content => Fingerprint::of_content(&id, topic, Some(b"k"), Some(b"{}")),
        };
        unsent.row(&UnsentRow { seq: *seq, id: &id, fingerprint, topic, created_us }).expect("kept");
    }
    unsent
}

/// Goes on to topics that are those that were pinned.
fn search(unsent: Unsent) -> Searching {
    let count = unsent.topics().len();
    let mut searching = unsent.search();
    (0..count).for_each(|topic| searching.is_topic(topic, Some("one")));
    searching
}

/// Records as offset, time and identity.
fn partition(searching: &mut Searching, topic: usize, extent: Extent, records: &[(i64, i64, &str)]) {
    searching.begin(topic, 0, extent);
    for &(offset, time_ms, id) in records {
        let seen = Scanned { offset, time_ms: Some(time_ms), id: Some(id.as_bytes()), key: Some(b"k"), value: Some(b"{}") };
        searching.record(&seen).expect("kept");
    }
    searching.end();
}

fn whole() -> Extent {
    Extent { start: 0, holes: Holes::Never }
}

fn seqs(finding: Finding) -> Vec<i64> {
    finding.flat_map(|entries| entries.expect("read")).map(|entry| entry.seq).collect()
}

#[test]
fn what_lies_in_its_topic_is_found_with_its_place_and_nothing_else_is() {
    let rows = [event(1), event(2), event(3)];
    for ids in [Ids::Uuid, Ids::Content] {
        let unsent = unsent(ids, &rows);
        assert_eq!(unsent.topics(), ["pre.a"]);
        let mut searching = search(unsent);
        let (two, stranger) = (rows[1].id.to_string(), Uuid::from_u128(77).to_string());
        partition(&mut searching, 0, whole(), &[(4, START_MS, &stranger), (5, START_MS, &two), (6, START_MS, "no identity")]);
        let finding = searching.finish().expect("compared");
        let topic = finding.topics()[0].clone();
        assert_eq!((topic.rows, topic.found, topic.unpublished, finding.undecided()), (3, 1, 2, 0));
        let found: Vec<Entry> = finding.flat_map(|entries| entries.expect("read")).collect();
        assert_eq!(found.iter().map(|entry| (entry.seq, entry.partition, entry.offset)).collect::<Vec<_>>(), [(2, 0, 5)]);
    }
}

/// The journal's fingerprint alone would take one for the other, and the row would never be published.
#[test]
fn another_event_with_the_same_fingerprint_is_another_event() {
    let row = Event { id: Uuid::from_u64_pair(5, 9), ..event(1) };
    let other = Uuid::from_u64_pair(9, 5);
    assert_eq!(Fingerprint::of(row.id), Fingerprint::of(other));
    let mut searching = search(unsent(Ids::Uuid, &[row]));
    partition(&mut searching, 0, whole(), &[(0, START_MS, &other.to_string())]);
    let finding = searching.finish().expect("compared");
    assert_eq!((finding.published(), finding.topics()[0].unpublished), (0, 1));
}

#[test]
fn an_event_of_another_topic_is_not_this_one() {
    let rows = [event(1), Event { topic: "b", ..event(2) }];
    let mut searching = search(unsent(Ids::Uuid, &rows));
    let one = rows[0].id.to_string();
    partition(&mut searching, 0, whole(), &[]);
    partition(&mut searching, 1, whole(), &[(0, START_MS, &one)]);
    let finding = searching.finish().expect("compared");
    assert_eq!(finding.topics().iter().map(|topic| (topic.found, topic.unpublished)).collect::<Vec<_>>(), [(0, 1), (0, 1)]);
}

/// What is undecided of two rows, inserted long before and long after the first record that is left.
fn undecided(look: impl FnOnce(&mut Searching)) -> Vec<(Unchecked, u64)> {
    let rows = [Event { created_ms: START_MS - 3_600_000, ..event(1) }, Event { created_ms: START_MS + 3_600_000, ..event(2) }];
    let mut searching = search(unsent(Ids::Uuid, &rows));
    look(&mut searching);
    let finding = searching.finish().expect("compared");
    let topic = &finding.topics()[0];
    assert_eq!((topic.found, topic.unpublished + finding.undecided()), (0, 2), "{}", finding.text());
    topic.undecided.clone().into_iter().collect()
}

#[test]
fn where_the_topic_cannot_tell_any_more_nothing_is_decided() {
    let other = Uuid::from_u128(78).to_string();
    let left = [(9, START_MS, other.as_str())];
    let of = |start, holes| Extent { start, holes };
    assert_eq!(undecided(|searching| partition(searching, 0, whole(), &left)), []);
    assert_eq!(undecided(|searching| partition(searching, 0, of(9, Holes::Never), &left)), [(Unchecked::Trimmed, 1)]);
    assert_eq!(undecided(|searching| partition(searching, 0, of(9, Holes::Never), &[])), [(Unchecked::Trimmed, 2)]);
    assert_eq!(undecided(|searching| partition(searching, 0, of(0, Holes::Compacted), &left)), [(Unchecked::Compacted, 2)]);
    assert_eq!(undecided(|searching| partition(searching, 0, of(0, Holes::Untold), &left)), [(Unchecked::Untold, 2)]);
    assert_eq!(undecided(|searching| searching.no_topic(0)), [(Unchecked::NoTopic, 2)]);
    let hidden = undecided(|searching| {
        searching.begin(0, 0, whole());
        searching.stops_short();
        searching.end();
    });
    assert_eq!(hidden, [(Unchecked::Hidden, 2)]);
    // trimmed while it was read: what was read before is void
    let moved = undecided(|searching| {
        searching.begin(0, 0, whole());
        searching.begins_later(9);
        searching.end();
    });
    assert_eq!(moved, [(Unchecked::Trimmed, 2)]);
}

/// Who has read the old topic must not get an event again only because the new one never had it.
#[test]
fn a_topic_that_was_made_anew_tells_nothing_of_what_the_old_one_had() {
    let other = Uuid::from_u128(78).to_string();
    let left = [(0, START_MS, other.as_str())];
    let of = |id: Option<&'static str>| {
        undecided(|searching| {
            searching.is_topic(0, id);
            partition(searching, 0, whole(), &left);
        })
    };
    assert_eq!(of(Some("one")), []);
    assert_eq!(of(Some("two")), [(Unchecked::Recreated, 2)]);
    // not told: what was inserted after its first event was published can only have been published to this one
    assert_eq!(of(None), [(Unchecked::Unpinned, 1)]);
    let empty = undecided(|searching| {
        searching.is_topic(0, None);
        partition(searching, 0, whole(), &[]);
    });
    assert_eq!(empty, [(Unchecked::Unpinned, 2)]);
}

#[test]
fn of_a_topic_without_a_pin_only_its_first_event_tells_since_when_it_is_there() {
    let other = Uuid::from_u128(78).to_string();
    let rows = [-3_600_000, 3_600_000].map(|later| Event { topic: "c", created_ms: START_MS + later, ..event(later) });
    let mut searching = search(unsent(Ids::Uuid, &rows));
    partition(&mut searching, 0, whole(), &[]);
    partition(&mut searching, 0, whole(), &[(0, START_MS, &other)]);
    let finding = searching.finish().expect("compared");
    let topic = &finding.topics()[0];
    assert_eq!((topic.unpublished, topic.undecided.clone()), (1, BTreeMap::from([(Unchecked::Unpinned, 1)])));
}

#[test]
fn a_record_without_identity_does_not_tell_how_far_the_topic_goes_back() {
    let early = undecided(|searching| partition(searching, 0, Extent { start: 9, holes: Holes::Never }, &[(9, 0, "somebody's")]));
    assert_eq!(early, [(Unchecked::Trimmed, 2)]);
}

#[test]
fn a_person_is_told_what_is_not_known() {
    let mut searching = search(unsent(Ids::Uuid, &[event(1), event(2)]));
    partition(&mut searching, 0, Extent { start: 0, holes: Holes::Compacted }, &[(0, START_MS, &event(2).id.to_string())]);
    let text = searching.finish().expect("compared").text();
    let expected =
        "pre.a: 2 unsent rows; 1 of them lie in the topic, 0 were not published\n  1 undecided: the topic is compacted\n";
    assert_eq!(text, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn exactly_what_lies_there_is_found(published in proptest::collection::btree_set(0_i64..12_000, 0..9_000), rows in 1_i64..12_000) {
        let all: Vec<Event> = (0..rows).map(event).collect();
        let mut searching = search(unsent(Ids::Uuid, &all));
        let ids: Vec<String> = published.iter().map(|seq| event(*seq).id.to_string()).collect();
        let records: Vec<(i64, i64, &str)> = ids.iter().enumerate().map(|(at, id)| (at as i64, START_MS, id.as_str())).collect();
        // some of them twice
        partition(&mut searching, 0, whole(), &records);
        partition(&mut searching, 0, whole(), &records[..records.len() / 3]);
        let expected: Vec<i64> = published.into_iter().filter(|seq| *seq < rows).collect();
        prop_assert_eq!(seqs(searching.finish().expect("compared")), expected);
    }
}
