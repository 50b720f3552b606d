//! What the relays' logs tell: why they claimed, where they died. A log is read when its process has ended, and kept for a look where the
//! run turns out not to be clean.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::stage::Stage;

/// Events that a relay published because its cursor had overlooked them: that must not be.
const RESCUED: &str = "rescued by the proof scan";

/// Which windows were hit, and how often.
pub struct Windows {
    counts: BTreeMap<String, usize>,
    /// Where the logs lie.
    folder: Option<PathBuf>,
    logs: usize,
}

impl Windows {
    /// None yet. Logs are kept in this folder.
    pub fn new(folder: Option<PathBuf>) -> Windows {
        let folder = folder.inspect(|folder| {
            let _ = std::fs::remove_dir_all(folder);
            std::fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        });
        Windows { counts: BTreeMap::new(), folder, logs: 0 }
    }

    /// A process of this name has ended, or is about to, with this log.
    pub fn read(&mut self, name: &str, log: &str) {
        if let Some(folder) = &self.folder {
            std::fs::write(folder.join(format!("{:03}-{name}.log", self.logs)), log).unwrap();
        }
        self.logs += 1;
        log.lines().filter_map(window).for_each(|window| self.hit(window));
    }

    /// Something that is worth counting happened.
    pub fn hit(&mut self, window: String) {
        *self.counts.entry(window).or_default() += 1;
    }

    /// How often each was hit.
    pub fn counts(&self) -> &BTreeMap<String, usize> {
        &self.counts
    }

    /// Whether an event was overlooked.
    pub fn has_rescued(&self) -> bool {
        self.counts.contains_key(RESCUED)
    }

    /// Of a run that is not clean keeps everything that may tell why: logs, what is wrong, the tables. Of another one nothing.
    pub fn keep_if(&self, is_wrong: bool, wrong: &str, stage: &Stage<'_>) {
        let Some(folder) = &self.folder else { return };
        if !is_wrong {
            let _ = std::fs::remove_dir_all(folder);
            return;
        }
        let put = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        put("wrong.txt", wrong.to_owned());
        for table in ["outbox", "outboxd_applied", "outboxd_state", "outboxd_audit"] {
            let copy = format!("COPY (SELECT * FROM {table} ORDER BY 1) TO STDOUT WITH CSV HEADER");
            put(&format!("{table}.csv"), stage.postgres.try_sql(&stage.database, &copy).unwrap_or_else(|error| error));
        }
        let place =
            |place: &crate::checker::Place| format!("{} {} {} {:?}\n", place.topic, place.partition, place.offset, place.id);
        put("places.txt", stage.places().iter().map(place).collect());
        println!("chaos: logs and tables are in {}", folder.display());
    }
}

/// Log lines say why a relay claimed, which batches a claim found unmarked, and which failpoint did something.
fn window(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let word = |name: &str| line[name].as_str().unwrap_or("?").to_owned();
    Some(match line["message"].as_str()? {
        "claimed" => format!("claimed: {}", word("cause")),
        "failpoint" => format!("died at: {}", word("point")),
        message if message.starts_with("the database went back in time") => "the database went back".to_owned(),
        "halted" | "looking again before halting" => format!("suspected: {}", word("code")),
        "the proof scan found events below the cursor that nobody waited for" => RESCUED.to_owned(),
        _ => return None,
    })
}
