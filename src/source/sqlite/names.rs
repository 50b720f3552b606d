//! Names in SQL: quoted, filled into the placeholders of a statement. The relay's own tables have fixed names.

pub(super) use crate::source::template::Sql;
use crate::source::template::quoted;

/// A text as it stands in a statement that cannot have values bound to it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The table of one outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// As configured.
    pub(super) table: String,
}

/// The text of a moment, as every column of ours has it: fixed in length, so that later moments compare as greater.
const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
/// A text that is a moment as microseconds since 1970, `{micros o.created_at}`: SQLite reckons in milliseconds. Null if it is none.
const MICROS: &str = "CAST(round((julianday({moment}) - 2440587.5) * 86400000) AS INTEGER) * 1000";
/// A key as it stands in the table of parked events, whatever its type.
const KEY_TEXT: &str = "CASE typeof(o.key) WHEN 'blob' THEN '\\x' || lower(hex(o.key)) ELSE o.key END";
/// Numbers and identities that are bound as JSON, `[[seq, "id"], …]`: one statement for a whole batch.
const BATCH: &str = "b (seq, id) AS MATERIALIZED (SELECT value ->> 0, value ->> 1 FROM json_each(?1))";

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
        if let Some(moment) = placeholder.strip_prefix("micros ") {
            return Some(MICROS.replace("{moment}", moment));
        }
        Some(match placeholder {
            "outbox" => quoted(&self.table),
            "pending" => quoted(&format!("{}_pending", self.table)),
            "unsent_index" => quoted(&format!("{}_unsent", self.table)),
            "table_name" => literal(&self.table),
            "now" => NOW.to_owned(),
            "key_text" => KEY_TEXT.to_owned(),
            "batch" => BATCH.to_owned(),
            _ => return more.iter().find(|(name, _)| *name == placeholder).map(|(_, value)| (*value).to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let names = Names { table: "x\"; DROP TABLE y; --{outbox}".into() };
        assert_eq!(names.sql("FROM {outbox} {unknown} {").text(), "FROM \"x\"\"; DROP TABLE y; --{outbox}\" {unknown} {");
        assert_eq!(literal("a'; DROP"), "'a''; DROP'");
    }
}
