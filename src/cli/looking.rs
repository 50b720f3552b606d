//! Arguments of the commands that look at events.

use std::time::SystemTime;

use clap::Args;

use super::Json;
use crate::commands;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Only what was published since: so long ago (2h), or a moment
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<SystemTime>,
    /// Only this topic, as in the table
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["event", "key"]))]
pub(super) struct Trace {
    /// Identity of the event, or where its record lies: TOPIC:PARTITION:OFFSET
    #[arg(value_name = "EVENT")]
    event: Option<String>,
    /// The newest events of this key that are in the table
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    json: Json,
}

impl Trace {
    /// What is asked for, and how it is to be printed.
    pub(super) fn asked(self) -> (commands::Asked, commands::Format) {
        let format = self.json.format();
        let asked = match (self.key, self.event.unwrap_or_default()) {
            (Some(key), _) => commands::Asked::Key(key),
            (None, event) => place(&event).unwrap_or(commands::Asked::Id(event)),
        };
        (asked, format)
    }
}

/// A topic has no colons.
fn place(text: &str) -> Option<commands::Asked> {
    let (before, offset) = text.rsplit_once(':')?;
    let (topic, partition) = before.rsplit_once(':')?;
    Some(commands::Asked::Place(topic.to_owned(), partition.parse().ok()?, offset.parse().ok()?))
}

impl From<Verify> for commands::Verifying {
    fn from(verify: Verify) -> Self {
        Self { since: verify.since, topic: verify.topic, format: verify.json.format() }
    }
}

fn since(text: &str) -> Result<SystemTime, String> {
    let ago = humantime::parse_duration(text).ok().and_then(|ago| SystemTime::now().checked_sub(ago));
    ago.or_else(|| humantime::parse_rfc3339_weak(text).ok()).ok_or_else(|| "write it as 2h, or as 2026-01-31T23:59:59Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_from_an_identity() {
        assert_eq!(place("orders:3:41"), Some(commands::Asked::Place("orders".into(), 3, 41)));
        for identity in ["3f0c1f6e-7a51-4c06-9d2e-b1a0c3a9f4d1", "urn:event:a7", "a:7", "42"] {
            assert_eq!(place(identity), None, "{identity}");
        }
    }
}
