//! Marks that the database refuses, or that a trigger undoes: a halt with a name. What another try may cure is none.

use std::time::Duration;

use outboxd::fault::{Cause, Fault, Halt, HaltCode};
use outboxd::sink::forged;
use outboxd::source::{Marker, Tenure};
use sqlx::Executor;

use super::world::{Plain, World};
use crate::source_conformance::{self as source, Records, Setup, SourceWorld, place};

type Here = World<18, Plain>;

/// What keeps rows from being marked, what undoes that, and what of it the evidence must name.
struct Harm {
    does: &'static str,
    ends: &'static str,
    named: &'static str,
}

const FUNCTION: &str = "CREATE OR REPLACE FUNCTION {schema}.keep() RETURNS trigger LANGUAGE plpgsql AS";

const HARMS: [Harm; 6] = [
    Harm {
        does: "'BEGIN RAISE EXCEPTION ''secret %'', OLD.payload; END'; \
            CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON {outbox} FOR EACH ROW EXECUTE FUNCTION {schema}.keep()",
        ends: "DROP TRIGGER keep ON {outbox}",
        named: "SQLSTATE P0001 in function",
    },
    Harm {
        does: "'BEGIN PERFORM 1 / 0; RETURN NEW; END'; \
            CREATE TRIGGER keep AFTER UPDATE OR DELETE ON {outbox} FOR EACH ROW EXECUTE FUNCTION {schema}.keep()",
        ends: "DROP TRIGGER keep ON {outbox}",
        named: "SQLSTATE 22012 in function",
    },
    // only the commit tells
    Harm {
        does: "'BEGIN RAISE EXCEPTION ''secret''; END'; CREATE CONSTRAINT TRIGGER keep AFTER UPDATE OR DELETE ON {outbox} \
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.keep()",
        ends: "DROP TRIGGER keep ON {outbox}",
        named: "SQLSTATE P0001 in function",
    },
    Harm {
        does: "'BEGIN RETURN NULL; END'; ALTER TABLE {outbox} ADD CONSTRAINT never_sent CHECK (sent_at IS NULL)",
        ends: "ALTER TABLE {outbox} DROP CONSTRAINT never_sent",
        named: "SQLSTATE 23514, constraint never_sent",
    },
    Harm {
        does: "'BEGIN RETURN NULL; END'; ALTER TABLE {outbox} ENABLE ROW LEVEL SECURITY; \
            CREATE POLICY keep ON {outbox} USING (true) WITH CHECK (sent_at IS NULL)",
        ends: "ALTER TABLE {outbox} DISABLE ROW LEVEL SECURITY",
        named: "row-level security",
    },
    // RETURNING says that the rows are marked
    Harm {
        does: "'BEGIN IF NEW.sent_at IS NOT NULL THEN UPDATE {outbox} SET sent_at = NULL WHERE seq = NEW.seq; END IF; RETURN NULL; END'; \
            CREATE TRIGGER keep AFTER UPDATE ON {outbox} FOR EACH ROW EXECUTE FUNCTION {schema}.keep()",
        ends: "DROP TRIGGER keep ON {outbox}",
        named: "stay unsent",
    },
];

fn expect_halt(result: Result<(), Fault>, named: &str) {
    match result {
        Err(Fault::Unsafe(Halt { code: HaltCode::MarkRefused, evidence })) => {
            assert!(evidence.contains(named) && !evidence.contains("secret"), "{evidence}");
        }
        other => panic!("expected a halt that names {named}, got {other:?}"),
    }
}

#[tokio::test]
async fn refused_and_undone_marks_halt_the_settlement_and_it_goes_on_without_them() {
    for Harm { does, ends, named } in HARMS {
        let world = Here::fresh(Setup::default()).await;
        let all = world.insert(&["\"secret\""; 3]).await;
        world.sql(&format!("{FUNCTION} {does}")).await;
        let (mut reader, mut marker) = source::relaying(&world, 1).await;
        let batch = source::batch(&mut reader).await;
        let fault = marker.mark(&forged::published(batch.clone(), Some(place(1)))).await.expect_err("refused");
        assert!(
            matches!(fault, Fault::Unavailable { .. } | Fault::InDoubt { cause: Cause::MarkCount | Cause::Mark, .. }),
            "{fault:?}"
        );
        let next = source::claim(&world, 2).await;
        let record = source::record(&next, 1, &batch);
        expect_halt(next.tenure.settle(Records([record].into())).await.map(drop), named);
        assert_eq!(world.unsent().await, all, "nothing of it stays");
        world.sql(ends).await;
        let next = source::claim(&world, 3).await;
        let record = source::record(&next, 1, &batch);
        next.tenure.settle(Records([record].into())).await.expect("settled");
        assert!(world.unsent().await.is_empty());
    }
}

#[tokio::test]
async fn without_a_journal_the_mark_itself_says_so() {
    for Harm { does, named, .. } in HARMS.into_iter().filter(|harm| !harm.does.contains("DEFERRED")) {
        let world = Here::fresh(Setup { at_least_once: true, ..Setup::default() }).await;
        world.insert(&["1"; 3]).await;
        world.sql(&format!("{FUNCTION} {does}")).await;
        let (mut reader, mut marker) = source::relaying(&world, 1).await;
        let batch = source::batch(&mut reader).await;
        expect_halt(marker.mark(&forged::published(batch, None)).await, named);
    }
}

#[tokio::test]
async fn rows_that_come_back_after_their_deletion_are_noticed() {
    let world = Here::fresh(Setup { delete: true, ..Setup::default() }).await;
    world.insert(&["1"; 3]).await;
    let back = "'BEGIN INSERT INTO {outbox} OVERRIDING SYSTEM VALUE SELECT OLD.*; RETURN NULL; END' SECURITY DEFINER; \
        CREATE TRIGGER keep AFTER DELETE ON {outbox} FOR EACH ROW EXECUTE FUNCTION {schema}.keep()";
    world.sql(&format!("{FUNCTION} {back}")).await;
    let (mut reader, mut marker) = source::relaying(&world, 1).await;
    let batch = source::batch(&mut reader).await;
    let fault = marker.mark(&forged::published(batch, Some(place(1)))).await.expect_err("undone");
    assert!(matches!(fault, Fault::InDoubt { cause: Cause::MarkCount, .. }), "{fault:?}");
}

#[tokio::test]
async fn locks_and_conflicts_are_no_refusal() {
    let mut world = Here::fresh(Setup::default()).await;
    world.settings.database.statement_timeout = Duration::from_secs(2);
    let all = world.insert(&["1"; 3]).await;
    let (mut reader, _) = source::relaying(&world, 1).await;
    let batch = source::batch(&mut reader).await;
    let mut other = super::world::connect(world.server, world.database(), "postgres").await;
    other.execute("BEGIN").await.expect("begins");
    other.execute(sqlx::raw_sql(world.fill("SELECT FROM {outbox} FOR UPDATE"))).await.expect("locked");
    let next = source::claim(&world, 2).await;
    let record = source::record(&next, 1, &batch);
    let fault = next.tenure.settle(Records([record].into())).await.map(drop).expect_err("somebody holds the rows");
    assert!(matches!(fault, Fault::Unavailable { code: "timeout", .. }), "{fault:?}");
    other.execute("ROLLBACK").await.expect("let go");
    for code in ["40001", "40P01", "53100"] {
        let raise = format!("'BEGIN RAISE EXCEPTION ''no'' USING ERRCODE = ''{code}''; END'");
        world.sql(&format!("{FUNCTION} {raise}; DROP TRIGGER IF EXISTS keep ON {{outbox}}")).await;
        world.sql("CREATE TRIGGER keep BEFORE UPDATE ON {outbox} FOR EACH ROW EXECUTE FUNCTION {schema}.keep()").await;
        let next = source::claim(&world, 3).await;
        let record = source::record(&next, 1, &batch);
        let fault = next.tenure.settle(Records([record].into())).await.map(drop).expect_err("the trigger raises");
        assert!(matches!(fault, Fault::Unavailable { .. }), "{code}: {fault:?}");
    }
    assert_eq!(world.unsent().await, all);
}
