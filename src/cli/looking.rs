//! Arguments of the commands that look at events.

use std::time::SystemTime;

use clap::Args;

use super::Json;
use crate::commands;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Only what was published since: so long ago, or a moment
    #[arg(long, value_name = "DURATION|TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// Only this topic, as in the table
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    json: Json,
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
