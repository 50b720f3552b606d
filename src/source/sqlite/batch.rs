//! Numbers and identities of a batch as one bound value: `[[seq, "id"], …]`, the ids in lower case as SQLite's `lower` has it.

use std::fmt::Write;

use crate::event::EventId;

/// Rows as they are found again: by number, and by id, since another event may have got the same number in a file that went back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    json: String,
    seqs: Vec<i64>,
}

impl Rows {
    pub(super) fn push(&mut self, seq: i64, id: EventId<'_>) {
        self.json.push(if self.seqs.is_empty() { '[' } else { ',' });
        self.seqs.push(seq);
        let text = match id {
            EventId::Uuid(id) => format!("\"{id}\""),
            EventId::Text { text, .. } => serde_json::Value::from(text.to_ascii_lowercase()).to_string(),
        };
        write!(self.json, "[{seq},{text}]").expect("a string takes everything");
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.seqs.len() as u64
    }

    /// Their numbers.
    pub(super) fn seqs(&self) -> &[i64] {
        &self.seqs
    }

    /// The value to bind.
    pub(super) fn bound(&self) -> String {
        if self.seqs.is_empty() { "[]".into() } else { format!("{}]", self.json) }
    }
}

impl<'e> FromIterator<(i64, EventId<'e>)> for Rows {
    fn from_iter<I: IntoIterator<Item = (i64, EventId<'e>)>>(rows: I) -> Self {
        let mut all = Self::default();
        rows.into_iter().for_each(|(seq, id)| all.push(seq, id));
        all
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::Fingerprint;

    #[test]
    fn rows_are_bound_as_json() {
        assert_eq!(Rows::default().bound(), "[]");
        let text = EventId::Text { text: "ÉX\"1", fingerprint: Fingerprint(1) };
        let rows: Rows = [(1, Uuid::from_u128(10).into()), (-2, text)].into_iter().collect();
        assert_eq!(rows.bound(), "[[1,\"00000000-0000-0000-0000-00000000000a\"],[-2,\"Éx\\\"1\"]]");
        assert_eq!(rows.count(), 2);
    }
}
