//! Tables of one's own: other names, other types, missing columns.

use outboxd::config::{Column, Columns, Mark};
use outboxd::event::{EventId, Fingerprint};
use outboxd::fault::Fault;
use outboxd::park::{Ailing, Done, SetAside, Unfit};
use outboxd::sink::forged;
use outboxd::source::postgres::{Chosen, Covers, Decision, Insert};
use outboxd::source::{Marker, Reader};
use uuid::Uuid;

use super::world::{Shape, World, administrator, of_role, roles};
use crate::source_conformance::{self as source, Setup, SourceWorld, place};

/// The number is the identity, times have no zone, names are as object mappers make them; two columns are missing.
pub struct Numbered;

impl Shape for Numbered {
    const SCHEMA: &'static str = "Mapped";
    const TABLE: &'static str = "Domain\"Events";
    const CREATE: &'static str = "CREATE DOMAIN {schema}.name AS varchar(40); CREATE TABLE {outbox} (\
        {seq} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {topic} {schema}.name NOT NULL, {key} char(9), {type} text NOT NULL, \
        {payload} json, {created_at} timestamp NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'), {sent_at} timestamp)";
    const COLUMNS: &'static [(Column, Option<&'static str>)] = &[
        (Column::Seq, Some("Event\"Id {state}")),
        (Column::Id, Some("Event\"Id {state}")),
        (Column::Topic, Some("Topic'Name")),
        (Column::Key, Some("$1")),
        (Column::Type, Some("select")),
        (Column::Source, None),
        (Column::Payload, Some("{parked}")),
        (Column::Headers, None),
        (Column::CreatedAt, Some("CreatedAt")),
        (Column::SentAt, Some("Published At")),
    ];
    const REPLACE: &'static str = "{payload} = '\"another\"'";
}

/// A table with an enum, a text identity, a number as key, and nothing that tells when.
struct Texts;

impl Shape for Texts {
    const SCHEMA: &'static str = "texts";
    const TABLE: &'static str = "events";
    const CREATE: &'static str = "CREATE TYPE {schema}.topics AS ENUM ('orders', 'payments'); CREATE TABLE {outbox} (\
        seq bigserial PRIMARY KEY, event_id varchar(60) NOT NULL, stream {schema}.topics NOT NULL, aggregate int, body jsonb)";
    const COLUMNS: &'static [(Column, Option<&'static str>)] = &[
        (Column::Id, Some("event_id")),
        (Column::Topic, Some("stream")),
        (Column::Key, Some("aggregate")),
        (Column::Type, None),
        (Column::Source, None),
        (Column::Payload, Some("body")),
        (Column::Headers, None),
        (Column::CreatedAt, None),
        (Column::SentAt, None),
    ];
}

type There = World<15, Texts>;

async fn texts() -> There {
    There::fresh(Setup { delete: true, ..Setup::default() }).await
}

const ROWS: &str = "INSERT INTO {outbox} (event_id, stream, aggregate, body) VALUES \
    ('é-1', 'orders', 7, '{\"b\":1,\"a\":2}'), ('é-2', 'payments', NULL, NULL), ('é-3', 'orders', -8, '[]')";

#[tokio::test]
async fn the_fingerprint_of_content_is_the_same_here_and_in_the_database() {
    let world = texts().await;
    world.sql(ROWS).await;
    let (mut reader, mut marker) = source::relaying(&world, 1).await;
    assert!(!reader.allows_cursor(), "the service may draw a number before it inserts");
    let batch = reader.fetch(&source::full()).await.expect("fetched").batch.expect("three");
    let expected = [
        ("é-1", "orders", Some("7"), Some("{\"a\": 2, \"b\": 1}")),
        ("é-2", "payments", None, None),
        ("é-3", "orders", Some("-8"), Some("[]")),
    ];
    for (event, (id, topic, key, payload)) in batch.events().zip(expected) {
        let (key, payload) = (key.map(str::as_bytes), payload.map(str::as_bytes));
        assert_eq!((event.topic, event.key, event.payload, event.created_at_us), (topic, key, payload, None));
        assert_eq!(event.id, EventId::Text { text: id, fingerprint: Fingerprint::of_content(id, topic, key, payload) });
    }
    marker.mark(&forged::published(batch, Some(place(1)))).await.expect("marked");
    assert_eq!(world.rows().await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_sequence_in_another_schema_asks_for_a_right_on_that() {
    let world = texts().await;
    let numbers = format!("{}_numbers", world.schema_name());
    let draw = format!("nextval('{numbers}.n')");
    world
        .sql(&format!("CREATE SCHEMA {numbers}; CREATE SEQUENCE {numbers}.n; ALTER TABLE {{outbox}} ALTER seq SET DEFAULT {draw}"))
        .await;
    match world.source().prepare().await {
        Err(Fault::Refused { detail, .. }) => {
            let lacks = [format!("SELECT on sequence \"{numbers}\".\"n\""), format!("USAGE on schema {numbers}")];
            assert!(lacks.iter().all(|right| detail.contains(right)), "{detail}");
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    administrator(&world.settings).grant(&roles()).await.expect("granted");
    world.source().prepare().await.expect("what is printed is enough");
    let mut writer = world.writer().await;
    sqlx::Executor::execute(&mut writer, sqlx::raw_sql(world.fill(ROWS))).await.expect("also for the service");
    let (mut reader, _) = source::relaying(&world, 1).await;
    assert_eq!(source::seqs(&reader.fetch(&source::full()).await.expect("fetched")), [1, 2, 3]);
}

#[tokio::test]
async fn two_rows_of_one_number_are_told_with_the_index_that_keeps_them_apart() {
    let world = texts().await;
    // none of these says that a number occurs once, or holds the unsent rows
    world
        .sql(
            "ALTER TABLE {outbox} DROP CONSTRAINT events_pkey; CREATE INDEX block ON {outbox} USING brin (seq); \
             CREATE UNIQUE INDEX pair ON {outbox} (seq, event_id); CREATE UNIQUE INDEX part ON {outbox} (seq) WHERE body IS NULL",
        )
        .await;
    world.sql(ROWS).await;
    world.sql("UPDATE {outbox} SET seq = 1 WHERE seq = 3").await;
    let (mut reader, _) = source::relaying(&world, 1).await;
    match reader.fetch(&source::full()).await.map(drop) {
        Err(fault @ Fault::Unavailable { code: "out_of_order", .. }) => {
            assert!(fault.remedy().contains("two rows share a number"), "{}", fault.remedy());
        }
        other => panic!("expected rows out of order, got {other:?}"),
    }
    let shape = administrator(&world.settings).checkup().await.expect("asked").outbox.expect("a table").shape.expect("a shape");
    let found: Vec<_> = shape.indexes.iter().map(|index| (index.name.as_str(), index.unique, index.covers)).collect();
    assert_eq!(found, [("pair", false, Covers::All), ("part", true, Covers::Others)]);
    world.sql("UPDATE {outbox} SET seq = 3 WHERE event_id = 'é-3'").await;
    world.sql(&shape.create_unique.replace("CONCURRENTLY ", "")).await;
    let shape = administrator(&world.settings).checkup().await.expect("asked").outbox.expect("a table").shape.expect("a shape");
    assert_eq!(shape.indexes.iter().filter(|index| index.keeps_numbers_apart()).count(), 1);
}

#[tokio::test]
async fn an_event_without_a_topic_is_not_hidden_by_topics_that_are_held() {
    let world = texts().await;
    world.sql("ALTER TABLE {outbox} ALTER stream DROP NOT NULL").await;
    world.sql(ROWS).await;
    world.sql("INSERT INTO {outbox} (event_id, aggregate, body) VALUES ('é-4', 7, '{}')").await;
    let (mut reader, mut marker) = source::relaying(&world, 1).await;
    let ailing = Ailing { topic: "orders".into(), code: "topic_missing", detail: String::new() };
    marker.set_aside(&SetAside { unfit: Vec::new(), ailing: vec![ailing] }).await.expect("asked");
    let fetched = reader.fetch(&source::full()).await.expect("fetched");
    assert_eq!(source::seqs(&fetched), [2, 4], "it is there to be parked as topic_invalid");
    let figures = administrator(&world.settings).figures().await.expect("figures");
    assert_eq!((figures.pending, figures.blocked, figures.held), (2, 2, 1));
}

#[tokio::test]
async fn a_parked_event_is_found_by_its_text_and_changed_it_is_another_one() {
    let world = texts().await;
    world.sql(ROWS).await;
    let source = administrator(&world.settings);
    let chosen = Chosen { ids: vec!["é-1".into()], ..Chosen::default() };
    let (mut reader, mut marker) = source::relaying(&world, 1).await;
    let park = async |reader: &mut outboxd::source::postgres::PostgresReader,
                      marker: &mut outboxd::source::postgres::PostgresMarker| {
        let batch = reader.fetch(&source::full()).await.expect("fetched").batch.expect("rows");
        let unfit = Unfit { seq: 1, id: batch.event(0).id.into(), code: "too_large", detail: String::new() };
        let done = marker.set_aside(&SetAside { unfit: vec![unfit], ailing: Vec::new() }).await.expect("asked");
        assert_eq!(done, Done { parked: 1, held: 0 });
    };
    park(&mut reader, &mut marker).await;
    let listed = source.parked(&chosen, 9).await.expect("listed");
    assert_eq!((listed[0].id.as_str(), listed[0].key.as_deref(), listed.len()), ("é-1", Some("7"), 1));
    assert_eq!(world.reasons().await, "parked pending pending");
    world.sql("UPDATE {outbox} SET body = '{}' WHERE seq = 1").await;
    match source.decide(Decision::Discard, &chosen, "", "never mind").await {
        Err(Fault::Refused { detail, remedy }) => {
            assert!(remedy.contains("changed since it was parked"), "{remedy}");
            assert_eq!(detail, "marking 1 of 1 rows, é-1", "it is named");
        }
        other => panic!("an event that nobody has looked at was discarded: {other:?}"),
    }
    assert_eq!(source.decide(Decision::Retry, &chosen, "", "corrected").await.expect("retried"), 1);
    let (mut reader, mut marker) = source::relaying(&world, 2).await;
    park(&mut reader, &mut marker).await;
    assert_eq!(source.decide(Decision::Discard, &chosen, "", "never mind").await.expect("discarded"), 1);
    assert_eq!(world.rows().await, [2, 3]);
}

impl<const VERSION: u32, S: Shape> World<VERSION, S> {
    /// Why each event of the view waits.
    async fn reasons(&self) -> String {
        let view = format!("{}.{}", self.schema, super::world::quoted(&format!("{}_pending", S::TABLE)));
        let query = sqlx::AssertSqlSafe(format!("SELECT string_agg(reason, ' ' ORDER BY seq) FROM {view}"));
        sqlx::query_scalar(query).fetch_one(&mut *self.admin.lock().await).await.expect("the view")
    }
}

fn event(key: Option<&str>, kind: &str) -> Insert {
    let (id, topic, payload) = (Uuid::new_v4(), "orders".to_owned(), Some("{\"x\":  1}".to_owned()));
    Insert { id, topic, key: key.map(str::to_owned), kind: kind.into(), payload, headers: None }
}

#[tokio::test]
async fn an_event_is_inserted_into_the_columns_that_there_are() {
    let (numbered, texts) = (World::<15, Numbered>::fresh(Setup::default()).await, texts().await);
    let one = administrator(&numbered.settings).insert(&event(Some("k"), "Placed")).await.expect("inserted");
    assert_eq!((one.seq, one.id.as_deref()), (Some(1), Some("1")));
    let unread = outboxd::source::postgres::Postgres::new(of_role(&numbered.settings, "shop"));
    let unread = unread.insert(&event(None, "")).await.expect("inserted with the rights of a writer");
    assert_eq!((unread.seq, unread.id, unread.fingerprint), (None, None, None));
    let (mut reader, _) = source::relaying(&numbered, 1).await;
    let batch = reader.fetch(&source::full()).await.expect("fetched").batch.expect("two");
    let first = batch.event(0);
    assert_eq!(
        (Some(first.fingerprint()), first.created_at_us),
        (one.fingerprint, Some(one.created_at_us)),
        "in UTC, wherever we are"
    );
    assert_eq!((first.key, first.kind, first.payload), (Some(&b"k"[..]), "Placed", Some(&b"{\"x\":  1}"[..])));
    let two = administrator(&texts.settings).insert(&event(Some("7"), "")).await.expect("inserted");
    assert!(two.id.is_some_and(|id| Uuid::parse_str(&id).is_ok()) && two.fingerprint.is_some());
    for (event, part) in
        [(event(None, "Placed"), "has no type"), (Insert { headers: Some("{}".into()), ..event(None, "") }, "no headers")]
    {
        let refused = administrator(&texts.settings).insert(&event).await.expect_err("there is no such column").to_string();
        assert!(refused.contains(part), "{refused}");
    }
}

#[tokio::test]
async fn what_fits_no_event_is_refused_by_column_type_and_remedy() {
    let world = texts().await;
    world.sql("ALTER TABLE {outbox} ADD at date, ADD maybe uuid, ADD point point, ADD other text").await;
    let standard = || world.settings.outbox.columns.clone();
    let plan = async |columns: Columns, mark: Mark| {
        let mut settings = of_role(&world.settings, "postgres");
        (settings.outbox.columns, settings.outbox.mark) = (columns, mark);
        match outboxd::source::postgres::Postgres::new(settings).plan().await {
            Err(fault @ (Fault::Misconfigured { .. } | Fault::Missing { .. })) => format!("{fault}. {}", fault.remedy()),
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    for (column, name, parts) in [
        (
            Column::CreatedAt,
            "at",
            ["column at of", "is date, which cannot be passed on as created_at. created_at must be timestamp"],
        ),
        (
            Column::Id,
            "maybe",
            ["can be NULL, which is no id. Give every row one, then ALTER TABLE ", "\" ALTER COLUMN \"maybe\" SET NOT NULL"],
        ),
        (Column::Key, "point", ["column point of", "is point, which cannot be passed on as key. key must be text or"]),
        (Column::Seq, "event_id", ["column event_id of", "seq must be bigint or integer or smallint"]),
        (Column::Headers, "nowhere", ["has no column nowhere for headers", "or write { headers = \"\" } if it has none"]),
        (Column::Topic, "nowhere", ["has no column nowhere for topic", "outbox.columns: { topic = \"…\" }"]),
    ] {
        let said = plan(standard().with(column, Some(name)), Mark::Delete).await;
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    let mut settings = of_role(&world.settings, "postgres");
    settings.outbox.table.table = "nowhere".into();
    let missing = outboxd::source::postgres::Postgres::new(settings).migrate().await.expect_err("not ours to create").to_string();
    assert!(missing.contains("nowhere is not there, and with outbox.columns it is yours to create"), "{missing}");
}

#[tokio::test]
async fn what_would_do_a_table_good_is_told_until_it_is_done() {
    let world = texts().await;
    let source = administrator(&world.settings);
    let told = async || source.advice().await.expect("asked").into_iter().map(|advice| advice.sql).collect::<Vec<_>>();
    assert_eq!(told().await, [None], "only that it is read in full form");
    world.sql("ALTER TABLE {outbox} DROP CONSTRAINT events_pkey, ADD sent timestamptz").await;
    let mut settings = of_role(&world.settings, "postgres");
    settings.outbox.columns = settings.outbox.columns.with(Column::SentAt, Some("sent"));
    settings.outbox.mark = Mark::Row;
    let source = outboxd::source::postgres::Postgres::new(settings);
    let statements: Vec<String> = source.advice().await.expect("asked").into_iter().filter_map(|advice| advice.sql).collect();
    assert_eq!(statements.len(), 2, "{statements:?}");
    assert!(statements.iter().all(|sql| sql.contains("CONCURRENTLY")), "{statements:?}");
    let mut admin = super::world::connect(world.server, world.database(), "postgres").await;
    for statement in statements {
        sqlx::Executor::execute(&mut admin, sqlx::raw_sql(sqlx::AssertSqlSafe(statement)))
            .await
            .expect("it works as it is printed");
    }
    let left: Vec<String> = source.advice().await.expect("asked").into_iter().map(|advice| advice.why).collect();
    assert!(left.len() == 2 && left[1].contains("also those that outboxd never published"), "{left:?}");
    let standard = World::<15, super::world::Plain>::fresh(Setup::default()).await;
    assert_eq!(administrator(&standard.settings).advice().await.expect("asked"), []);
}
