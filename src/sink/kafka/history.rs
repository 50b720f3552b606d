//! The records above the base, one after the other, in bounded memory.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use super::journal::Stored;
use super::{Shared, blocking, journal};
use crate::fault::{Fault, Halt, HaltCode};
use crate::journal::{Applied, History, Record};

/// Records that were checked when the journal was recovered. They are kept as bytes; what does not fit into the buffer is read again.
pub struct KafkaHistory {
    shared: Arc<Shared>,
    outbox: Uuid,
    buffer: VecDeque<Stored>,
    /// The record handed out last, at first the base.
    last: Applied,
    /// The last record there is.
    until: Applied,
}

impl KafkaHistory {
    pub(super) fn new(shared: Arc<Shared>, outbox: Uuid, base: Applied, until: Applied, buffer: Vec<Stored>) -> Self {
        Self { shared, outbox, buffer: buffer.into(), last: base, until }
    }

    pub(super) fn empty(shared: Arc<Shared>, outbox: Uuid, base: Applied) -> Self {
        Self::new(shared, outbox, base, base, Vec::new())
    }

    async fn refill(&mut self) -> Result<(), Fault> {
        let (shared, outbox, last, until) = (Arc::clone(&self.shared), self.outbox, self.last, self.until);
        let piece = blocking::run("kafka-history", move |caller| journal::piece(&shared, outbox, last, until, caller)).await?;
        self.buffer = piece.into();
        Ok(())
    }
}

impl History for KafkaHistory {
    async fn next(&mut self) -> Result<Option<(Record, Applied)>, Fault> {
        self.shared.settings.signs.beat();
        if self.last.n >= self.until.n {
            return Ok(None);
        }
        if self.buffer.is_empty() {
            self.refill().await?;
        }
        let lost = || {
            let evidence = format!("batch {} was in the journal and is not found again", self.last.n + 1);
            Fault::from(Halt::new(HaltCode::KafkaBehind, evidence))
        };
        let Stored { offset, bytes } = self.buffer.pop_front().ok_or_else(lost)?;
        let (record, checksum) = Record::decode(&bytes).map_err(|_| lost())?;
        self.last = Applied { n: record.n, offset, checksum };
        Ok(Some((record, self.last)))
    }
}
