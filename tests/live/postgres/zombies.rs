//! A zombie that asked before its successor claimed, and gets the state row after it: it must compare what the row says then, not what the
//! row said when it asked. (A guard in a sub-select is not looked at again after a wait: so a zombie once parked what its successor had
//! published.)

use std::collections::BTreeSet;
use std::time::Duration;

use outboxd::fault::{Cause, Fault};
use outboxd::park::{Ailing, SetAside, Unfit};
use outboxd::sink::forged;
use outboxd::source::{Marker, Pin, Pins, Tenure};
use sqlx::{Executor, PgConnection};

use super::world::{Plain, World, connect};
use crate::source_conformance::{self as source, Records, Setup, SourceWorld, place};
use crate::support::eventually_async;

type Here = World<18, Plain>;

/// Somebody claims, and has not committed yet.
async fn claiming(world: &Here) -> PgConnection {
    let mut successor = connect(world.server, world.database(), "postgres").await;
    successor.execute("BEGIN").await.expect("begins");
    successor.execute(sqlx::raw_sql(world.fill("UPDATE {schema}.outboxd_state SET claim = claim + 1"))).await.expect("claimed");
    successor
}

/// What becomes of `asked` when the claim is committed while it waits for the state row.
async fn overtaken<T: std::fmt::Debug>(what: &str, world: &Here, asked: impl Future<Output = Result<T, Fault>>) {
    let mut successor = claiming(world).await;
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'outboxd' AND query LIKE '%{schema}%'";
    let commits = async {
        eventually_async(&format!("{what} waits for the state row"), Duration::from_secs(20), async || {
            (world.numbers(waiting).await == [1]).then_some(())
        })
        .await;
        successor.execute("COMMIT").await.expect("committed");
    };
    let (done, ()) = tokio::join!(asked, commits);
    assert!(matches!(done, Err(Fault::InDoubt { cause: Cause::ClaimChanged, .. })), "{what}: {done:?}");
}

#[tokio::test]
async fn whoever_waited_for_the_state_row_finds_the_claim_that_came_meanwhile() {
    let world = Here::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2", "3"]).await;
    let topics = BTreeSet::from(["orders".to_owned()]);
    for what in ["park", "hold", "let go", "pin", "mark"] {
        let (mut reader, mut marker) = source::relaying(&world, 1).await;
        let batch = source::batch(&mut reader).await;
        match what {
            "park" => {
                let unfit = Unfit { seq: all[1], id: batch.event(1).id.into(), code: "too_large", detail: "x".into() };
                let what_is = SetAside { unfit: vec![unfit], ailing: Vec::new() };
                overtaken(what, &world, marker.set_aside(&what_is)).await;
            }
            "hold" => {
                let ailing = Ailing { topic: "orders".into(), code: "topic_missing", detail: "x".into() };
                let what_is = SetAside { unfit: Vec::new(), ailing: vec![ailing] };
                overtaken(what, &world, marker.set_aside(&what_is)).await;
            }
            "let go" => {
                world
                    .sql("INSERT INTO {schema}.outboxd_held (name, topic, code, detail) VALUES ('test', 'orders', 'x', 'x')")
                    .await;
                overtaken(what, &world, marker.let_go(&topics)).await;
                assert_eq!(world.numbers("DELETE FROM {schema}.outboxd_held RETURNING 1::int8").await, [1], "it is held still");
            }
            "pin" => overtaken(what, &world, marker.pin(&Pins::from([("orders".into(), Pin::of(3))]))).await,
            _ => overtaken(what, &world, marker.mark(&forged::published(batch, Some(place(1))))).await,
        }
    }
    let (mut reader, _) = source::relaying(&world, 2).await;
    let batch = source::batch(&mut reader).await;
    let claimed = source::claim(&world, 3).await;
    let record = source::record(&claimed, 1, &batch);
    overtaken("settle", &world, async { claimed.tenure.settle(Records([record].into())).await.map(drop) }).await;
    assert_eq!(world.unsent().await, all, "nothing is marked");
    for table in ["parked", "held", "applied"] {
        assert_eq!(world.numbers(&format!("SELECT count(*) FROM {{schema}}.outboxd_{table}")).await, [0], "{table}");
    }
    assert!(outboxd::source::Source::look(&world.source()).await.expect("look").pins.is_empty());
}
