//! What would do a table of one's own good. `migrate` prints it and never runs it: the table is not ours to alter.

use super::connection::{Work, statement};
use super::names::Names;
use super::settings::Settings;
use super::table::{self, Table, get};
use super::{Postgres, migration};
use crate::config::{Column, Mark};
use crate::fault::Fault;

/// Whether a valid index begins with `seq` over the whole table, each number once; and whether one does over the unsent rows alone.
const INDEXES: &str = "SELECT coalesce(bool_or(i.indisunique AND i.indpred IS NULL), false), \
    coalesce(bool_or(pg_get_expr(i.indpred, i.indrelid) = '(' || quote_ident($3) || ' IS NULL)'), false) \
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam \
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
    WHERE i.indrelid = $1 AND i.indisvalid AND m.amname = 'btree' AND a.attname = $2";

const UNIQUE: &str = "CREATE UNIQUE INDEX {concurrently}ON {outbox} ({seq_column});";
const UNSENT: &str = "CREATE INDEX {concurrently}{unsent_index} ON {outbox} ({seq_column}) WHERE {sent_at_column} IS NULL;";

/// Something to know about a table of one's own, or to do for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What and why.
    pub why: String,
    /// A statement for a person to run.
    pub sql: Option<String>,
}

impl Postgres {
    /// What would do the table good; nothing for one that is not there yet.
    pub async fn advice(&self) -> Result<Vec<Advice>, Fault> {
        let mut link = self.server.link().await?;
        let mut work = link.begin().await?;
        let place = migration::place(&mut work, &self.settings).await?;
        let mut advice = Vec::new();
        if place.table_exists {
            let table = table::look_up(&mut work, &place.names, &self.settings).await?;
            advice.extend(form(&place.names, &table));
            advice.extend(history(&place.names, &self.settings));
            advice.extend(indexes(&mut work, &place.names, &table, &self.settings).await?);
        }
        work.commit().await?;
        Ok(advice)
    }
}

/// In which form the table is read, if it is not the fast one.
fn form(names: &Names, table: &Table) -> Option<Advice> {
    let seq = names.columns.of(Column::Seq).unwrap_or_default();
    let why = format!(
        "{} is read in full form, which cannot overlap with publishing: only numbers of a column GENERATED ALWAYS AS IDENTITY, \
         increment 1, cache 1, in a table that nothing inherits from or replicates into, tell by themselves what is still missing; \
         {seq} is none",
        names.shown()
    );
    (!table.allows_cursor).then_some(Advice { why, sql: None })
}

/// What becomes of rows that were sent before outboxd came. A table of `migrate` has none.
fn history(names: &Names, settings: &Settings) -> Option<Advice> {
    let sent_at = names.columns.of(Column::SentAt)?;
    if names.columns.are_standard() || settings.outbox.mark != Mark::Row {
        return None;
    }
    let table = names.shown();
    let why = match settings.retention() {
        Some(age) => format!(
            "rows of {table} whose {sent_at} is older than {} are deleted, also those that outboxd never published; \
             outbox.retention = \"forever\" keeps them",
            humantime::format_duration(age)
        ),
        None => format!(
            "rows of {table} stay after they were sent; with outbox.retention outboxd deletes those whose {sent_at} is older, also \
             those that it never published"
        ),
    };
    Some(Advice { why, sql: None })
}

async fn indexes(work: &mut Work<'_>, names: &Names, table: &Table, settings: &Settings) -> Result<Vec<Advice>, Fault> {
    let name = |column| names.columns.of(column).map(str::to_owned);
    let query = statement(&names.sql(INDEXES)).bind(table.oid).bind(name(Column::Seq)).bind(name(Column::SentAt));
    let (unique, unsent): (bool, bool) = match work.row(query).await? {
        Some(row) => (get(&row, 0, "unique")?, get(&row, 1, "unsent")?),
        None => (false, false),
    };
    let concurrently = if table.partitioned { "" } else { "CONCURRENTLY " };
    let create = |why: &str, template: &str| {
        let sql = names.sql_with(template, &[("concurrently", concurrently)]).text().to_owned();
        Advice { why: why.into(), sql: Some(sql) }
    };
    let mut advice = Vec::new();
    // a partitioned table can have such an index only over the columns that it is parted by
    if !unique && !table.partitioned {
        advice.push(create("each row is found by its number, which must occur once", UNIQUE));
    }
    if !unsent && settings.outbox.mark == Mark::Row {
        advice.push(create("unsent rows are found without reading those that are sent", UNSENT));
    }
    Ok(advice)
}
