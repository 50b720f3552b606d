//! The judgement at the end: what readers of committed records see, held against what services committed.

use std::collections::BTreeMap;

use outboxd::event::Fingerprint;
use outboxd::fault::HaltCode;
use outboxd::journal::{Checksum, Record};

use super::kafka::{Content, JOURNAL, Outcome, PARTITIONS, TOPICS};
use super::world::{World, index_of};

/// Whether nothing is left to do.
pub fn is_settled(world: &World) -> bool {
    let database = &world.database;
    let waits = database.rows.iter().any(|(seq, row)| !row.sent && database.is_free(*seq, row));
    let newest = world.kafka.lanes[JOURNAL].visible(0).last().map_or(-1, |(offset, _)| offset as i64);
    let settled = newest < 0 || database.applied().offset == newest;
    let at_rest = database.open.is_empty() && database.held.is_empty() && world.transactions_are_over();
    let goes_on = database.halted.is_none() || is_halted_rightly(world);
    !waits && settled && at_rest && goes_on
}

/// Whether the relay waits for a person, with good reason.
pub fn is_halted_rightly(world: &World) -> bool {
    match world.database.halted {
        Some(HaltCode::TwoDatabases) => world.lossy || world.divided || world.plan.twins,
        Some(HaltCode::JournalWindow) => (world.lossy || world.divided) && world.plan.chores,
        Some(_) | None => false,
    }
}

/// Every sentence of the promise.
pub fn judge(world: &mut World, settled: bool) {
    let mut found = Vec::new();
    let places = places(world);
    once(world, &places, settled, &mut found);
    in_order(world, &mut found);
    journal(world, &places, &mut found);
    marks(world, &places, &mut found);
    if settled {
        parked(world, &places, &mut found);
    }
    found.into_iter().for_each(|what| world.violated(what));
}

/// Where each event is visible.
fn places(world: &World) -> BTreeMap<usize, Vec<(usize, usize)>> {
    let mut places: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (lane, partition) in world.kafka.lanes.iter().enumerate() {
        for (offset, content) in partition.visible(0) {
            if let Content::Event(index) = content {
                places.entry(*index).or_default().push((lane, offset));
            }
        }
    }
    places
}

type Places = BTreeMap<usize, Vec<(usize, usize)>>;

fn once(world: &mut World, places: &Places, settled: bool, found: &mut Vec<String>) {
    let unsent: BTreeMap<usize, bool> = world
        .database
        .rows
        .iter()
        .filter(|(_, row)| !row.sent)
        .map(|(seq, row)| (index_of(row.id), world.database.is_free(*seq, row)))
        .collect();
    let mut phantoms = 0;
    for (index, event) in world.happened.iter().enumerate() {
        let seen = places.get(&index).map_or(0, Vec::len);
        let waits = unsent.get(&index).is_some_and(|free| !free || !settled);
        match (event.committed, event.lost) {
            _ if seen > 1 => found.push(format!("duplicated: event {index} is there {seen} times: {:?}", places[&index])),
            (None, _) if seen > 0 => found.push(format!("phantom: event {index} was never committed")),
            (Some(_), false) if seen == 0 && !event.discarded && !waits => found.push(format!("lost: event {index}")),
            (Some(_), true) if seen > 0 => phantoms += 1,
            (None | Some(_), _) => {}
        }
    }
    if phantoms > 0 {
        world.hit("events that the database lost later were published");
    }
}

/// In each lane, an event whose transaction had committed before another one's INSERT began comes first; and so does the earlier one of
/// two in the same transaction.
fn in_order(world: &World, found: &mut Vec<String>) {
    for (lane, partition) in world.kafka.lanes.iter().enumerate().take(JOURNAL) {
        let mut newest: BTreeMap<(&str, &str), (u64, usize)> = BTreeMap::new();
        let mut within: BTreeMap<(&str, &str, u64), u64> = BTreeMap::new();
        for (offset, content) in partition.visible(0) {
            let Content::Event(index) = content else { continue };
            let event = &world.happened[*index];
            // a failover can lose what a person decided, as everything else: then it comes back, in whatever order
            let Some(key) = event.key.as_deref().filter(|_| !event.lost && !event.discarded) else { continue };
            let before = newest.entry((event.topic, key)).or_default();
            if event.committed.is_some_and(|committed| committed < before.0) {
                found.push(format!("reordered: event {index} at {lane}/{offset} comes after event {}", before.1));
            }
            *before = (*before).max((event.inserted, *index));
            let sibling = within.entry((event.topic, key, event.transaction)).or_default();
            if event.inserted < *sibling {
                found.push(format!("reordered: event {index} at {lane}/{offset} comes after a later one of its transaction"));
            }
            *sibling = event.inserted.max(*sibling);
        }
    }
    overtaken(world, found);
}

/// Nothing that came after a parked event of its key is published.
fn overtaken(world: &World, found: &mut Vec<String>) {
    for parked in world.database.parked.values() {
        let (index, is_it) = (index_of(parked.id), |lane: usize| lane / PARTITIONS as usize);
        let stays = &world.happened[index];
        let Some(committed) = stays.committed.filter(|_| stays.key.is_some() && !stays.lost && !stays.discarded) else { continue };
        for (lane, partition) in world.kafka.lanes.iter().enumerate().take(JOURNAL) {
            for (_, content) in partition.visible(0).filter(|_| TOPICS[is_it(lane)] == stays.topic) {
                let Content::Event(other) = content else { continue };
                let event = &world.happened[*other];
                if event.key == stays.key && !event.lost && event.inserted > committed {
                    found.push(format!("overtaken: event {other} is published, event {index} of its key is parked"));
                }
            }
        }
    }
}

/// Numbers without holes, chained; entries and events are the same.
fn journal(world: &World, places: &Places, found: &mut Vec<String>) {
    let (mut n, mut previous, mut entries) = (0, Checksum(0), 0);
    let mut known = BTreeMap::new();
    for (offset, content) in world.kafka.lanes[JOURNAL].committed(0) {
        let Content::Journal(bytes) = content else { continue };
        let Ok((record, checksum)) = Record::decode(bytes) else {
            found.push(format!("journal: offset {offset} cannot be read"));
            continue;
        };
        if record.n != n + 1 || record.previous != previous {
            found.push(format!("journal: batch {} at {offset} does not follow batch {n}", record.n));
        }
        (n, previous) = (record.n, checksum);
        known.insert(n, (offset as i64, checksum));
        entries += record.entries.len();
        torn(world, &record, found);
    }
    let visible: usize = places.values().map(Vec::len).sum();
    if visible != entries {
        found.push(format!("torn: {visible} events are visible, the journal has {entries}"));
    }
    let applied = world.database.applied();
    if applied.n > 0 && known.get(&applied.n) != Some(&(applied.offset, applied.checksum)) {
        found.push(format!("applied: batch {} is not in the journal at offset {}", applied.n, applied.offset));
    }
}

fn torn(world: &World, record: &Record, found: &mut Vec<String>) {
    for entry in &record.entries {
        let topic = TOPICS.iter().position(|topic| record.topics.get(entry.topic as usize).is_some_and(|named| named == topic));
        let lane = topic.unwrap_or_default() * PARTITIONS as usize + entry.partition as usize;
        let stored = world.kafka.lanes[lane].records.get(usize::try_from(entry.offset).unwrap_or(usize::MAX));
        let is_it = stored.is_some_and(|stored| {
            let committed = stored.outcome == Some(Outcome::Committed);
            let same = |index: usize| Fingerprint::of(world.happened[index].id) == entry.fingerprint;
            committed && matches!(stored.content, Content::Event(index) if same(index))
        });
        if !is_it {
            found.push(format!("torn: batch {} has seq {} at {lane}/{}, where it is not", record.n, entry.seq, entry.offset));
        }
    }
}

/// What is marked is visible, or was given up.
fn marks(world: &World, places: &Places, found: &mut Vec<String>) {
    for (seq, row) in world.database.rows.iter().filter(|(_, row)| row.sent) {
        let index = index_of(row.id);
        if !places.contains_key(&index) && !world.happened[index].discarded {
            found.push(format!("marked: seq {seq} (event {index}) is marked and not visible"));
        }
    }
}

/// What is set aside is there, and waits.
fn parked(world: &World, places: &Places, found: &mut Vec<String>) {
    for (seq, entry) in &world.database.parked {
        let waits = world.database.rows.get(seq).is_some_and(|row| row.id == entry.id && !row.sent);
        if !waits || places.contains_key(&index_of(entry.id)) {
            found.push(format!("parked: seq {seq} is set aside, and is published or gone"));
        }
    }
}
