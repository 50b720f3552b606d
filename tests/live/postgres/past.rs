//! A database with another past, or none at all: restarts, crashes, standbys, sequences set back, servers that do not answer.

use std::time::Duration;

use outboxd::config::DatabaseTls;
use outboxd::cursor::{Cursor, Form};
use outboxd::fault::{Cause, Fault, Halt, HaltCode};
use outboxd::sink::forged;
use outboxd::source::postgres::{Postgres as Relayed, Request};
use outboxd::source::{Leases, Marker, Reader, Source, Takeover, Tenure};

use super::world::{Plain, World, administrator, elsewhere, of_role, settings};
use crate::source_conformance::{self as source, Records, Setup, SourceWorld, above, full, place, seqs};
use crate::support::certificates::Certificates;
use crate::support::{Postgres, PostgresOptions, Proxy, Version, Weather, eventually_async};

/// A server of one's own; it ends with the test process.
fn private(options: PostgresOptions) -> &'static Postgres {
    Box::leak(Box::new(Postgres::start(Version::V15, options)))
}

async fn alone() -> World<15, Plain> {
    World::on(private(PostgresOptions::default()), "postgres", Setup::default()).await.expect("an outbox")
}

fn cause<T>(result: Result<T, Fault>) -> Option<Cause> {
    match result {
        Err(Fault::InDoubt { cause, .. }) => Some(cause),
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    }
}

fn unavailable<T>(result: Result<T, Fault>) -> &'static str {
    match result.map(drop) {
        Err(Fault::Unavailable { code, .. }) => code,
        other => panic!("expected an outage, got {other:?}"),
    }
}

#[tokio::test]
async fn a_clean_restart_keeps_the_claim_and_a_crash_ends_it() {
    let world = alone().await;
    let all = world.insert(&["1", "2"]).await;
    let (mut reader, _) = source::relaying(&world, 1).await;
    world.server.restart();
    assert!(["connection", "shutdown"].contains(&unavailable(reader.fetch(&full()).await)));
    assert_eq!(seqs(&reader.fetch(&full()).await.expect("connected anew, the token is there")), all);
    world.server.kill_hard();
    world.server.start_again();
    unavailable(reader.fetch(&full()).await);
    assert_eq!(cause(reader.fetch(&full()).await), Some(Cause::TokenMissing));
}

#[tokio::test]
async fn a_standby_is_told_from_a_fault_and_its_promotion_from_its_past() {
    let world = alone().await;
    world.insert(&["1"]).await;
    let (mut reader, mut marker) = source::relaying(&world, 1).await;
    let batch = reader.fetch(&full()).await.expect("fetched").batch.expect("one");
    let before = world.source().look().await.expect("look").database;
    world.server.sql("postgres", "CHECKPOINT");
    let signal =
        "DO $$ BEGIN EXECUTE format('COPY (SELECT 1) TO %L', current_setting('data_directory') || '/standby.signal'); END $$";
    world.server.sql("postgres", signal);
    world.server.restart();
    unavailable(reader.fetch(&full()).await);
    assert!(matches!(world.source().look().await, Err(Fault::Standby)));
    assert!(matches!(world.source().take("relay", 9, Takeover::OwnInstance).await, Err(Fault::Standby)));
    assert!(matches!(reader.fetch(&full()).await, Err(Fault::Standby)), "the token cannot be read there");
    unavailable(marker.mark(&forged::published(batch.clone(), Some(place(1)))).await);
    assert!(matches!(marker.mark(&forged::published(batch, Some(place(1)))).await, Err(Fault::Standby)));
    world.server.sql("postgres", "SELECT pg_promote()");
    let after = world.source().look().await.expect("it is a primary now").database;
    assert_eq!((after.system, after.timeline), (before.system, before.timeline + 1), "at once, not at the next checkpoint");
    assert_eq!(cause(reader.fetch(&full()).await), Some(Cause::TokenMissing));
}

#[tokio::test]
async fn numbers_that_go_back_are_seen() {
    for restart in ["TRUNCATE {outbox} RESTART IDENTITY", "ALTER TABLE {outbox} ALTER seq RESTART"] {
        let world = World::<15, Plain>::fresh(Setup::default()).await;
        world.insert(&["1", "2"]).await;
        let (mut reader, _) = source::relaying(&world, 1).await;
        reader.fetch(&full()).await.expect("fetched");
        world.sql(restart).await;
        assert_eq!(cause(reader.fetch(&above(2, &[])).await), Some(Cause::FileChanged), "{restart}");
    }
    let world = World::<18, Plain>::fresh(Setup::default()).await;
    world.insert(&["1"; 5]).await;
    let (mut reader, _) = source::relaying(&world, 1).await;
    let mut cursor = Cursor::start(reader.positions().await.expect("positions"));
    let fetched = reader.fetch(&full()).await.expect("fetched");
    cursor.take(Form::Full, fetched.listing.clone(), &seqs(&fetched), false).expect("in order");
    world.sql("SELECT setval('{schema}.outbox_seq_seq', 2)").await;
    let fetched = reader.fetch(&above(cursor.head(), &[])).await.expect("the files are the same");
    let went_back = cursor.take(Form::Cursor, fetched.listing.clone(), &seqs(&fetched), false).expect_err("below head");
    assert_eq!((went_back.head, went_back.last_value), (5, 2));
}

#[tokio::test]
async fn row_security_that_hides_the_mark_halts() {
    unmarkable("ALTER TABLE {outbox} ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON {outbox} FOR SELECT USING (true)").await;
}

#[tokio::test]
async fn a_trigger_that_takes_the_mark_back_halts() {
    let function = "CREATE FUNCTION {schema}.back() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN NEW.sent_at := OLD.sent_at; RETURN NEW; END'";
    let trigger = "CREATE TRIGGER back BEFORE UPDATE ON {outbox} FOR EACH ROW EXECUTE FUNCTION {schema}.back()";
    unmarkable(&format!("{function}; {trigger}")).await;
}

/// With this obstacle, the mark of two rows is noticed to be none, and the next settlement halts.
async fn unmarkable(obstacle: &str) {
    let world = World::<18, Plain>::fresh(Setup::default()).await;
    let all = world.insert(&["1", "2"]).await;
    let (mut reader, mut marker) = source::relaying(&world, 1).await;
    let batch = reader.fetch(&full()).await.expect("fetched").batch.expect("two");
    world.sql(obstacle).await;
    assert_eq!(cause(marker.mark(&forged::published(batch.clone(), Some(place(1)))).await), Some(Cause::MarkCount));
    let next = source::claim(&world, 2).await;
    let record = source::record(&next, 1, &batch);
    match next.tenure.settle(Records([record].into())).await.map(drop) {
        Err(Fault::Unsafe(Halt { code: HaltCode::MarkRefused, evidence })) => {
            assert!(evidence.contains(&format!("2 rows of batch 1 stay unsent after their mark, the first is seq {}", all[0])));
        }
        other => panic!("expected a halt, got {other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_longer_in_the_table_is_counted_before_it_is_un_marked() {
    let world = World::<18, Plain>::fresh(Setup { delete: true, ..Setup::default() }).await;
    let all = world.insert(&["1", "2"]).await;
    let (mut reader, _) = source::relaying(&world, 1).await;
    let batch = reader.fetch(&full()).await.expect("fetched").batch.expect("two");
    let claimed = source::claim(&world, 2).await;
    let record = source::record(&claimed, 1, &batch).0;
    let (_, mut marker) = claimed.tenure.settle(Records::default()).await.expect("settled");
    let relayed = world.source();
    assert_eq!(relayed.still_there(&record).await.expect("asked"), all.iter().copied().collect());
    marker.mark(&forged::published(batch, Some(place(1)))).await.expect("marked");
    assert_eq!(relayed.still_there(&record).await.expect("asked").len(), 0, "the mark has deleted them");
    let (seen, request) = (relayed.look().await.expect("look"), Request { who: String::new(), reason: "lost markers".into() });
    assert_eq!(cause(relayed.unmark(&record, 2, &seen, "{}", &request).await), Some(Cause::ClaimChanged), "two were shown");
    assert_eq!(relayed.look().await.expect("look").applied, seen.applied, "nothing was changed");
    relayed.unmark(&record, 0, &seen, "{}", &request).await.expect("none are there, and none were shown");
    assert_eq!(relayed.look().await.expect("look").applied.n, 0);
}

#[tokio::test]
async fn a_log_that_is_slow_to_write_does_not_take_the_state_row_from_adopt() {
    let world = World::<15, Plain>::fresh(Setup::default()).await;
    let relayed = world.source();
    let (seen, halt) = (relayed.look().await.expect("look"), Halt::new(HaltCode::KafkaBehind, "it is gone"));
    let request = Request { who: String::new(), reason: "accepted".into() };
    // longer than any other transaction of the relay may be idle
    let write = async {
        tokio::time::sleep(Duration::from_millis(5_500)).await;
        Ok(place(1))
    };
    relayed.adopt_journal(write, &seen, &halt, &request).await.expect("adopted");
    assert_eq!(relayed.look().await.expect("look").applied, place(1));
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_in_doubt() {
    let world = World::<15, Plain>::fresh(Setup::default()).await;
    world.insert(&["1"]).await;
    world
        .sql(
            "CREATE FUNCTION {schema}.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'; \
             CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON {outbox} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
             EXECUTE FUNCTION {schema}.slow()",
        )
        .await;
    let proxy = Proxy::before(world.server.port());
    let mut through = world;
    through.settings = elsewhere(&through.settings, proxy.port(), through.database(), "outboxd");
    let (mut reader, mut marker) = source::relaying(&through, 1).await;
    let batch = reader.fetch(&full()).await.expect("fetched").batch.expect("one");
    let published = forged::published(batch, Some(place(1)));
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query = 'COMMIT'";
    let cut = async {
        eventually_async("the commit is under way", Duration::from_secs(20), async || {
            (through.numbers(sleeping).await == [1]).then_some(())
        })
        .await;
        proxy.set(Weather::Cut);
    };
    let (marked, ()) = tokio::join!(marker.mark(&published), cut);
    assert_eq!(cause(marked), Some(Cause::Mark));
    let marked = async || through.unsent().await.is_empty().then_some(());
    eventually_async("the server commits all the same", Duration::from_secs(20), marked).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_an_outage() {
    let server = private(PostgresOptions::default());
    let mut impatient = World::<15, Plain>::on(server, "postgres", Setup::default()).await.expect("an outbox");
    impatient.settings.database.statement_timeout = Duration::from_millis(200);
    let (mut reader, _) = source::relaying(&impatient, 1).await;
    server.freeze();
    assert_eq!(unavailable(reader.fetch(&full()).await), "timeout");
    server.thaw();
    reader.fetch(&full()).await.expect("connected anew");
    server.stop();
    assert_eq!(unavailable(impatient.source().look().await), "connection");
}

#[tokio::test]
async fn a_wrong_database_or_role_is_told() {
    let world = World::<15, Plain>::fresh(Setup::default()).await;
    let nowhere = Relayed::new(elsewhere(&world.settings, world.server.port(), "nowhere", "outboxd"));
    assert_eq!(unavailable(nowhere.look().await), "no_database");
    let nobody = Relayed::new(of_role(&world.settings, "nobody"));
    assert!(matches!(nobody.look().await, Err(Fault::Refused { detail, .. }) if detail.contains("nobody")));
}

#[tokio::test]
async fn tls_proves_the_server_where_that_is_asked_for() {
    let server = private(PostgresOptions { tls: true, ..PostgresOptions::default() });
    let open = settings(server, "postgres", "public", "outbox");
    administrator(&open).migrate().await.expect("migrated");
    let over = |tls, ca_file| {
        let mut settings = open.clone();
        (settings.database.tls, settings.database.ca_file) = (tls, ca_file);
        administrator(&settings)
    };
    let (ours, other) = (Certificates::shared().ca(), Certificates::shared().other_ca());
    over(DatabaseTls::Require, None).look().await.expect("encrypted");
    over(DatabaseTls::VerifyFull, Some(ours)).look().await.expect("proved");
    assert_eq!(unavailable(over(DatabaseTls::VerifyFull, Some(other)).look().await), "tls");
    assert_eq!(unavailable(over(DatabaseTls::VerifyFull, None).look().await), "tls");
    let plain = World::<15, Plain>::fresh(Setup::default()).await;
    let mut required = plain.settings.clone();
    required.database.tls = DatabaseTls::Require;
    assert_eq!(unavailable(Relayed::new(required).look().await), "tls");
}
