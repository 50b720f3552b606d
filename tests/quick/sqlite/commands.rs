//! What commands do with a file: migrations, parked events, changes in the state row.

use outboxd::config::TableName;
use outboxd::fault::Fault;
use outboxd::sink::forged;
use outboxd::source::desk::{Chosen, Decision, Insert, Request};
use outboxd::source::{ClaimNumber, Gauging, Lease, Leases, Marker, Pin, Pins, Reader, Source, Takeover};
use uuid::Uuid;

use super::*;
use crate::source_conformance::{batch, expect_cause, fetch, full, place, relaying, some};

fn request() -> Request {
    Request { who: " (ann)".into(), reason: "it's a test".into() }
}

#[tokio::test]
async fn migrating_again_does_nothing_and_a_plan_changes_nothing() {
    let folder = Folder::new();
    let source = Sqlite::new(settings(&folder.file("it's new.db")));
    let plan = source.plan().await.expect("planned");
    assert!(!folder.file("it's new.db").exists());
    let done = source.migrate().await.expect("migrated");
    let titles = |steps: &[outboxd::source::desk::Step]| steps.iter().map(|step| step.title.clone()).collect::<Vec<_>>();
    assert_eq!(titles(&plan), titles(&done));
    assert_eq!((plan.len(), &done[1].title, &done[2].title), (3, &"0001 outbox".to_owned(), &"outbox test".to_owned()));
    assert!(source.migrate().await.expect("again").is_empty() && source.plan().await.expect("planned").is_empty());
    assert!(source.advice().await.expect("asked").is_empty(), "a new file is in WAL mode");
}

#[tokio::test]
async fn a_table_that_is_there_is_taken_if_its_numbers_never_come_again() {
    let folder = Folder::new();
    let file = folder.file("shop.db");
    let mut other = settings(&folder.file("other.db"));
    other.outbox.table = TableName { schema: None, table: "events \"1\"".into() };
    other.file.clone_from(&file);
    Sqlite::new(settings(&file)).migrate().await.expect("migrated");
    let columns =
        "id TEXT, topic TEXT, key TEXT, type TEXT, source TEXT, payload TEXT, headers TEXT, created_at TEXT, sent_at TEXT";
    let mut service = connect(&file).await;
    let create = async |service: &mut SqliteConnection, seq: &str, columns: &str| {
        let sql = format!("DROP TABLE IF EXISTS \"events \"\"1\"\"\"; CREATE TABLE \"events \"\"1\"\"\" (seq {seq}, {columns})");
        service.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.expect("created");
    };
    create(&mut service, "INTEGER PRIMARY KEY", columns).await;
    let refused = Sqlite::new(other.clone()).migrate().await.expect_err("numbers can come again");
    assert!(matches!(&refused, Fault::Misconfigured { detail, .. } if detail.contains("AUTOINCREMENT")), "{refused}");
    create(&mut service, "INTEGER PRIMARY KEY AUTOINCREMENT", &columns.replace("source TEXT, ", "")).await;
    let refused = Sqlite::new(other.clone()).migrate().await.expect_err("a column is missing");
    assert!(matches!(&refused, Fault::Missing { detail, .. } if detail.contains("no column source")), "{refused}");
    create(&mut service, "INTEGER PRIMARY KEY AUTOINCREMENT", columns).await;
    let named = Sqlite::new(other.clone()).migrate().await.expect_err("the name belongs to another table");
    assert!(named.to_string().contains("outbox test belongs to table outbox"), "{named}");
    other.outbox.name = "second".into();
    Sqlite::new(other.clone()).migrate().await.expect("a second outbox in the same file");
    Sqlite::new(other).prepare().await.expect("it can be relayed");
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused_by_name() {
    let folder = Folder::new();
    let source = |name: &str| Sqlite::new(settings(&folder.file(name)));
    let missing = source("missing.db").prepare().await.expect_err("there is no file");
    assert!(matches!(missing, Fault::Unavailable { code: "no_database", .. }), "{missing}");
    std::fs::write(folder.file("text.db"), "this is no database, but longer than its header would be".repeat(20)).expect("written");
    let text = source("text.db").prepare().await.expect_err("no database");
    assert!(text.to_string().contains("file is not a database"), "{text}");
    SqliteConnectOptions::new()
        .filename(folder.file("wide.db"))
        .create_if_missing(true)
        .connect()
        .await
        .expect("created")
        .execute("PRAGMA encoding = 'UTF-16'; CREATE TABLE t (a)")
        .await
        .expect("encoded so");
    let wide = source("wide.db").migrate().await.expect_err("not UTF-8");
    assert!(wide.to_string().contains("UTF-16"), "{wide}");
}

#[tokio::test]
async fn a_decision_releases_what_waits_and_shuts_the_relay_out_of_what_it_knew() {
    for decision in [Decision::Retry, Decision::Discard] {
        let world = World::fresh(Setup::default()).await;
        let all = world.insert(&["1", "2", "3"]).await;
        let (mut reader, mut marker) = relaying(&world, 1).await;
        let fetched = batch(&mut reader).await;
        let first = fetched.events().next().expect("three");
        let unfit = outboxd::park::Unfit { seq: first.seq, id: first.id.into(), code: "too_large", detail: "large".into() };
        let aside = outboxd::park::SetAside { unfit: vec![unfit], ailing: Vec::new() };
        marker.set_aside(&aside).await.expect("parked");
        let source = world.source();
        let listed = source.parked(&Chosen::default(), 10).await.expect("listed");
        assert_eq!((listed.len(), listed[0].seq, listed[0].waiting, listed[0].blocking), (1, all[0], 2, true));
        assert_eq!(listed[0].id, first.id.to_string());
        let pending = source.pending().await.expect("counted");
        assert_eq!((pending.events, pending.parked, pending.blocked, pending.held), (0, 1, 2, 0));
        let none = Chosen { code: Some("encoding".into()), ..Chosen::default() };
        assert_eq!(source.decide(decision, &none, "", "").await.expect("none"), 0);
        assert!(fetch(&mut reader, &full()).await.batch.is_none(), "a decision about nothing changes nothing");
        let chosen = Chosen { ids: vec![listed[0].id.to_uppercase()], ..Chosen::default() };
        assert_eq!(source.count_parked(&chosen).await.expect("counted"), 1);
        assert_eq!(source.decide(decision, &chosen, " (ann)", "because").await.expect("decided"), 1);
        expect_cause(reader.fetch(&full()).await.map(drop), outboxd::fault::Cause::ClaimChanged);
        let left = if decision == Decision::Retry { all.clone() } else { all[1..].to_vec() };
        assert_eq!(world.unsent().await, left);
        let audited = world
            .numbers(
                "SELECT count(*) FROM outboxd_audit WHERE who = 'ann' AND reason = 'because' \
            AND json_extract(detail, '$.code') = 'too_large'",
            )
            .await;
        assert_eq!(audited, [1]);
    }
}

#[tokio::test]
async fn changes_of_the_state_row_give_a_new_claim_and_are_audited() {
    let world = World::fresh(Setup::default()).await;
    let (_, mut marker) = relaying(&world, 1).await;
    marker.pin(&Pins::from([("orders".into(), Pin::of(6))])).await.expect("pinned");
    let source = world.source();
    let mut claim = source.look().await.expect("look").claim;
    let mut changed = async |done: bool| {
        let now = source.look().await.expect("look").claim;
        assert_eq!(std::mem::replace(&mut claim, now) != now, done);
    };
    for (done, expected) in [
        (source.pause(&request()).await, true),
        (source.pause(&request()).await, false),
        (source.resume(&request()).await, true),
        (source.resume(&request()).await, false),
        (source.repin("payments", &request()).await, false),
        (source.repin("orders", &request()).await, true),
    ] {
        assert_eq!(done.expect("asked"), expected);
    }
    changed(true).await;
    assert!(source.pins().await.expect("asked").is_empty());
    let here = source.acceptance().await.expect("asked");
    assert!(here.holds());
    let moved = outboxd::source::desk::Acceptance { address: "/elsewhere.db".into(), ..here };
    source.adopt_database(&moved, &request()).await.expect("accepted");
    assert!(source.acceptance().await.expect("asked").addresses.contains(&moved.address));
    changed(true).await;
    let audited = world.numbers("SELECT count(*) FROM outboxd_audit WHERE who = 'ann' AND reason = 'it''s a test'").await;
    assert_eq!(audited, [4]);
}

#[tokio::test]
async fn an_outbox_gets_another_name_with_all_that_belongs_to_it() {
    let mut world = World::fresh(Setup::default()).await;
    world.insert(&["1", "2"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let fetched = batch(&mut reader).await;
    let seqs: Vec<i64> = fetched.seqs().collect();
    marker.mark(&forged::published(some(&fetched, &seqs[..1]), Some(place(1)))).await.expect("marked");
    let source = world.source();
    assert!(source.may_be_renamed("new").await.expect("asked") && !source.may_be_renamed("test").await.expect("asked"));
    let before = source.look().await.expect("look");
    source.rename("new", Some(place(7)), &before, &request()).await.expect("renamed");
    assert!(source.look().await.is_err(), "nobody knows the old name");
    world.settings.outbox.name = "new".into();
    let after = world.source().look().await.expect("look");
    assert_eq!((after.outbox, after.applied), (before.outbox, place(7)));
    let late = world.source().rename("newer", None, &before, &request()).await.expect_err("something changed since");
    expect_cause(Err::<(), _>(late), outboxd::fault::Cause::ClaimChanged);
}

#[tokio::test]
async fn the_mode_is_changed_only_when_no_lease_is_alive() {
    let mut world = World::fresh(Setup::default()).await;
    let source = world.source();
    assert!(matches!(source.take("a", 1, Takeover::Expired).await.expect("free"), Lease::Held { .. }));
    source.set_delivery(Delivery::AtLeastOnce, ClaimNumber(5)).await.expect_err("it is being relayed");
    source.release(1).await.expect("released");
    source.set_delivery(Delivery::AtLeastOnce, ClaimNumber(5)).await.expect("changed");
    assert!(matches!(source.look().await, Err(Fault::Misconfigured { .. })), "the configured mode is another one");
    world.settings.delivery = Delivery::AtLeastOnce;
    assert_eq!(world.source().look().await.expect("look").claim, ClaimNumber(5));
}

#[tokio::test]
async fn an_event_that_is_sent_by_hand_is_one_of_the_services() {
    let world = World::fresh(Setup::default()).await;
    let (id, topic, kind) = (Uuid::new_v4(), "orders".to_owned(), "Placed".to_owned());
    let event = Insert { id, topic, key: None, kind, payload: Some("{}".into()), headers: Some("{\"a\": 1}".into()) };
    let inserted = world.source().insert(&event).await.expect("inserted");
    let (mut reader, _) = relaying(&world, 1).await;
    let read = batch(&mut reader).await;
    let event = read.events().next().expect("one");
    assert_eq!((Some(event.seq), Some(event.fingerprint())), (inserted.seq, inserted.fingerprint));
    assert_eq!((event.created_at_us, event.headers), (Some(inserted.created_at_us), Some(&b"{\"a\": 1}"[..])));
    let figures = world.source().figures().await.expect("figures");
    assert_eq!((figures.pending, figures.applied, figures.owner.as_deref()), (1, 0, Some("relay")));
    let pending = world.numbers("SELECT seq FROM outbox_pending WHERE reason = 'pending'").await;
    assert_eq!(pending, [event.seq]);
}

#[tokio::test]
async fn figures_say_of_a_table_why_no_relay_serves_it() {
    let world = World::fresh(Setup::default()).await;
    assert_eq!(world.source().figures().await.expect("figures").refused, None);
    let columns =
        "id TEXT, topic TEXT, key TEXT, type TEXT, source TEXT, payload TEXT, headers TEXT, created_at TEXT, sent_at TEXT";
    world.sql(&format!("DROP TABLE outbox; CREATE TABLE outbox (seq INTEGER PRIMARY KEY, {columns})")).await;
    let (cause, remedy) = world.source().figures().await.expect("figures").refused.expect("its numbers can come again");
    assert!(cause.contains("AUTOINCREMENT") && remedy.starts_with("Create the table anew"), "{cause}: {remedy}");
}
