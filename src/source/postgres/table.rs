//! What the catalog says of the outbox table: where it is, of which types its columns are, and which rules its numbers keep.

use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::Oid;

use super::columns::Columns;
use super::connection::{Link, Work, statement};
use super::failure::{GRANT, MIGRATE, unreadable};
use super::names::{Names, Sql, quoted};
use super::settings::Settings;
use crate::config::Column;
use crate::fault::Fault;

/// Where a name without a schema leads to. Asked once: whoever changes a search path later must not move the outbox.
const RESOLVE: &str = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.oid = to_regclass($1)";

/// A schema that may not be used hides its tables, as if they were not there.
const HIDING: &str = "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relname = $1 AND c.relkind IN ('r', 'p') AND NOT has_schema_privilege(n.oid, 'USAGE') LIMIT 1";

/// The file numbers change with TRUNCATE and every rewrite; a partitioned table has none, its sequence must do. A trigger counts that fires
/// after (neither before, 2, nor instead, 64) rows are updated (16) or deleted (8).
const TABLE: &str = "SELECT c.oid, c.relkind::text, c.relpersistence::text, c.relhassubclass, pg_relation_filenode(c.oid)::int8, \
    EXISTS (SELECT FROM pg_subscription_rel r WHERE r.srrelid = c.oid), \
    EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid IN (SELECT c.oid UNION SELECT relid FROM pg_partition_tree(c.oid)) \
        AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND (t.tgtype & 66) = 0 AND (t.tgtype & 24) > 0) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";

/// The sequence that `seq` draws from: its own (identity), else the one in its default, else one it merely owns.
/// Rejected: pg_get_serial_sequence, which knows neither a shared sequence in a default nor whether the column is an identity.
const SEQUENCE: &str = "SELECT s.seqrelid, n.nspname::text, c.relname::text, s.seqincrement, s.seqcache, s.seqcycle, \
    found.rank = 1, pg_relation_filenode(s.seqrelid)::int8 \
    FROM pg_attribute a CROSS JOIN LATERAL (\
        SELECT d.objid AS oid, CASE d.deptype WHEN 'i' THEN 1 ELSE 3 END AS rank FROM pg_depend d \
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') \
        AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum \
        UNION ALL SELECT d.refobjid, 2 FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid \
        WHERE d.refclassid = 'pg_class'::regclass AND f.adrelid = a.attrelid AND f.adnum = a.attnum) found \
    JOIN pg_sequence s ON s.seqrelid = found.oid JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE a.attrelid = $1 AND a.attname = $2 ORDER BY found.rank LIMIT 1";

/// Number of a file that holds a table or sequence; nothing for a partitioned table.
pub(super) type File = Option<i64>;

/// The outbox table as the catalog has it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) oid: Oid,
    pub(super) file: File,
    pub(super) partitioned: bool,
    pub(super) sequence: Option<Sequence>,
    pub(super) columns: Columns,
    /// Whether it keeps the rules that the cursor needs.
    pub(super) allows_cursor: bool,
    /// Whether a trigger fires after rows are marked, and could undo that: RETURNING tells what was before it.
    pub(super) has_after_trigger: bool,
}

impl Table {
    /// A statement with everything filled in that this table decides.
    pub(super) fn sql(&self, names: &Names, template: &str) -> Sql {
        names.sql(&self.columns.expand(template))
    }
}

/// Where the table's numbers come from.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    pub(super) oid: Oid,
    pub(super) file: File,
    /// Schema and name, quoted.
    pub(super) name: String,
    schema: String,
    steps_by_one: bool,
    cycles: bool,
    /// Whether it belongs to an identity column, whose INSERT needs no right on it.
    pub(super) identity: bool,
}

impl Sequence {
    /// Its schema, where it is not that of the table.
    pub(super) fn elsewhere(&self, names: &Names) -> Option<&str> {
        (self.schema != names.schema).then_some(&self.schema)
    }
}

/// The configured table with its schema.
pub(super) async fn resolve(link: &mut Link, settings: &Settings) -> Result<Names, Fault> {
    let asked = settings.quoted_table();
    let mut work = link.begin().await?;
    let found = work.row(sqlx::query(RESOLVE).persistent(false).bind(&asked)).await?;
    let Some(row) = found else {
        let hiding = sqlx::query(HIDING).persistent(false).bind(&settings.outbox.table.table);
        return Err(match work.row(hiding).await? {
            Some(row) => unusable(&get::<String>(&row, 0, "nspname")?),
            None => missing(&asked),
        });
    };
    work.commit().await?;
    Ok(Names { schema: get(&row, 0, "nspname")?, table: get(&row, 1, "relname")?, columns: settings.outbox.columns.clone() })
}

fn unusable(schema: &str) -> Fault {
    Fault::Refused { detail: format!("the relay's role lacks USAGE on schema {schema}"), remedy: GRANT.into() }
}

fn missing(table: &str) -> Fault {
    let detail = format!("table {table} is not there, or its schema may not be used");
    Fault::Missing { detail, remedy: format!("{MIGRATE}, or correct outbox.table") }
}

/// Reads the catalog, and refuses what cannot be relayed.
pub(super) async fn look_up(work: &mut Work<'_>, names: &Names, settings: &Settings) -> Result<Table, Fault> {
    let table = look_at(work, names).await?;
    keeps_order(&table, names, settings)?;
    Ok(table)
}

/// Reads the catalog, whatever becomes of the order.
pub(super) async fn look_at(work: &mut Work<'_>, names: &Names) -> Result<Table, Fault> {
    let query = statement(&names.sql(TABLE)).bind(&names.schema).bind(&names.table);
    let row = work.row(query).await?.ok_or_else(|| missing(&names.shown()))?;
    expect_table(&get::<String>(&row, 1, "relkind")?, names)?;
    let oid: Oid = get(&row, 0, "oid")?;
    let columns = Columns::look_up(work, oid, names).await?;
    let sequence = sequence(work, oid, names).await?;
    Ok(Table {
        oid,
        file: get(&row, 4, "filenode")?,
        partitioned: get::<String>(&row, 1, "relkind")? == "p",
        allows_cursor: columns.always_drawn && keeps_cursor_rules(&row, sequence.as_ref())?,
        sequence,
        columns,
        has_after_trigger: get(&row, 6, "triggers")?,
    })
}

/// A view or a foreign table has no lock that a writer holds, and no file that tells its past.
fn expect_table(kind: &str, names: &Names) -> Result<(), Fault> {
    match kind {
        "r" | "p" => Ok(()),
        _ => {
            Err(Fault::Misconfigured { detail: format!("{} is not a table", names.shown()), remedy: "Correct outbox.table".into() })
        }
    }
}

async fn sequence(work: &mut Work<'_>, oid: Oid, names: &Names) -> Result<Option<Sequence>, Fault> {
    let query = sqlx::query(SEQUENCE).persistent(false).bind(oid).bind(names.columns.of(Column::Seq).unwrap_or_default());
    let Some(row) = work.row(query).await? else { return Ok(None) };
    let (schema, name): (String, String) = (get(&row, 1, "nspname")?, get(&row, 2, "relname")?);
    Ok(Some(Sequence {
        oid: get(&row, 0, "seqrelid")?,
        file: get(&row, 7, "filenode")?,
        name: format!("{}.{}", quoted(&schema), quoted(&name)),
        schema,
        steps_by_one: get::<i64>(&row, 3, "seqincrement")? == 1 && get::<i64>(&row, 4, "seqcache")? == 1,
        cycles: get(&row, 5, "seqcycle")?,
        identity: get(&row, 6, "rank")?,
    }))
}

/// A local plain or partitioned table, not fed by a subscription, with a sequence of its own that steps by one and never cycles. Only
/// then does a writer hold its lock on the table before it draws a number.
fn keeps_cursor_rules(row: &PgRow, sequence: Option<&Sequence>) -> Result<bool, Fault> {
    let (kind, persistence): (String, String) = (get(row, 1, "relkind")?, get(row, 2, "relpersistence")?);
    let plain = kind == "p" || (kind == "r" && !get::<bool>(row, 3, "relhassubclass")?);
    let fed: bool = get(row, 5, "subscribed")?;
    let drawn = sequence.is_some_and(|sequence| sequence.identity && sequence.steps_by_one && !sequence.cycles);
    Ok(plain && persistence == "p" && !fed && drawn)
}

/// Whether its numbers keep the order, where that was asked for.
pub(super) fn keeps_order(table: &Table, names: &Names, settings: &Settings) -> Result<(), Fault> {
    let detail = match &table.sequence {
        _ if !settings.ordered() => return Ok(()),
        Some(sequence) if sequence.steps_by_one => return Ok(()),
        Some(sequence) => {
            format!("sequence {} draws numbers in blocks or not by one, so they do not keep the order", sequence.name)
        }
        None => {
            let seq = names.columns.of(Column::Seq).unwrap_or_default();
            format!("column {seq} of {} draws from no sequence, so its numbers may not keep the order", names.shown())
        }
    };
    let remedy =
        "Give seq a sequence with INCREMENT 1 CACHE 1 that goes on above its numbers, or write outbox.order = \"none\"".into();
    Err(Fault::Misconfigured { detail, remedy })
}

/// A column of a row.
pub(super) fn get<'r, T>(row: &'r PgRow, index: usize, name: &'static str) -> Result<T, Fault>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(|_| unreadable(name))
}
