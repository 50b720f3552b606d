//! Numbered migrations: what those of every database have in common.

use super::state::MIGRATE;
use crate::fault::Fault;

/// One numbered file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    /// Its number.
    pub(super) version: i32,
    /// Its title: the rest of the file name.
    pub(super) title: &'static str,
    /// All of it.
    pub(super) text: &'static str,
}

impl Migration {
    /// The part that begins with `--@ name:`.
    pub(super) fn part(&self, name: &str) -> &'static str {
        let found = self.text.split("\n--@ ").skip(1).find_map(|part| part.strip_prefix(name)?.strip_prefix(':'));
        found.and_then(|part| part.split_once('\n')).map_or("", |(_, body)| body.trim_start_matches('\n'))
    }
}

/// Accepts the schema of the `newest` version and the one before, so that a rolling upgrade can go back. `reached`: by the relay's own
/// tables and by the table of events.
pub(super) fn accept(reached: (i32, i32), newest: i32, outbox: &str) -> Result<(), Fault> {
    let (lowest, highest) = (reached.0.min(reached.1), reached.0.max(reached.1));
    if highest > newest {
        let detail = format!("the schema has version {highest}, this outboxd knows {newest}");
        return Err(Fault::Misconfigured { detail, remedy: "Run the newer outboxd".into() });
    }
    if lowest < newest - 1 || lowest == 0 {
        let detail = format!("the schema of outbox {outbox} has version {lowest}, this outboxd needs {newest}");
        return Err(Fault::Misconfigured { detail, remedy: MIGRATE.into() });
    }
    Ok(())
}
