//! Log lines on stderr: text for people, or one JSON object a line with the fields at its top.
//!
//! Messages are constant and facts are fields, so that lines can be searched and counted. A line is one event of the operator's life:
//! WARN heals itself, ERROR needs a person. Payloads, keys and headers are never logged.

use std::io::{IsTerminal, stderr};

use tracing::{Level, Subscriber, error};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people; coloured on a terminal, unless `NO_COLOR` is set.
    Text,
    /// One JSON object: `timestamp` (RFC 3339, UTC), `level`, `message`, then the fields.
    Json,
}

impl Style {
    /// Text if somebody is reading, else JSON.
    pub fn auto() -> Self {
        if stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Writes log lines of `level` and above to stderr from now on, also those of panics. For the whole process, once; a second call changes
/// nothing.
pub fn start(style: Style, level: Level) {
    if registry().with(lines(style, stderr)).with(targets(level)).try_init().is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// Libraries speak of their own life; that is of interest only when somebody searches.
fn targets(level: Level) -> Targets {
    let libraries = if level > Level::INFO { LevelFilter::INFO } else { LevelFilter::ERROR };
    Targets::new().with_default(libraries).with_target("outboxd", level)
}

fn lines<S, W>(style: Style, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> registry::LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).with_target(false);
    match style {
        Style::Text => layer.with_ansi(is_coloured()).boxed(),
        Style::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    }
}

fn is_coloured() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    error!(place, cause = panic.payload_as_str().unwrap_or("unknown"), "panicked");
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    use tracing::{debug, info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `speak` runs.
    fn written(style: Style, level: Level, speak: impl FnOnce()) -> String {
        let paper = Paper::default();
        let writer = paper.clone();
        let subscriber = registry().with(lines(style, move || writer.clone())).with(targets(level));
        tracing::subscriber::with_default(subscriber, speak);
        let bytes = paper.0.lock().expect("no writer panicked").clone();
        String::from_utf8(bytes).expect("lines are text")
    }

    #[test]
    fn a_json_line_has_its_fields_at_the_top() {
        let line = written(Style::Json, Level::INFO, || info!(epoch = 7, cause = "start", "claimed"));
        let json: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!((&json["level"], &json["message"]), (&"INFO".into(), &"claimed".into()));
        assert_eq!((&json["epoch"], &json["cause"]), (&7.into(), &"start".into()));
        let timestamp = json["timestamp"].as_str().expect("a timestamp is text");
        assert!(OffsetDateTime::parse(timestamp, &Rfc3339).is_ok(), "{timestamp}");
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(5), "{line}");
    }

    #[test]
    fn every_line_is_one_object() {
        let lines = written(Style::Json, Level::INFO, || {
            warn!(detail = "first\nsecond", "backing off");
            info!("claimed");
        });
        assert_eq!(lines.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(), 2, "{lines}");
    }

    #[test]
    fn text_has_message_and_fields() {
        let line = written(Style::Text, Level::INFO, || warn!(pause_ms = 50, "backing off"));
        assert!(line.contains("WARN") && line.contains("backing off") && line.contains("pause_ms"), "{line}");
    }

    #[test]
    fn the_level_is_that_of_the_relay_and_libraries_keep_quiet() {
        let speak = || {
            debug!("ours");
            info!(target: "sqlx::query", "theirs");
        };
        assert_eq!(written(Style::Text, Level::INFO, speak), "");
        let lines = written(Style::Text, Level::DEBUG, speak);
        assert_eq!((lines.lines().count(), lines.contains("ours"), lines.contains("theirs")), (2, true, true), "{lines}");
    }
}
