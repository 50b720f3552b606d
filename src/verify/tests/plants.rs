//! Breaches, planted by hand. Each leads to exactly one of its kind.

use uuid::Uuid;

use super::world::{Batch, PARTITIONS, START_MS, Stored, World};
use crate::verify::Kind;

type Plant = fn(&mut World);

/// What is done, what it is, and how.
pub(super) const PLANTS: [(&str, Kind, Plant); 14] = [
    ("a record is taken away", Kind::Torn, take_away_a_record),
    ("the only record of a batch is taken away", Kind::Lost, take_away_a_batch),
    ("a mark is forged", Kind::Lost, forge_a_mark),
    ("a record twice", Kind::Duplicated, repeat_a_record),
    ("a record twice, in another partition", Kind::Duplicated, repeat_it_elsewhere),
    ("two of a key are swapped", Kind::Reordered, swap_two_of_a_key),
    ("a record in another partition than its key's", Kind::Reordered, leave_the_partition),
    ("a record is replaced", Kind::Torn, replace_a_record),
    ("a record without its journal record", Kind::Torn, publish_behind_the_journals_back),
    ("a mark is taken away", Kind::Unmarked, unmark_a_row),
    ("a discarded row is unsent", Kind::Unmarked, discard_without_a_mark),
    ("a row is taken away", Kind::Phantom, take_away_a_row),
    ("a row becomes another event", Kind::Phantom, change_a_row),
    ("a discard is forged", Kind::Phantom, forge_a_discard),
];

/// A batch that is applied and has several events.
fn some_batch(world: &mut World) -> Batch {
    let applied = world.applied;
    let fit: Vec<Batch> = world.batches.iter().filter(|batch| batch.n <= applied && batch.entries.len() > 1).cloned().collect();
    let at = world.random.usize(..fit.len());
    fit[at].clone()
}

fn take_away(world: &mut World, event: usize) -> Stored {
    let lane = world.lane_of_event(event);
    let records = world.records.get_mut(&lane).expect("it is there");
    let at = records.iter().position(|record| record.event == Some(event)).expect("it is there");
    records.remove(at)
}

/// Publishes events of one key as a batch of their own, which is marked.
fn publish_marked(world: &mut World, count: usize) -> usize {
    let events: Vec<usize> = (0..count).map(|_| world.insert("a", Some("k"))).collect();
    world.publish(events.clone());
    let n = world.batches.last().expect("it is there").n;
    // what is underway stays so: only the new rows count as marked, of a batch above the applied one
    assert!(n > world.applied);
    world.rows.iter_mut().filter(|row| events.contains(&row.event)).for_each(|row| row.marked = true);
    events[0]
}

fn take_away_a_record(world: &mut World) {
    let event = some_batch(world).entries[0].0;
    take_away(world, event);
}

fn take_away_a_batch(world: &mut World) {
    let event = publish_marked(world, 1);
    take_away(world, event);
}

fn forge_a_mark(world: &mut World) {
    let event = world.insert("b", None);
    let forged = world.rows.iter_mut().filter(|row| row.event == event);
    forged.for_each(|row| (row.marked, row.at_ms) = (true, Some(START_MS + 5_000)));
}

fn repeat_a_record(world: &mut World) {
    let event = some_batch(world).entries[0].0;
    let lane = world.lane_of_event(event);
    world.store(&lane, event);
}

fn repeat_it_elsewhere(world: &mut World) {
    let event = some_batch(world).entries[0].0;
    let (topic, partition) = world.lane_of_event(event);
    world.store(&(topic, (partition + 1) % PARTITIONS), event);
}

/// The journal says the same as the topic: only the numbers tell.
fn swap_two_of_a_key(world: &mut World) {
    let first = publish_marked(world, 2);
    let batch = world.batches.last_mut().expect("it is there");
    let (one, two) = (batch.entries[0].2, batch.entries[1].2);
    (batch.entries[0].2, batch.entries[1].2) = (two, one);
    let lane = batch.entries[0].1.clone();
    let records = world.records.get_mut(&lane).expect("it is there");
    let at = records.iter().position(|record| record.event == Some(first)).expect("it is there");
    records.swap(at, at + 1);
    let offset = records[at].offset;
    records[at].offset = records[at + 1].offset;
    records[at + 1].offset = offset;
}

fn leave_the_partition(world: &mut World) {
    let event = publish_marked(world, 1);
    let record = take_away(world, event);
    let (topic, partition) = world.lane_of_event(event);
    let other = (topic, (partition + 1) % PARTITIONS);
    let offset = world.store(&other, event);
    assert_eq!(record.event, Some(event));
    let entry = &mut world.batches.last_mut().expect("it is there").entries[0];
    (entry.1, entry.2) = (other, offset);
}

fn replace_a_record(world: &mut World) {
    let event = some_batch(world).entries[0].0;
    let lane = world.lane_of_event(event);
    let record = world
        .records
        .get_mut(&lane)
        .expect("it is there")
        .iter_mut()
        .find(|record| record.event == Some(event))
        .expect("it is there");
    record.id = Some(Uuid::from_u128(4_711).to_string());
}

fn publish_behind_the_journals_back(world: &mut World) {
    publish_marked(world, 1);
    let event = world.insert("a", Some("k"));
    let lane = world.lane_of_event(event);
    world.store(&lane, event);
}

fn unmark_a_row(world: &mut World) {
    let event = some_batch(world).entries[0].0;
    world.rows.iter_mut().filter(|row| row.event == event).for_each(|row| row.marked = false);
}

fn discard_without_a_mark(world: &mut World) {
    let event = world.insert("a", Some("k"));
    world.discards.push(event);
}

fn take_away_a_row(world: &mut World) {
    let event = some_batch(world).entries[0].0;
    world.rows.retain(|row| row.event != event);
}

/// As after a failover that lost rows and used their numbers again.
fn change_a_row(world: &mut World) {
    let event = some_batch(world).entries[0].0;
    let mut other = world.events[event].clone();
    other.id = Uuid::from_u128(4_712);
    world.events.push(other);
    let other = world.events.len() - 1;
    world.rows.iter_mut().filter(|row| row.event == event).for_each(|row| (row.event, row.marked) = (other, false));
}

fn forge_a_discard(world: &mut World) {
    let event = some_batch(world).entries[0].0;
    world.discards.push(event);
}
