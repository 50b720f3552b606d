//! What the file says of the outbox table: whether it can be relayed.

use super::connection::{Work, get, statement};
use super::failure::{MIGRATE, unreadable};
use super::names::Names;
use crate::config::Column;
use crate::fault::Fault;

const TABLE: &str = "SELECT type, sql FROM sqlite_master WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')";
const COLUMNS: &str = "SELECT name, pk FROM pragma_table_info(?1)";

/// Whether there is a table or view of this name.
pub(super) async fn exists(work: &mut Work<'_>, names: &Names) -> Result<bool, Fault> {
    Ok(work.row(statement(&names.sql(TABLE)).bind(&names.table)).await?.is_some())
}

/// Refuses what cannot be relayed: a table whose numbers can come again, or that lacks a column.
pub(super) async fn check(work: &mut Work<'_>, names: &Names) -> Result<(), Fault> {
    let table = &names.table;
    let Some(row) = work.row(statement(&names.sql(TABLE)).bind(table)).await? else {
        let detail = format!("table {table} is not there");
        return Err(Fault::Missing { detail, remedy: format!("{MIGRATE}, or correct outbox.table") });
    };
    let (kind, sql): (String, Option<String>) = (get(&row, 0, "type")?, get(&row, 1, "sql")?);
    if kind != "table" {
        return Err(Fault::Misconfigured { detail: format!("{table} is not a table"), remedy: "Correct outbox.table".into() });
    }
    let columns = work.rows(statement(&names.sql(COLUMNS)).bind(table)).await?;
    let columns = columns.iter().map(|row| Ok((get(row, 0, "name")?, get(row, 1, "pk")?)));
    let columns = columns.collect::<Result<Vec<(String, i64)>, Fault>>()?;
    for column in Column::ALL {
        let name = column.name();
        if !columns.iter().any(|(found, _)| found.eq_ignore_ascii_case(name)) {
            let remedy = format!("Add it, or let `outboxd migrate` create the table: {MIGRATE} with another outbox.table");
            return Err(Fault::Missing { detail: format!("table {table} has no column {name}"), remedy });
        }
    }
    let numbered = columns.iter().any(|(name, pk)| name.eq_ignore_ascii_case("seq") && *pk > 0);
    if numbered && has_autoincrement(&sql.ok_or_else(|| unreadable("sql"))?) {
        return Ok(());
    }
    let detail =
        format!("column seq of {table} is not INTEGER PRIMARY KEY AUTOINCREMENT: its numbers can come again for other events");
    Err(Fault::Misconfigured { detail, remedy: "Create the table anew with AUTOINCREMENT and copy its rows".into() })
}

/// Whether the statement that created a table says AUTOINCREMENT. SQLite allows it only behind INTEGER PRIMARY KEY.
fn has_autoincrement(sql: &str) -> bool {
    bare_words(sql).iter().any(|word| word == "AUTOINCREMENT")
}

/// The words of a statement in capitals, outside of comments, quoted names and literals.
pub(super) fn bare_words(sql: &str) -> Vec<String> {
    const QUOTES: [(char, char); 4] = [('\'', '\''), ('"', '"'), ('`', '`'), ('[', ']')];
    let (mut rest, mut words) = (sql, String::new());
    while let Some(first) = rest.chars().next() {
        let end = if rest.starts_with("--") {
            rest.find('\n').map_or(rest.len(), |at| at + 1)
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some((_, close)) = QUOTES.iter().find(|(open, _)| *open == first) {
            rest[1..].find(*close).map_or(rest.len(), |at| at + 2)
        } else {
            words.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        words.push(' ');
        rest = &rest[end..];
    }
    let words = words.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.map(str::to_ascii_uppercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoincrement_is_seen_where_it_is_meant() {
        for sql in [
            "CREATE TABLE t (seq INTEGER PRIMARY KEY AUTOINCREMENT, x)",
            "CREATE TABLE \"é\" (-- the 'order\n seq integer primary key\n autoincrement)",
            "CREATE TABLE t (x DEFAULT 'it''s', seq INTEGER PRIMARY KEY /* no ' */ AutoIncrement)",
        ] {
            assert!(has_autoincrement(sql), "{sql}");
        }
        for sql in [
            "CREATE TABLE t (seq INTEGER PRIMARY KEY, autoincrement_x)",
            "CREATE TABLE t (seq INTEGER PRIMARY KEY) -- AUTOINCREMENT",
            "CREATE TABLE t (seq INTEGER PRIMARY KEY /* AUTOINCREMENT */)",
            "CREATE TABLE [autoincrement] (seq INTEGER PRIMARY KEY, \"autoincrement\" DEFAULT 'AUTOINCREMENT')",
        ] {
            assert!(!has_autoincrement(sql), "{sql}");
        }
    }
}
