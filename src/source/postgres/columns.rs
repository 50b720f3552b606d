//! The columns of the table: which types they may have, and how each stands in a statement.

use std::collections::HashMap;

use sqlx::postgres::types::Oid;

use super::connection::{Work, statement};
use super::names::{Names, quoted};
use super::table::get;
use crate::config::Column;
use crate::fault::Fault;

/// Each column with its type: a domain is what it is made of, and every enum is one to us.
const COLUMNS: &str = "SELECT a.attname::text, CASE WHEN t.typtype = 'e' THEN 'enum' WHEN t.typname = 'citext' THEN 'citext' \
    ELSE format_type(t.oid, NULL) END, a.attidentity::text, a.attnotnull, format_type(a.atttypid, a.atttypmod), \
    a.attidentity <> '' OR a.atthasdef, a.attgenerated <> '' \
    FROM pg_attribute a CROSS JOIN LATERAL (WITH RECURSIVE base AS (SELECT * FROM pg_type WHERE oid = a.atttypid \
        UNION ALL SELECT b.* FROM base JOIN pg_type b ON b.oid = base.typbasetype WHERE base.typtype = 'd') \
        SELECT oid, typname, typtype FROM base WHERE typtype <> 'd') t \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";

/// The first eight bytes of SHA-256 over id, topic, key and payload, as `Fingerprint::of_content` does it: a length of four bytes
/// before each. Calculated in one place only, so that what is fetched, published and marked cannot differ.
const CONTENT: &str = "substring(sha256({of_id} || {of_topic} || {of_key} || {of_payload}) FROM 1 FOR 8)";
const FIELD: &str = "coalesce(int4send(octet_length({bytes})) || {bytes}, int4send(-1))";

const NUMBERS: &[&str] = &["bigint", "integer", "smallint"];
const TEXTS: &[&str] = &["text", "character varying", "character", "citext", "name", "enum"];
const BODIES: &[&str] = &["bytea", "json", "jsonb"];
const TIMES: &[&str] = &["timestamp with time zone", "timestamp without time zone"];

/// Which types a column may have: those whose bytes or text depend on no setting of a session.
fn allowed(column: Column) -> Vec<&'static str> {
    let lists: &[&[&str]] = match column {
        Column::Seq => &[NUMBERS],
        Column::Id => &[&["uuid"], TEXTS, NUMBERS],
        Column::Topic | Column::Type | Column::Source => &[TEXTS],
        Column::Key => &[TEXTS, NUMBERS, &["uuid"], BODIES],
        Column::Payload => &[TEXTS, BODIES],
        Column::Headers => &[&["json", "jsonb"], TEXTS],
        Column::CreatedAt | Column::SentAt => &[TIMES],
    };
    lists.concat()
}

/// How the server sends a column, and what its size costs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, or what is passed on as its text.
    Text,
    /// `bytea`.
    Bytes,
    /// `json`: text for us, but not for the server.
    Json,
    /// `jsonb`: text with a version byte before it.
    Jsonb,
}

impl Kind {
    /// Its name in a cast.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bytes => "bytea",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "bytea" => Self::Bytes,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            _ => Self::Text,
        }
    }

    /// The bytes that are passed on, of the column `{name}`.
    fn bytes(self, name: &str) -> String {
        match self {
            Self::Bytes => format!("{{{name}}}"),
            Self::Text | Self::Json | Self::Jsonb => format!("convert_to({{{name}}}::text, 'UTF8')"),
        }
    }
}

/// What makes an event the same one, beside its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdKind {
    /// The uuid.
    Uuid,
    /// Eight bytes over id, topic, key and payload: an id of another type may come again for another event.
    Content,
}

/// A column as the catalog has it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What its type is made of, by the names of [`allowed`].
    pub(super) kind: String,
    identity: String,
    not_null: bool,
    /// Its type as a cast names it.
    pub(super) cast: String,
    /// Whether the database fills it by itself.
    pub(super) has_default: bool,
    /// Whether nobody else may fill it.
    pub(super) is_generated: bool,
}

impl Found {
    pub(super) fn is_text(&self) -> bool {
        TEXTS.contains(&self.kind.as_str()) && self.kind != "enum"
    }

    pub(super) fn is_number(&self) -> bool {
        NUMBERS.contains(&self.kind.as_str())
    }
}

/// The columns of one table.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) key: Kind,
    pub(super) payload: Kind,
    pub(super) headers: Kind,
    pub(super) id: IdKind,
    /// Whether every number is drawn by the database, whatever an INSERT says.
    pub(super) always_drawn: bool,
    created_with_zone: bool,
    sent_with_zone: bool,
    found: HashMap<String, Found>,
}

impl Columns {
    /// Reads the catalog, and refuses what cannot be passed on.
    pub(super) async fn look_up(work: &mut Work<'_>, oid: Oid, names: &Names) -> Result<Self, Fault> {
        let mut found: HashMap<String, Found> = HashMap::new();
        for row in work.rows(statement(&names.sql(COLUMNS)).bind(oid)).await? {
            let column = Found {
                kind: get(&row, 1, "type")?,
                identity: get(&row, 2, "attidentity")?,
                not_null: get(&row, 3, "attnotnull")?,
                cast: get(&row, 4, "type")?,
                has_default: get(&row, 5, "default")?,
                is_generated: get(&row, 6, "attgenerated")?,
            };
            found.insert(get(&row, 0, "attname")?, column);
        }
        for column in Column::ALL {
            if let Some(name) = names.columns.of(column) {
                check(column, name, found.get(name), names)?;
            }
        }
        Ok(Self::of(found, names))
    }

    /// Those of the table that `migrate` creates.
    pub(super) fn standard() -> Self {
        Self {
            key: Kind::Text,
            payload: Kind::Json,
            headers: Kind::Json,
            id: IdKind::Uuid,
            always_drawn: true,
            created_with_zone: true,
            sent_with_zone: true,
            found: HashMap::new(),
        }
    }

    fn of(found: HashMap<String, Found>, names: &Names) -> Self {
        let of = |column| names.columns.of(column).and_then(|name| found.get(name));
        let kind = |column| of(column).map_or(Kind::Text, |found| Kind::of(&found.kind));
        let with_zone = |column| of(column).is_none_or(|found| found.kind == TIMES[0]);
        Self {
            key: kind(Column::Key),
            payload: kind(Column::Payload),
            headers: kind(Column::Headers),
            id: if of(Column::Id).is_some_and(|found| found.kind == "uuid") { IdKind::Uuid } else { IdKind::Content },
            always_drawn: of(Column::Seq).is_some_and(|found| found.identity == "a"),
            created_with_zone: with_zone(Column::CreatedAt),
            sent_with_zone: with_zone(Column::SentAt),
            found,
        }
    }

    /// What the catalog says of one of ours.
    pub(super) fn found(&self, column: Column, names: &Names) -> Option<&Found> {
        names.columns.of(column).and_then(|name| self.found.get(name))
    }

    /// Fills in what depends on types. What comes out still has names to be filled in.
    pub(super) fn expand(&self, template: &str) -> String {
        let mut text = template.to_owned();
        for (name, value) in self.parts() {
            text = text.replace(&format!("{{{name}}}"), &value);
        }
        text
    }

    fn parts(&self) -> [(&'static str, String); 14] {
        let utc = |zoned: bool, plain: &str| if zoned { plain.to_owned() } else { format!("({plain} AT TIME ZONE 'UTC')") };
        let content = self.content();
        let by = |uuid: &str, content: String| match self.id {
            IdKind::Uuid => uuid.to_owned(),
            IdKind::Content => content,
        };
        [
            ("identity", by("{id}", content.clone())),
            ("identity_type", by("uuid", "bytea".into())),
            ("id_column", by("{id}", "{id}::text".into())),
            ("read_id", by("id", format!("{} || convert_to(id, 'UTF8')", self.content_of_fetched()))),
            ("fingerprint", by("NULL::bytea", content.clone())),
            ("is_as_parked", by("{id}::text = p.id", format!("{content} = p.fingerprint"))),
            ("key_text", self.key_text().into()),
            ("key_bytes", self.key.bytes("key")),
            ("payload_bytes", self.payload.bytes("payload")),
            ("key_type", self.key.sql().into()),
            ("payload_type", self.payload.sql().into()),
            ("headers_type", self.headers.sql().into()),
            ("created", utc(self.created_with_zone, "{created_at}")),
            ("now", utc(self.sent_with_zone, "now()")),
        ]
    }

    /// A key as it stands in the table of parked events, whatever its type.
    fn key_text(&self) -> &'static str {
        match self.key {
            Kind::Text | Kind::Json | Kind::Jsonb => "{key}::text",
            Kind::Bytes => "'\\x' || encode({key}, 'hex')",
        }
    }

    /// [`Columns::content`] of what was fetched already: no row beyond the limits of a batch is hashed.
    fn content_of_fetched(&self) -> String {
        let columns = ["id", "topic", "key", "payload"];
        columns.iter().fold(self.content(), |sql, name| sql.replace(&format!("{{{name}}}"), name))
    }

    fn content(&self) -> String {
        let field = |bytes: String| FIELD.replace("{bytes}", &bytes);
        CONTENT
            .replace("{of_id}", &field(Kind::Text.bytes("id")))
            .replace("{of_topic}", &field(Kind::Text.bytes("topic")))
            .replace("{of_key}", &field(self.key.bytes("key")))
            .replace("{of_payload}", &field(self.payload.bytes("payload")))
    }
}

/// A column must be there, of a type that can be passed on; without order or identity no event can be told from another.
fn check(column: Column, name: &str, found: Option<&Found>, names: &Names) -> Result<(), Fault> {
    let (ours, table) = (column.name(), names.shown());
    let purpose = if ours == name { String::new() } else { format!(" for {ours}") };
    let (detail, remedy) = match found {
        None if column.is_required() => (
            format!("table {table} has no column {name}{purpose}"),
            format!("Name its column in outbox.columns: {{ {ours} = \"…\" }}"),
        ),
        None => (
            format!("table {table} has no column {name}{purpose}"),
            format!("Name its column in outbox.columns, or write {{ {ours} = \"\" }} if it has none"),
        ),
        Some(found) if !allowed(column).contains(&found.kind.as_str()) => (
            format!("column {name} of {table} is {}, which cannot be passed on{}", found.kind, purpose.replace("for", "as")),
            format!("{ours} must be {}; a generated column of such a type will do", allowed(column).join(" or ")),
        ),
        Some(found) if !found.not_null && matches!(column, Column::Seq | Column::Id) => (
            format!("column {name} of {table} can be NULL, which is no {ours}"),
            format!(
                "Give every row one, then ALTER TABLE {} ALTER COLUMN {} SET NOT NULL",
                names.in_schema(&names.table),
                quoted(name)
            ),
        ),
        Some(_) => return Ok(()),
    };
    Err(if found.is_none() { Fault::Missing { detail, remedy } } else { Fault::Misconfigured { detail, remedy } })
}
