//! What every log must do, whoever implements it. Each function is one test; a [`SinkWorld`] is one log with one outbox.

use std::future::Future;
use std::sync::Arc;

use outboxd::event::{Batch, BatchBuilder, BatchLimits, Event, EventId, Pushed};
use outboxd::fault::{Cause, Fault, HaltCode};
use outboxd::journal::{Applied, Checksum, DatabaseIdentity, History, Owner, Record, View, Writer};
use outboxd::park::SetAside;
use outboxd::sink::{Commit, Fenced, Inspection, Published, Publisher, Sink};
use outboxd::source::{Pin, Pins};
use uuid::Uuid;

/// A record of an event topic as a reader of committed records sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Event id.
    pub id: Uuid,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub payload: Option<Vec<u8>>,
}

/// A log with topics of [`PARTITIONS`] partitions and the empty journal of one outbox.
pub trait SinkWorld {
    /// The log under test.
    type Sink: Sink;
    /// Ends the transaction when dropped.
    type Open;

    /// The sink as one more process would make it.
    fn sink(&self) -> Self::Sink;
    /// Creates an event topic and returns its name.
    fn topic(&self) -> impl Future<Output = String>;
    /// The committed records of an event topic.
    fn read(&self, topic: &str) -> impl Future<Output = Vec<Seen>>;
    /// The committed records of the journal, with their offsets.
    fn journal(&self) -> impl Future<Output = Vec<(i64, Vec<u8>)>>;
    /// Somebody else writes to the journal: one committed record.
    fn intrude(&self, bytes: &[u8]) -> impl Future<Output = ()>;
    /// Somebody else begins to write to the journal and does not end.
    fn block(&self) -> impl Future<Output = Self::Open>;
    /// Cuts off the journal below `start`.
    fn cut(&self, start: i64) -> impl Future<Output = ()>;
    /// An owner of this outbox dies with events and a journal record sent and not committed.
    fn die_in_a_batch(&self, topic: &str, record: &[u8]) -> impl Future<Output = ()>;
}

/// Partitions of every topic.
pub const PARTITIONS: i32 = 2;
/// The outbox of the tests.
pub const OUTBOX: Uuid = Uuid::from_u128(0x0b0e);

/// Who publishes, told apart by its number.
pub fn writer(epoch: u64) -> Writer {
    let owner = Owner { instance: format!("relay-{epoch}"), start: epoch, epoch };
    Writer { outbox: OUTBOX, owner, database: DatabaseIdentity { system: "database".into(), timeline: 1 } }
}

/// The id of the event with this number.
pub fn id(seq: i64) -> Uuid {
    Uuid::from_u128(seq as u128)
}

/// Events `from` to `to` of a topic, keyed by their number modulo three.
pub fn batch(topic: &str, from: i64, to: i64) -> Arc<Batch> {
    batch_of(topic, from, to, |seq| Some(format!("key-{}", seq % 3)))
}

/// Events `from` to `to` of a topic with keys of their own.
pub fn batch_of(topic: &str, from: i64, to: i64, key: impl Fn(i64) -> Option<String>) -> Arc<Batch> {
    let mut builder = BatchBuilder::new(BatchLimits { events: usize::MAX, bytes: usize::MAX });
    for seq in from..=to {
        let (key, payload) = (key(seq), format!("event {seq}"));
        builder.push(&Event {
            seq,
            id: id(seq).into(),
            topic,
            key: key.as_deref().map(str::as_bytes),
            kind: "Placed",
            source: None,
            payload: (seq % 5 != 0).then_some(payload.as_bytes()),
            headers: None,
            created_at_us: Some(1_700_000_000_000_000),
        });
    }
    Arc::new(builder.build().expect("at least one event"))
}

/// What a claim gives.
pub type Claim<S> = (<<S as Sink>::Fenced as Fenced>::Publisher, View, <<S as Sink>::Fenced as Fenced>::History);

/// Fences and recovers from the beginning.
pub async fn claim<W: SinkWorld>(world: &W, epoch: u64) -> Claim<W::Sink> {
    claim_from(world, epoch, Applied::default()).await.expect("a claim")
}

/// Fences and recovers from `base`.
pub async fn claim_from<W: SinkWorld>(world: &W, epoch: u64, base: Applied) -> Result<Claim<W::Sink>, Fault> {
    world.sink().fence().await?.recover(writer(epoch), base).await
}

/// Inspects and publishes, as the relay does.
pub async fn publish(publisher: &mut impl Publisher, batch: &Arc<Batch>) -> Result<Published, Fault> {
    let pins = inspect(publisher, batch, &Pins::new()).await?;
    publisher.publish(Arc::clone(batch), &pins).await
}

/// New pins of a batch, or the first reason why it cannot be published.
pub async fn inspect(publisher: &mut impl Publisher, batch: &Arc<Batch>, pins: &Pins) -> Result<Pins, Fault> {
    let Inspection { set_aside: SetAside { unfit, ailing }, pins } = publisher.inspect(batch, pins).await?;
    let unfit = unfit.into_iter().next().map(Fault::from);
    unfit.or(ailing.into_iter().next().map(Fault::from)).map_or(Ok(pins), Err)
}

/// Publishes and gives the place of the journal record.
pub async fn published(publisher: &mut impl Publisher, batch: &Arc<Batch>) -> Applied {
    let published = publish(publisher, batch).await.expect("a published batch");
    assert_eq!(published.commit(), Commit::Prompt);
    published.journalled().expect("a journal record")
}

fn halt_code<T>(result: Result<T, Fault>) -> HaltCode {
    match result.map(drop) {
        Err(Fault::Unsafe(halt)) => halt.code,
        other => panic!("no halt but {other:?}"),
    }
}

async fn ids<W: SinkWorld>(world: &W, topic: &str) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = world.read(topic).await.into_iter().map(|seen| seen.id).collect();
    ids.sort_unstable();
    ids
}

/// A published batch can be read, and its journal record says exactly where it is.
pub async fn a_published_batch_lies_where_its_record_says<W: SinkWorld>(world: W) {
    let (one, two) = (world.topic().await, world.topic().await);
    let (mut publisher, view, _) = claim(&world, 1).await;
    assert_eq!((view.last, view.end, view.stable, view.newest), (Applied::default(), 0, 0, None));
    let mut builder = BatchBuilder::new(BatchLimits { events: 100, bytes: 1 << 20 });
    for (topic, part) in [(&one, 1..=10), (&two, 11..=15), (&one, 16..=20)] {
        batch(topic, *part.start(), *part.end()).events().for_each(|event| assert_eq!(builder.push(&event), Pushed::Kept));
    }
    let both = Arc::new(builder.build().expect("twenty events"));
    let first = published(&mut publisher, &both).await;
    let second = published(&mut publisher, &batch(&two, 21, 21)).await;
    assert_eq!((first.n, second.n), (1, 2));
    let journal = world.journal().await;
    let records: Vec<_> = journal.iter().map(|(offset, bytes)| (*offset, Record::decode(bytes).expect("a record"))).collect();
    assert_eq!(
        records.iter().map(|(offset, (_, sum))| (*offset, *sum)).collect::<Vec<_>>(),
        [first, second].map(|at| (at.offset, at.checksum))
    );
    let (_, (record, _)) = &records[0];
    assert_eq!((record.n, record.previous, &record.writer), (1, Checksum(0), &writer(1)));
    assert_eq!(records[1].1.0.previous, first.checksum);
    assert_eq!(record.entries.len(), 20);
    let (read_one, read_two) = (world.read(&one).await, world.read(&two).await);
    for (entry, event) in record.entries.iter().zip(both.events()) {
        let topic = &record.topics[entry.topic as usize];
        let read = if *topic == one { &read_one } else { &read_two };
        let seen =
            read.iter().find(|seen| (seen.partition, seen.offset) == (entry.partition, entry.offset)).expect("a record there");
        assert_eq!((entry.seq, entry.fingerprint, EventId::from(seen.id)), (event.seq, event.fingerprint(), event.id));
        assert_eq!((seen.key.as_deref(), seen.payload.as_deref()), (event.key, event.payload));
    }
    assert_eq!(read_one.len() + read_two.len(), 21);
}

/// A fence shuts the older publisher out, whatever it does.
pub async fn a_fence_shuts_the_older_publisher_out<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let (mut old, ..) = claim(&world, 1).await;
    published(&mut old, &batch(&topic, 1, 5)).await;
    let (mut new, view, _) = claim(&world, 2).await;
    assert_eq!(view.last.n, 1);
    let refused = publish(&mut old, &batch(&topic, 6, 9)).await.map(drop);
    assert!(matches!(refused, Err(Fault::Fenced { .. })), "{refused:?}");
    assert!(publish(&mut old, &batch(&topic, 6, 9)).await.is_err(), "and stays out");
    assert_eq!(published(&mut new, &batch(&topic, 10, 12)).await.n, 2);
    assert_eq!(ids(&world, &topic).await, (1..=5).chain(10..=12).map(id).collect::<Vec<_>>());
}

/// What a dead owner had sent and not committed is over and invisible once the next one has fenced.
pub async fn an_open_transaction_of_a_dead_owner_is_gone_after_the_fence<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let record = Record { writer: writer(1), n: 1, previous: Checksum(0), topics: vec![], entries: vec![] };
    world.die_in_a_batch(&topic, &record.encode().0).await;
    let (mut publisher, view, _) = claim(&world, 2).await;
    assert_eq!((view.last.n, view.stable), (0, view.end));
    let first = published(&mut publisher, &batch(&topic, 1, 3)).await;
    assert_eq!((first.n, first.offset), (1, view.end));
    assert_eq!(ids(&world, &topic).await, (1..=3).map(id).collect::<Vec<_>>());
}

/// The journal record must lie exactly where the journal ended: else nothing is committed.
pub async fn a_journal_that_moved_stops_the_batch<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let (mut publisher, ..) = claim(&world, 1).await;
    let first = published(&mut publisher, &batch(&topic, 1, 2)).await;
    let foreign = Writer { outbox: Uuid::from_u128(1), ..writer(1) };
    let foreign = Record { writer: foreign, n: 2, previous: first.checksum, topics: vec![], entries: vec![] };
    world.intrude(&foreign.encode().0).await;
    let moved = publish(&mut publisher, &batch(&topic, 3, 4)).await.map(drop);
    assert!(matches!(moved, Err(Fault::InDoubt { cause: Cause::JournalMoved, .. })), "{moved:?}");
    assert_eq!(ids(&world, &topic).await, [id(1), id(2)]);
    assert_eq!(halt_code(claim_from(&world, 2, first).await), HaltCode::ForeignJournal);
    assert_eq!(ids(&world, &topic).await, [id(1), id(2)]);
}

/// Looking is for everybody: the living publisher goes on.
pub async fn a_look_fences_nobody<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let (mut publisher, ..) = claim(&world, 1).await;
    let first = published(&mut publisher, &batch(&topic, 1, 2)).await;
    let sink = world.sink();
    let view = sink.look(OUTBOX, Applied::default()).await.expect("a look");
    assert_eq!((view.last, view.newest, view.owners_above), (first, Some(writer(1)), vec![writer(1).owner]));
    assert_eq!((view.end, view.stable), (first.offset + 2, first.offset + 2));
    let second = published(&mut publisher, &batch(&topic, 3, 4)).await;
    let view = sink.look(OUTBOX, second).await.expect("a look");
    assert_eq!((view.last, view.newest, view.owners_above), (second, Some(writer(1)), vec![]));
}

/// Two that fence in turn hinder each other and harm nothing.
pub async fn two_that_fence_in_turn_publish_each_batch_once<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let mut last = Applied::default();
    for round in 1..=3 {
        let (mut one, view, _) = claim_from(&world, 2 * round, last).await.expect("a claim");
        assert_eq!(view.last, last);
        let (mut two, ..) = claim_from(&world, 2 * round + 1, last).await.expect("a claim");
        let events = batch(&topic, round as i64, round as i64);
        assert!(publish(&mut one, &events).await.is_err());
        last = published(&mut two, &events).await;
        assert_eq!(last.n, round);
    }
    assert_eq!(ids(&world, &topic).await, (1..=3).map(id).collect::<Vec<_>>());
}

/// A recovery goes on exactly where the journal ended, and gives the records above the base in order.
pub async fn a_recovery_gives_the_records_above_the_base_in_order<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let (mut publisher, ..) = claim(&world, 1).await;
    let mut places = Vec::new();
    for n in 1..=6 {
        places.push(published(&mut publisher, &batch(&topic, 10 * n, 10 * n + n)).await);
    }
    for (base, above) in [(Applied::default(), 0), (places[0], 1), (places[3], 4), (places[5], 6)] {
        let (mut publisher, view, mut history) = claim_from(&world, 2, base).await.expect("a claim");
        assert_eq!(Some(&view.last), places.last());
        for (position, place) in places.iter().enumerate().skip(above) {
            let (record, at) = history.next().await.expect("a history").expect("a record");
            assert_eq!((at, record.n, record.entries.len()), (*place, place.n, record.entries.len()));
            assert!(record.entries.len() == position + 2 || position >= 6);
        }
        assert!(history.next().await.expect("a history").is_none());
        let next = 1_000 * (1 + places.len() as i64);
        places.push(published(&mut publisher, &batch(&topic, next, next)).await);
    }
}

/// What the table has marked and the journal lacks, or the other way round, is never passed over.
pub async fn a_journal_that_does_not_fit_the_base_halts<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let (mut publisher, ..) = claim(&world, 1).await;
    let first = published(&mut publisher, &batch(&topic, 1, 2)).await;
    let second = published(&mut publisher, &batch(&topic, 3, 4)).await;
    let sink = world.sink();
    let beyond = Applied { n: 9, offset: second.offset + 2, checksum: second.checksum };
    let far = Applied { n: 9, offset: second.offset + 1_000, checksum: second.checksum };
    let other = Applied { checksum: Checksum(1), ..first };
    let renumbered = Applied { n: 2, ..first };
    for base in [beyond, far, other, renumbered] {
        assert_eq!(halt_code(sink.look(OUTBOX, base).await), HaltCode::KafkaBehind, "{base:?}");
        assert_eq!(halt_code(claim_from(&world, 2, base).await), HaltCode::KafkaBehind, "{base:?}");
    }
    assert_eq!(halt_code(sink.look(Uuid::from_u128(1), first).await), HaltCode::ForeignJournal);
    world.cut(second.offset).await;
    assert_eq!(halt_code(sink.look(OUTBOX, first).await), HaltCode::JournalWindow);
    assert_eq!(halt_code(claim_from(&world, 2, first).await), HaltCode::JournalWindow);
    assert_eq!(halt_code(sink.look(Uuid::from_u128(1), first).await), HaltCode::ForeignJournal);
    assert_eq!(sink.look(OUTBOX, second).await.expect("a look").last, second);
}

/// A record that is none, or of another format, or that does not follow the one before, halts with its name.
pub async fn a_damaged_journal_halts<W: SinkWorld>(world: W, make: impl AsyncFn() -> W) {
    let record = |n, previous| Record { writer: writer(1), n, previous, topics: vec![], entries: vec![] }.encode();
    let (first, sum) = record(1, Checksum(0));
    let mut flipped = record(2, sum).0;
    flipped[20] ^= 1;
    let cases = [
        (b"".to_vec(), HaltCode::ForeignJournal),
        (b"\x7fnew".to_vec(), HaltCode::JournalVersion),
        (flipped, HaltCode::ForeignJournal),
        (record(3, sum).0, HaltCode::KafkaBehind),
        (record(2, Checksum(5)).0, HaltCode::KafkaBehind),
        (first.clone(), HaltCode::KafkaBehind),
    ];
    let mut next = Some(world);
    for (bytes, code) in cases {
        let world = match next.take() {
            Some(world) => world,
            None => make().await,
        };
        world.intrude(&first).await;
        world.intrude(&bytes).await;
        assert_eq!(halt_code(world.sink().look(OUTBOX, Applied::default()).await), code);
        assert_eq!(halt_code(claim_from(&world, 2, Applied::default()).await), code);
    }
}

/// Somebody's transaction that does not end halts the claim; a look only says so.
pub async fn an_open_transaction_on_the_journal_is_told<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let (mut publisher, ..) = claim(&world, 1).await;
    let first = published(&mut publisher, &batch(&topic, 1, 2)).await;
    let open = world.block().await;
    let view = world.sink().look(OUTBOX, first).await.expect("a look");
    assert_eq!((view.last, view.stable), (first, first.offset + 2));
    assert!(view.end > view.stable, "{view:?}");
    assert_eq!(halt_code(claim_from(&world, 2, first).await), HaltCode::JournalBlocked);
    drop(open);
}

/// Trimming never touches what the table may still need.
pub async fn trimming_stops_below_what_is_needed<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let (mut publisher, ..) = claim(&world, 1).await;
    let mut places = Vec::new();
    for n in 1..=4 {
        places.push(published(&mut publisher, &batch(&topic, n, n)).await);
    }
    let sink = world.sink();
    assert_eq!(sink.trim(places[0].offset).await.expect("a trim"), 0);
    let start = sink.trim(places[2].offset).await.expect("a trim");
    assert!(start <= places[2].offset, "{start}");
    assert_eq!(sink.trim(places[1].offset).await.expect("a trim"), start, "it never goes back");
    assert_eq!(sink.look(OUTBOX, places[2]).await.expect("a look").last, places[3]);
    assert_eq!(published(&mut publisher, &batch(&topic, 5, 5)).await.n, 5);
}

/// The events without key of one batch share a partition.
pub async fn events_without_key_go_to_one_partition_a_batch<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let (mut publisher, ..) = claim(&world, 1).await;
    for n in 0..4 {
        let keyless = batch_of(&topic, 10 * n + 1, 10 * n + 9, |_| None);
        published(&mut publisher, &keyless).await;
        let read = world.read(&topic).await;
        let partitions: Vec<i32> =
            read.iter().filter(|seen| keyless.ids().any(|id| id == seen.id.into())).map(|seen| seen.partition).collect();
        assert_eq!(partitions, [partitions[0]; 9]);
    }
}

/// The topics of a batch are counted once; pinned ones are left alone.
pub async fn partitions_are_counted<W: SinkWorld>(world: W) {
    let topic = world.topic().await;
    let (mut publisher, ..) = claim(&world, 1).await;
    let events = batch(&topic, 1, 3);
    let pins = inspect(&mut publisher, &events, &Pins::new()).await.expect("counts");
    assert_eq!((pins.len(), pins[&topic].partitions), (1, PARTITIONS));
    assert_eq!(inspect(&mut publisher, &events, &pins).await.expect("counts"), Pins::new());
    let one = Pins::from([(topic.clone(), Pin::of(1))]);
    publisher.publish(events, &one).await.expect("a published batch");
    assert!(world.read(&topic).await.iter().all(|seen| seen.partition == 0), "the pinned count is used, not the real one");
}

/// Calls `$run!(name)` for each test of this suite that takes a world.
macro_rules! each {
    ($run:ident) => {
        $run!(a_published_batch_lies_where_its_record_says);
        $run!(a_fence_shuts_the_older_publisher_out);
        $run!(an_open_transaction_of_a_dead_owner_is_gone_after_the_fence);
        $run!(a_journal_that_moved_stops_the_batch);
        $run!(a_look_fences_nobody);
        $run!(two_that_fence_in_turn_publish_each_batch_once);
        $run!(a_recovery_gives_the_records_above_the_base_in_order);
        $run!(a_journal_that_does_not_fit_the_base_halts);
        $run!(an_open_transaction_on_the_journal_is_told);
        $run!(trimming_stops_below_what_is_needed);
        $run!(events_without_key_go_to_one_partition_a_batch);
        $run!(partitions_are_counted);
    };
}
pub(crate) use each;
