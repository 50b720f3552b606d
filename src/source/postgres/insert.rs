//! Inserts one event, as a service would.

use sqlx::postgres::PgRow;

use super::Postgres;
use super::columns::{Found, IdKind};
use super::connection::statement;
use super::failure::unreadable;
use super::names::{Names, Sql, quoted};
use super::table::{self, Table, get};
use crate::config::Column;
use crate::event::Fingerprint;
use crate::fault::Fault;
use crate::source::desk::{Insert, Inserted};

/// `created_at` comes from the database's clock, so that the answer can tell it without a right to read the table.
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, CASE WHEN $3 THEN has_table_privilege($1, 'SELECT') \
    ELSE has_column_privilege($1, $2, 'SELECT') END";
/// With the rights of a writer: INSERT alone. RETURNING needs SELECT, so what the database drew is told only to those who have it.
const INSERT: &str = "INSERT INTO {outbox} AS o ({into}) VALUES ({values}){returning}";
const RETURNING: &str = " RETURNING {seq}::int8";
const RETURNING_CONTENT: &str = " RETURNING {seq}::int8, {id}::text, {identity}";

/// What is bound, in this order: `$1` id, `$2` topic, `$3` key, `$4` type, `$5` payload, `$6` headers as text, `$7` microseconds.
const BOUND: [Column; 7] =
    [Column::Id, Column::Topic, Column::Key, Column::Type, Column::Payload, Column::Headers, Column::CreatedAt];
const MOMENT: &str = "to_timestamp(0) + $7 * interval '1 microsecond'";

impl Postgres {
    /// Inserts one event. Refused where the table has no column for what it says.
    pub async fn insert(&self, event: &Insert) -> Result<Inserted, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let table = table::look_up(&mut work, &names, &self.settings).await?;
        let now = statement(&names.sql(NOW))
            .bind(names.in_schema(&names.table))
            .bind(names.columns.of(Column::Seq).unwrap_or_default())
            .bind(table.columns.id == IdKind::Content);
        let row = work.row(now).await?.ok_or_else(|| unreadable("clock"))?;
        let (created_at_us, may_read): (i64, bool) = (get(&row, 0, "clock")?, get(&row, 1, "privilege")?);
        let sql = sql(&names, &table, event, may_read)?;
        let insert = statement(&sql)
            .bind(event.id.to_string())
            .bind(&event.topic)
            .bind(&event.key)
            .bind(&event.kind)
            .bind(&event.payload)
            .bind(&event.headers)
            .bind(created_at_us);
        let row = work.row(insert).await?;
        work.commit().await?;
        inserted(event, table.columns.id, row.as_ref(), created_at_us)
    }
}

fn inserted(event: &Insert, id: IdKind, row: Option<&PgRow>, created_at_us: i64) -> Result<Inserted, Fault> {
    let seq = row.map(|row| get(row, 0, "seq")).transpose()?;
    let (id, fingerprint) = match (id, row) {
        (IdKind::Uuid, _) => (Some(event.id.to_string()), Some(Fingerprint::of(event.id))),
        (IdKind::Content, None) => (None, None),
        (IdKind::Content, Some(row)) => {
            let bytes = get::<Vec<u8>>(row, 2, "fingerprint")?.try_into().map_err(|_| unreadable("fingerprint"))?;
            (get(row, 1, "id")?, Some(Fingerprint(u64::from_be_bytes(bytes))))
        }
    };
    Ok(Inserted { seq, id, fingerprint, created_at_us })
}

/// The statement for the columns that the table has.
fn sql(names: &Names, table: &Table, event: &Insert, may_read: bool) -> Result<Sql, Fault> {
    let (mut into, mut values) = (Vec::new(), Vec::new());
    for (at, column) in BOUND.into_iter().enumerate() {
        match (names.columns.of(column), table.columns.found(column, names)) {
            (Some(name), Some(found)) if is_inserted(column, name, found, names)? => {
                if into.contains(&quoted(name)) {
                    return Err(refused(format!("{} is in a column that holds something else too", column.name())));
                }
                into.push(quoted(name));
                values.push(value(at + 1, column, found));
            }
            (Some(_), _) => {}
            (None, _) if is_said(column, event) => return Err(refused(format!("the table has no {}", column.name()))),
            (None, _) => {}
        }
    }
    let returning = match (may_read, table.columns.id) {
        (false, _) => "",
        (true, IdKind::Uuid) => RETURNING,
        (true, IdKind::Content) => RETURNING_CONTENT,
    };
    let template = table.columns.expand(&INSERT.replace("{returning}", returning));
    Ok(names.sql_with(&template, &[("into", &into.join(", ")), ("values", &values.join(", "))]))
}

/// Whether a column is written at all: an identity that is a number, or the order itself, is drawn by the database.
fn is_inserted(column: Column, name: &str, found: &Found, names: &Names) -> Result<bool, Fault> {
    if column == Column::Id {
        let drawn = found.is_generated || found.is_number();
        if names.columns.of(Column::Seq) == Some(name) || (drawn && found.has_default) {
            return Ok(false);
        }
        return if drawn { Err(refused(format!("the identity in column {name} is drawn by the service"))) } else { Ok(true) };
    }
    if found.is_generated {
        return Err(refused(format!("column {name} is generated")));
    }
    Ok(true)
}

fn is_said(column: Column, event: &Insert) -> bool {
    match column {
        Column::Key => event.key.is_some(),
        Column::Type => !event.kind.is_empty(),
        Column::Headers => event.headers.is_some(),
        Column::Seq | Column::Id | Column::Topic | Column::Source | Column::Payload | Column::CreatedAt | Column::SentAt => false,
    }
}

/// Text is assigned as it is: a cast would cut what is too long.
fn value(number: usize, column: Column, found: &Found) -> String {
    match (column, found.kind.as_str()) {
        (Column::CreatedAt, "timestamp without time zone") => format!("({MOMENT}) AT TIME ZONE 'UTC'"),
        (Column::CreatedAt, _) => MOMENT.to_owned(),
        (_, "bytea") => format!("convert_to(${number}, 'UTF8')"),
        _ if found.is_text() => format!("${number}"),
        _ => format!("${number}::{}", found.cast),
    }
}

fn refused(detail: String) -> Fault {
    let remedy = "Insert the event as the service does: the relay passes it on all the same".into();
    Fault::Misconfigured { detail: format!("no event can be inserted so: {detail}"), remedy }
}
