//! The judgement at the end: what readers of committed records see, held against what services committed.

use std::collections::BTreeMap;

use outboxd::event::Fingerprint;
use outboxd::fault::HaltCode;
use outboxd::journal::{Applied, Checksum, Record};

use super::breach::Breach;
use super::database::HERE;
use super::kafka::{Content, GROWN, JOURNAL, Outcome, TOPICS};
use super::publisher::lane;
use super::violation::{Class, Violation};
use super::world::{Happened, World, index_of};

/// Whether nothing is left to do.
pub fn is_settled(world: &World) -> bool {
    let database = &world.database;
    let waits = database.rows.iter().any(|(seq, row)| !row.sent && database.is_free(*seq, row));
    let newest = world.kafka.lanes[JOURNAL].visible(0).last().map_or(-1, |(offset, _)| offset as i64);
    // an idle relay does not notice that the journal has changed under it, or that a leader that lagged behind kept its end from the claim
    let unnoticed = world.breached.is_some() || world.misled.is_some();
    let settled = newest < 0 || database.applied().offset == newest || unnoticed;
    let at_rest = database.open.is_empty() && database.held.is_empty() && world.transactions_are_over();
    let goes_on = database.halted.is_none() || is_halted_rightly(world);
    !waits && settled && at_rest && goes_on
}

/// Whether the relay waits for a person, with good reason.
pub fn is_halted_rightly(world: &World) -> bool {
    match world.database.halted {
        Some(HaltCode::TwoDatabases) => world.lossy || world.divided || world.plan.twins,
        // the table went back behind what was trimmed, or a relay of the other database trimmed up to where that one is
        Some(HaltCode::JournalWindow) => is_true(world, HaltCode::JournalWindow) && (world.lossy || world.trimmed_astray),
        Some(HaltCode::OldPrimary) if world.restored => is_true(world, HaltCode::OldPrimary),
        Some(halt) => world.breach_explains(halt),
        None => false,
    }
}

/// Whether what a halt says is so at this instant. Of those that rest on what was seen over a while nothing can be said.
pub fn is_true(world: &World, code: HaltCode) -> bool {
    let journal = &world.kafka.lanes[JOURNAL];
    let applied = world.database.applied();
    let at = usize::try_from(applied.offset).unwrap_or(0);
    match code {
        HaltCode::JournalWindow => journal.start > at,
        HaltCode::KafkaBehind => !is_there(world, applied),
        HaltCode::OldPrimary => newest(world).is_some_and(|record| record.writer.database.timeline > world.database.timeline),
        HaltCode::MovedDatabase => world.database.address != HERE,
        HaltCode::ForeignJournal | HaltCode::JournalVersion => false,
        HaltCode::TwoDatabases | HaltCode::JournalBlocked | HaltCode::MarkRefused => true,
    }
}

/// Whether the journal has the record of a batch where that should be, with all that follows.
fn is_there(world: &World, applied: Applied) -> bool {
    let records = &world.kafka.lanes[JOURNAL].records;
    let found = usize::try_from(applied.offset).ok().and_then(|at| records.get(at));
    let checksum = found.filter(|stored| stored.outcome == Some(Outcome::Committed)).and_then(|stored| match &stored.content {
        Content::Journal(bytes) => Record::decode(bytes).ok().map(|(_, checksum)| checksum),
        Content::Event(_) | Content::Marker => None,
    });
    applied.n == 0 || checksum == Some(applied.checksum)
}

/// The newest record that is committed.
fn newest(world: &World) -> Option<Record> {
    let records = world.kafka.lanes[JOURNAL].committed(0).filter_map(|(_, content)| match content {
        Content::Journal(bytes) => Record::decode(bytes).ok(),
        Content::Event(_) | Content::Marker => None,
    });
    records.last().map(|(record, _)| record)
}

/// A batch was just committed. However its marks fare, no third one is begun while two are not marked.
pub fn count_unmarked(world: &mut World) {
    let stored = world.kafka.lanes[JOURNAL].records.iter().rev().find_map(|stored| match &stored.content {
        Content::Journal(bytes) if stored.outcome == Some(Outcome::Committed) => Record::decode(bytes).ok(),
        Content::Journal(_) | Content::Event(_) | Content::Marker => None,
    });
    let (n, applied) = (stored.map_or(0, |(record, _)| record.n), world.database.applied().n);
    let steady = !world.lossy && !world.divided && world.breached.is_none();
    if steady && n > applied + 2 {
        world.violated(Class::Behind, format!("batch {n} is published, batch {applied} is the newest marked one"));
    }
}

/// What is not done in time: events that nobody publishes, or something else that comes to no end.
pub fn overdue(world: &mut World) {
    let database = &world.database;
    let unsent = database.rows.iter().filter(|(seq, row)| !row.sent && database.is_free(**seq, row)).count();
    let class = if unsent > 0 && database.halted.is_none() { Class::Lost } else { Class::Stuck };
    let what = format!("not settled in time: {unsent} events wait, halted: {:?}", database.halted);
    world.violated(class, what);
}

/// Every sentence of the promise.
pub fn judge(world: &mut World, settled: bool) {
    let mut found = Vec::new();
    let places = places(world);
    once(world, &places, settled, &mut found);
    in_order(world, &places, &mut found);
    together(world, &mut found);
    journal(world, &places, &mut found);
    marks(world, &places, &mut found);
    if settled {
        parked(world, &places, &mut found);
    }
    found.into_iter().for_each(|Violation { class, what }| world.violated(class, what));
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

fn once(world: &mut World, places: &Places, settled: bool, found: &mut Vec<Violation>) {
    let unsent: BTreeMap<usize, bool> = world
        .database
        .rows
        .iter()
        .filter(|(_, row)| !row.sent)
        .map(|(seq, row)| (index_of(row.id), world.database.is_free(*seq, row)))
        .collect();
    let mut phantoms = 0;
    for (index, event) in world.happened.iter().enumerate().filter(|(index, _)| !world.excused.contains(index)) {
        let seen = places.get(&index).map_or(0, Vec::len);
        let waits = unsent.get(&index).is_some_and(|free| !free || !settled);
        match (event.committed, event.lost) {
            _ if seen > 1 => found.push(Class::Duplicated.is(format!("event {index} is there {seen} times: {:?}", places[&index]))),
            (None, _) if seen > 0 => found.push(Class::Phantom.is(format!("event {index} was never committed"))),
            (Some(_), false) if seen == 0 && !event.discarded && !waits => found.push(Class::Lost.is(format!("event {index}"))),
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
fn in_order(world: &World, places: &Places, found: &mut Vec<Violation>) {
    for (lane, partition) in world.kafka.lanes.iter().enumerate().take(JOURNAL) {
        let mut newest: BTreeMap<(&str, &str), (u64, usize)> = BTreeMap::new();
        let mut within: BTreeMap<(&str, &str, u64), u64> = BTreeMap::new();
        for (offset, content) in partition.visible(0) {
            let Content::Event(index) = content else { continue };
            let event = &world.happened[*index];
            // a failover can lose what a person decided, as everything else: then it comes back, in whatever order
            let given_up = event.discarded && world.lossy || world.excused.contains(index);
            let Some(key) = event.key.as_deref().filter(|_| !event.lost && !given_up) else { continue };
            let before = newest.entry((event.topic, key)).or_default();
            if event.committed.is_some_and(|committed| committed < before.0) {
                found.push(Class::Reordered.is(format!("event {index} at {lane}/{offset} comes after event {}", before.1)));
            }
            *before = (*before).max((event.inserted, *index));
            let sibling = within.entry((event.topic, key, event.transaction)).or_default();
            if event.inserted < *sibling {
                found.push(
                    Class::Reordered.is(format!("event {index} at {lane}/{offset} comes after a later one of its transaction")),
                );
            }
            *sibling = event.inserted.max(*sibling);
        }
    }
    overtaken(world, places, found);
}

/// All events of a key are in one partition, unless a person accepted that the topic had grown, or the database forgot what it had been.
fn together(world: &World, found: &mut Vec<Violation>) {
    let mut homes: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (lane, partition) in world.kafka.lanes.iter().enumerate().take(JOURNAL).filter(|_| !world.lossy && !world.divided) {
        for (offset, content) in partition.visible(0) {
            let Content::Event(index) = content else { continue };
            let event = &world.happened[*index];
            let Some(key) = event.key.as_deref().filter(|_| !world.repinned.contains(event.topic)) else { continue };
            if *homes.entry((event.topic, key)).or_insert(lane) != lane {
                found.push(Class::Scattered.is(format!("event {index} at {lane}/{offset}: others of its key are elsewhere")));
            }
        }
    }
}

/// Nothing that came after a parked event of its key is published.
fn overtaken(world: &World, places: &Places, found: &mut Vec<Violation>) {
    for parked in world.database.parked.values() {
        let (index, is_it) = (index_of(parked.id), |lane: usize| lane / GROWN as usize);
        let stays = &world.happened[index];
        // a backup that was restored can bring back what was set aside then, and was retried and published since
        if places.contains_key(&index) {
            continue;
        }
        let Some(committed) = stays.committed.filter(|_| stays.key.is_some() && !stays.lost && !stays.discarded) else { continue };
        for (lane, partition) in world.kafka.lanes.iter().enumerate().take(JOURNAL) {
            for (_, content) in partition.visible(0).filter(|_| TOPICS[is_it(lane)] == stays.topic) {
                let Content::Event(other) = content else { continue };
                let event = &world.happened[*other];
                if event.key == stays.key && !event.lost && event.inserted > committed {
                    found.push(Class::Overtaken.is(format!("event {other} is published, event {index} of its key is parked")));
                }
            }
        }
    }
}

/// Numbers without holes, chained; entries and events are the same.
fn journal(world: &World, places: &Places, found: &mut Vec<Violation>) {
    let (mut n, mut previous, mut entries) = (0, Checksum(0), 0);
    let mut known = BTreeMap::new();
    let journals = world.kafka.graves.iter().chain([&world.kafka.lanes[JOURNAL]]);
    for (offset, content) in journals.flat_map(|journal| journal.committed(0)) {
        let Content::Journal(bytes) = content else { continue };
        let Ok((record, checksum)) = Record::decode(bytes) else {
            found.push(Class::Journal.is(format!("offset {offset} cannot be read")));
            continue;
        };
        // a cut takes records away, and what comes after it need not notice
        if (record.n != n + 1 || record.previous != previous) && world.breached != Some(Breach::JournalCut) {
            found.push(Class::Journal.is(format!("batch {} at {offset} does not follow batch {n}", record.n)));
        }
        (n, previous) = (record.n, checksum);
        known.insert(n, (offset as i64, checksum));
        let excused = events_of(world, content).filter(|index| world.excused.contains(index)).count();
        entries += record.entries.len() - excused;
        torn(world, &record, found);
    }
    let counts = places.iter().filter(|(index, _)| !world.excused.contains(index));
    let visible: usize = counts.map(|(_, places)| places.len()).sum();
    if visible != entries {
        found.push(Class::Torn.is(format!("{visible} events are visible, the journal has {entries}")));
    }
    let applied = world.database.applied();
    if applied.n > 0 && world.breached.is_none() && known.get(&applied.n) != Some(&(applied.offset, applied.checksum)) {
        found.push(Class::Applied.is(format!("batch {} is not in the journal at offset {}", applied.n, applied.offset)));
    }
}

/// The events that a journal record names.
pub fn events_of<'a>(world: &'a World, content: &Content) -> impl Iterator<Item = usize> + use<'a> {
    let record = match content {
        Content::Journal(bytes) => Record::decode(bytes).ok().map(|(record, _)| record),
        Content::Event(_) | Content::Marker => None,
    };
    let prints: Vec<Fingerprint> = record.iter().flat_map(|record| &record.entries).map(|entry| entry.fingerprint).collect();
    let named = move |event: &Happened| prints.contains(&Fingerprint::of(event.id));
    world.happened.iter().enumerate().filter(move |(_, event)| named(event)).map(|(index, _)| index)
}

fn torn(world: &World, record: &Record, found: &mut Vec<Violation>) {
    let excused = |print| world.excused.iter().any(|index| Fingerprint::of(world.happened[*index].id) == print);
    for entry in &record.entries {
        let lane = lane(record.topics.get(entry.topic as usize).map_or("", String::as_str), entry.partition);
        let stored = world.kafka.lanes[lane].records.get(usize::try_from(entry.offset).unwrap_or(usize::MAX));
        let is_it = stored.is_some_and(|stored| {
            let committed = stored.outcome == Some(Outcome::Committed);
            let same = |index: usize| Fingerprint::of(world.happened[index].id) == entry.fingerprint;
            committed && matches!(stored.content, Content::Event(index) if same(index))
        });
        if !is_it && !excused(entry.fingerprint) {
            found.push(
                Class::Torn.is(format!("batch {} has seq {} at {lane}/{}, where it is not", record.n, entry.seq, entry.offset)),
            );
        }
    }
}

/// What is marked is visible, or was given up.
fn marks(world: &World, places: &Places, found: &mut Vec<Violation>) {
    for (seq, row) in world.database.rows.iter().filter(|(_, row)| row.sent) {
        let index = index_of(row.id);
        if !places.contains_key(&index) && !world.happened[index].discarded && !world.excused.contains(&index) {
            found.push(Class::Marked.is(format!("seq {seq} (event {index}) is marked and not visible")));
        }
    }
}

/// What is set aside is there, and waits.
fn parked(world: &World, places: &Places, found: &mut Vec<Violation>) {
    for (seq, entry) in &world.database.parked {
        let waits = world.database.rows.get(seq).is_some_and(|row| row.id == entry.id && !row.sent);
        if !waits || places.contains_key(&index_of(entry.id)) {
            found.push(Class::Parked.is(format!("seq {seq} is set aside, and is published or gone")));
        }
    }
}
