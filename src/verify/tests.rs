//! Each breach is found by its name and nothing else is; what cannot be looked at is neither fine nor a breach.

mod plants;
mod world;

use proptest::prelude::*;

use super::{Holes, Ids, Kept, Kind, Report, Unchecked};
use plants::PLANTS;
use world::World;

/// What was found, without what breaks nothing.
fn breaches(report: &Report) -> Vec<(Kind, u64)> {
    let wrong = Kind::ALL.into_iter().filter(|kind| report.is_breach(*kind));
    wrong.map(|kind| (kind, report.count(kind))).filter(|(_, count)| *count > 0).collect()
}

fn unchecked(report: &Report) -> Vec<(Unchecked, u64)> {
    report.topics.iter().flat_map(|topic| &topic.unchecked).map(|(why, count)| (*why, *count)).collect()
}

#[track_caller]
fn assert_clean(report: &Report) {
    assert_eq!(report.breaches(), 0, "{}", report.text());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_good_history_is_clean(seed in any::<u64>()) {
        let world = World::random(seed);
        let report = world.report();
        prop_assert_eq!(report.breaches(), 0, "{}", report.text());
        let topics = || report.topics.iter();
        prop_assert_eq!(topics().map(|topic| topic.published).sum::<u64>(), world.published());
        prop_assert_eq!(topics().map(|topic| topic.waiting).sum::<u64>(), world.waiting());
        prop_assert_eq!(topics().map(|topic| topic.discarded).sum::<u64>(), world.discards.len() as u64);
        prop_assert_eq!(unchecked(&report), vec![]);
    }

    #[test]
    fn a_planted_breach_is_found_by_its_name_and_nothing_else_is(seed in any::<u64>(), which in 0..PLANTS.len()) {
        let (name, kind, plant) = PLANTS[which];
        let mut world = World::random(seed);
        plant(&mut world);
        let report = world.report();
        prop_assert_eq!(breaches(&report), vec![(kind, 1)], "{}: {}", name, report.text());
        prop_assert_eq!(report.breaches(), 1, "{}: {}", name, report.text());
    }

    #[test]
    fn bytes_of_any_kind_in_the_journal_are_told_and_never_believed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut world = World::random(1);
        world.strange_journal_record = Some(bytes);
        prop_assert_eq!(world.report().journal.expect("it is there").broken, 1);
    }
}

#[test]
fn each_plant_is_found_in_the_smallest_world_too() {
    for (name, kind, plant) in PLANTS {
        let mut world = World::small();
        assert_clean(&world.report());
        plant(&mut world);
        let report = world.report();
        assert_eq!(breaches(&report), [(kind, 1)], "{name}: {}", report.text());
        let example = report.topics.iter().find_map(|topic| topic.examples.get(&kind)).expect("an example");
        assert!(example[0].place.is_some() || example[0].seq.is_some(), "{name} says where: {example:?}");
    }
}

#[test]
fn a_journal_that_lacks_a_batch_is_broken() {
    let mut world = World::random(3);
    let lacking = world.batches.len() / 2;
    world.batches.remove(lacking);
    let report = world.report();
    assert_eq!(report.journal.as_ref().expect("it is there").broken, 1, "{}", report.text());
    assert!(report.count(Kind::Torn) > 0, "its events are there without it: {}", report.text());
}

#[test]
fn a_journal_without_the_newest_applied_batch_is_broken() {
    let broken = |change: &dyn Fn(&mut World)| {
        let mut world = World::small();
        change(&mut world);
        world.report().journal.expect("it is there").examples
    };
    assert_eq!(broken(&|_| ()), [""; 0]);
    let ahead = broken(&|world| world.applied += 5);
    assert!(ahead[0].contains("is marked in the table, the journal ends with batch"), "{ahead:?}");
    let moved = broken(&|world| world.applied_offset_is_off_by = 2);
    assert!(moved[0].contains("the table has it at offset"), "{moved:?}");
    let trimmed = broken(&|world| {
        world.applied = 1;
        world.batches.drain(..1);
    });
    assert!(trimmed.iter().any(|what| what.contains("the journal begins with batch 2")), "{trimmed:?}");
}

#[test]
fn a_journal_that_a_person_began_anew_is_believed_from_there_on() {
    let mut world = World::small();
    world.adopt_after_losing_a_batch();
    let report = world.report();
    let journal = report.journal.as_ref().expect("it is there");
    assert_eq!((journal.adopted, journal.broken), (1, 0), "{}", report.text());
    assert_clean(&report);
    assert_eq!(report.count(Kind::Foreign), 0, "what the journal lost is ours all the same");
}

#[test]
fn what_the_topic_let_go_of_is_not_checkable() {
    let mut world = World::small();
    let lane = world.lane_of_event(0);
    let first = world.records[&lane][0].offset;
    world.records.get_mut(&lane).expect("it is there").remove(0);
    world.start.insert(lane.clone(), first + 1);
    let report = world.report();
    assert_clean(&report);
    assert_eq!(unchecked(&report), [(Unchecked::Trimmed, 1)]);

    world.start.clear();
    for (holes, why) in [(Holes::Compacted, Unchecked::Compacted), (Holes::Untold, Unchecked::Untold)] {
        world.holes = holes;
        let report = world.report();
        assert_clean(&report);
        assert_eq!(unchecked(&report), [(why, 1)]);
    }
    world.holes = Holes::Never;
    assert!(world.report().breaches() > 0, "without a reason it is a breach");
}

#[test]
fn what_lies_behind_an_open_transaction_is_not_checkable() {
    for journalled in [true, false] {
        let mut world = World::small();
        world.journalled = journalled;
        let lane = world.lane_of_event(0);
        let last = world.records[&lane].last().expect("it is there").offset;
        world.stops.insert(lane, last);
        let report = world.report();
        assert_clean(&report);
        assert_eq!(unchecked(&report), [(Unchecked::Hidden, 1)], "{}", report.text());
    }
}

#[test]
fn what_is_given_up_while_rows_are_read_is_no_breach() {
    let mut world = World::small();
    let parked = world.insert("a", Some("k"));
    world.discards_beside.push(parked);
    let report = world.report();
    assert_clean(&report);
    assert_eq!(report.topics.iter().map(|topic| topic.discarded).sum::<u64>(), 1, "{}", report.text());
}

#[test]
fn a_journal_that_is_trimmed_while_rows_are_read_is_not_broken() {
    let mut world = World::small();
    let second = world.batches[1].clone();
    world.rows.iter_mut().filter(|row| second.entries.iter().any(|entry| entry.0 == row.event)).for_each(|row| row.marked = false);
    (world.applied, world.applied_by_now) = (1, Some(2));
    world.batches.remove(0);
    assert_eq!(world.report().journal.expect("it is there").examples, [""; 0]);
}

#[test]
fn a_clock_that_is_behind_makes_no_phantom_of_what_is_asked_for() {
    let mut world = World::small();
    world.rows.iter_mut().filter(|row| row.marked).for_each(|row| row.at_ms = Some(world::START_MS - 1_000));
    world.since_ms = Some(world.batches[1].time_ms);
    let report = world.report();
    assert_clean(&report);
    assert_eq!(report.topics.iter().map(|topic| topic.published).sum::<u64>(), 3, "{}", report.text());
    assert_eq!(unchecked(&report), [], "what is not asked for is not counted either");
}

#[test]
fn a_topic_that_is_gone_is_not_checkable() {
    let mut world = World::small();
    let published = world.published();
    world.records.clear();
    world.start.clear();
    let report = world.report();
    assert_clean(&report);
    assert_eq!(unchecked(&report).iter().map(|(why, count)| (*why, *count)).collect::<Vec<_>>(), [(Unchecked::NoTopic, published)]);
}

#[test]
fn what_went_to_an_earlier_topic_of_the_name_is_not_checkable() {
    let mut world = World::small();
    world.records.values_mut().for_each(Vec::clear);
    let last = world.batches.last().expect("it is there").n;
    world.pins.values_mut().for_each(|pin| pin.since = last);
    let report = world.report();
    assert_clean(&report);
    assert!(matches!(unchecked(&report)[..], [(Unchecked::EarlierTopic, _)]), "{}", report.text());
}

#[test]
fn rows_from_before_the_journal_are_not_held_against_it() {
    let mut world = World::small();
    // long enough ago that no clock can be wrong by so much
    world.age_first_batch();
    world.batches.remove(0);
    let report = world.report();
    assert_clean(&report);
    assert_eq!(unchecked(&report), [], "their records are there");
    let lane = world.lane_of_event(0);
    world.records.get_mut(&lane).expect("it is there").remove(0);
    let report = world.report();
    assert_clean(&report);
    assert_eq!(unchecked(&report), [(Unchecked::Forgotten, 1)], "{}", report.text());
}

#[test]
fn what_a_former_relay_has_marked_and_published_is_its_own_affair() {
    let mut world = World::small();
    for has_record in [true, false] {
        let event = world.insert("b", Some("former"));
        let row = world.rows.iter_mut().find(|row| row.event == event).expect("it is there");
        (row.marked, row.at_ms) = (true, Some(world::START_MS - 1));
        if has_record {
            let lane = world.lane_of_event(event);
            world.store(&lane, event);
        }
    }
    let report = world.report();
    assert_clean(&report);
    assert_eq!(unchecked(&report), [(Unchecked::Forgotten, 1)], "{}", report.text());
}

#[test]
fn rows_that_may_be_pruned_are_no_phantoms() {
    let phantoms = |kept, age_ms| {
        let mut world = World::small();
        world.rows.remove(0);
        (world.kept, world.read_after_ms) = (kept, age_ms);
        world.report().count(Kind::Phantom)
    };
    let day = std::time::Duration::from_secs(86_400);
    assert_eq!(phantoms(Kept::Forever, i64::MAX / 10_000), 1);
    assert_eq!(phantoms(Kept::For(day), 60_000), 1);
    assert_eq!(phantoms(Kept::For(day), 86_400_000), 0, "clocks differ");
    assert_eq!(phantoms(Kept::For(day), 3 * 86_400_000), 0);
    assert_eq!(phantoms(Kept::NotAtAll, 0), 0);
}

#[test]
fn a_late_commit_is_counted_as_overtaken_and_breaks_nothing() {
    let mut world = World::small();
    world.publish_late();
    let report = world.report();
    assert_clean(&report);
    assert_eq!(report.count(Kind::Overtaken), 1);
}

#[test]
fn records_of_others_are_counted_and_break_nothing() {
    let mut world = World::small();
    world.foreign_record(true);
    world.foreign_record(false);
    let report = world.report();
    assert_clean(&report);
    assert_eq!(report.count(Kind::Foreign), 2);
}

#[test]
fn without_a_journal_only_loss_can_be_told() {
    let mut world = World::small();
    world.journalled = false;
    let report = world.report();
    assert_clean(&report);
    assert_eq!(report.topics.iter().map(|topic| topic.published).sum::<u64>(), world.published());
    let (_, _, duplicate) = PLANTS.iter().find(|(name, ..)| *name == "a record twice").expect("it is there");
    duplicate(&mut world);
    let report = world.report();
    assert_eq!((report.breaches(), report.count(Kind::Duplicated)), (0, 1), "that is what the mode is like");
    let lane = world.lane_of_event(0);
    world.records.get_mut(&lane).expect("it is there").retain(|record| record.event != Some(0));
    assert_eq!(breaches(&world.report()), [(Kind::Lost, 1)]);
}

#[test]
fn identities_that_are_no_uuid_rest_on_what_the_event_says() {
    let mut world = World::small();
    world.ids = Ids::Content;
    let report = world.report();
    assert_clean(&report);
    assert_eq!(report.topics.iter().map(|topic| topic.published).sum::<u64>(), world.published());
    let lane = world.lane_of_event(0);
    world.records.get_mut(&lane).expect("it is there")[0].value = b"another".to_vec();
    assert_eq!(breaches(&world.report()), [(Kind::Torn, 1)]);
}

#[test]
fn one_topic_alone_can_be_asked_for() {
    let mut world = World::random(11);
    world.only = Some("b".into());
    let report = world.report();
    assert_clean(&report);
    assert_eq!(report.topics.iter().map(|topic| topic.topic.as_str()).collect::<Vec<_>>(), ["pre.b"]);
    assert!(report.topics[0].published > 0);
}

#[test]
fn the_report_tells_places_and_counts() {
    let mut world = World::small();
    let (_, _, duplicate) = PLANTS.iter().find(|(name, ..)| *name == "a record twice").expect("it is there");
    duplicate(&mut world);
    let report = world.report();
    let text = report.text();
    assert!(text.starts_with("1 breaches were found."), "{text}");
    let place = format!("pre.a-{}@", world.lane_of_event(0).1);
    assert!(text.contains(&format!("  DUPLICATED                 1\n    {place}")), "{text}");
    let json = report.json("shop");
    let found =
        json["topics"].as_array().expect("it is there").iter().find_map(|topic| topic["found"].get(0)).expect("it is there");
    assert_eq!((&found["kind"], &found["count"], &found["is_breach"]), (&"duplicated".into(), &1.into(), &true.into()));
    assert!(found["examples"][0]["place"].as_str().expect("it is there").starts_with(&place), "{json}");
}
