//! Mark and settle: exactly once, exactly those rows.

use super::*;

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

pub async fn a_record_without_events_is_applied_in_its_turn<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let all = world.insert(&["1"; 2]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let one = fetch(&mut reader, &limited(1, 1 << 20)).await.batch.expect("one");
    marker.mark(&forged::published(one, Some(place(1)))).await.expect("marked");
    expect_cause(marker.note(&forged::noted(place(3))).await, Cause::Mark);
    marker.note(&forged::noted(place(2))).await.expect("applied");
    assert_eq!((world.source().look().await.expect("look").applied, world.unsent().await), (place(2), all[1..].to_vec()));
    let _successor = claim(&world, 2).await;
    expect_cause(marker.note(&forged::noted(place(3))).await, Cause::ClaimChanged);
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
    expect_cause(marker.pin(&Pins::from([("orders".into(), Pin::of(3))])).await, Cause::ClaimChanged);
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
            assert!(evidence.contains(&format!("seq {}", all[1])), "{evidence}");
        }
        other => panic!("expected a halt, got {other:?}"),
    }
    assert_eq!(world.unsent().await, all, "nothing of it stays");
}
