//! What is set aside: single events that can never be published, and topics that cannot be published to now.
//!
//! ```text
//! pending --park--> parked --retry--> pending            topic ok --hold--> held --topic back--> ok
//!                   parked --discard--> marked           (a row that is gone or sent takes its entry along)
//! ```
//! The relay parks and holds, a person retries and discards. Everything is kept in the database, under the claim number.

use thiserror::Error;

use crate::event::Identity;

/// An event that can never be published as it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("event {id} (seq {seq}) cannot be published ({code}): {detail}")]
pub struct Unfit {
    /// Position of the event.
    pub seq: i64,
    /// Identity of the event.
    pub id: Identity,
    /// Stable short code.
    pub code: &'static str,
    /// What is wrong with it, without its contents.
    pub detail: String,
}

/// A topic that cannot be published to now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("topic {topic} cannot be published to ({code}): {detail}")]
pub struct Ailing {
    /// Its name as in the table.
    pub topic: String,
    /// Stable short code.
    pub code: &'static str,
    /// What is wrong with it, and the command that helps where there is one.
    pub detail: String,
}

/// What a relay sets aside at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAside {
    /// Events to park.
    pub unfit: Vec<Unfit>,
    /// Topics to hold.
    pub ailing: Vec<Ailing>,
}

impl SetAside {
    /// Whether there is nothing to set aside.
    pub fn is_empty(&self) -> bool {
        self.unfit.is_empty() && self.ailing.is_empty()
    }
}

/// What was done about a [`SetAside`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Events that are parked now and were not before: the others are sent, gone, or were parked already.
    pub parked: u64,
    /// Topics that are held now and were not before, or for another reason.
    pub held: u64,
}
