//! The log in memory passes what every log must pass.

use outboxd::sink::memory::MemorySink;
use uuid::Uuid;

use crate::sink_conformance::{self as suite, Seen, SinkWorld};

/// A log in memory.
#[derive(Default)]
struct MemoryWorld(MemorySink);

impl SinkWorld for MemoryWorld {
    type Sink = MemorySink;
    type Open = ();

    fn sink(&self) -> MemorySink {
        self.0.clone()
    }

    async fn topic(&self) -> String {
        Uuid::new_v4().to_string()
    }

    async fn read(&self, topic: &str) -> Vec<Seen> {
        let log = self.0.log();
        let read = log.topics.get(topic).cloned().unwrap_or_default().into_iter();
        read.map(|read| Seen { partition: read.partition, offset: read.offset, id: read.id, key: read.key, payload: read.payload })
            .collect()
    }

    async fn journal(&self) -> Vec<(i64, Vec<u8>)> {
        self.0.log().journal.clone()
    }

    async fn intrude(&self, bytes: &[u8]) {
        let mut log = self.0.log();
        let end = log.journal_end;
        log.journal.push((end, bytes.to_vec()));
        log.journal_end += 2;
    }

    async fn block(&self) {
        let mut log = self.0.log();
        log.journal_blocked = Some(log.journal_end);
        log.journal_end += 1;
    }

    async fn cut(&self, start: i64) {
        let mut log = self.0.log();
        log.journal_start = start;
        log.journal.retain(|(offset, _)| *offset >= start);
    }

    /// Nothing of it would be seen: only the offsets of record and marker are gone.
    async fn die_in_a_batch(&self, _: &str, _: &[u8]) {
        self.0.log().journal_end += 2;
    }
}

macro_rules! run {
    ($name:ident) => {
        #[tokio::test]
        async fn $name() {
            suite::$name(MemoryWorld::default()).await;
        }
    };
}
suite::each!(run);

#[tokio::test]
async fn a_damaged_journal_halts() {
    suite::a_damaged_journal_halts(MemoryWorld::default(), async || MemoryWorld::default()).await;
}
