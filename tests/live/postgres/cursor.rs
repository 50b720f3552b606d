//! The cursor against real concurrency. Writers lock an aggregate, bump its version and insert an event; some roll back, roll back to a
//! savepoint, commit late, or in two phases. One reader fetches, publishes, marks, and claims anew now and then. The right cursor loses
//! nothing and inverts no key; each wrong one must lose or invert, or the test would prove nothing.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use outboxd::cursor::{Cursor, Form, Holders, Listing};
use outboxd::event::{Batch, BatchLimits};
use outboxd::fault::Fault;
use outboxd::sink::forged;
use outboxd::source::postgres::{PostgresMarker, PostgresReader};
use outboxd::source::{Marker, Query, Reader, Tenure};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tokio::time::sleep;

use super::world::{Plain, World};
use crate::source_conformance::{self as source, Records, Setup, SourceWorld, place};

/// How the reader treats what it learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// As designed.
    Right,
    /// A gap dies after 50 ms.
    Time,
    /// Gaps and what is above head in two statements.
    Two,
    /// The writers of a new gap are those listed before the statement that showed it.
    Late,
    /// Writers count as gone when they are after the statement's snapshot, as in one REPEATABLE READ transaction.
    Snapshot,
    /// After a claim, gaps are only the numbers missing between the rows of the first fetch.
    Start,
}

const LIMITS: BatchLimits = BatchLimits { events: 200, bytes: 1 << 20 };
const WRITERS: u64 = 8;
type Version = (i64, i64);

/// One tenure of a relay, and what it has published over all its tenures.
struct Relay<'a, const V: u32> {
    world: &'a World<V, Plain>,
    variant: Variant,
    reader: PostgresReader,
    marker: PostgresMarker,
    cursor: Option<Cursor>,
    /// What the last statement listed.
    listed: Holders,
    published: Vec<Version>,
    unmarked: Option<Arc<Batch>>,
    batches: u64,
    claims: u64,
    most_gaps: usize,
}

impl<'a, const V: u32> Relay<'a, V> {
    async fn new(world: &'a World<V, Plain>, variant: Variant) -> Self {
        let (mut reader, marker) = source::relaying(world, 1).await;
        let (cursor, listed) = start(&mut reader, variant).await;
        let (published, unmarked) = (Vec::new(), None);
        Self { world, variant, reader, marker, cursor, listed, published, unmarked, batches: 0, claims: 1, most_gaps: 0 }
    }

    /// Claims anew: settles from the journal what is unmarked, and forgets everything else.
    async fn claim(&mut self) {
        self.claims += 1;
        let claimed = source::claim(self.world, self.claims).await;
        let records = self.unmarked.take().map(|batch| source::record(&claimed, self.batches, &batch));
        (self.reader, self.marker) = claimed.tenure.settle(Records(records.into_iter().collect())).await.expect("settled");
        (self.cursor, self.listed) = start(&mut self.reader, self.variant).await;
    }

    async fn turn(&mut self) {
        let form = self.cursor.as_ref().map_or(Form::Full, Cursor::form);
        if form == Form::Full {
            mark(&mut self.marker, self.unmarked.take(), self.batches).await.expect("marked");
        }
        let unmarked = self.unmarked.take();
        let (marked, fetched) = tokio::join!(
            mark(&mut self.marker, unmarked, self.batches),
            fetch(&mut self.reader, self.variant, form, self.cursor.as_ref())
        );
        marked.expect("marked");
        let (listing, batch) = fetched;
        self.learn(form, listing, batch.as_deref()).await;
        if let Some(batch) = batch {
            self.published.extend(batch.events().map(|event| (number(event.key), number(event.payload))));
            self.batches += 1;
            self.unmarked = Some(batch);
        }
    }

    /// Hands the cursor what the statement brought, or what the variant makes of it.
    async fn learn(&mut self, form: Form, listing: Listing, batch: Option<&Batch>) {
        let seqs: Vec<i64> = batch.iter().flat_map(|batch| batch.seqs()).collect();
        let cut = batch.is_some_and(Batch::is_full);
        let Some(cursor) = &mut self.cursor else {
            let floor = Listing { last_value: seqs.first().map_or(listing.last_value, |seq| seq - 1), holders: Holders::new() };
            let cursor = self.cursor.insert(Cursor::start(floor));
            cursor.take(form, listing, &seqs, cut).expect("in order");
            return;
        };
        let before = std::mem::replace(&mut self.listed, listing.holders.clone());
        let listing = match self.variant {
            Variant::Right | Variant::Two | Variant::Start => listing,
            Variant::Time => Listing { holders: moments(), ..listing },
            Variant::Late => Listing { holders: before, ..listing },
            Variant::Snapshot => {
                sleep(Duration::from_millis(3)).await;
                let after = self.reader.positions().await.expect("positions").holders;
                let (last_value, nothing) = (listing.last_value, Vec::new());
                cursor.take(form, Listing { last_value, holders: after }, &nothing, true).expect("in order");
                listing
            }
        };
        cursor.take(form, listing, &seqs, cut).expect("in order");
        self.most_gaps = self.most_gaps.max(cursor.gaps().len());
    }
}

/// The cursor of a new tenure; none where the variant makes it from the first fetch.
async fn start(reader: &mut PostgresReader, variant: Variant) -> (Option<Cursor>, Holders) {
    let positions = reader.positions().await.expect("positions");
    let listed = positions.holders.clone();
    (if variant == Variant::Start { None } else { Some(Cursor::start(positions)) }, listed)
}

/// Holders that are gone after 50 ms, whoever writes.
fn moments() -> Holders {
    static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let now = BEGIN.elapsed().as_millis() / 10;
    (now.saturating_sub(5)..=now).map(|moment| format!("0/{moment}")).collect()
}

async fn mark(marker: &mut PostgresMarker, batch: Option<Arc<Batch>>, n: u64) -> Result<(), Fault> {
    match batch {
        Some(batch) => marker.mark(&forged::published(batch, Some(place(n)))).await,
        None => Ok(()),
    }
}

async fn fetch(
    reader: &mut PostgresReader,
    variant: Variant,
    form: Form,
    cursor: Option<&Cursor>,
) -> (Listing, Option<Arc<Batch>>) {
    let (head, gaps) = cursor.map_or((0, Vec::new()), |cursor| (cursor.head(), cursor.gaps().collect()));
    let query = Query { form, head, gaps, limits: LIMITS };
    if variant != Variant::Two || form == Form::Full {
        let fetched = reader.fetch(&query).await.expect("fetched");
        return (fetched.listing, fetched.batch);
    }
    let late = reader.fetch(&Query { head: i64::MAX, ..query.clone() }).await.expect("fetched").batch;
    sleep(Duration::from_millis(1)).await;
    let above = reader.fetch(&Query { gaps: Vec::new(), ..query }).await.expect("fetched");
    let batches: Vec<Arc<Batch>> = late.into_iter().chain(above.batch).collect();
    let mut builder = outboxd::event::BatchBuilder::new(LIMITS);
    batches.iter().flat_map(|batch| batch.events()).for_each(|event| {
        builder.push(&event);
    });
    (above.listing, builder.build().map(Arc::new))
}

fn number(bytes: Option<&[u8]>) -> i64 {
    std::str::from_utf8(bytes.unwrap_or_default()).ok().and_then(|text| text.parse().ok()).expect("a number")
}

/// A service that writes until it is told to stop; returns what it committed.
struct Service {
    connection: PgConnection,
    table: String,
    schema: String,
    chance: Rng,
    number: u64,
    transactions: u64,
}

impl Service {
    async fn run(mut self, stop: Arc<AtomicBool>, committed: Arc<Mutex<HashSet<Version>>>) {
        while !stop.load(Ordering::Relaxed) {
            self.transactions += 1;
            let events = self.write().await;
            committed.lock().expect("no writer panicked").extend(events);
        }
    }

    async fn sql(&mut self, statement: impl Into<String>) {
        let statement: String = statement.into();
        self.connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.expect("the service's statement works");
    }

    async fn pause(&mut self, most_ms: f64) {
        sleep(Duration::from_secs_f64(self.chance.f64() * most_ms / 1_000.0)).await;
    }

    /// One transaction: some events, some delay, some end.
    async fn write(&mut self) -> Vec<Version> {
        self.sql("BEGIN").await;
        if self.chance.f64() < 0.1 {
            self.sql("SELECT 1").await;
            self.pause(50.0).await;
        }
        let mut keys = vec![self.chance.i64(1..=20)];
        if self.chance.f64() < 0.25 {
            keys.push(self.chance.i64(1..=20));
        }
        keys.sort_unstable();
        keys.dedup();
        let mut events = Vec::new();
        for key in keys {
            events.extend(self.event(key).await);
        }
        match self.chance.f64() {
            long if long < 0.05 => self.pause(300.0).await,
            short if short < 0.5 => self.pause(4.0).await,
            _ => {}
        }
        if self.end().await { events } else { Vec::new() }
    }

    /// Locks the aggregate, bumps its version and inserts the event; sometimes that is undone alone.
    async fn event(&mut self, key: i64) -> Option<Version> {
        let bump = format!("UPDATE {}.aggregate SET version = version + 1 WHERE key = $1 RETURNING version", self.schema);
        let row = sqlx::query(AssertSqlSafe(bump)).bind(key).fetch_one(&mut self.connection).await.expect("bumped");
        let version: i64 = row.get(0);
        let undo = self.chance.f64() < 0.05;
        if undo {
            self.sql("SAVEPOINT event").await;
        }
        self.sql(format!("INSERT INTO {} (topic, key, payload) VALUES ('orders', '{key}', '{version}')", self.table)).await;
        if undo {
            self.sql("ROLLBACK TO event").await;
        }
        (!undo).then_some((key, version))
    }

    /// Ends the transaction; whether it is committed.
    async fn end(&mut self) -> bool {
        match self.chance.f64() {
            rolled_back if rolled_back < 0.15 => {
                self.sql("ROLLBACK").await;
                false
            }
            in_two_phases if in_two_phases < 0.2 => {
                let gid = format!("'{}_{}_{}'", self.schema.trim_matches('"'), self.number, self.transactions);
                self.sql(format!("PREPARE TRANSACTION {gid}")).await;
                self.pause(200.0).await;
                let commit = self.chance.bool();
                self.sql(format!("{} PREPARED {gid}", if commit { "COMMIT" } else { "ROLLBACK" })).await;
                commit
            }
            _ => {
                self.sql("COMMIT").await;
                true
            }
        }
    }
}

/// What went wrong in a run.
#[derive(Debug, Default)]
struct Verdict {
    committed: usize,
    lost: usize,
    duplicated: usize,
    inverted: usize,
}

fn judge(committed: &HashSet<Version>, published: &[Version]) -> Verdict {
    let seen: HashSet<Version> = published.iter().copied().collect();
    let (mut last, mut inverted) = (HashMap::new(), 0);
    for &(key, version) in published {
        let newest = last.entry(key).or_insert(0);
        inverted += usize::from(version < *newest);
        *newest = version.max(*newest);
    }
    let lost = committed.difference(&seen).count();
    Verdict { committed: committed.len(), lost, duplicated: published.len() - seen.len(), inverted }
}

/// Writes and relays for a while; then the writers stop, and the reader has as many turns as it may need.
async fn run<const V: u32>(variant: Variant, time: Duration) -> Verdict {
    let world = World::<V, Plain>::fresh(Setup::default()).await;
    let aggregate = "CREATE TABLE {schema}.aggregate (key bigint PRIMARY KEY, version bigint); \
        INSERT INTO {schema}.aggregate SELECT n, 0 FROM generate_series(1, 20) n; \
        GRANT SELECT, UPDATE ON {schema}.aggregate TO shop";
    world.sql(aggregate).await;
    let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let mut services = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let (connection, chance) = (world.writer().await, Rng::with_seed(number));
        let (table, schema) = (world.table.clone(), world.schema.clone());
        let service = Service { connection, table, schema, chance, number, transactions: 0 };
        services.spawn(service.run(stop.clone(), Arc::clone(&committed)));
    }
    let (mut relay, mut chance) = (Relay::new(&world, variant).await, Rng::with_seed(7));
    let begun = Instant::now();
    while begun.elapsed() < time {
        relay.turn().await;
        if matches!(variant, Variant::Right | Variant::Start) && chance.f64() < 0.01 {
            relay.claim().await;
        }
        sleep(Duration::from_millis(2)).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(service) = services.join_next().await {
        service.expect("no writer panicked");
    }
    for _ in 0..50 {
        relay.turn().await;
    }
    let committed: &Mutex<HashSet<Version>> = &committed;
    let verdict = judge(&committed.lock().expect("no writer panicked"), &relay.published);
    println!("PostgreSQL {V}, {variant:?}: {verdict:?}, {} claims, {} gaps at most", relay.claims, relay.most_gaps);
    verdict
}

async fn is_right<const V: u32>() {
    let long = std::env::var_os("OUTBOXD_TEST_LONG").is_some();
    let verdict = run::<V>(Variant::Right, Duration::from_secs(if long { 120 } else { 8 })).await;
    assert!(verdict.committed > 500, "{verdict:?}");
    assert_eq!((verdict.lost, verdict.duplicated, verdict.inverted), (0, 0, 0), "{verdict:?}");
}

/// A wrong cursor must be caught, sooner or later.
async fn is_wrong(variant: Variant) {
    for _ in 0..12 {
        let verdict = run::<15>(variant, Duration::from_secs(4)).await;
        if verdict.lost + verdict.inverted > 0 {
            return;
        }
    }
    panic!("{variant:?} did no harm: the test proves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cursor_loses_and_inverts_nothing_on_15() {
    is_right::<15>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cursor_loses_and_inverts_nothing_on_18() {
    is_right::<18>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_that_dies_by_the_clock_does_harm() {
    is_wrong(Variant::Time).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_and_head_in_two_statements_do_harm() {
    is_wrong(Variant::Two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_listed_before_the_statement_do_harm() {
    is_wrong(Variant::Late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_listed_after_the_snapshot_do_harm() {
    is_wrong(Variant::Snapshot).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_guessed_from_the_first_fetch_do_harm() {
    is_wrong(Variant::Start).await;
}
