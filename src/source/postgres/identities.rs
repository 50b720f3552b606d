//! Identities as they are bound to a statement: what tells the event of a row from another one with the same number.

use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::columns::IdKind;
use super::connection::Statement;
use super::failure::unreadable;
use super::table::get;
use crate::event::{EventId, Fingerprint};
use crate::fault::Fault;

/// Identities of rows, of one kind for a whole table.
#[derive(Clone, Debug)]
pub(super) enum Identities {
    /// Uuids, `$n::uuid[]`.
    Uuids(Vec<Uuid>),
    /// Eight bytes each, `$n::bytea[]`.
    Contents(Vec<Vec<u8>>),
}

impl Identities {
    pub(super) fn empty(kind: IdKind, capacity: usize) -> Self {
        match kind {
            IdKind::Uuid => Self::Uuids(Vec::with_capacity(capacity)),
            IdKind::Content => Self::Contents(Vec::with_capacity(capacity)),
        }
    }

    /// Those of events that were read from a table of this kind; of any other table there are none.
    pub(super) fn of<'e>(kind: IdKind, ids: impl ExactSizeIterator<Item = EventId<'e>>) -> Result<Self, Fault> {
        let mut identities = Self::empty(kind, ids.len());
        ids.into_iter().try_for_each(|id| identities.push(id)).map(|()| identities)
    }

    pub(super) fn push(&mut self, id: EventId<'_>) -> Result<(), Fault> {
        match (self, id) {
            (Self::Uuids(uuids), EventId::Uuid(id)) => uuids.push(id),
            (Self::Contents(contents), EventId::Text { fingerprint, .. }) => contents.push(fingerprint.0.to_be_bytes().into()),
            (Self::Uuids(_), EventId::Text { .. }) | (Self::Contents(_), EventId::Uuid(_)) => return Err(unreadable("id")),
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Uuids(uuids) => uuids.len(),
            Self::Contents(contents) => contents.len(),
        }
    }

    pub(super) fn bind_to<'q>(self, statement: Statement<'q>) -> Statement<'q> {
        match self {
            Self::Uuids(uuids) => statement.bind(uuids),
            Self::Contents(contents) => statement.bind(contents),
        }
    }
}

/// The identity in a column `{identity}`: the eight bytes of a content are calculated by the server.
pub(super) fn identity(row: &PgRow, index: usize, kind: IdKind) -> Result<EventId<'static>, Fault> {
    match kind {
        IdKind::Uuid => get::<Uuid>(row, index, "id").map(EventId::Uuid),
        IdKind::Content => {
            let bytes = get::<&[u8]>(row, index, "id")?.try_into().map_err(|_| unreadable("id"))?;
            Ok(EventId::Text { text: "", fingerprint: Fingerprint(u64::from_be_bytes(bytes)) })
        }
    }
}
