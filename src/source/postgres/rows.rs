//! Rows off the wire into a batch: bytes are copied once, from the connection's buffer into the batch.

use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};
use uuid::Uuid;

use super::columns::{IdKind, Kind};
use super::failure::unreadable;
use super::table::Table;
use crate::event::{Batch, BatchBuilder, BatchLimits, Event, EventId, Fingerprint, Pushed};
use crate::fault::Fault;
use crate::park::Unfit;

/// From PostgreSQL's epoch (2000) to 1970, in microseconds.
const EPOCH_US: i64 = 946_684_800_000_000;

/// Collects the rows of one fetch.
pub(super) struct Rows {
    builder: BatchBuilder,
    id: IdKind,
    kinds: [Kind; 3],
    /// Bytes so far as the statement counts them: it leaves out what follows when they reach the limit.
    size: usize,
    limit: usize,
}

impl Rows {
    pub(super) fn new(limits: BatchLimits, table: &Table) -> Self {
        let columns = &table.columns;
        let kinds = [columns.key, columns.payload, columns.headers];
        Self { builder: BatchBuilder::new(limits), id: columns.id, kinds, size: 0, limit: limits.bytes }
    }

    /// Copies the row into the batch, unless that is full.
    pub(super) fn take(&mut self, row: &PgRow) -> Result<(), Fault> {
        let event = self.event(row)?;
        match self.builder.push(&event) {
            Pushed::Kept => {}
            Pushed::Refused => return Ok(()),
            Pushed::OutOfOrder => {
                return Err(Fault::database("out_of_order", format!("row {} came twice, or after a later one", event.seq)));
            }
        }
        let size = i32::from_be_bytes(fixed(row, 9, "size")?);
        self.size += usize::try_from(size).unwrap_or(0);
        if self.size >= self.limit {
            self.builder.cut();
        }
        Ok(())
    }

    pub(super) fn build(self) -> Option<Batch> {
        self.builder.build()
    }

    fn event<'r>(&self, row: &'r PgRow) -> Result<Event<'r>, Fault> {
        let seq = i64::from_be_bytes(fixed(row, 0, "seq")?);
        let id = match self.id {
            IdKind::Uuid => Uuid::from_bytes(fixed(row, 1, "id")?).into(),
            IdKind::Content => content_id(row)?,
        };
        let text = |index, column| match bytes(row, index, column)? {
            None => Ok(None),
            Some(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| not_utf8(seq, id, column)),
        };
        Ok(Event {
            seq,
            id,
            topic: text(2, "topic")?.unwrap_or_default(),
            key: body(row, 3, "key", self.kinds[0])?,
            kind: text(4, "type")?.unwrap_or_default(),
            source: text(5, "source")?,
            payload: body(row, 6, "payload", self.kinds[1])?,
            headers: body(row, 7, "headers", self.kinds[2])?,
            created_at_us: created_at_us(row)?,
        })
    }
}

/// The fingerprint, then the text.
fn content_id(row: &PgRow) -> Result<EventId<'_>, Fault> {
    let (fingerprint, text) = bytes(row, 1, "id")?.and_then(|bytes| bytes.split_first_chunk()).ok_or_else(|| unreadable("id"))?;
    let text = std::str::from_utf8(text).map_err(|_| unreadable("id"))?;
    Ok(EventId::Text { text, fingerprint: Fingerprint(u64::from_be_bytes(*fingerprint)) })
}

fn created_at_us(row: &PgRow) -> Result<Option<i64>, Fault> {
    let Some(bytes) = bytes(row, 8, "created_at")? else { return Ok(None) };
    let since_2000 = bytes.try_into().map(i64::from_be_bytes).map_err(|_| unreadable("created_at"))?;
    Ok(Some(since_2000.saturating_add(EPOCH_US)))
}

/// Only a database with the encoding SQL_ASCII can hold such a text.
fn not_utf8(seq: i64, id: EventId<'_>, column: &str) -> Fault {
    Unfit { seq, id: id.into(), code: "encoding", detail: format!("its {column} is not UTF-8") }.into()
}

fn bytes<'r>(row: &'r PgRow, index: usize, column: &'static str) -> Result<Option<&'r [u8]>, Fault> {
    let value = row.try_get_raw(index).map_err(|_| unreadable(column))?;
    if value.is_null() {
        return Ok(None);
    }
    value.as_bytes().map(Some).map_err(|_| unreadable(column))
}

/// A column that is passed on as bytes.
fn body<'r>(row: &'r PgRow, index: usize, column: &'static str, kind: Kind) -> Result<Option<&'r [u8]>, Fault> {
    let bytes = bytes(row, index, column)?;
    Ok(match kind {
        Kind::Text | Kind::Bytes | Kind::Json => bytes,
        Kind::Jsonb => bytes.map(|bytes| bytes.get(1..).unwrap_or_default()),
    })
}

fn fixed<const N: usize>(row: &PgRow, index: usize, column: &'static str) -> Result<[u8; N], Fault> {
    bytes(row, index, column)?.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| unreadable(column))
}
