//! Statements whose names are filled in: what SQL of every database has in common.

use std::sync::Arc;

use sqlx::AssertSqlSafe;

/// An identifier as it stands in a statement.
pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A statement with its names filled in.
#[derive(Clone, Debug)]
pub(super) struct Sql(Arc<str>);

impl Sql {
    /// Fills the placeholders `{name}` of `template` that have a value, each once: what a value holds is never looked at again.
    pub(super) fn filled(template: &str, value: impl Fn(&str) -> Option<String>) -> Self {
        let mut text = String::with_capacity(template.len() + 256);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let name = after.split_once('}').and_then(|(name, tail)| Some((value(name)?, tail)));
            rest = match name {
                Some((value, tail)) => {
                    text.push_str(&value);
                    tail
                }
                None => {
                    text.push('{');
                    after
                }
            };
        }
        text.push_str(rest);
        Self(text.into())
    }

    /// For sqlx: names are quoted, and nothing else is ever put into a statement.
    pub(super) fn safe(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.0.clone())
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}
