//! The indexes that begin with the number: by one of them the relay reads, and one says that each number occurs once.

use sqlx::postgres::types::Oid;

use super::connection::{Work, statement};
use super::names::Names;
use super::table::get;
use crate::config::Column;
use crate::fault::Fault;

/// `$1` table, `$2` and `$3` what it calls `seq` and `sent_at`. Only a btree gives rows in order; a condition that asks for more than
/// being unsent hides some of them.
const INDEXES: &str = "SELECT c.relname::text, i.indisvalid AND i.indisready, i.indisunique AND i.indnkeyatts = 1, \
    i.indpred IS NULL, coalesce(pg_get_expr(i.indpred, i.indrelid) = '(' || quote_ident($3) || ' IS NULL)', false) \
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam \
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
    WHERE i.indrelid = $1 AND m.amname = 'btree' AND a.attname = $2 ORDER BY 1";

const UNIQUE: &str = "CREATE UNIQUE INDEX {concurrently}ON {outbox} ({seq_column});";
const UNSENT: &str = "CREATE INDEX {concurrently}{unsent_index} ON {outbox} ({seq_column}) WHERE {sent_at_column} IS NULL;";

/// Which rows an index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// Every row.
    All,
    /// The unsent ones, and no others.
    Unsent,
    /// Others: it is of no use to the relay.
    Others,
}

/// An index that begins with the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Whether it can be used.
    pub valid: bool,
    /// Whether a number occurs once among the rows that it holds.
    pub unique: bool,
    /// Which rows it holds.
    pub covers: Covers,
}

impl Index {
    /// Whether it says that each number of the table occurs once.
    pub fn keeps_numbers_apart(&self) -> bool {
        self.valid && self.unique && self.covers == Covers::All
    }
}

pub(super) async fn look_up(work: &mut Work<'_>, table: Oid, names: &Names) -> Result<Vec<Index>, Fault> {
    let name = |column| names.columns.of(column).map(str::to_owned);
    let query = statement(&names.sql(INDEXES)).bind(table).bind(name(Column::Seq)).bind(name(Column::SentAt));
    let rows = work.rows(query).await?;
    let index = |row| {
        let covers = match (get(row, 3, "indpred")?, get(row, 4, "indpred")?) {
            (true, _) => Covers::All,
            (false, true) => Covers::Unsent,
            (false, false) => Covers::Others,
        };
        Ok(Index { name: get(row, 0, "relname")?, valid: get(row, 1, "indisvalid")?, unique: get(row, 2, "indisunique")?, covers })
    };
    rows.iter().map(index).collect()
}

/// The statement that makes each number occur once. A partitioned table takes none that is built beside its writers.
pub(super) fn create_unique(names: &Names, partitioned: bool) -> String {
    create(UNIQUE, names, partitioned)
}

/// The statement that makes the index over the unsent rows; nothing where no column tells them apart.
pub(super) fn create_unsent(names: &Names, partitioned: bool) -> Option<String> {
    names.columns.of(Column::SentAt).map(|_| create(UNSENT, names, partitioned))
}

fn create(template: &str, names: &Names, partitioned: bool) -> String {
    let concurrently = if partitioned { "" } else { "CONCURRENTLY " };
    names.sql_with(template, &[("concurrently", concurrently)]).text().to_owned()
}
