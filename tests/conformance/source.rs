//! What every source must do, whatever database it stands on. Each function is one sentence of the contract; a test binary runs them
//! over its own [`SourceWorld`]: the in-memory twin, or a real server.

#[path = "source/holding.rs"]
mod holding;
#[path = "source/marking.rs"]
mod marking;
#[path = "source/parking.rs"]
mod parking;
#[path = "source/reading.rs"]
mod reading;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use outboxd::cursor::{Form, Range};
use outboxd::event::{Batch, BatchLimits};
use outboxd::fault::{Cause, Fault, Halt, HaltCode};
use outboxd::journal::{Applied, Checksum, Entry, History, Owner, Record, Writer};
use outboxd::sink::forged;
use outboxd::source::{ClaimNumber, Fetched, Lease, Leases, Marker, Pin, Pins, Pruning, Query, Reader, Source, Takeover, Tenure};

pub use holding::*;
pub use marking::*;
pub use parking::*;
pub use reading::*;

/// How an outbox is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Published rows are deleted instead of marked.
    pub delete: bool,
    /// How long sent rows stay.
    pub retention: Duration,
    /// No journal: nothing is applied.
    pub at_least_once: bool,
    /// A parked event keeps nothing waiting.
    pub park_event: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { delete: false, retention: Duration::from_secs(3600), at_least_once: false, park_event: false }
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
    /// Inserts and commits one event of another key; returns its number.
    fn insert_with_key(&self, key: &str, payload: &str) -> impl Future<Output = i64> + Send;
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

/// Why a claim is due.
pub fn cause(fault: &Fault) -> Option<Cause> {
    match fault {
        Fault::InDoubt { cause, .. } => Some(*cause),
        _ => None,
    }
}

/// It must fail, for this cause.
#[track_caller]
pub fn expect_cause<T>(result: Result<T, Fault>, expected: Cause) {
    match result {
        Ok(_) => panic!("expected {expected}, but it worked"),
        Err(fault) => assert_eq!(cause(&fault), Some(expected), "{fault}"),
    }
}

/// Fetches.
pub async fn fetch<R: Reader>(reader: &mut R, query: &Query) -> Fetched {
    reader.fetch(query).await.expect("the fetch works")
}

/// Fetches all and returns the batch.
pub async fn batch<R: Reader>(reader: &mut R) -> Arc<Batch> {
    fetch(reader, &full()).await.batch.expect("there are events")
}

/// A full-form query with these limits.
pub fn limited(events: usize, bytes: usize) -> Query {
    Query { limits: BatchLimits { events, bytes }, ..full() }
}

/// A batch of those events of `batch` that have these numbers.
pub fn some(batch: &Batch, seqs: &[i64]) -> Arc<Batch> {
    let mut builder = outboxd::event::BatchBuilder::new(BatchLimits { events: usize::MAX, bytes: usize::MAX });
    batch.events().filter(|event| seqs.contains(&event.seq)).for_each(|event| {
        builder.push(&event);
    });
    Arc::new(builder.build().expect("some of them"))
}

/// One test a sentence, over the world `$world`. The sentences of `beyond_memory` are about what a twin in memory does not have:
/// columns that it leaves empty, and a clock.
macro_rules! source_conformance {
    ($world:ty) => {
        source::source_conformance! { @plain $world:
            an_empty_table_brings_no_batch a_fetch_is_cut_by_events_and_by_bytes a_cursor_fetch_brings_gaps_and_what_is_above_head
            an_open_writer_is_listed_until_it_ends a_record_without_events_is_applied_in_its_turn a_batch_is_applied_once_and_in_order a_mark_that_misses_a_row_changes_nothing
            a_zombie_can_neither_fetch_nor_mark_nor_pin_nor_settle a_lost_token_and_other_files_stop_the_fetch
            settling_again_is_refused_and_changes_nothing the_lease_has_one_holder the_last_64_grants_are_remembered
            a_parked_event_is_left_out_and_its_key_waits what_is_sent_is_not_parked_and_a_mark_takes_the_entry_along
            a_settlement_forgets_what_is_gone_sent_or_another_event a_parked_event_stays_parked_over_claims
            a_held_topic_is_left_out_until_it_is_let_go a_zombie_can_neither_set_aside_nor_let_go
            only_the_holder_of_a_living_lease_may_claim a_halt_is_written_only_while_its_evidence_stands pins_are_merged
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
    (beyond_memory $world:ty) => {
        source::source_conformance! { @plain $world:
            events_come_back_as_they_were_written pruning_takes_old_sent_rows_and_nothing_else
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
