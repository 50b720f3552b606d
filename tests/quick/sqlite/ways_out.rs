//! The ways out of halts that a person types, as far as the file is concerned.

use std::cell::Cell;

use outboxd::fault::{Cause, Fault, Halt, HaltCode};
use outboxd::journal::Applied;
use outboxd::sink::forged;
use outboxd::source::desk::Request;
use outboxd::source::{Marker, Source};

use super::*;
use crate::source_conformance::{batch, claim, expect_cause, fetch, limited, place, record, relaying};

fn request() -> Request {
    Request { who: " (ann)".into(), reason: "seen".into() }
}

const AUDITED: &str = "SELECT count(*) FROM outboxd_audit WHERE action = 'adopt --journal' AND who = 'ann' AND reason = 'seen'";

#[tokio::test]
async fn an_adopted_journal_is_gone_on_from_and_its_halt_is_over() {
    let world = World::fresh(Setup::default()).await;
    let source = world.source();
    let (halt, before) = (Halt::new(HaltCode::KafkaBehind, "it is gone"), source.look().await.expect("look"));
    assert!(source.halt(&halt, &before).await.expect("written") && world.halted().await.is_some());
    let written = Cell::new(0);
    let write = |at: Applied| {
        let written = &written;
        async move {
            written.set(written.get() + 1);
            Ok::<_, Fault>(at)
        }
    };
    assert_eq!(source.adopt_journal(write(place(7)), &before, &halt, &request()).await.expect("adopted"), place(7));
    let after = source.look().await.expect("look");
    assert_eq!((after.applied, world.halted().await, written.get()), (place(7), None, 1));
    assert_ne!(after.claim, before.claim, "a relay looks again");
    expect_cause(source.adopt_journal(write(place(8)), &before, &halt, &request()).await, Cause::ClaimChanged);
    assert_eq!(written.get(), 1, "who comes late writes nothing into the journal");
    assert_eq!(world.numbers(AUDITED).await, [1]);
}

#[tokio::test]
async fn exactly_the_rows_of_the_newest_batch_are_un_marked() {
    let world = World::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2", "3", "4"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let first = fetch(&mut reader, &limited(2, 1 << 20)).await.batch.expect("two");
    marker.mark(&forged::published(first.clone(), Some(place(1)))).await.expect("marked");
    let second = batch(&mut reader).await;
    marker.mark(&forged::published(second.clone(), Some(place(2)))).await.expect("marked");
    let claimed = claim(&world, 2).await;
    let (older, newest) = (record(&claimed, 1, &first).0, record(&claimed, 2, &second).0);
    let source = world.source();
    assert_eq!(source.still_there(&newest).await.expect("asked"), all[2..].iter().copied().collect());
    let seen = source.look().await.expect("look");
    for (record, shown) in [(&newest, 1), (&older, 2)] {
        expect_cause(source.unmark(record, shown, &seen, "{}", &request()).await, Cause::ClaimChanged);
        assert!(world.unsent().await.is_empty(), "nothing was changed");
    }
    source.unmark(&newest, 2, &seen, "{}", &request()).await.expect("un-marked");
    assert_eq!(world.unsent().await, all[2..]);
    let after = source.look().await.expect("look");
    assert_eq!(after.applied, place(1));
    assert_ne!(after.claim, seen.claim);
    expect_cause(source.unmark(&newest, 2, &seen, "{}", &request()).await, Cause::ClaimChanged);
    assert_eq!(world.numbers(AUDITED).await, [1]);
}

#[tokio::test]
async fn rows_that_the_mark_deleted_are_counted_and_cannot_be_un_marked() {
    let world = World::fresh(Setup { delete: true, ..Setup::default() }).await;
    world.insert(&["1", "2"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let published = batch(&mut reader).await;
    marker.mark(&forged::published(published.clone(), Some(place(1)))).await.expect("marked");
    let record = record(&claim(&world, 2).await, 1, &published).0;
    let source = world.source();
    assert!(source.still_there(&record).await.expect("asked").is_empty());
    let seen = source.look().await.expect("look");
    expect_cause(source.unmark(&record, 2, &seen, "{}", &request()).await, Cause::ClaimChanged);
    source.unmark(&record, 0, &seen, "{}", &request()).await.expect("none are there, and none were shown");
    assert_eq!((source.look().await.expect("look").applied.n, world.rows().await), (0, Vec::new()));
}
