//! The fetch keeps its plan and its bounds, whatever lies in the table and whatever the statistics say.

use std::time::{Duration, Instant};

use outboxd::event::BatchLimits;
use outboxd::sink::forged;
use outboxd::source::{Marker, Pruning, Query, Reader};

use super::world::{Plain, World};
use crate::source_conformance::{self as source, Setup, SourceWorld, above, full, place};
use crate::support::eventually_async;

const BATCH: BatchLimits = BatchLimits { events: 5_000, bytes: 4 << 20 };

/// Rows of 300 bytes.
const FILL: &str = "INSERT INTO {outbox} (topic, key, type, payload) \
    SELECT 'orders', 'key-' || n % 1000, 'Placed', to_json(repeat('x', 230)) FROM generate_series(1, ";

async fn filled<const VERSION: u32>(rows: u32) -> World<VERSION, Plain> {
    let world = World::fresh(Setup::default()).await;
    world.sql("ALTER TABLE {outbox} SET (autovacuum_enabled = false)").await;
    world.sql(&format!("{FILL}{rows}) n")).await;
    world
}

fn limited(query: Query) -> Query {
    Query { limits: BATCH, ..query }
}

/// The best of several fetches, which is what the plan costs on a machine that does other things too.
async fn best_of<R: Reader>(reader: &mut R, query: &Query, times: u32) -> (Duration, usize) {
    let mut best = (Duration::MAX, 0);
    for _ in 0..times {
        let start = Instant::now();
        let fetched = reader.fetch(query).await.expect("fetched");
        best = best.min((start.elapsed(), fetched.batch.map_or(0, |batch| batch.len())));
    }
    best
}

/// Far above what the right plan takes (5 to 15 ms), below a sort of a large backlog (a second). What proves the plan is the count of
/// rows that were touched.
const FAST: Duration = Duration::from_millis(400);

/// Neither fetch nor mark ever reads the table from end to end, and they touch no more rows than they bring: `scans` are those of
/// the test's own statements, three for the indexes that `migrate` made.
async fn expect_touched<const VERSION: u32>(world: &World<VERSION, Plain>, scans: i64, most: i64) {
    let counters =
        "SELECT unnest(ARRAY[seq_scan, idx_scan, idx_tup_fetch]) FROM pg_stat_user_tables WHERE relid = '{outbox}'::regclass";
    eventually_async("the counters of closed connections arrive", Duration::from_secs(20), async || {
        // those of an idle connection within ten seconds
        let arrived = world.numbers(counters).await;
        (arrived[1] > 0 && arrived[0] >= scans).then_some(())
    })
    .await;
    let by_id =
        "SELECT sum(idx_scan)::int8 FROM pg_stat_user_indexes WHERE relid = '{outbox}'::regclass AND indexrelname LIKE '%id_key'";
    assert_eq!(world.numbers(by_id).await, [0], "rows are found by number: identities lie scattered over their index");
    let counters = world.numbers(counters).await;
    assert!(counters[0] == scans && counters[2] <= most, "scans, index scans, rows: {counters:?}, at most {most}");
}

async fn fetches_stay_fast<const VERSION: u32>() {
    let world = filled::<VERSION>(400_000).await;
    let (mut reader, mut marker) = source::relaying(&world, 1).await;
    let mut expect = async |what: &str, query: Query, rows: usize| {
        let (took, found) = best_of(&mut reader, &limited(query), 7).await;
        println!("PostgreSQL {VERSION}, {what}: {found} rows in {took:?}");
        assert!(took < FAST && found == rows, "{what}: {found} rows in {took:?}");
    };
    expect("full form, statistics never taken", full(), 5_000).await;
    expect("cursor form, statistics never taken", above(100_000, &[(7, 7), (50, 60)]), 5_000).await;
    world.sql("ANALYZE {outbox}").await;
    expect("full form", full(), 5_000).await;
    expect("cursor form", above(100_000, &[(7, 7), (50, 60)]), 5_000).await;
    let gaps: Vec<(i64, i64)> = (0..8_000).map(|n| (n * 10, n * 10)).collect();
    expect("8,000 gaps", above(399_990, &gaps), 5_000).await;
    expect("a gap of a million numbers", above(399_990, &[(500_000, 1_500_000)]), 10).await;
    for n in 1..=5 {
        let batch = reader_batch(&mut reader).await;
        let start = Instant::now();
        marker.mark(&forged::published(batch, Some(place(n)))).await.expect("marked");
        println!("PostgreSQL {VERSION}: marked 5,000 rows in {:?}", start.elapsed());
    }
    drop((reader, marker));
    // six queries seven times, five batches fetched and marked
    expect_touched(&world, 3, 5_010 * (6 * 7 + 2 * 5)).await;
}

/// Parked events of every tenth key, all of them unsent, in a backlog of 400,000; each blocks its key.
async fn parked_events_do_not_spoil_the_plan<const VERSION: u32>() {
    let world = filled::<VERSION>(400_000).await;
    world.sql("UPDATE {outbox} SET key = 'key-' || seq % 200000").await;
    world.sql("VACUUM ANALYZE {outbox}").await;
    let (mut reader, _) = source::relaying(&world, 1).await;
    for (parked, most) in [(0, 10), (300, 20), (40_000, 400), (150_000, 800)] {
        world
            .sql(&format!(
                "DELETE FROM {{schema}}.outboxd_parked; \
                 INSERT INTO {{schema}}.outboxd_parked (name, seq, id, topic, key, code, detail, blocking) \
                 SELECT 'test', seq, id, topic, key, 'too_large', '', true FROM {{outbox}} WHERE seq <= {parked}; \
                 ANALYZE {{schema}}.outboxd_parked"
            ))
            .await;
        for (what, query) in [("full form", full()), ("cursor form", above(100_000, &[(7, 7), (50, 60)]))] {
            let (took, found) = best_of(&mut reader, &limited(query), 5).await;
            println!("PostgreSQL {VERSION}, {parked} parked, {what}: {found} rows in {took:?}");
            assert!(took < Duration::from_millis(most) * 5 && found == 5_000, "{parked}, {what}: {found} rows in {took:?}");
        }
    }
    drop(reader);
    // eight queries five times, which pass over what is parked and what waits behind it
    expect_touched(&world, 4, 2 * 5 * (5_010 + 5_610 + 85_010 + 305_010)).await;
}

#[tokio::test]
async fn parked_events_do_not_spoil_the_plan_on_15() {
    parked_events_do_not_spoil_the_plan::<15>().await;
}

#[tokio::test]
async fn parked_events_do_not_spoil_the_plan_on_18() {
    parked_events_do_not_spoil_the_plan::<18>().await;
}

async fn reader_batch<R: Reader>(reader: &mut R) -> std::sync::Arc<outboxd::event::Batch> {
    reader.fetch(&limited(full())).await.expect("fetched").batch.expect("rows")
}

#[tokio::test]
async fn a_large_backlog_is_read_from_its_index_on_15() {
    fetches_stay_fast::<15>().await;
}

#[tokio::test]
async fn a_large_backlog_is_read_from_its_index_on_18() {
    fetches_stay_fast::<18>().await;
}

#[tokio::test]
async fn statistics_of_another_day_and_dead_entries_do_not_spoil_the_plan() {
    let world = filled::<15>(200_000).await;
    // taken when everything was sent, then everything is unsent; and the other way round
    world.sql("UPDATE {outbox} SET sent_at = now(); ANALYZE {outbox}; UPDATE {outbox} SET sent_at = NULL").await;
    let (mut reader, _) = source::relaying(&world, 1).await;
    for (what, query) in [("full form", full()), ("cursor form", above(50_000, &[(5, 5)]))] {
        let (took, found) = best_of(&mut reader, &limited(query), 5).await;
        println!("{what}, all was sent once: {found} rows in {took:?}");
        assert!(took < FAST && found == 5_000, "{what}: {found} rows in {took:?}");
    }
    // by a scan of the table, whatever the planner would like better today: it is counted below
    world
        .sql("ANALYZE {outbox}; SET enable_indexscan = off; SET enable_bitmapscan = off; DELETE FROM {outbox} WHERE seq <= 195000")
        .await;
    let (took, found) = best_of(&mut reader, &limited(above(195_000, &[])), 5).await;
    println!("cursor form above 195,000 dead rows: {found} rows in {took:?}");
    assert!(took < FAST && found == 5_000);
    drop(reader);
    expect_touched(&world, 3 + 3, 5_010 * (2 * 5 + 5)).await;
}

#[tokio::test]
async fn of_many_large_rows_only_a_batch_crosses_the_wire() {
    for stored in ["EXTERNAL", "MAIN"] {
        let world = World::<15, Plain>::fresh(Setup::default()).await;
        world.sql(&format!("ALTER TABLE {{outbox}} ALTER payload SET STORAGE {stored}")).await;
        // half random, so that compression saves about half
        world
            .sql(
                "CREATE FUNCTION {schema}.noise(n int) RETURNS text LANGUAGE sql AS \
                 'SELECT string_agg(md5(random()::text) || repeat(''x'', 32), '''') FROM generate_series(1, n)'; \
                 INSERT INTO {outbox} (topic, payload) SELECT 'orders', to_json(large.value) \
                 FROM generate_series(1, 200) n, (SELECT {schema}.noise(14000) AS value) large",
            )
            .await;
        let (mut reader, _) = source::relaying(&world, 1).await;
        for query in [full(), above(0, &[]), above(150, &[(1, 150)])] {
            let (took, found) = best_of(&mut reader, &limited(query), 3).await;
            println!("200 rows of 900 KB, {stored}: {found} rows in {took:?}");
            assert!((1..=5).contains(&found), "{found} rows");
            assert!(took < Duration::from_millis(400), "{took:?}");
        }
        let sent = world.numbers("SELECT sum(octet_length(payload::text))::int8 FROM {outbox}").await[0];
        assert!(sent > 170_000_000, "{sent}");
    }
}

#[tokio::test]
async fn pruning_walks_on_without_reading_the_table() {
    let world = World::<18, Plain>::fresh(Setup::default()).await;
    world.sql(&format!("{FILL}30000) n; UPDATE {{outbox}} SET sent_at = now() - interval '2 hours' WHERE seq % 3 <> 0")).await;
    let source = world.source();
    let (mut rows, mut steps) = (0, 0);
    loop {
        let step = source.prune().await.expect("pruned");
        assert!(step.rows <= 2_000, "a small step");
        (rows, steps) = (rows + step.rows, steps + 1);
        if !step.more {
            break;
        }
    }
    assert_eq!((rows, steps), (20_000, 16), "two thirds went, the rest was walked over");
    world.sql("UPDATE {outbox} SET sent_at = now() - interval '2 hours'").await;
    for _ in 0..200 {
        source.prune().await.expect("pruned");
    }
    assert!(world.rows().await.is_empty(), "the walk comes back to the bottom");
}

#[tokio::test]
async fn old_applied_rows_go_and_the_newest_ten_thousand_stay() {
    let world = World::<15, Plain>::fresh(Setup::default()).await;
    world.sql("INSERT INTO {schema}.outboxd_applied SELECT 'test', n, n, n FROM generate_series(1, 15000) n").await;
    world.sql("INSERT INTO {schema}.outboxd_applied SELECT 'other', n, n, n FROM generate_series(1, 50) n").await;
    let source = world.source();
    while source.prune().await.expect("pruned").more {}
    let kept = "SELECT count(*) FROM {schema}.outboxd_applied GROUP BY name ORDER BY name";
    assert_eq!(world.numbers(kept).await, [50, 10_000]);
    assert_eq!(world.numbers("SELECT max(n) FROM {schema}.outboxd_applied").await, [15_000]);
}
