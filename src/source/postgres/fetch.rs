//! Fetch: the guards, the writers and the rows, in one statement and so in one snapshot.

use std::sync::Arc;

use sqlx::postgres::PgRow;

use super::columns::Kind;
use super::connection::{Link, Statement, Work, statement};
use super::names::{Names, Sql};
use super::rows::Rows;
use super::settings::Settings;
use super::table::{File, Table, get};
use crate::cursor::{Form, Listing};
use crate::fault::{Cause, Fault};
use crate::source::{ClaimNumber, Fetched, Query, Reader};

/// The statement: one header row without `seq`, then the rows, ascending. Parts are joined by UNION ALL, which keeps their order as
/// long as no parallel worker takes part; should that ever change, the rows come out of order and the fetch says so.
///
/// Why one statement: the rows of both parts must come from one snapshot, and the writers (`holders`) must be listed after it was
/// taken. Two statements invert events; REPEATABLE READ, with the listing in a statement of its own, loses them.
const FULL: &str = "{header} UNION ALL {rows_from_bottom}";
const CURSOR: &str = "{header} UNION ALL {rows_in_gaps} UNION ALL {rows_above_head}";

/// `$1` name, `$2` table, `$3` limit, `$4` bytes. A sequence that was never called stands one below its value.
const HEADER: &str = "SELECT NULL::int8 AS seq, NULL::{identity_type} AS id, NULL::text AS topic, NULL::{key_type} AS key, \
    NULL::text AS type, NULL::text AS source, NULL::{payload_type} AS payload, NULL::{headers_type} AS headers, \
    NULL::timestamptz AS created_at, NULL::int4 AS size, \
    ARRAY[s.claim, (SELECT token FROM {token} WHERE name = $1), pg_relation_filenode($2)::int8, \
    {sequence_file}, {last_value}] AS guards, ({holders}) AS holders FROM {state} s WHERE s.name = $1";
const SEQUENCE_FILE: &str = "pg_relation_filenode({sequence_oid}::oid)::int8";
const LAST_VALUE: &str = "(SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence})";
const NO_SEQUENCE: &str = "NULL::int8";

/// Who has written to the outbox and not ended: 0.05 ms, 0.3 ms with 40 writers, no privilege. Whoever inserts through a partitioned
/// table locks it as well; the partitions are listed for those who insert straight into one.
const HOLDERS: &str = "SELECT array_agg(virtualtransaction) FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND relation = {relations}";
const ONE_RELATION: &str = "$2";
const ALL_PARTITIONS: &str = "ANY (ARRAY(SELECT relid::oid FROM pg_partition_tree($2)))";

/// The rows of a part, as long as those before them are below `$4` bytes: of 5,000 rows of 900 KB, only a batch of bytes is read from
/// TOAST and sent. Costs 2 ms for 5,000 small rows. Rejected: two running sums, one of them exact for compressed values (5 ms); and
/// LIMIT alone, which sends 4.5 GB for a batch of 4 MB.
const CUT: &str = "(SELECT seq, {read_id}, topic, key, type, source, payload, headers, created_at, size, NULL, NULL FROM (\
    SELECT *, sum(size) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - size AS before FROM ({part}) limited) summed \
    WHERE before < $4)";

/// What may be published: unsent, not parked, not behind a parked event of its key, its topic not held. Scalar guards and NOT IN stay
/// filters of the index scan. Rejected: NOT EXISTS, which becomes a join, and then the whole backlog is sorted for each batch.
pub(super) const PENDING: &str = "{sent_at} IS NULL AND {is_free}";
/// The whole key of a parked event waits: a late commit with a lower number has no causal order with it. Of a topic that is NULL, which
/// the table of others may have, nothing could be said: it counts as the empty one, and is parked as such.
pub(super) const FREE: &str = "(coalesce({topic}::text, '') <> ALL (ARRAY(SELECT topic FROM {held} WHERE name = $1)) \
    AND ((SELECT NOT EXISTS (SELECT FROM {parked} WHERE name = $1)) OR ({seq} NOT IN (SELECT seq FROM {parked} WHERE name = $1) \
    AND ({key} IS NULL OR (coalesce({topic}::text, ''), {key_text}) NOT IN \
        (SELECT topic, key FROM {parked} WHERE name = $1 AND blocking AND key IS NOT NULL)))))";
const COLUMNS: &str = "{seq}::int8 AS seq, {id_column} AS id, {topic}::text AS topic, {key}::{key_type} AS key, \
    {type}::text AS type, {source}::text AS source, {payload}::{payload_type} AS payload, {headers}::{headers_type} AS headers, \
    {created} AS created_at, {size} AS size";
const FROM_BOTTOM: &str = "SELECT {columns} FROM {outbox} o WHERE {is_pending} ORDER BY {seq} LIMIT $3";
const ABOVE_HEAD: &str = "SELECT {columns} FROM {outbox} o WHERE {seq} > $5 AND {is_pending} ORDER BY {seq} LIMIT $3";
/// Gaps as ranges: 8,000 ranges take 18 ms, one of a million numbers 0.2 ms. Rejected: `= ANY`, which takes seconds for the latter.
const IN_GAPS: &str = "SELECT found.* FROM unnest($6::int8[], $7::int8[]) AS gap (low, high) CROSS JOIN LATERAL \
    (SELECT {columns} FROM {outbox} o WHERE {seq} BETWEEN gap.low AND gap.high AND {is_pending} ORDER BY {seq} LIMIT $3) found \
    ORDER BY found.seq LIMIT $3";

/// Bytes of a value without reading it from TOAST. Only text and bytea tell their length there. A json or jsonb value tells what it
/// takes on disk; one that is compressed there counts eightfold, which is more than what compression usually saves.
/// Rejected: octet_length(json::text), which decompresses every one of 5,000 rows.
const SIZE: &str = "least({key_size} + {payload_size} + {headers_size}, 1000000000)::int4";
const LENGTH: &str = "coalesce(octet_length({column}), 0)::int8";
const STORED: &str =
    "coalesce(pg_column_size({column}), 0)::int8 * CASE WHEN pg_column_compression({column}) IS NULL THEN 1 ELSE 8 END";

/// Where the sequence stands, without the writers.
const POSITION: &str = "SELECT {last_value}";

/// Fetches under one claim.
pub struct PostgresReader {
    link: Link,
    name: String,
    claim: ClaimNumber,
    table: Table,
    full: Sql,
    cursor: Sql,
    position: Sql,
    holders: Sql,
}

impl PostgresReader {
    pub(super) fn new(link: Link, names: &Names, settings: &Arc<Settings>, claim: ClaimNumber, table: Table) -> Self {
        let fill = |template: &str| fill(template, names, &table);
        let (full, cursor, position) = (fill(FULL), fill(CURSOR), fill(POSITION));
        let holders = fill(&format!("SELECT $1::text, ({HOLDERS})"));
        Self { link, name: settings.name().to_owned(), claim, table, full, cursor, position, holders }
    }

    fn statement(&self, query: &Query) -> Statement<'static> {
        let limits = &query.limits;
        let (events, bytes) = (i64::try_from(limits.events).unwrap_or(i64::MAX), i64::try_from(limits.bytes).unwrap_or(i64::MAX));
        let sql = match query.form {
            Form::Full => &self.full,
            Form::Cursor => &self.cursor,
        };
        let statement = statement(sql).bind(self.name.clone()).bind(self.table.oid).bind(events).bind(bytes);
        match query.form {
            Form::Full => statement,
            Form::Cursor => {
                let (low, high): (Vec<i64>, Vec<i64>) = query.gaps.iter().map(|range| (range.low, range.high)).unzip();
                statement.bind(query.head).bind(low).bind(high)
            }
        }
    }
}

impl Reader for PostgresReader {
    fn allows_cursor(&self) -> bool {
        self.table.allows_cursor
    }

    async fn positions(&mut self) -> Result<Listing, Fault> {
        let mut work = self.link.begin().await?;
        let last_value = last_value(&mut work, &self.position).await?;
        let query = statement(&self.holders).bind(&self.name).bind(self.table.oid);
        let row = work.row(query).await?;
        let holders: Option<Vec<String>> = row.map_or(Ok(None), |row| get(&row, 1, "holders"))?;
        work.commit().await?;
        Ok(Listing { last_value, holders: holders.into_iter().flatten().collect() })
    }

    async fn fetch(&mut self, query: &Query) -> Result<Fetched, Fault> {
        let statement = self.statement(query);
        let (claim, table) = (self.claim, &self.table);
        let mut work = self.link.begin_indexed().await?;
        let mut rows = Rows::new(query.limits, table);
        let mut header = None;
        work.each(statement, |row| match header {
            None => {
                header = Some(read_header(row, claim, table)?);
                Ok(())
            }
            Some(_) => rows.take(row),
        })
        .await?;
        work.commit().await?;
        let listing = header.ok_or_else(|| Fault::in_doubt(Cause::ClaimChanged, "the state row is gone"))?;
        Ok(Fetched { listing, batch: rows.build().map(Arc::new) })
    }
}

async fn last_value(work: &mut Work<'_>, sql: &Sql) -> Result<i64, Fault> {
    let row = work.row(statement(sql)).await?;
    let value: Option<i64> = row.map_or(Ok(None), |row| get(&row, 0, "last_value"))?;
    Ok(value.unwrap_or(0))
}

/// Compares the guards and takes the listing.
fn read_header(row: &PgRow, claim: ClaimNumber, table: &Table) -> Result<Listing, Fault> {
    let guards: Vec<Option<i64>> = get(row, 10, "guards")?;
    let &[state, token, file, sequence_file, last_value] = guards.as_slice() else {
        return Err(super::failure::unreadable("guards"));
    };
    compare(state, token, (file, sequence_file), claim, table)?;
    let holders: Option<Vec<String>> = get(row, 11, "holders")?;
    Ok(Listing { last_value: last_value.unwrap_or(0), holders: holders.into_iter().flatten().collect() })
}

fn compare(state: Option<i64>, token: Option<i64>, files: (File, File), claim: ClaimNumber, table: &Table) -> Result<(), Fault> {
    let doubt = |cause, detail: &str| Err(Fault::in_doubt(cause, detail));
    if state != Some(claim.0) {
        return doubt(Cause::ClaimChanged, "the state row holds another claim number");
    }
    match token {
        None => return doubt(Cause::TokenMissing, "the token is gone: a crash, a failover or a restore"),
        Some(token) if token != claim.0 => return doubt(Cause::ClaimChanged, "the token holds another claim number"),
        Some(_) => {}
    }
    if files != (table.file, table.sequence.as_ref().and_then(|sequence| sequence.file)) {
        return doubt(Cause::FileChanged, "table or sequence are other files than at the claim");
    }
    Ok(())
}

/// Puts the parts together for one table.
fn fill(template: &str, names: &Names, table: &Table) -> Sql {
    let oid = table.sequence.as_ref().map(|sequence| sequence.oid.0.to_string()).unwrap_or_default();
    let sequence = table.sequence.as_ref().map(|sequence| sequence.name.as_str()).unwrap_or_default();
    let (file, value) = if table.sequence.is_some() { (SEQUENCE_FILE, LAST_VALUE) } else { (NO_SEQUENCE, NO_SEQUENCE) };
    let relations = if table.partitioned { ALL_PARTITIONS } else { ONE_RELATION };
    let size = |column: &str, kind: Kind| match kind {
        Kind::Text => LENGTH.replace("{column}", &format!("{column}::text")),
        Kind::Bytes => LENGTH.replace("{column}", column),
        Kind::Json | Kind::Jsonb => STORED.replace("{column}", column),
    };
    let columns = &table.columns;
    let parts: [(&str, &str); 9] = [
        ("header", HEADER),
        ("rows_from_bottom", &CUT.replace("{part}", FROM_BOTTOM)),
        ("rows_in_gaps", &CUT.replace("{part}", IN_GAPS)),
        ("rows_above_head", &CUT.replace("{part}", ABOVE_HEAD)),
        ("columns", COLUMNS),
        ("is_pending", PENDING),
        ("is_free", FREE),
        ("size", SIZE),
        ("holders", HOLDERS),
    ];
    let leaves: [(&str, &str); 7] = [
        ("key_size", &size("{key}", columns.key)),
        ("payload_size", &size("{payload}", columns.payload)),
        ("headers_size", &size("{headers}", columns.headers)),
        ("sequence_file", file),
        ("last_value", value),
        ("sequence_oid", &oid),
        ("relations", relations),
    ];
    let mut text = template.to_owned();
    for (name, value) in parts.into_iter().chain(leaves) {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    names.sql_with(&columns.expand(&text), &[("sequence", sequence)])
}
