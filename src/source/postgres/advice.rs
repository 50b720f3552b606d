//! What would do a table of one's own good. `migrate` prints it and never runs it: the table is not ours to alter.

use super::connection::Work;
use super::indexes::{self, Covers, Index};
use super::names::Names;
use super::settings::Settings;
use super::table::{self, Table};
use super::{Postgres, migration};
use crate::config::{Column, Mark, duration_text};
use crate::fault::Fault;
use crate::source::desk::Advice;

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
            advice.extend(missing_indexes(&mut work, &place.names, &table, &self.settings).await?);
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
         {seq} is not such a column",
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
            duration_text(age)
        ),
        None => format!(
            "rows of {table} stay after they were sent; with outbox.retention outboxd deletes those whose {sent_at} is older, also \
             those that it never published"
        ),
    };
    Some(Advice { why, sql: None })
}

async fn missing_indexes(work: &mut Work<'_>, names: &Names, table: &Table, settings: &Settings) -> Result<Vec<Advice>, Fault> {
    let there = indexes::look_up(work, table.oid, names).await?;
    let advice = |why: &str, sql: String| Advice { why: why.into(), sql: Some(sql) };
    let mut missing = Vec::new();
    // a partitioned table can have such an index only over the columns that it is parted by
    if !there.iter().any(Index::keeps_numbers_apart) && !table.partitioned {
        let sql = indexes::create_unique(names, table.partitioned);
        missing.push(advice("each row is found by its number, which must occur once", sql));
    }
    let unsent = there.iter().any(|index| index.valid && index.covers == Covers::Unsent);
    let create = indexes::create_unsent(names, table.partitioned).filter(|_| !unsent && settings.outbox.mark == Mark::Row);
    missing.extend(create.map(|sql| advice("unsent rows are found without reading those that are sent", sql)));
    Ok(missing)
}
