//! What the log was told, for tests of how often it is told.

use std::io::Write;
use std::sync::{Arc, Mutex};

/// Everything that a thread logs while it listens, down to the level `debug`.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Listens until the guard is dropped.
    pub fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        tracing::subscriber::set_default(
            tracing_subscriber::fmt().json().with_max_level(tracing::Level::DEBUG).with_writer(move || log.clone()).finish(),
        )
    }

    /// How many lines there are of this message at this level.
    pub fn count(&self, level: &str, message: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["level"] == level && line["fields"]["message"] == message).count()
    }
}
