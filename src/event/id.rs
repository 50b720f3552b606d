//! What makes an event the same one: its identity, and the eight bytes of it that the journal remembers.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Identity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventId<'a> {
    /// Unique for ever by itself.
    Uuid(Uuid),
    /// Of any other type: a number may come again for another event, so what the event says belongs to its identity.
    Text {
        /// The column as text.
        text: &'a str,
        /// [`Fingerprint::of_content`], as the database calculates it.
        fingerprint: Fingerprint,
    },
}

impl EventId<'_> {
    /// What the journal remembers of it.
    pub fn fingerprint(self) -> Fingerprint {
        match self {
            Self::Uuid(id) => Fingerprint::of(id),
            Self::Text { fingerprint, .. } => fingerprint,
        }
    }

    /// The uuid, if it is one.
    pub fn uuid(self) -> Option<Uuid> {
        match self {
            Self::Uuid(id) => Some(id),
            Self::Text { .. } => None,
        }
    }
}

impl From<Uuid> for EventId<'_> {
    fn from(id: Uuid) -> Self {
        Self::Uuid(id)
    }
}

impl fmt::Display for EventId<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(id) => write!(out, "{id}"),
            Self::Text { text, .. } => out.write_str(text),
        }
    }
}

/// An [`EventId`] that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// [`EventId::Uuid`].
    Uuid(Uuid),
    /// [`EventId::Text`].
    Text {
        /// The column as text.
        text: Box<str>,
        /// What tells it from another event of the same text.
        fingerprint: Fingerprint,
    },
}

impl Identity {
    /// The same, borrowed.
    pub fn id(&self) -> EventId<'_> {
        match self {
            Self::Uuid(id) => EventId::Uuid(*id),
            Self::Text { text, fingerprint } => EventId::Text { text, fingerprint: *fingerprint },
        }
    }
}

impl From<EventId<'_>> for Identity {
    fn from(id: EventId<'_>) -> Self {
        match id {
            EventId::Uuid(id) => Self::Uuid(id),
            EventId::Text { text, fingerprint } => Self::Text { text: text.into(), fingerprint },
        }
    }
}

impl From<Uuid> for Identity {
    fn from(id: Uuid) -> Self {
        Self::Uuid(id)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(out)
    }
}

/// Eight bytes that tell an event from another one that got the same `seq` after a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Of an event whose id is a uuid: its two halves, XORed.
    pub fn of(id: Uuid) -> Self {
        let (high, low) = id.as_u64_pair();
        Self(high ^ low)
    }

    /// Of an event with any other id: the first eight bytes of SHA-256 over id, topic (as in the row), key and payload. Before each of
    /// them stands its length as four bytes, the highest first; `None` is the length -1 and nothing behind it.
    pub fn of_content(id: &str, topic: &str, key: Option<&[u8]>, payload: Option<&[u8]>) -> Self {
        let mut hash = Sha256::new();
        for field in [Some(id.as_bytes()), Some(topic.as_bytes()), key, payload] {
            let length = field.map_or(-1, |bytes| i32::try_from(bytes.len()).expect("a database column is below 2 GiB"));
            hash.update(length.to_be_bytes());
            hash.update(field.unwrap_or_default());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        Self(u64::from_be_bytes(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_of_content_tells_every_field_and_where_it_ends() {
        let known = Fingerprint::of_content("7", "orders", Some(b"k"), None);
        // printf '\0\0\0\0017\0\0\0\6orders\0\0\0\1k\377\377\377\377' | sha256sum
        assert_eq!(known, Fingerprint(0x6a7d_9819_349d_b2f9));
        let others = [
            Fingerprint::of_content("7o", "rders", Some(b"k"), None),
            Fingerprint::of_content("8", "orders", Some(b"k"), None),
            Fingerprint::of_content("7", "orders", None, Some(b"k")),
            Fingerprint::of_content("7", "orders", Some(b"k"), Some(b"")),
        ];
        assert!(others.iter().all(|other| *other != known), "{others:?}");
    }
}
