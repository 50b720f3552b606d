//! Rows out of the file into a batch: bytes are copied once, from SQLite's value into the batch.

use std::ops::ControlFlow;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, ValueRef};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::connection::get;
use super::failure::unreadable;
use crate::event::{Batch, BatchBuilder, BatchLimits, Event, EventId, Fingerprint, Pushed};
use crate::fault::Fault;
use crate::park::Unfit;

/// Collects the rows of one fetch.
pub(super) struct Rows(BatchBuilder);

impl Rows {
    pub(super) fn new(limits: BatchLimits) -> Self {
        Self(BatchBuilder::new(limits))
    }

    /// Copies a row (seq, id, topic, key, payload, type, source, headers, created) into the batch; enough when that is full.
    pub(super) fn take(&mut self, row: &SqliteRow) -> Result<ControlFlow<()>, Fault> {
        let event = event(row)?;
        match self.0.push(&event) {
            Pushed::Kept => Ok(ControlFlow::Continue(())),
            Pushed::Refused => Ok(ControlFlow::Break(())),
            Pushed::OutOfOrder => Err(Fault::database("out_of_order", format!("row {} came after a later one", event.seq))),
        }
    }

    pub(super) fn build(self) -> Option<Batch> {
        self.0.build()
    }
}

fn event(row: &SqliteRow) -> Result<Event<'_>, Fault> {
    let (seq, id) = identity(row)?;
    if id.uuid().is_none() {
        return Err(Unfit { seq, id: id.into(), code: "encoding", detail: "its id is no uuid".into() }.into());
    }
    let text = |index, column| match bytes(row, index, column)? {
        None => Ok(None),
        Some(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| not_utf8(seq, id, column)),
    };
    Ok(Event {
        seq,
        id,
        topic: text(2, "topic")?.unwrap_or_default(),
        key: bytes(row, 3, "key")?,
        payload: bytes(row, 4, "payload")?,
        kind: text(5, "type")?.unwrap_or_default(),
        source: text(6, "source")?,
        headers: bytes(row, 7, "headers")?,
        created_at_us: get(row, 8, "created_at")?,
    })
}

/// Number and identity of a row (seq, id, topic, key, payload). One whose id is no uuid is known by all that it says.
pub(super) fn identity(row: &SqliteRow) -> Result<(i64, EventId<'_>), Fault> {
    let (seq, id) = (get(row, 0, "seq")?, bytes(row, 1, "id")?.unwrap_or_default());
    // other ways to write a uuid are other texts, and a row is found again by its text
    if let Some(uuid) = Uuid::try_parse_ascii(id).ok().filter(|_| id.len() == Hyphenated::LENGTH) {
        return Ok((seq, uuid.into()));
    }
    // bytes that are no text at all cannot be told in an identity; the number and what else it says still do
    let (text, topic) = (std::str::from_utf8(id).unwrap_or(""), bytes(row, 2, "topic")?.unwrap_or_default());
    let topic = String::from_utf8_lossy(topic);
    let fingerprint = Fingerprint::of_content(text, &topic, bytes(row, 3, "key")?, bytes(row, 4, "payload")?);
    Ok((seq, EventId::Text { text, fingerprint }))
}

fn not_utf8(seq: i64, id: EventId<'_>, column: &str) -> Fault {
    Unfit { seq, id: id.into(), code: "encoding", detail: format!("its {column} is not UTF-8") }.into()
}

/// A column as it lies there, text or blob.
pub(super) fn bytes<'r>(row: &'r SqliteRow, index: usize, column: &'static str) -> Result<Option<&'r [u8]>, Fault> {
    let value = row.try_get_raw(index).map_err(|_| unreadable(column))?;
    if value.is_null() {
        return Ok(None);
    }
    row.try_get_unchecked(index).map(Some).map_err(|_| unreadable(column))
}
