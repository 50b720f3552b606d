//! What would do the file good: printed by `migrate`, never run.

use super::Sqlite;
use super::connection::{get, statement};
use crate::fault::Fault;
use crate::source::desk::Advice;

pub(super) const JOURNAL_MODE: &str = "SELECT journal_mode FROM pragma_journal_mode";

impl Sqlite {
    /// What would do the file good; nothing for one that is not there yet.
    pub async fn advice(&self) -> Result<Vec<Advice>, Fault> {
        if !self.settings.file.exists() {
            return Ok(Vec::new());
        }
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let row = work.row(statement(&self.names.sql(JOURNAL_MODE))).await?;
        let mode: String = row.map_or(Ok(String::new()), |row| get(&row, 0, "journal_mode"))?;
        work.commit().await?;
        let why =
            format!("its journal mode is {mode}, in which readers and the writer wait for each other; in WAL mode they do not");
        Ok(if mode == "wal" { Vec::new() } else { vec![Advice { why, sql: Some("PRAGMA journal_mode = WAL;".into()) }] })
    }
}
