//! The outbox in memory passes what every source must pass.

use std::time::Duration;

use outboxd::source::memory::{MemorySource, Writer};
use uuid::Uuid;

use crate::source_conformance::{Setup, SourceWorld};

/// An outbox in memory.
struct MemoryWorld(MemorySource);

impl SourceWorld for MemoryWorld {
    type Source = MemorySource;
    type Open = Writer;

    async fn fresh(setup: Setup) -> Self {
        let source = MemorySource::new(Uuid::new_v4());
        source.database().deletes = setup.delete;
        source.database().parks_keys = !setup.park_event;
        Self(source)
    }

    fn source(&self) -> MemorySource {
        self.0.clone()
    }

    async fn insert(&self, payloads: &[&str]) -> Vec<i64> {
        payloads.iter().map(|payload| self.0.insert("orders", Some("k"), payload)).collect()
    }

    async fn insert_with_key(&self, key: &str, payload: &str) -> i64 {
        self.0.insert("orders", Some(key), payload)
    }

    async fn open(&self, payload: &str) -> (Writer, i64) {
        let writer = self.0.begin();
        let seq = writer.insert("orders", Some("k"), payload);
        (writer, seq)
    }

    async fn commit(&self, open: Writer) {
        open.commit();
    }

    async fn roll_back(&self, open: Writer) {
        open.rollback();
    }

    async fn unsent(&self) -> Vec<i64> {
        self.0.database().rows.iter().filter(|(_, row)| !row.sent).map(|(&seq, _)| seq).collect()
    }

    async fn rows(&self) -> Vec<i64> {
        self.0.database().rows.keys().copied().collect()
    }

    async fn remove(&self, seq: i64) {
        self.0.database().rows.remove(&seq);
    }

    async fn replace(&self, seq: i64) {
        if let Some(row) = self.0.database().rows.get_mut(&seq) {
            (row.id, row.sent) = (Uuid::new_v4(), false);
        }
    }

    async fn refuse_mark(&self, seq: i64) {
        self.0.database().swallows_mark_of = Some(seq);
    }

    async fn age(&self, _by: Duration) {
        unreachable!("it has no clock");
    }

    async fn lose_token(&self) {
        self.0.database().token = None;
    }

    async fn replace_files(&self) {
        self.0.database().file += 1;
    }

    async fn expire_lease(&self) {
        self.0.database().lease_ran_out = true;
    }

    async fn halted(&self) -> Option<String> {
        self.0.database().halted.as_ref().map(|halt| halt.code.name().to_owned())
    }
}

use crate::source_conformance as source;
source::source_conformance!(MemoryWorld);
