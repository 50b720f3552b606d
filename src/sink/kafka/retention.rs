//! How long the cluster keeps the journal by itself. `migrate` asks for ever, and some platforms refuse that: then the last record of an
//! idle outbox would be deleted too, and nothing could tell that from a loss.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Shared, admin, blocking};

/// Kafka's own default, assumed where the journal's setting is not told to us: one record too many does no harm.
const ASSUMED: Duration = Duration::from_secs(7 * 24 * 3600);
/// The setting may be changed: it is asked for this often, and more often where little is kept.
const ASK_EVERY: Duration = Duration::from_secs(600);

/// A record as young as this is kept for long enough whatever the setting: nothing is asked before. So a relay that is busy, and one that
/// leaves as soon as everything is published, do not wait for an answer that they do not need.
const YOUNG: Duration = Duration::from_secs(1);

/// How old the newest record is, and how long it will be kept.
#[derive(Debug)]
pub(super) struct Freshness {
    written: SystemTime,
    /// For how long the cluster keeps records; nothing is for ever.
    kept: Option<Duration>,
    ask_at: Instant,
}

impl Freshness {
    /// A journal whose newest record was written at this time, in milliseconds since 1970.
    pub(super) fn of(written_ms: Option<i64>) -> Self {
        let since = written_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        let written = since.map_or_else(SystemTime::now, |since| UNIX_EPOCH + since);
        Self { written, kept: Some(ASSUMED), ask_at: Instant::now() }
    }

    /// A record was written now.
    pub(super) fn renew(&mut self) {
        self.written = SystemTime::now();
    }

    /// Whether the newest record has been there for more than a quarter of the time that it is kept.
    pub(super) async fn is_fading(&mut self, shared: &Arc<Shared>) -> bool {
        let age = SystemTime::now().duration_since(self.written).unwrap_or_default();
        if age < YOUNG {
            return false;
        }
        if Instant::now() >= self.ask_at {
            self.kept = ask(shared).await.unwrap_or(self.kept);
            self.ask_at = Instant::now() + self.kept.map_or(ASK_EVERY, |kept| ASK_EVERY.min(kept / 16));
        }
        self.kept.is_some_and(|kept| age > kept / 4)
    }
}

/// How long records are kept; nothing when the cluster cannot be asked now.
async fn ask(shared: &Arc<Shared>) -> Option<Option<Duration>> {
    let theirs = Arc::clone(shared);
    let found = blocking::run("kafka-retention", move |_| {
        let journal = [theirs.journal.clone()];
        admin::with_admin(&theirs.settings, |admin| admin::describe(admin, &journal))
    })
    .await;
    let found = found.inspect_err(|error| tracing::debug!(%error, "the journal's retention cannot be looked up")).ok()?;
    Some(kept(found.first()?.settings.get("retention.ms").map(String::as_str)))
}

fn kept(setting: Option<&str>) -> Option<Duration> {
    match setting.and_then(|text| text.parse::<i64>().ok()) {
        Some(ms) => u64::try_from(ms).ok().map(Duration::from_millis),
        None => Some(ASSUMED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_is_kafkas_default() {
        assert_eq!(kept(Some("-1")), None);
        assert_eq!(kept(Some("86400000")), Some(Duration::from_secs(86_400)));
        assert_eq!(kept(None), Some(ASSUMED));
    }
}
