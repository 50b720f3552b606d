//! Park and hold: what is set aside is left out, with what waits behind it, and comes back in order.

use std::collections::BTreeSet;

use outboxd::park::{Ailing, Done, SetAside, Unfit};

use super::*;

/// Every event of these suites has this topic.
const TOPIC: &str = "orders";

fn unfit(batch: &Batch, seq: i64) -> SetAside {
    let event = batch.events().find(|event| event.seq == seq).expect("it is in the batch");
    let unfit = Unfit { seq, id: event.id.into(), code: "too_large", detail: "it's \"large\"".into() };
    SetAside { unfit: vec![unfit], ailing: Vec::new() }
}

fn ailing() -> SetAside {
    let ailing = Ailing { topic: TOPIC.into(), code: "topic_missing", detail: "it's gone".into() };
    SetAside { unfit: Vec::new(), ailing: vec![ailing] }
}

async fn seqs_of<R: Reader>(reader: &mut R) -> Vec<i64> {
    let by_cursor = seqs(&fetch(reader, &above(0, &[])).await);
    let in_gaps = seqs(&fetch(reader, &above(i64::MAX, &[(0, i64::MAX)])).await);
    let full = seqs(&fetch(reader, &full()).await);
    assert_eq!((&by_cursor, &in_gaps), (&full, &full), "every form leaves out the same");
    full
}

/// Under both policies, and for its own key only.
pub async fn a_parked_event_is_left_out_and_its_key_waits<W: SourceWorld>() {
    for park_event in [false, true] {
        let world = W::fresh(Setup { park_event, ..Setup::default() }).await;
        let all = world.insert(&["1", "2", "3"]).await;
        let (mut reader, mut marker) = relaying(&world, 1).await;
        let batch = batch(&mut reader).await;
        let mut twice = unfit(&batch, all[1]);
        twice.unfit.extend(unfit(&batch, all[1]).unfit);
        let done = marker.set_aside(&twice).await.expect("parked, whatever else is wrong with it");
        assert_eq!(done, Done { parked: 1, held: 0 });
        let done = marker.set_aside(&unfit(&batch, all[1])).await.expect("parked already");
        assert_eq!(done, Done::default());
        assert_eq!(seqs_of(&mut reader).await, if park_event { vec![all[0], all[2]] } else { vec![] });
        let other = world.insert_with_key("other", "4").await;
        assert_eq!(seqs_of(&mut reader).await.last(), Some(&other), "another key does not wait");
    }
}

pub async fn what_is_sent_is_not_parked_and_a_mark_takes_the_entry_along<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2", "3"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let batch = batch(&mut reader).await;
    marker.set_aside(&unfit(&batch, all[1])).await.expect("parked");
    marker.mark(&forged::published(some(&batch, &all[..2]), Some(place(1)))).await.expect("marked");
    assert_eq!(seqs_of(&mut reader).await, [all[2]], "nothing of it keeps the key waiting");
    let done = marker.set_aside(&unfit(&batch, all[0])).await.expect("nothing to park");
    assert_eq!(done, Done::default());
    assert_eq!(seqs_of(&mut reader).await, [all[2]]);
}

pub async fn a_settlement_forgets_what_is_gone_sent_or_another_event<W: SourceWorld>() {
    for fate in ["gone", "sent", "another"] {
        let world = W::fresh(Setup::default()).await;
        let all = world.insert(&["1", "2"]).await;
        let (mut reader, mut marker) = relaying(&world, 1).await;
        let batch = batch(&mut reader).await;
        marker.set_aside(&unfit(&batch, all[0])).await.expect("parked");
        match fate {
            "gone" => world.remove(all[0]).await,
            "another" => world.replace(all[0]).await,
            _ => {}
        }
        let claimed = claim(&world, 2).await;
        let mut records = Records::default();
        if fate == "sent" {
            records.0.push_back(record(&claimed, 1, &some(&batch, &all[..1])));
        }
        let (mut reader, _) = claimed.tenure.settle(records).await.expect("settled");
        assert_eq!(seqs_of(&mut reader).await, if fate == "another" { all.clone() } else { vec![all[1]] }, "{fate}");
    }
}

pub async fn a_parked_event_stays_parked_over_claims<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let batch = batch(&mut reader).await;
    marker.set_aside(&unfit(&batch, all[0])).await.expect("parked");
    let (mut reader, _) = relaying(&world, 2).await;
    assert_eq!(seqs_of(&mut reader).await, Vec::<i64>::new());
}

pub async fn a_held_topic_is_left_out_until_it_is_let_go<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2"]).await;
    let (_, mut marker) = relaying(&world, 1).await;
    assert_eq!(marker.set_aside(&ailing()).await.expect("held"), Done { parked: 0, held: 1 });
    assert_eq!(marker.set_aside(&ailing()).await.expect("held already"), Done::default());
    let claimed = claim(&world, 2).await;
    let topics = BTreeSet::from([TOPIC.to_owned()]);
    assert_eq!(claimed.tenure.standing().held, topics);
    let (mut reader, mut marker) = claimed.tenure.settle(Records::default()).await.expect("settled");
    assert_eq!(seqs_of(&mut reader).await, Vec::<i64>::new());
    marker.let_go(&topics).await.expect("let go");
    assert_eq!(seqs_of(&mut reader).await, all);
}

pub async fn a_zombie_can_neither_set_aside_nor_let_go<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let batch = batch(&mut reader).await;
    let (mut reader, _) = relaying(&world, 2).await;
    expect_cause(marker.set_aside(&unfit(&batch, all[0])).await, Cause::ClaimChanged);
    expect_cause(marker.set_aside(&ailing()).await, Cause::ClaimChanged);
    expect_cause(marker.let_go(&BTreeSet::from([TOPIC.to_owned()])).await, Cause::ClaimChanged);
    assert_eq!(seqs_of(&mut reader).await, all);
}
