//! What `check` finds in a file, one planted fault after the other.

use outboxd::source::sqlite::Checkup;
use outboxd::source::{Marker, Pin, Pins, Source};

use super::*;
use crate::source_conformance::relaying;

async fn look(world: &World) -> Checkup {
    world.source().checkup().await.expect("the file can be read")
}

#[tokio::test]
async fn a_sound_file_is_found_sound_and_left_as_it_is() {
    let world = World::fresh(Setup::default()).await;
    world.insert(&["1"]).await;
    world.sql("INSERT INTO outbox (topic, key) VALUES ('orders', NULL), ('payments', 'k')").await;
    let before = (world.source().look().await.expect("look"), world.numbers("SELECT count(*) FROM outboxd_audit").await);
    let found = look(&world).await;
    assert_eq!((found.table.as_str(), found.journal_mode.as_str()), ("outbox", "wal"));
    assert!(found.writing.is_ok() && found.fit.is_ok() && found.schema.is_ok());
    assert_eq!(found.triggers.expect("read"), []);
    assert_eq!(found.unsent_index.expect("asked").as_deref(), Some("outbox_unsent"));
    assert!(found.acceptance.expect("read").holds());
    let row = found.row.expect("read").expect("a row");
    assert_eq!((row.table.as_str(), row.delivery.as_str(), row.owner), ("outbox", "exactly_once", None));
    assert_eq!((row.halted, row.paused, row.pins.len()), (None, None, 0));
    assert_eq!((found.aside.expect("read").parked, found.neighbours.expect("read")), (0, Vec::new()));
    let topics: Vec<_> = found.topics.expect("read").into_iter().map(|topic| (topic.topic, topic.without_key)).collect();
    assert_eq!(topics, [("orders".to_owned(), true), ("payments".to_owned(), false)]);
    assert_eq!(before, (world.source().look().await.expect("look"), world.numbers("SELECT count(*) FROM outboxd_audit").await));
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_found() {
    let mut world = World::fresh(Setup::default()).await;
    // before anybody else has it open
    world.sql("PRAGMA journal_mode = DELETE").await;
    let (_reader, mut marker) = relaying(&world, 1).await;
    marker.pin(&Pins::from([("orders".into(), Pin::of(6))])).await.expect("pinned");
    world
        .sql(
            "DROP INDEX outbox_unsent;
             CREATE TRIGGER keeper BEFORE UPDATE ON outbox BEGIN SELECT RAISE(IGNORE); END;
             CREATE TRIGGER witness AFTER UPDATE ON outbox BEGIN SELECT 1; END;
             INSERT INTO outboxd_held (name, topic, code, detail) VALUES ('test', 'gone', 'topic_missing', '');
             INSERT INTO outboxd_parked (name, seq, id, topic, code, detail, blocking) VALUES ('test', 1, 'x', 'a', 'b', '', 1);
             UPDATE outboxd_state SET halted_code = 'old-primary', halted_evidence = 'x', paused_at = 'now', paused_by = 'ann';
             INSERT INTO outboxd_state SELECT 'other', 'x', outbox, delivery, format, '[]', '[]', 0, NULL, NULL, 0, '[]', NULL, '{}',
                 NULL, NULL, NULL, NULL, NULL, NULL, created_at FROM outboxd_state",
        )
        .await;
    let found = look(&world).await;
    assert_eq!(found.journal_mode, "delete");
    let triggers = found.triggers.expect("read");
    assert_eq!(triggers.iter().map(|trigger| trigger.name.as_str()).collect::<Vec<_>>(), ["keeper"]);
    assert_eq!(found.unsent_index.expect("asked"), None);
    assert_eq!(found.create_unsent, "CREATE INDEX \"outbox_unsent\" ON \"outbox\" (seq) WHERE sent_at IS NULL;");
    let row = found.row.expect("read").expect("a row");
    assert_eq!((row.owner.as_deref(), row.pins.len()), (Some("relay"), 1));
    assert_eq!((row.halted, row.paused), (Some(("old-primary".into(), "x".into())), Some(("ann".into(), String::new()))));
    let aside = found.aside.expect("read");
    assert_eq!((aside.parked, aside.held), (1, vec![("gone".to_owned(), "topic_missing".to_owned())]));
    assert_eq!(found.neighbours.expect("read"), ["other"]);
    world.sql(&found.create_unsent).await;
    assert_eq!(look(&world).await.unsent_index.expect("asked").as_deref(), Some("outbox_unsent"), "the remedy is one");
    world.settings.outbox.name = "nobody".into();
    assert_eq!(look(&world).await.row.expect("read"), None);
}

#[tokio::test]
async fn a_file_that_is_locked_or_empty_is_told_part_by_part() {
    let mut world = World::fresh(Setup::default()).await;
    world.settings.database.statement_timeout = Duration::from_millis(50);
    let (open, _) = world.open("1").await;
    let found = look(&world).await;
    assert_eq!(found.writing.expect_err("somebody writes").label(), "timeout");
    assert!(found.fit.is_ok() && found.schema.is_ok(), "what is only read waits for nobody");
    world.roll_back(open).await;
    let empty = world.folder.file("empty.db");
    SqliteConnectOptions::new().filename(&empty).create_if_missing(true).connect().await.expect("created");
    world.settings.file = empty;
    let found = look(&world).await;
    assert!(found.writing.is_ok());
    assert!(found.fit.expect_err("no table").to_string().contains("table outbox is not there"));
    found.schema.expect_err("nothing was migrated");
    found.row.expect_err("nothing was migrated");
    world.settings.file = world.folder.file("nowhere.db");
    assert_eq!(world.source().checkup().await.expect_err("no file").label(), "no_database");
}
