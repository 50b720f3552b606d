//! What every source must do, whatever database it stands on. Each function is one sentence of the contract; a test binary runs them
//! over its own [`SourceWorld`]: the in-memory twin, or a real server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use outboxd::cursor::{Form, Range};
use outboxd::event::{Batch, BatchLimits};
use outboxd::fault::{Cause, Fault, Halt, HaltCode};
use outboxd::journal::{Applied, Checksum, Entry, History, Owner, Record, Writer};
use outboxd::sink::forged;
use outboxd::source::{ClaimNumber, Fetched, Lease, Leases, Marker, Pins, Pruning, Query, Reader, Source, Takeover, Tenure};

/// How an outbox is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Published rows are deleted instead of marked.
    pub delete: bool,
    /// How long sent rows stay.
    pub retention: Duration,
    /// No journal: nothing is applied.
    pub at_least_once: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { delete: false, retention: Duration::from_secs(3600), at_least_once: false }
    }
}

/// One outbox and the service that writes to it. Lease: two seconds or more.
pub trait SourceWorld: Send + Sync + Sized {
    /// The source under test.
    type Source: Source + Leases + Pruning;
    /// An insert that is not committed.
    type Open: Send;

    /// An empty outbox, migrated.
    fn fresh(setup: Setup) -> impl Future<Output = Self> + Send;
    /// A source as another process would make it.
    fn source(&self) -> Self::Source;
    /// Inserts and commits events with these payloads, of key `k`; returns their numbers.
    fn insert(&self, payloads: &[&str]) -> impl Future<Output = Vec<i64>> + Send;
    /// Inserts one event and leaves its transaction open; returns its number.
    fn open(&self, payload: &str) -> impl Future<Output = (Self::Open, i64)> + Send;
    /// Commits it.
    fn commit(&self, open: Self::Open) -> impl Future<Output = ()> + Send;
    /// Rolls it back.
    fn roll_back(&self, open: Self::Open) -> impl Future<Output = ()> + Send;
    /// Numbers of the rows that are there and not marked, ascending.
    fn unsent(&self) -> impl Future<Output = Vec<i64>> + Send;
    /// Numbers of all rows that are there, ascending.
    fn rows(&self) -> impl Future<Output = Vec<i64>> + Send;
    /// Removes a row.
    fn remove(&self, seq: i64) -> impl Future<Output = ()> + Send;
    /// Puts another event, unsent, under the number of a row.
    fn replace(&self, seq: i64) -> impl Future<Output = ()> + Send;
    /// Makes a mark of the row do nothing, without an error.
    fn refuse_mark(&self, seq: i64) -> impl Future<Output = ()> + Send;
    /// Makes every marked row look as if it had been marked this long before.
    fn age(&self, by: Duration) -> impl Future<Output = ()> + Send;
    /// Empties the token, as a crash or a failover does.
    fn lose_token(&self) -> impl Future<Output = ()> + Send;
    /// Replaces the files of the table, as TRUNCATE does.
    fn replace_files(&self) -> impl Future<Output = ()> + Send;
    /// Lets the lease run out.
    fn expire_lease(&self) -> impl Future<Output = ()> + Send;
    /// The code of the halt in the state row.
    fn halted(&self) -> impl Future<Output = Option<String>> + Send;
}

type ReaderOf<W> = <<<W as SourceWorld>::Source as Source>::Tenure as Tenure>::Reader;
type MarkerOf<W> = <<<W as SourceWorld>::Source as Source>::Tenure as Tenure>::Marker;

/// A process that holds the lease, with its claim.
pub struct Claimed<W: SourceWorld> {
    /// It.
    pub owner: Owner,
    /// The claim, before it is settled.
    pub tenure: <W::Source as Source>::Tenure,
}

/// Takes the lease, whoever had it, and claims.
pub async fn claim<W: SourceWorld>(world: &W, start: u64) -> Claimed<W> {
    let source = world.source();
    world.expire_lease().await;
    let lease = source.take("relay", start, Takeover::Expired).await.expect("the lease can be taken");
    let Lease::Held { epoch } = lease else { panic!("somebody holds an expired lease: {lease:?}") };
    let owner = Owner { instance: "relay".into(), start, epoch };
    let tenure = source.claim(&owner, ClaimNumber(start as i64 + 1_000), &forged::fence()).await.expect("the claim works");
    Claimed { owner, tenure }
}

/// Claims, and settles a journal that holds nothing new.
pub async fn relaying<W: SourceWorld>(world: &W, start: u64) -> (ReaderOf<W>, MarkerOf<W>) {
    claim(world, start).await.tenure.settle(Records::default()).await.expect("nothing to settle")
}

/// A journal above the base.
#[derive(Default)]
pub struct Records(pub VecDeque<(Record, Applied)>);

impl History for Records {
    async fn next(&mut self) -> Result<Option<(Record, Applied)>, Fault> {
        Ok(self.0.pop_front())
    }
}

/// The place of record n: any, as long as it is the same each time.
pub fn place(n: u64) -> Applied {
    Applied { n, offset: 2 * n as i64 + 5, checksum: Checksum(u64::MAX - n) }
}

/// The journal record of a batch.
pub fn record<W: SourceWorld>(claimed: &Claimed<W>, n: u64, batch: &Batch) -> (Record, Applied) {
    let standing = claimed.tenure.standing();
    let entries = batch.events().enumerate().map(|(at, event)| Entry {
        seq: event.seq,
        fingerprint: event.fingerprint(),
        topic: 0,
        partition: 0,
        offset: at as i64,
    });
    let writer = Writer { outbox: standing.outbox, owner: claimed.owner.clone(), database: standing.database.clone() };
    let record = Record { writer, n, previous: Checksum(0), topics: vec!["orders".into()], entries: entries.collect() };
    (record, place(n))
}

/// What a query without limits to speak of asks.
pub fn full() -> Query {
    Query { form: Form::Full, head: 0, gaps: Vec::new(), limits: BatchLimits { events: 1_000, bytes: 1 << 20 } }
}

/// [`full`] by cursor.
pub fn above(head: i64, gaps: &[(i64, i64)]) -> Query {
    let gaps = gaps.iter().map(|&(low, high)| Range { low, high }).collect();
    Query { form: Form::Cursor, head, gaps, ..full() }
}

/// Numbers of the fetched rows.
pub fn seqs(fetched: &Fetched) -> Vec<i64> {
    fetched.batch.iter().flat_map(|batch| batch.seqs()).collect()
}

fn cause(fault: &Fault) -> Option<Cause> {
    match fault {
        Fault::InDoubt { cause, .. } => Some(*cause),
        _ => None,
    }
}

#[track_caller]
fn expect_cause<T>(result: Result<T, Fault>, expected: Cause) {
    match result {
        Ok(_) => panic!("expected {expected}, but it worked"),
        Err(fault) => assert_eq!(cause(&fault), Some(expected), "{fault}"),
    }
}

async fn fetch<R: Reader>(reader: &mut R, query: &Query) -> Fetched {
    reader.fetch(query).await.expect("the fetch works")
}

/// Fetches all and returns the batch.
async fn batch<R: Reader>(reader: &mut R) -> Arc<Batch> {
    fetch(reader, &full()).await.batch.expect("there are events")
}

fn limited(events: usize, bytes: usize) -> Query {
    Query { limits: BatchLimits { events, bytes }, ..full() }
}

pub async fn events_come_back_as_they_were_written<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let inserted = world.insert(&["{\"a\":  1}", "2", "{}"]).await;
    let (mut reader, _) = relaying(&world, 1).await;
    let batch = batch(&mut reader).await;
    let events: Vec<_> = batch.events().collect();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), inserted);
    assert_eq!(events[0].payload, Some(&b"{\"a\":  1}"[..]), "byte for byte");
    assert_eq!((events[0].topic, events[0].key, events[0].kind), ("orders", Some(&b"k"[..]), "Placed"));
    assert_eq!((events[0].source, events[0].headers), (None, None));
    let age = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_micros() as i64 - events[0].created_at_us;
    assert!((0..60_000_000).contains(&age), "created {age} µs ago");
    assert!(!batch.is_full());
}

pub async fn an_empty_table_brings_no_batch<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let (mut reader, _) = relaying(&world, 1).await;
    let fetched = fetch(&mut reader, &full()).await;
    assert!(fetched.batch.is_none());
    assert_eq!((fetched.listing.last_value, fetched.listing.holders.len()), (0, 0));
    assert_eq!(reader.positions().await.expect("positions").last_value, 0);
    let first = world.insert(&["1"]).await;
    assert_eq!(fetch(&mut reader, &full()).await.listing.last_value, first[0]);
}

pub async fn a_fetch_is_cut_by_events_and_by_bytes<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let payload = format!("\"{}\"", "x".repeat(98));
    let inserted = world.insert(&[payload.as_str(); 10]).await;
    let (mut reader, _) = relaying(&world, 1).await;
    let by_events = fetch(&mut reader, &limited(4, 1 << 20)).await;
    assert_eq!(seqs(&by_events), inserted[..4]);
    assert!(by_events.batch.expect("four").is_full());
    let by_bytes = fetch(&mut reader, &limited(100, 300)).await.batch.expect("some");
    assert!(by_bytes.is_full() && (2..=3).contains(&by_bytes.len()), "{} events", by_bytes.len());
    let one = fetch(&mut reader, &limited(100, 1)).await.batch.expect("one event larger than the limit fits alone");
    assert!(one.is_full() && one.len() == 1);
    let all = fetch(&mut reader, &limited(11, 1 << 20)).await.batch.expect("all");
    assert!(!all.is_full() && all.len() == 10);
}

pub async fn a_cursor_fetch_brings_gaps_and_what_is_above_head<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let all = world.insert(&["1"; 10]).await;
    let (mut reader, _) = relaying(&world, 1).await;
    if !reader.allows_cursor() {
        return;
    }
    let at = |index: usize| all[index];
    assert_eq!(seqs(&fetch(&mut reader, &above(at(7), &[])).await), all[8..]);
    let query = above(at(7), &[(at(1), at(2)), (at(4), at(4))]);
    let expected = vec![at(1), at(2), at(4), at(8), at(9)];
    assert_eq!(seqs(&fetch(&mut reader, &query).await), expected);
    let cut = Query { limits: BatchLimits { events: 2, bytes: 1 << 20 }, ..query.clone() };
    assert_eq!(seqs(&fetch(&mut reader, &cut).await), expected[..2]);
    let cut = Query { limits: BatchLimits { events: 4, bytes: 1 << 20 }, ..query };
    assert_eq!(seqs(&fetch(&mut reader, &cut).await), expected[..4]);
    assert!(fetch(&mut reader, &above(at(9), &[(at(9) + 5, at(9) + 900_000)])).await.batch.is_none());
}

pub async fn an_open_writer_is_listed_until_it_ends<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let (mut reader, _) = relaying(&world, 1).await;
    if !reader.allows_cursor() {
        return;
    }
    let (open, late) = world.open("1").await;
    let next = world.insert(&["2"]).await;
    let positions = reader.positions().await.expect("positions");
    assert_eq!((positions.last_value, positions.holders.len()), (next[0], 1));
    let fetched = fetch(&mut reader, &full()).await;
    assert_eq!((seqs(&fetched), &fetched.listing), (next.clone(), &positions));
    world.commit(open).await;
    let fetched = fetch(&mut reader, &above(next[0], &[(late, late)])).await;
    assert_eq!((seqs(&fetched), fetched.listing.holders.len()), (vec![late], 0));
    let (open, _) = world.open("3").await;
    world.roll_back(open).await;
    assert!(reader.positions().await.expect("positions").holders.is_empty());
}

pub async fn a_mark_takes_exactly_the_rows_of_its_batch<W: SourceWorld>(setup: Setup) {
    let world = W::fresh(setup).await;
    let all = world.insert(&["1"; 5]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let first = fetch(&mut reader, &limited(3, 1 << 20)).await.batch.expect("three");
    let journalled = |n| if setup.at_least_once { None } else { Some(place(n)) };
    marker.mark(&forged::published(first.clone(), journalled(1))).await.expect("marked");
    assert_eq!(world.unsent().await, all[3..]);
    assert_eq!(world.rows().await.len(), if setup.delete { 2 } else { 5 });
    let second = batch(&mut reader).await;
    assert_eq!(second.seqs().collect::<Vec<_>>(), all[3..]);
    marker.mark(&forged::published(second, journalled(2))).await.expect("marked");
    assert!(world.unsent().await.is_empty());
    let applied = world.source().look().await.expect("look").applied;
    assert_eq!(applied, if setup.at_least_once { Applied::default() } else { place(2) });
}

pub async fn a_batch_is_applied_once_and_in_order<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    world.insert(&["1"; 2]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let one = fetch(&mut reader, &limited(1, 1 << 20)).await.batch.expect("one");
    expect_cause(marker.mark(&forged::published(one.clone(), Some(place(2)))).await, Cause::Mark);
    assert_eq!(world.unsent().await.len(), 2, "nothing of a refused mark stays");
    marker.mark(&forged::published(one.clone(), Some(place(1)))).await.expect("marked");
    expect_cause(marker.mark(&forged::published(one, Some(place(1)))).await, Cause::Mark);
}

pub async fn a_mark_that_misses_a_row_changes_nothing<W: SourceWorld>() {
    for replaced in [false, true] {
        let world = W::fresh(Setup::default()).await;
        let all = world.insert(&["1"; 3]).await;
        let (mut reader, mut marker) = relaying(&world, 1).await;
        let batch = batch(&mut reader).await;
        if replaced {
            world.replace(all[1]).await
        } else {
            world.remove(all[1]).await
        }
        let left = world.unsent().await;
        expect_cause(marker.mark(&forged::published(batch, Some(place(1)))).await, Cause::MarkCount);
        assert_eq!(world.unsent().await, left);
        assert_eq!(world.source().look().await.expect("look").applied, Applied::default());
    }
}

pub async fn a_zombie_can_neither_fetch_nor_mark_nor_pin_nor_settle<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    world.insert(&["1"; 3]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let batch = batch(&mut reader).await;
    let unsettled = claim(&world, 2).await;
    let record = record(&unsettled, 1, &batch);
    let _successor = claim(&world, 3).await;
    expect_cause(reader.fetch(&full()).await.map(drop), Cause::ClaimChanged);
    expect_cause(marker.mark(&forged::published(batch, Some(place(1)))).await, Cause::ClaimChanged);
    expect_cause(marker.pin(&Pins::from([("orders".into(), 3)])).await, Cause::ClaimChanged);
    expect_cause(unsettled.tenure.settle(Records([record].into())).await.map(drop), Cause::ClaimChanged);
    assert_eq!(world.unsent().await.len(), 3);
    assert!(world.source().look().await.expect("look").pins.is_empty());
}

pub async fn a_lost_token_and_other_files_stop_the_fetch<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    world.insert(&["1"]).await;
    let (mut reader, _) = relaying(&world, 1).await;
    fetch(&mut reader, &full()).await;
    world.lose_token().await;
    expect_cause(reader.fetch(&full()).await.map(drop), Cause::TokenMissing);
    let (mut reader, _) = relaying(&world, 2).await;
    fetch(&mut reader, &full()).await;
    world.replace_files().await;
    expect_cause(reader.fetch(&full()).await.map(drop), Cause::FileChanged);
}

pub async fn settling_marks_what_the_journal_has<W: SourceWorld>(setup: Setup) {
    let world = W::fresh(setup).await;
    let all = world.insert(&["1"; 5]).await;
    let (mut reader, _) = relaying(&world, 1).await;
    let batch = fetch(&mut reader, &limited(3, 1 << 20)).await.batch.expect("three");
    let next = claim(&world, 2).await;
    let first = record(&next, 1, &batch);
    let mut second = record(&next, 2, &batch);
    second.0.entries.clear();
    next.tenure.settle(Records([first, second].into())).await.expect("settled");
    assert_eq!(world.unsent().await, all[3..]);
    assert_eq!(world.source().look().await.expect("look").applied, place(2));
}

pub async fn settling_again_is_refused_and_changes_nothing<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    world.insert(&["1"; 3]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let batch = batch(&mut reader).await;
    marker.mark(&forged::published(batch.clone(), Some(place(1)))).await.expect("marked");
    let next = claim(&world, 2).await;
    assert_eq!(next.tenure.standing().applied, place(1));
    let again = record(&next, 1, &batch);
    expect_cause(next.tenure.settle(Records([again].into())).await.map(drop), Cause::Settle);
    let ahead = claim(&world, 3).await;
    let hole = record(&ahead, 3, &batch);
    expect_cause(ahead.tenure.settle(Records([hole].into())).await.map(drop), Cause::Settle);
    assert_eq!(world.source().look().await.expect("look").applied, place(1));
}

pub async fn settling_goes_by_fingerprint_and_bears_vanished_rows<W: SourceWorld>(setup: Setup) {
    let world = W::fresh(setup).await;
    let all = world.insert(&["1"; 4]).await;
    let (mut reader, _) = relaying(&world, 1).await;
    let batch = batch(&mut reader).await;
    world.remove(all[0]).await;
    world.replace(all[2]).await;
    let next = claim(&world, 2).await;
    let record = record(&next, 1, &batch);
    let (mut reader, _) = next.tenure.settle(Records([record].into())).await.expect("settled");
    assert_eq!(world.unsent().await, [all[2]], "another event under a number that was published is new");
    assert_eq!(seqs(&fetch(&mut reader, &full()).await), [all[2]]);
}

pub async fn a_mark_that_does_not_take_halts_the_settlement<W: SourceWorld>(setup: Setup) {
    let world = W::fresh(setup).await;
    let all = world.insert(&["1"; 3]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let batch = batch(&mut reader).await;
    world.refuse_mark(all[1]).await;
    expect_cause(marker.mark(&forged::published(batch.clone(), Some(place(1)))).await, Cause::MarkCount);
    let next = claim(&world, 2).await;
    let record = record(&next, 1, &batch);
    match next.tenure.settle(Records([record].into())).await.map(drop) {
        Err(Fault::Unsafe(Halt { code: HaltCode::MarkRefused, evidence })) => {
            assert!(evidence.contains('1') && evidence.contains(&format!("seq {}", all[1])), "{evidence}");
        }
        other => panic!("expected a halt, got {other:?}"),
    }
    assert_eq!(world.unsent().await, all, "nothing of it stays");
}

pub async fn the_lease_has_one_holder<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let source = world.source();
    assert_eq!(source.take("a", 1, Takeover::Expired).await.expect("free"), Lease::Held { epoch: 1 });
    assert_eq!(source.take("a", 1, Takeover::Expired).await.expect("ours already"), Lease::Held { epoch: 1 });
    let taken = Lease::Taken { by: "a".into(), start: 1 };
    assert_eq!(source.take("b", 2, Takeover::OwnInstance).await.expect("asked"), taken);
    assert_eq!(source.take("a", 3, Takeover::Expired).await.expect("asked"), taken);
    assert_eq!(source.take("a", 3, Takeover::OwnInstance).await.expect("the older one is dead"), Lease::Held { epoch: 2 });
    assert_eq!(source.renew(1).await.expect("asked"), Lease::Taken { by: "a".into(), start: 3 });
    assert_eq!(source.renew(3).await.expect("ours"), Lease::Held { epoch: 2 });
    source.release(1).await.expect("not ours: nothing happens");
    assert_eq!(source.renew(3).await.expect("ours"), Lease::Held { epoch: 2 });
    source.release(3).await.expect("ours");
    assert!(matches!(source.renew(3).await.expect("asked"), Lease::Taken { .. }));
    assert_eq!(source.take("b", 2, Takeover::Expired).await.expect("free"), Lease::Held { epoch: 3 });
    world.expire_lease().await;
    assert_eq!(source.renew(2).await.expect("nobody took it"), Lease::Held { epoch: 3 });
    world.expire_lease().await;
    assert_eq!(source.take("a", 4, Takeover::Expired).await.expect("run out"), Lease::Held { epoch: 4 });
    assert_eq!(source.look().await.expect("look").grants, [1, 3, 2, 4]);
}

pub async fn the_last_64_grants_are_remembered<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let source = world.source();
    for start in 1..=70 {
        source.take("a", start, Takeover::OwnInstance).await.expect("taken");
    }
    let standing = source.look().await.expect("look");
    assert_eq!((standing.epoch, standing.grants.len()), (70, 64));
    let owner = |start, epoch| Owner { instance: "a".into(), start, epoch };
    assert!(standing.gave(&owner(70, 70)) && standing.gave(&owner(7, 7)) && !standing.gave(&owner(8, 7)));
}

pub async fn only_the_holder_of_a_living_lease_may_claim<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let source = world.source();
    let Lease::Held { epoch } = source.take("a", u64::MAX, Takeover::Expired).await.expect("free") else { panic!("taken") };
    let owner = |start| Owner { instance: "a".into(), start, epoch };
    let before = source.look().await.expect("look").claim;
    let other = source.claim(&owner(2), ClaimNumber(7), &forged::fence()).await.map(drop);
    assert!(matches!(other, Err(Fault::LeaseLost)), "{other:?}");
    assert_eq!(source.look().await.expect("look").claim, before);
    source.claim(&owner(u64::MAX), ClaimNumber(7), &forged::fence()).await.map(drop).expect("ours");
    assert_eq!(source.look().await.expect("look").claim, ClaimNumber(7));
    world.expire_lease().await;
    let late = source.claim(&owner(u64::MAX), ClaimNumber(8), &forged::fence()).await.map(drop);
    assert!(matches!(late, Err(Fault::LeaseLost)), "{late:?}");
}

pub async fn a_halt_is_written_only_while_its_evidence_stands<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    world.insert(&["1"]).await;
    let halt = Halt::new(HaltCode::KafkaBehind, "batch 3 is gone");
    let before = world.source().look().await.expect("look");
    let (mut reader, mut marker) = relaying(&world, 1).await;
    assert!(!world.source().halt(&halt, &before).await.expect("asked"), "claimed since");
    let claimed = world.source().look().await.expect("look");
    let batch = batch(&mut reader).await;
    marker.mark(&forged::published(batch, Some(place(1)))).await.expect("marked");
    assert!(!world.source().halt(&halt, &claimed).await.expect("asked"), "marked since");
    assert_eq!(world.halted().await, None);
    let now = world.source().look().await.expect("look");
    assert!(world.source().halt(&halt, &now).await.expect("asked"));
    assert_eq!(world.halted().await.as_deref(), Some("kafka-behind"));
    relaying(&world, 2).await;
    assert_eq!(world.halted().await, None, "a settled claim ends it");
}

pub async fn pins_are_merged<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let (_, mut marker) = relaying(&world, 1).await;
    marker.pin(&Pins::from([("orders".into(), 12), ("odd \"name\"".into(), 1)])).await.expect("pinned");
    marker.pin(&Pins::from([("payments".into(), 3)])).await.expect("pinned");
    let expected = Pins::from([("orders".into(), 12), ("odd \"name\"".into(), 1), ("payments".into(), 3)]);
    assert_eq!(world.source().look().await.expect("look").pins, expected);
    assert_eq!(claim(&world, 2).await.tenure.standing().pins, expected);
}

pub async fn pruning_takes_old_sent_rows_and_nothing_else<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let all = world.insert(&["1"; 6]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    // the lowest waits, the next three are sent, two follow later
    let held = batch(&mut reader).await;
    let mark = |seqs: &[i64], n| forged::published(some(&held, seqs), Some(place(n)));
    marker.mark(&mark(&all[1..4], 1)).await.expect("marked");
    let source = world.source();
    assert_eq!(source.prune().await.expect("pruned").rows, 0, "they are young");
    world.age(Duration::from_secs(7200)).await;
    marker.mark(&mark(&all[4..5], 2)).await.expect("marked");
    assert_eq!(prune_all(&source).await, 3);
    assert_eq!(world.rows().await, [all[0], all[4], all[5]]);
    assert_eq!(world.source().look().await.expect("look").applied, place(2), "the newest stays");
    world.age(Duration::from_secs(7200)).await;
    assert_eq!(prune_all(&source).await, 1);
    assert_eq!(world.unsent().await, [all[0], all[5]]);
}

/// Prunes until there is nothing more, and a few times beyond.
async fn prune_all<S: Pruning>(source: &S) -> u64 {
    let mut rows = 0;
    for _ in 0..3 {
        loop {
            let step = source.prune().await.expect("pruned");
            rows += step.rows;
            if !step.more {
                break;
            }
        }
    }
    rows
}

/// A batch of those events of `batch` that have these numbers.
pub fn some(batch: &Batch, seqs: &[i64]) -> Arc<Batch> {
    let mut builder = outboxd::event::BatchBuilder::new(BatchLimits { events: usize::MAX, bytes: usize::MAX });
    batch.events().filter(|event| seqs.contains(&event.seq)).for_each(|event| {
        builder.push(&event);
    });
    Arc::new(builder.build().expect("some of them"))
}

/// One test a sentence, over the world `$world`.
macro_rules! source_conformance {
    ($world:ty) => {
        source::source_conformance! { @plain $world:
            events_come_back_as_they_were_written an_empty_table_brings_no_batch a_fetch_is_cut_by_events_and_by_bytes
            a_cursor_fetch_brings_gaps_and_what_is_above_head an_open_writer_is_listed_until_it_ends
            a_batch_is_applied_once_and_in_order a_mark_that_misses_a_row_changes_nothing
            a_zombie_can_neither_fetch_nor_mark_nor_pin_nor_settle a_lost_token_and_other_files_stop_the_fetch
            settling_again_is_refused_and_changes_nothing the_lease_has_one_holder the_last_64_grants_are_remembered
            only_the_holder_of_a_living_lease_may_claim a_halt_is_written_only_while_its_evidence_stands pins_are_merged
            pruning_takes_old_sent_rows_and_nothing_else
        }
        source::source_conformance! { @setups $world:
            a_mark_takes_exactly_the_rows_of_its_batch settling_marks_what_the_journal_has
            settling_goes_by_fingerprint_and_bears_vanished_rows a_mark_that_does_not_take_halts_the_settlement
        }

        #[tokio::test]
        async fn without_a_journal_nothing_is_applied() {
            let setup = source::Setup { at_least_once: true, ..source::Setup::default() };
            source::a_mark_takes_exactly_the_rows_of_its_batch::<$world>(setup).await;
        }
    };
    (@plain $world:ty: $($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            source::$name::<$world>().await;
        })*
    };
    (@setups $world:ty: $($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            for delete in [false, true] {
                source::$name::<$world>(source::Setup { delete, ..source::Setup::default() }).await;
            }
        })*
    };
}
pub(crate) use source_conformance;
