//! What a fetch brings, and when it refuses.

use outboxd::event::BatchLimits;

use super::*;

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
    let age = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_micros() as i64
        - events[0].created_at_us.expect("a time");
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
