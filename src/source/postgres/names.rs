//! Names in SQL: quoted, always with their schema, filled into the placeholders of a statement.

use crate::config::{Column, Columns};
pub(super) use crate::source::template::{Sql, quoted};

/// The longest identifier PostgreSQL keeps; it cuts longer ones.
const LONGEST: usize = 63;

/// A text as it stands in a statement that cannot have values bound to it.
pub(super) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// Schema, table and columns of one outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Schema of the table and of the relay's own tables, as the catalog has it.
    pub(super) schema: String,
    /// The table, as the catalog has it.
    pub(super) table: String,
    /// What its columns are called.
    pub(super) columns: Columns,
}

impl Names {
    /// Fills the placeholders of `template`, each once: what a name holds is never looked at again.
    pub(super) fn sql(&self, template: &str) -> Sql {
        self.sql_with(template, &[])
    }

    /// [`Names::sql`] with further placeholders, whose values are SQL already.
    pub(super) fn sql_with(&self, template: &str, more: &[(&str, &str)]) -> Sql {
        Sql::filled(template, |name| self.value(name, more))
    }

    fn value(&self, placeholder: &str, more: &[(&str, &str)]) -> Option<String> {
        let own = match placeholder {
            "schema" => quoted(&self.schema),
            "outbox" => self.in_schema(&self.table),
            "table_name" => literal(&self.table),
            "pending" => self.in_schema(&self.with_suffix("_pending")),
            "unsent_index" => quoted(&self.with_suffix("_unsent")),
            "state" => self.in_schema("outboxd_state"),
            "applied" => self.in_schema("outboxd_applied"),
            "token" => self.in_schema("outboxd_token"),
            "parked" => self.in_schema("outboxd_parked"),
            "held" => self.in_schema("outboxd_held"),
            "audit" => self.in_schema("outboxd_audit"),
            "migrations" => self.in_schema("outboxd_migrations"),
            "seq_column" => self.bare(Column::Seq),
            "sent_at_column" => self.bare(Column::SentAt),
            _ => {
                let given = more.iter().find(|(name, _)| *name == placeholder).map(|(_, value)| (*value).to_owned());
                return given.or_else(|| self.column(placeholder));
            }
        };
        Some(own)
    }

    /// A column of the table as `o`; one that the table does not have is NULL in each row.
    fn column(&self, placeholder: &str) -> Option<String> {
        let column = Column::ALL.into_iter().find(|column| column.name() == placeholder)?;
        Some(match (self.columns.of(column), column) {
            (Some(name), _) => format!("o.{}", quoted(name)),
            (None, Column::CreatedAt | Column::SentAt) => "NULL::timestamptz".into(),
            (None, _) => "NULL::text".into(),
        })
    }

    /// A column where a statement allows no table before it.
    fn bare(&self, column: Column) -> String {
        self.columns.of(column).map(quoted).unwrap_or_default()
    }

    /// Schema and name for a statement.
    pub(super) fn in_schema(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(name))
    }

    /// Schema and table for a message.
    pub(super) fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    pub(super) fn with_suffix(&self, suffix: &str) -> String {
        let mut end = self.table.len().min(LONGEST - suffix.len());
        while !self.table.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}{suffix}", &self.table[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(schema: &str, table: &str) -> Names {
        Names { schema: schema.into(), table: table.into(), columns: Columns::default() }
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let sql = names("a\"b", "x\"; DROP TABLE y; --").sql("SELECT FROM {outbox}");
        assert_eq!(sql.text(), "SELECT FROM \"a\"\"b\".\"x\"\"; DROP TABLE y; --\"");
    }

    #[test]
    fn a_literal_cannot_leave_its_quotes() {
        assert_eq!(literal("a'; DROP"), "'a''; DROP'");
        assert_eq!(literal(r"\'x"), r"E'\\''x'");
    }

    #[test]
    fn what_a_name_holds_is_no_placeholder() {
        let sql = names("{state}", "{outbox}").sql("'{}' {outbox} {unknown} {");
        assert_eq!(sql.text(), "'{}' \"{state}\".\"{outbox}\" {unknown} {");
    }

    #[test]
    fn columns_have_the_names_of_the_table() {
        let mut names = names("s", "t");
        let columns = Columns::default().with(Column::Id, Some("{outbox}\"; --")).with(Column::Key, None);
        names.columns = columns.with(Column::SentAt, Some("Sent"));
        let sql = names.sql("{id} {key} {sent_at} {sent_at_column} {seq} {seq_column}");
        assert_eq!(sql.text(), "o.\"{outbox}\"\"; --\" NULL::text o.\"Sent\" \"Sent\" o.\"seq\" \"seq\"");
    }

    #[test]
    fn a_long_name_leaves_room_for_its_suffix() {
        let long = "é".repeat(31);
        let index = names("s", &long).sql("{unsent_index}");
        assert_eq!(index.text().len(), 2 + 28 * 2 + "_unsent".len());
    }
}
