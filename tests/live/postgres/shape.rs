//! Tables that are not as `migrate` makes them: names, types, partitions, sequences.

use outboxd::fault::Fault;
use outboxd::sink::forged;
use outboxd::source::{Marker, Reader};

use super::world::{Plain, Shape, World};
use crate::source_conformance::{self as source, Setup, SourceWorld, place};

/// Names that try to leave their quotes.
struct Wild;

impl Shape for Wild {
    const SCHEMA: &'static str = "we\"ird'; DROP TABLE x; -- $1 {outbox} \\ ";
    const TABLE: &'static str = "out.{state}\"; SELECT 'é' \\";
    const CREATE: &'static str = "";
}

#[tokio::test]
async fn names_with_quotes_and_sql_in_them_stay_names() {
    source::events_come_back_as_they_were_written::<World<15, Wild>>().await;
    source::settling_goes_by_fingerprint_and_bears_vanished_rows::<World<18, Wild>>(Setup::default()).await;
    source::pruning_takes_old_sent_rows_and_nothing_else::<World<18, Wild>>().await;
    source::an_open_writer_is_listed_until_it_ends::<World<15, Wild>>().await;
    source::a_mark_takes_exactly_the_rows_of_its_batch::<World<15, Wild>>(Setup { delete: true, ..Setup::default() }).await;
    source::the_lease_has_one_holder::<World<15, Wild>>().await;
}

/// A table with other types, or another sequence; everything else as `migrate` makes it.
macro_rules! shape {
    ($name:ident, ordered: $ordered:literal, $($columns:literal),* ; $($more:literal)?) => {
        struct $name;
        impl Shape for $name {
            const SCHEMA: &'static str = "shape";
            const TABLE: &'static str = "outbox";
            const ORDERED: bool = $ordered;
            const CREATE: &'static str = concat!(
                "CREATE TABLE {outbox} (id uuid NOT NULL DEFAULT gen_random_uuid(), topic text NOT NULL, source text, ",
                "created_at timestamptz NOT NULL DEFAULT clock_timestamp(), sent_at timestamptz, ", $($columns, ", ",)*
                "type varchar(255) NOT NULL DEFAULT '')", $($more,)?
            );
        }
    };
}

shape!(Binary, ordered: true, "seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "key bytea", "payload bytea", "headers jsonb";);
shape!(Parsed, ordered: true, "seq int GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "key varchar(9)", "payload jsonb", "headers text";);
shape!(Partitioned, ordered: true, "seq bigint GENERATED ALWAYS AS IDENTITY", "key text", "payload json", "headers json";
    "PARTITION BY RANGE (created_at); CREATE TABLE {schema}.first PARTITION OF {outbox} DEFAULT; CREATE INDEX ON {outbox} (seq)");
shape!(Numbers, ordered: true, "seq numeric", "key text", "payload json", "headers json";);
shape!(Drawn, ordered: true, "seq bigint PRIMARY KEY", "key text", "payload json", "headers json";);
shape!(Serial, ordered: true, "seq bigserial PRIMARY KEY", "key text", "payload json", "headers json";);
shape!(Blocks, ordered: true, "seq bigint GENERATED ALWAYS AS IDENTITY (CACHE 10) PRIMARY KEY", "key text", "payload json", "headers json";);
shape!(Loose, ordered: false, "seq bigint GENERATED ALWAYS AS IDENTITY (CACHE 10) PRIMARY KEY", "key text", "payload json",
    "headers json";);
shape!(Shared, ordered: true, "key text", "payload json", "headers json", "seq bigint PRIMARY KEY";
    "; CREATE SEQUENCE {schema}.numbers; ALTER TABLE {outbox} ALTER seq SET DEFAULT nextval('{schema}.numbers')");

type Columns = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

/// Key, payload and headers of the only event of a table, which is marked afterwards.
async fn only_event<S: Shape>(values: &str) -> Columns {
    let world = World::<15, S>::fresh(Setup::default()).await;
    world.sql(&format!("INSERT INTO {{outbox}} (topic, key, payload, headers) VALUES ('orders', {values})")).await;
    let (mut reader, mut marker) = source::relaying(&world, 1).await;
    let batch = reader.fetch(&source::full()).await.expect("fetched").batch.expect("one event");
    let event = batch.event(0);
    let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let columns = (own(event.key), own(event.payload), own(event.headers));
    marker.mark(&forged::published(batch.clone(), Some(place(1)))).await.expect("marked");
    columns
}

fn bytes(values: [&str; 3]) -> Columns {
    let [key, payload, headers] = values.map(|value| Some(value.as_bytes().to_vec()));
    (key, payload, headers)
}

#[tokio::test]
async fn bytes_pass_and_jsonb_comes_as_postgresql_prints_it() {
    let binary = only_event::<Binary>("'\\x00ff', '\\x0102', '{\"b\":1,  \"a\":2}'").await;
    assert_eq!(binary, (Some(vec![0, 255]), Some(vec![1, 2]), Some(b"{\"a\": 2, \"b\": 1}".to_vec())));
    let parsed = only_event::<Parsed>("'k', '{\"b\":1}', '{ \"h\":1}'").await;
    assert_eq!(parsed, bytes(["k", "{\"b\": 1}", "{ \"h\":1}"]));
    assert_eq!(only_event::<Parsed>("NULL, NULL, NULL").await, (None, None, None));
}

async fn allows_cursor<S: Shape>() -> bool {
    let world = World::<18, S>::fresh(Setup::default()).await;
    source::relaying(&world, 1).await.0.allows_cursor()
}

#[tokio::test]
async fn the_cursor_is_for_tables_that_keep_its_rules() {
    assert!(allows_cursor::<Plain>().await && allows_cursor::<Partitioned>().await && allows_cursor::<Parsed>().await);
    assert!(!allows_cursor::<Serial>().await, "a client may draw the number before it inserts");
    assert!(!allows_cursor::<Loose>().await && !allows_cursor::<Shared>().await);
}

#[tokio::test]
async fn a_partitioned_outbox_is_relayed_with_its_writers() {
    source::events_come_back_as_they_were_written::<World<15, Partitioned>>().await;
    source::a_cursor_fetch_brings_gaps_and_what_is_above_head::<World<18, Partitioned>>().await;
    source::an_open_writer_is_listed_until_it_ends::<World<15, Partitioned>>().await;
    source::a_mark_takes_exactly_the_rows_of_its_batch::<World<18, Partitioned>>(Setup::default()).await;
    let world = World::<15, Partitioned>::fresh(Setup::default()).await;
    let (mut reader, _) = source::relaying(&world, 1).await;
    let mut inside = super::world::connect(world.server, world.database(), "postgres").await;
    let insert = format!("BEGIN; INSERT INTO {}.first (seq, topic) VALUES (1000, 'orders')", world.schema);
    sqlx::Executor::execute(&mut inside, sqlx::raw_sql(sqlx::AssertSqlSafe(insert))).await.expect("inserted");
    assert_eq!(reader.positions().await.expect("positions").holders.len(), 1, "also who inserts straight into a partition");
}

/// Why a table is refused.
async fn refusal<S: Shape>() -> String {
    match World::<15, S>::try_fresh(Setup::default()).await.map(drop) {
        Err(fault @ (Fault::Misconfigured { .. } | Fault::Missing { .. })) => fault.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_relayed_is_refused_by_name() {
    for (refusal, part) in [
        (refusal::<Numbers>().await, "column seq"),
        (refusal::<Drawn>().await, "draws from no sequence"),
        (refusal::<Blocks>().await, "in blocks"),
    ] {
        assert!(refusal.contains(part), "{refusal}");
    }
}
