//! What `verify`, `trace` and `reconcile` read of a file, and what the last one changes in it.

use outboxd::event::Fingerprint;
use outboxd::fault::{Cause, Fault, Halt, HaltCode};
use outboxd::park::{Ailing, SetAside, Unfit};
use outboxd::sink::forged;
use outboxd::source::desk::{Chosen, Decision, Request, Waits, Wanted};
use outboxd::source::{Marker, Source};

use super::*;
use crate::source_conformance::{batch, claim, expect_cause, fetch, limited, place, record, relaying};

#[tokio::test]
async fn a_verification_is_told_where_the_outbox_stands_and_which_rows_are_marked() {
    let world = World::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2", "3", "4"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let source = world.source();
    assert_eq!(source.by_now().await.expect("asked").1, 0);
    let two = fetch(&mut reader, &limited(2, 1 << 20)).await.batch.expect("two");
    marker.mark(&forged::published(two.clone(), Some(place(1)))).await.expect("marked");
    // what cannot be read as a moment is a mark all the same
    world.sql(&format!("UPDATE outbox SET sent_at = 'long ago' WHERE seq = {}", all[2])).await;
    let footing = source.footing().await.expect("read");
    assert_eq!((footing.applied, footing.rows, footing.has_uuids, &*footing.delivery), (place(1), 4, true, "exactly_once"));
    let (first, at_us) = footing.first_applied.expect("it is known when");
    let (now_us, applied) = source.by_now().await.expect("asked");
    assert!(first == 1 && footing.set_up_us <= at_us && at_us <= now_us && applied == 1, "{footing:?} {now_us}");
    let mut seen = Vec::new();
    let take =
        |row: outboxd::source::desk::RowFacts<'_>| seen.push((row.seq, row.fingerprint, row.topic.to_owned(), row.marked_us));
    assert_eq!(source.rows_after(all[0], take).await.expect("read"), Some(all[3]));
    let second = two.events().nth(1).expect("two").fingerprint();
    assert_eq!((seen[0].0, seen[0].1, &*seen[0].2), (all[1], second, "orders"));
    assert!(seen[0].3.is_some_and(|marked| (footing.set_up_us..=now_us).contains(&marked)), "{seen:?}");
    assert_eq!(seen[1..].iter().map(|row| row.3).collect::<Vec<_>>(), [Some(1), None]);
    assert_eq!(source.rows_after(all[3], |_| ()).await.expect("read"), None);
}

#[tokio::test]
async fn a_row_is_told_with_what_it_waits_for_until_it_is_given_up() {
    let world = World::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2"]).await;
    world.sql("INSERT INTO outbox (topic, key, type, payload) VALUES ('payments', 'other', 'Paid', '{}')").await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let fetched = batch(&mut reader).await;
    let ids: Vec<String> = fetched.events().map(|event| event.id.to_string()).collect();
    let culprit = fetched.events().next().expect("three");
    let unfit = Unfit { seq: culprit.seq, id: culprit.id.into(), code: "too_large", detail: "large".into() };
    let ailing = Ailing { topic: "payments".into(), code: "topic_missing", detail: "gone".into() };
    marker.set_aside(&SetAside { unfit: vec![unfit], ailing: vec![ailing] }).await.expect("set aside");
    let source = world.source();
    let row = async |id: &str| source.rows_of(Wanted::Id(id)).await.expect("read").remove(0);
    let first = row(&ids[0].to_uppercase()).await;
    assert_eq!((first.seq, first.fingerprint, &first.id), (all[0], culprit.fingerprint(), &ids[0]));
    assert_eq!((first.key.as_deref(), first.payload.as_deref(), &*first.kind), (Some(&b"k"[..]), Some(&b"1"[..]), "Placed"));
    assert_eq!(first.waits, Some(Waits::Parked { code: "too_large".into(), detail: "large".into() }));
    let behind = Waits::Behind { seq: all[0], id: ids[0].clone(), code: "too_large".into() };
    assert_eq!(row(&ids[1]).await.waits, Some(behind));
    assert_eq!(row(&ids[2]).await.waits, Some(Waits::Held { code: "topic_missing".into(), detail: "gone".into() }));
    let of_key = source.rows_of(Wanted::Key("k")).await.expect("read");
    assert_eq!(of_key.iter().map(|row| row.seq).collect::<Vec<_>>(), [all[1], all[0]], "the newest first");
    assert!(source.rows_of(Wanted::Id("nobody")).await.expect("read").is_empty());
    let chosen = Chosen { ids: vec![ids[0].clone()], ..Chosen::default() };
    assert_eq!(source.decide(Decision::Discard, &chosen, "ann", "a test").await.expect("decided"), 1);
    let given_up = source.discarded_after(0).await.expect("read");
    assert_eq!(
        given_up.iter().map(|event| (event.seq, &event.id, &*event.topic)).collect::<Vec<_>>(),
        [(all[0], &ids[0], "orders")]
    );
    assert!(source.discarded_after(given_up[0].n).await.expect("read").is_empty());
    assert!(row(&ids[0]).await.marked_us.is_some() && row(&ids[1]).await.waits.is_none());
}

const RECONCILED: &str = "SELECT count(*) FROM outboxd_audit WHERE action = 'reconcile' AND who = 'ann' AND reason = 'seen' \
    AND detail ->> 'marked' = 1 AND detail ->> 'undecided' = 5";

#[tokio::test]
async fn exactly_what_lies_in_the_topics_is_marked_or_nothing_is() {
    let world = World::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2", "3", "4"]).await;
    let (mut reader, _marker) = relaying(&world, 1).await;
    let two = fetch(&mut reader, &limited(2, 1 << 20)).await.batch.expect("two");
    let mut entries = record(&claim(&world, 2).await, 1, &two).0.entries;
    let source = world.source();
    let mut unsent = Vec::new();
    let last = source.unsent_after(i64::MIN, |row| unsent.push((row.seq, row.fingerprint, row.created_us.is_some()))).await;
    assert_eq!(last.expect("read"), all.last().copied());
    assert_eq!(unsent.iter().map(|row| row.0).collect::<Vec<_>>(), all);
    assert!(unsent.iter().zip(&entries).all(|(row, entry)| row.1 == entry.fingerprint && row.2), "{unsent:?}");
    assert_eq!(source.unsent_after(all[3], |_| ()).await.expect("read"), None);
    // the number is that of another event
    entries[1].fingerprint = Fingerprint(7);
    let found = || ([Ok(entries.clone())].into_iter(), 5);
    let (halt, before) = (Halt::new(HaltCode::JournalWindow, "it is cut"), source.look().await.expect("look"));
    let request = Request { who: " (ann)".into(), reason: "seen".into() };
    assert!(source.halt(&halt, &before).await.expect("written"));
    let late = async { Err(Fault::in_doubt(Cause::JournalMoved, "somebody was faster")) };
    expect_cause(source.reconcile(found(), late, &before, &halt, &request).await, Cause::JournalMoved);
    assert_eq!((world.unsent().await, world.halted().await.is_some()), (all.clone(), true), "without a record nothing is marked");
    let done = source.reconcile(found(), async { Ok(place(7)) }, &before, &halt, &request).await;
    assert_eq!(done.expect("reconciled"), (place(7), 1));
    let after = source.look().await.expect("look");
    assert_eq!((world.unsent().await, after.applied, world.halted().await), (all[1..].to_vec(), place(7), None));
    assert_ne!(after.claim, before.claim, "a relay looks again");
    expect_cause(source.reconcile(found(), async { Ok(place(8)) }, &before, &halt, &request).await, Cause::ClaimChanged);
    assert_eq!(world.numbers(RECONCILED).await, [1]);
}
