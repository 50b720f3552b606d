//! A file that is put in the place of another one, or goes back in time, while somebody relays.

use outboxd::fault::{Cause, Fault};
use outboxd::sink::forged;
use outboxd::source::{Marker, Reader, Source};

use super::*;
use crate::source_conformance::{batch, expect_cause, fetch, full, limited, place, relaying};

/// What `.restore` and a service that restores its own backup do: the same file, with what it held before.
pub async fn put_back(world: &World, copy: &Path) {
    let tables = ["outbox", "outboxd_state", "outboxd_applied", "outboxd_token"];
    let copied = tables.map(|table| format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM old.{table};"));
    world.sql(&format!("ATTACH '{}' AS old; BEGIN IMMEDIATE; {} COMMIT;", copy.display(), copied.concat())).await;
}

/// A copy that was made under the claim that still holds has its number and its token. Only the newest applied batch tells.
#[tokio::test]
async fn a_copy_of_this_very_claim_that_is_put_back_is_not_published_again() {
    let world = World::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let copy = world.copy("before.db").await;
    let published = batch(&mut reader).await;
    marker.mark(&forged::published(published, Some(place(1)))).await.expect("marked");
    assert!(fetch(&mut reader, &full()).await.batch.is_none());
    put_back(&world, &copy).await;
    assert_eq!(world.unsent().await, all, "they look as if they had never been published");
    expect_cause(reader.fetch(&full()).await.map(drop), Cause::TokenMissing);
}

/// What was fetched from the file before it went back cannot be marked in what it is now.
#[tokio::test]
async fn a_batch_is_not_marked_in_a_file_that_went_back() {
    let world = World::fresh(Setup::default()).await;
    world.insert(&["1", "2"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let copy = world.copy("before.db").await;
    let first = fetch(&mut reader, &limited(1, 1 << 20)).await.batch.expect("one");
    marker.mark(&forged::published(first, Some(place(1)))).await.expect("marked");
    let second = batch(&mut reader).await;
    put_back(&world, &copy).await;
    expect_cause(marker.mark(&forged::published(second, Some(place(2)))).await, Cause::Mark);
    assert_eq!(world.unsent().await.len(), 2, "nothing of the refused mark stays");
}

#[tokio::test]
async fn another_file_under_the_same_path_is_seen_before_anything_is_read_or_marked() {
    let world = World::fresh(Setup::default()).await;
    world.insert(&["1"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let fetched = batch(&mut reader).await;
    world.replace_files().await;
    expect_cause(reader.fetch(&full()).await.map(drop), Cause::FileChanged);
    expect_cause(marker.mark(&forged::published(fetched, Some(place(1)))).await, Cause::FileChanged);
    let (mut reader, _) = relaying(&world, 2).await;
    assert_eq!(fetch(&mut reader, &full()).await.batch.map(|batch| batch.len()), Some(1), "the next claim is of the new file");
}

#[tokio::test]
async fn a_file_that_is_gone_is_an_outage_until_it_is_back() {
    let world = World::fresh(Setup::default()).await;
    world.insert(&["1"]).await;
    let (mut reader, _) = relaying(&world, 1).await;
    let away = world.folder.file("away.db");
    std::fs::rename(world.file(), &away).expect("moved away");
    let gone = reader.fetch(&full()).await.expect_err("there is no file");
    assert!(matches!(gone, Fault::Unavailable { code: "no_database", .. }), "{gone}");
    assert!(!world.file().exists(), "nothing is created in its place");
    std::fs::rename(&away, world.file()).expect("moved back");
    assert_eq!(batch(&mut reader).await.len(), 1, "it is the same file");
}

#[tokio::test]
async fn the_address_is_the_file_that_links_lead_to() {
    let mut world = World::fresh(Setup::default()).await;
    let real = world.file().canonicalize().expect("it is there");
    let link = world.folder.file("link.db");
    std::os::unix::fs::symlink(&real, &link).expect("a symbolic link");
    world.settings.file = link;
    let standing = world.source().look().await.expect("look");
    assert_eq!(standing.address, real.display().to_string());
    assert_eq!(standing.accepted_addresses.join(", "), standing.address);
    outboxd::identity::judge_database(&standing).expect("it is the database that the outbox was set up in");
}

/// The lock for writing is the service's for as long as it likes: the relay waits, says so, and nothing is lost.
#[tokio::test]
async fn a_writer_that_does_not_end_is_an_outage_and_nothing_is_marked() {
    let mut world = World::fresh(Setup::default()).await;
    world.settings.database.statement_timeout = Duration::from_millis(50);
    world.insert(&["1"]).await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let fetched = batch(&mut reader).await;
    let (open, late) = world.open("2").await;
    assert_eq!(batch(&mut reader).await.len(), 1, "reading waits for nobody, and sees nothing that is not committed");
    let published = forged::published(fetched, Some(place(1)));
    let busy = marker.mark(&published).await.expect_err("somebody writes");
    assert!(matches!(busy, Fault::Unavailable { code: "timeout", .. }), "{busy}");
    world.commit(open).await;
    marker.mark(&published).await.expect("marked");
    assert_eq!(world.unsent().await, [late]);
}

#[tokio::test]
async fn every_kind_of_value_is_passed_on_byte_for_byte() {
    let world = World::fresh(Setup::default()).await;
    world
        .sql(
            "INSERT INTO outbox (topic, key, payload, headers, id, created_at) VALUES \
             ('a', x'00ff', x'80', '{}', '0F0E0D0C-0B0A-0908-0706-050403020100', '2026-01-31 12:34:56.789'), \
             ('a', 12, 3.5, NULL, '00000000-0000-4000-8000-000000000002', 'no moment'), \
             ('a', NULL, NULL, NULL, '00000000-0000-4000-8000-000000000003', '2026-01-31T12:34:56+02:00')",
        )
        .await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let read = batch(&mut reader).await;
    let events: Vec<_> = read.events().collect();
    assert_eq!((events[0].key, events[0].payload), (Some(&[0, 0xff][..]), Some(&[0x80][..])));
    assert_eq!(events[0].id.to_string(), "0f0e0d0c-0b0a-0908-0706-050403020100");
    assert_eq!(events[0].created_at_us, Some(1_769_862_896_789_000));
    assert_eq!((events[1].key, events[1].payload, events[1].created_at_us), (Some(&b"12"[..]), Some(&b"3.5"[..]), None));
    assert_eq!((events[2].key, events[2].payload, events[2].headers), (None, None, None));
    assert_eq!(events[2].created_at_us, Some(1_769_855_696_000_000));
    marker.mark(&forged::published(read.clone(), Some(place(1)))).await.expect("an id in capitals is found again");
    assert!(world.unsent().await.is_empty());
}

/// What `PRAGMA ignore_check_constraints` lets in can never be published; it must not stop the others.
#[tokio::test]
async fn a_row_without_a_uuid_is_told_and_can_be_parked() {
    let world = World::fresh(Setup::default()).await;
    world.sql("PRAGMA ignore_check_constraints = ON; INSERT INTO outbox (topic, id) VALUES ('a', 'no Uuid')").await;
    let good = world.insert_with_key("k", "1").await;
    let (mut reader, mut marker) = relaying(&world, 1).await;
    let unfit = reader.fetch(&full()).await.expect_err("no identity");
    let culprit = unfit.culprit().expect("one event is at fault");
    assert_eq!(marker.set_aside(&culprit).await.expect("parked").parked, 1);
    assert_eq!(batch(&mut reader).await.seqs().collect::<Vec<_>>(), [good]);
}
