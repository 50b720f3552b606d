//! Migrations, rights, and what commands ask.

use std::time::Duration;

use outboxd::config::{Column, Delivery};
use outboxd::fault::{Fault, Halt, HaltCode};
use outboxd::source::postgres::{Insert, Postgres, Settings};
use outboxd::source::{ClaimNumber, Lease, Leases, Source, Takeover};
use sqlx::Executor;
use uuid::Uuid;

use super::world::{Plain, World, administrator, of_role};
use crate::source_conformance::{self as source, Setup, SourceWorld};
use crate::support::eventually_async;

type Here = World<15, Plain>;

async fn fresh() -> Here {
    Here::fresh(Setup::default()).await
}

fn misconfigured<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
    match result {
        Err(fault @ (Fault::Misconfigured { .. } | Fault::Missing { .. })) => format!("{fault}. {}", fault.remedy()),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
    match result {
        Err(fault @ Fault::Refused { .. }) => format!("{fault}. {}", fault.remedy()),
        other => panic!("expected a missing right, got {other:?}"),
    }
}

fn named(settings: &Settings, name: &str, table: &str) -> Postgres {
    let mut settings = settings.clone();
    (settings.outbox.name, settings.outbox.table.table) = (name.into(), table.into());
    administrator(&settings)
}

#[tokio::test]
async fn migrate_does_what_its_plan_says_and_then_nothing() {
    let world = fresh().await;
    let other = named(&world.settings, "other", "other_box");
    let plan = other.plan().await.expect("planned");
    assert_eq!(plan.iter().map(|step| step.title.as_str()).collect::<Vec<_>>(), ["0001 outbox", "outbox other"]);
    assert!(plan[0].sql.contains("other_box_unsent") && !plan[0].sql.contains("outboxd_state\" ("), "{}", plan[0].sql);
    assert_eq!(other.migrate().await.expect("migrated"), plan);
    assert_eq!(other.migrate().await.expect("nothing to do"), []);
    let (here, there) = (world.source().look().await.expect("look"), other.look().await.expect("look"));
    assert_ne!(here.outbox, there.outbox);
    assert_eq!(there.accepted_addresses, [there.address.as_str()]);
    assert_eq!(there.accepted_systems, [there.database.system.as_str()]);
}

/// Owner, comment, and who may read the view.
async fn view(world: &Here) -> Vec<String> {
    let query = "SELECT pg_get_userbyid(c.relowner)::text || ' ' || coalesce((SELECT string_agg(a.grantee::regrole || '=' || a.privilege_type, ' ' \
        ORDER BY a.grantee::regrole::text) FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner), '') || ' ' || pg_get_viewdef(c.oid) \
        FROM pg_class c WHERE c.oid = '{schema}.outbox_pending'::regclass";
    let row: String = sqlx::query_scalar(world.fill(query)).fetch_one(&mut *world.admin.lock().await).await.expect("a view");
    row.split_ascii_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_view_of_what_waits_is_made_anew_when_its_columns_are_other_ones() {
    let world = fresh().await;
    world.sql("GRANT SELECT ON {schema}.outbox_pending TO shop; ALTER TABLE {outbox} ADD COLUMN note json").await;
    let before = view(&world).await;
    assert_eq!(before[1..3], ["outboxd=SELECT", "shop=SELECT"], "{before:?}");
    let mut settings = world.settings.clone();
    settings.outbox.columns = settings.outbox.columns.clone().with(Column::Headers, Some("note"));
    let owner = administrator(&settings);
    let plan = owner.plan().await.expect("planned");
    assert_eq!(plan.iter().map(|step| step.title.as_str()).collect::<Vec<_>>(), ["view outbox_pending"]);
    assert_eq!(view(&world).await, before, "a plan changes nothing");
    assert_eq!(owner.migrate().await.expect("migrated"), plan);
    assert_eq!(owner.migrate().await.expect("nothing to do"), []);
    let after = view(&world).await;
    assert_eq!(after[..3], before[..3], "owner and rights are kept");
    assert!(after.iter().any(|word| word.starts_with("o.note")), "{after:?}");
    // what rests on it must not go with it
    world.sql("CREATE VIEW {schema}.mine AS SELECT seq FROM {schema}.outbox_pending").await;
    let fault = misconfigured(administrator(&world.settings).migrate().await);
    assert!(fault.contains("outbox_pending") && fault.contains("Drop what rests on it"), "{fault}");
    world.sql("DROP VIEW {schema}.mine; DROP VIEW {schema}.outbox_pending").await;
    assert_eq!(administrator(&world.settings).migrate().await.expect("a view that was dropped comes back").len(), 1);
}

#[tokio::test]
async fn where_a_table_keeps_no_order_stands_is_told_all_the_same() {
    let world = fresh().await;
    world.insert(&["1"; 3]).await;
    world.sql("ALTER TABLE {outbox} ALTER seq SET CACHE 10").await;
    misconfigured(world.source().prepare().await);
    let figures = world.source().figures().await.expect("figures");
    let (cause, remedy) = figures.refused.expect("it is refused");
    assert!(figures.pending == 3 && cause.contains("in blocks") && remedy.contains("outbox.order"), "{cause}. {remedy}");
    assert_eq!(world.source().open_writers().await.expect("asked"), []);
    world.sql("ALTER TABLE {outbox} ALTER seq SET CACHE 1").await;
    assert_eq!(world.source().figures().await.expect("figures").refused, None);
}

#[tokio::test]
async fn several_may_migrate_at_once() {
    let world = fresh().await;
    world.sql("DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema}").await;
    let (one, two) = (administrator(&world.settings), administrator(&world.settings));
    let (one, two) = tokio::join!(one.migrate(), two.migrate());
    assert_eq!(one.expect("migrated").len() + two.expect("migrated").len(), 2, "each step is run once");
}

#[tokio::test]
async fn one_table_has_one_name() {
    let world = fresh().await;
    let second = misconfigured(named(&world.settings, "second", "outbox").migrate().await);
    assert!(second.contains("is outbox test already") && second.contains("One table has one name"), "{second}");
    let elsewhere = misconfigured(named(&world.settings, "test", "other_box").migrate().await);
    assert!(elsewhere.contains("belongs to table outbox"), "{elsewhere}");
    misconfigured(named(&world.settings, "second", "outbox").look().await);
    let missing = misconfigured(named(&world.settings, "test", "nowhere").look().await);
    assert!(missing.contains("nowhere") && missing.contains("outboxd migrate"), "{missing}");
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused() {
    let world = fresh().await;
    world.sql("UPDATE {schema}.outboxd_migrations SET version = 99").await;
    assert!(misconfigured(world.source().prepare().await).contains("newer outboxd"));
    world.sql("DELETE FROM {schema}.outboxd_migrations").await;
    assert!(misconfigured(world.source().prepare().await).contains("outboxd migrate"));
    world.sql("DROP TABLE {schema}.outboxd_applied").await;
    assert!(misconfigured(world.source().look().await).contains("outboxd migrate"));
}

#[tokio::test]
async fn every_missing_right_is_named() {
    let world = fresh().await;
    for (right, object, said) in [
        ("SELECT", "{outbox}", "SELECT on"),
        ("DELETE", "{outbox}", "DELETE on"),
        ("UPDATE (sent_at)", "{outbox}", "UPDATE (sent_at) on"),
        ("SELECT", "SEQUENCE {schema}.outbox_seq_seq", "SELECT on sequence"),
        ("SELECT", "{schema}.outboxd_state", "SELECT on"),
        ("UPDATE", "{schema}.outboxd_state", "UPDATE on"),
        ("INSERT", "{schema}.outboxd_applied", "INSERT on"),
        ("DELETE", "{schema}.outboxd_applied", "DELETE on"),
        ("INSERT", "{schema}.outboxd_token", "INSERT on"),
        ("UPDATE", "{schema}.outboxd_token", "UPDATE on"),
    ] {
        world.sql(&format!("REVOKE {right} ON {object} FROM outboxd")).await;
        let fault = refused(world.source().prepare().await);
        assert!(fault.contains(said) && fault.contains("--roles"), "{right} on {object}: {fault}");
        world.sql(&format!("GRANT {right} ON {object} TO outboxd")).await;
    }
    world.source().prepare().await.expect("all rights are back");
    world.sql("REVOKE SELECT ON {schema}.outboxd_migrations FROM outboxd").await;
    assert!(refused(world.source().prepare().await).contains("outboxd_migrations"));
    world.sql("REVOKE USAGE ON SCHEMA {schema} FROM outboxd").await;
    assert!(refused(world.source().prepare().await).contains("schema"));
}

#[tokio::test]
async fn neither_role_can_do_more_than_it_must() {
    let world = fresh().await;
    world.insert(&["1"]).await;
    let mut relay = super::world::connect(world.server, world.database(), "outboxd").await;
    let mut writer = world.writer().await;
    for statement in ["SELECT id FROM {outbox}", "UPDATE {outbox} SET sent_at = now()", "SELECT claim FROM {schema}.outboxd_state"]
    {
        assert!(writer.execute(sqlx::raw_sql(world.fill(statement))).await.is_err(), "a writer may {statement}");
    }
    for statement in ["INSERT INTO {outbox} (topic) VALUES ('t')", "UPDATE {outbox} SET payload = '1'", "TRUNCATE {outbox}"] {
        assert!(relay.execute(sqlx::raw_sql(world.fill(statement))).await.is_err(), "the relay may {statement}");
    }
}

#[tokio::test]
async fn the_mode_changes_only_when_nobody_relays() {
    let world = fresh().await;
    let source = world.source();
    source.take("a", 1, Takeover::Expired).await.expect("taken");
    assert!(misconfigured(source.set_delivery(Delivery::AtLeastOnce, ClaimNumber(7)).await).contains("relayed"));
    source.release(1).await.expect("released");
    source.set_delivery(Delivery::AtLeastOnce, ClaimNumber(7)).await.expect("changed");
    assert!(misconfigured(source.look().await).contains("at_least_once"));
    let other = Postgres::new(Settings { delivery: Delivery::AtLeastOnce, ..world.settings.clone() });
    assert_eq!(other.look().await.expect("look").claim, ClaimNumber(7));
}

fn event(payload: &str) -> Insert {
    let text = |text: &str| Some(text.to_owned());
    let (id, headers) = (Uuid::new_v4(), text("{\"a\": \"b\"}"));
    Insert { id, topic: "orders".into(), key: text("k"), kind: "Placed".into(), payload: text(payload), headers }
}

#[tokio::test]
async fn an_event_is_inserted_with_the_rights_of_a_writer() {
    let world = fresh().await;
    let writer = Postgres::new(of_role(&world.settings, "shop"));
    let one = writer.insert(&event("{\"x\":  1}")).await.expect("inserted");
    assert_eq!(one.seq, None, "RETURNING needs a right to read");
    let two = administrator(&world.settings).insert(&event("2")).await.expect("inserted");
    let (mut reader, _) = source::relaying(&world, 1).await;
    let batch = outboxd::source::Reader::fetch(&mut reader, &source::full()).await.expect("fetched").batch.expect("two");
    assert_eq!((Some(batch.event(0).id.to_string()), batch.event(0).created_at_us), (one.id, Some(one.created_at_us)));
    assert_eq!((Some(batch.event(1).seq), batch.event(1).headers), (two.seq, Some(&b"{\"a\": \"b\"}"[..])));
}

#[tokio::test]
async fn no_value_ever_stands_in_a_fault() {
    let world = fresh().await;
    let writer = administrator(&world.settings);
    let mut twice = event("1");
    writer.insert(&twice).await.expect("inserted");
    let faults = [
        writer.insert(&event("{secret")).await.map(drop),
        writer.insert(&twice).await.map(drop),
        writer.insert(&Insert { topic: String::new(), key: Some("secret".into()), ..event("2") }).await.map(drop),
    ];
    twice.headers = None;
    for fault in faults {
        let said = fault.expect_err("refused").to_string();
        assert!(!said.contains("secret") && !said.contains(&twice.id.to_string()), "{said}");
    }
}

#[tokio::test]
async fn figures_tell_what_waits_and_who_relays() {
    let world = fresh().await;
    world.insert(&["1"; 3]).await;
    let source = world.source();
    let figures = source.figures().await.expect("figures");
    assert_eq!((figures.pending, figures.applied, figures.owner, figures.epoch), (3, 0, None, 0));
    assert!(figures.oldest.is_some_and(|age| age < Duration::from_secs(60)));
    assert_eq!(source.take("a", 1, Takeover::Expired).await.expect("free"), Lease::Held { epoch: 1 });
    let standing = source.look().await.expect("look");
    let halt = Halt::new(HaltCode::OldPrimary, "timeline 1, 2 was seen");
    assert!(source.halt(&halt, &standing).await.expect("asked"));
    let figures = source.figures().await.expect("figures");
    assert_eq!((figures.owner.as_deref(), figures.epoch, figures.outbox), (Some("a"), 1, standing.outbox));
    assert!(figures.lease_left.is_some_and(|left| left <= world.settings.lease));
    let (code, evidence, _) = figures.halted.expect("halted");
    assert_eq!((code.as_str(), evidence), ("old-primary", halt.evidence));
}

#[tokio::test]
async fn writers_that_stay_open_are_named() {
    let world = fresh().await;
    let (open, _) = world.open("1").await;
    let (mut prepared, _) = world.open("2").await;
    let gid = format!("gid of {}", world.schema_name());
    prepared.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PREPARE TRANSACTION '{gid}'")))).await.expect("prepared");
    let source = administrator(&world.settings);
    let writers = eventually_async("both are older than a second", Duration::from_secs(20), async || {
        let writers = source.open_writers().await.expect("asked");
        (writers.len() == 2).then_some(writers)
    })
    .await;
    assert!(writers.iter().all(|writer| writer.age.is_some_and(|age| age > Duration::from_secs(1))), "{writers:?}");
    assert!(writers.iter().any(|writer| writer.gid.as_ref() == Some(&gid) && writer.pid.is_none()), "{writers:?}");
    assert!(writers.iter().any(|writer| writer.pid.is_some()), "{writers:?}");
    let hidden = world.source().open_writers().await.expect("asked");
    assert!(hidden.iter().any(|writer| writer.pid.is_some() && writer.age.is_none()), "{hidden:?}");
    prepared.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("ROLLBACK PREPARED '{gid}'")))).await.expect("rolled back");
    world.commit(open).await;
    assert_eq!(source.open_writers().await.expect("asked"), []);
}
