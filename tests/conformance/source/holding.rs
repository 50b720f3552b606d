//! The lease, the claim, the halt, the pins, and letting go.

use super::*;

pub async fn the_lease_has_one_holder<W: SourceWorld>() {
    let world = W::fresh(Setup::default()).await;
    let source = world.source();
    assert_eq!(source.take("a", 1, Takeover::Expired).await.expect("free"), Lease::Held { epoch: 1 });
    assert_eq!(source.take("a", 1, Takeover::Expired).await.expect("ours already"), Lease::Held { epoch: 1 });
    let taken = Lease::Taken { by: "a".into(), start: 1, epoch: 1 };
    assert_eq!(source.take("b", 2, Takeover::OwnInstance).await.expect("asked"), taken);
    assert_eq!(source.take("a", 3, Takeover::Expired).await.expect("asked"), taken);
    assert_eq!(source.take("a", 3, Takeover::OwnInstance).await.expect("the older one is dead"), Lease::Held { epoch: 2 });
    assert_eq!(source.renew(1).await.expect("asked"), Lease::Taken { by: "a".into(), start: 3, epoch: 2 });
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
    let grown = Pin { id: Some("old".into()), since: 7, truncated: Some("it's \"cut\"".into()), ..Pin::of(12) };
    marker.pin(&Pins::from([("orders".into(), Pin::of(6)), ("odd \"name\"".into(), Pin::of(1))])).await.expect("pinned");
    marker.pin(&Pins::from([("payments".into(), Pin::of(3)), ("orders".into(), grown.clone())])).await.expect("pinned");
    let expected = Pins::from([("orders".into(), grown), ("odd \"name\"".into(), Pin::of(1)), ("payments".into(), Pin::of(3))]);
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
