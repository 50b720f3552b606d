//! The oracle: whether table, journal, topics and audit say the same, event by event. Pure but for the temporary file of what does not
//! fit into memory; it shares no path with the relay, only the journal's format and what an identity is.
//!
//! What is compared, by the invariants of `docs/guarantees.md`:
//!
//! | | invariant | a breach is called |
//! |---|---|---|
//! | I1 | a journal record is committed with exactly its events | torn; lost, where nothing of the batch is there |
//! | I2, I5 | the journal is dense and chained, and has the newest applied batch where the table says | broken, of the journal |
//! | I3 | a marked row is in the journal, or was given up in the audit | lost |
//! | I4 | the rows of applied batches are marked | unmarked |
//! | I7 | an event is there once, in the partition of its key, in the order of its batch | duplicated, reordered |
//! | | what is published has its row, as long as rows are kept | phantom |
//!
//! I6 and I8 speak of moments that leave nothing behind; what they keep from happening shows as one of the above.
//!
//! **Order.** Only some events of a key have an order: A comes before B when A's transaction had committed before B's INSERT ran. A batch
//! is read in one snapshot, so two events of a key in one batch must lie in the order of their numbers: there an inversion is proved. An
//! event behind one with a higher number from an *earlier* batch was not visible when that batch was read, or it was parked meanwhile:
//! their transactions overlapped, or the relay overlooked the first. Nothing that is kept tells which, so this is counted as overtaken and
//! is no breach.
//!
//! **One instant.** Everything is read while the relay runs. First the newest applied batch and the audit, then the rows, then what the
//! audit got meanwhile, then the end of each topic, then the journal to its end: so each mark that is seen has its record below that end,
//! and so has each event below those ends. A topic is read up to its end or to the last event that the journal names there, whichever
//! comes later.
//!
//! The order of the calls is that of the types: [`Books`] takes rows, discards and the journal, [`Comparing`] the topics, partition by
//! partition, and ends in a [`Report`].

use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::config::TopicPattern;
use crate::event::{EventId, Fingerprint};
use crate::journal::Applied;
use crate::sink::kafka::Scanned;
use crate::source::Pins;

mod books;
mod chain;
mod comparing;
mod judging;
mod progress;
mod report;
mod show;
pub(crate) mod spill;
#[cfg(test)]
mod tests;
mod topics;

pub use books::Books;
pub use comparing::{Comparing, Extent, Holes};
pub use progress::{Progress, Stage};
pub use report::{Example, JournalReport, Kind, Report, TopicReport, Unchecked};

/// Clocks of the database and of relays may differ by so much, and nothing that is nearer to a bound is judged by time.
pub const CLOCKS_MS: i64 = 300_000;

/// What is known of an outbox before anything else is read.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Identity of the outbox: stands in each of its journal records.
    pub outbox: Uuid,
    /// Whether a journal is kept.
    pub journalled: bool,
    /// Newest applied batch, read before the rows.
    pub applied: Applied,
    /// The oldest batch of which the database knows when its rows were marked, and when, in microseconds since 1970.
    pub first_applied: Option<(u64, i64)>,
    /// When the outbox was set up, in microseconds since 1970: rows that were marked earlier are somebody else's work.
    pub set_up_us: i64,
    /// What tells events apart.
    pub ids: Ids,
    /// For how long marked rows stay in the table.
    pub kept: Kept,
    /// From the topic of a row to that in Kafka.
    pub pattern: TopicPattern,
    /// Topics of rows as they were published to.
    pub pins: Pins,
    /// The one topic, as in the table, that is asked for; nothing: all.
    pub only: Option<String>,
    /// Microseconds since 1970 of what is asked for; what was published earlier is left out.
    pub since_us: Option<i64>,
    /// Where the temporary file is made, if one is needed.
    pub folder: PathBuf,
}

impl Terms {
    /// Whether a row that was marked at this moment is older than what is asked for, by whatever clock.
    fn is_long_before_since(&self, marked_us: i64) -> bool {
        self.since_us.is_some_and(|since| marked_us < since.saturating_sub(CLOCKS_MS * 1_000))
    }

    /// Whether the batch of a row that was marked at this moment may be older than what is asked for.
    fn is_hardly_since(&self, marked_us: i64) -> bool {
        self.since_us.is_some_and(|since| marked_us < since.saturating_add(CLOCKS_MS * 1_000))
    }
}

/// What the `id` of a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The event, by itself.
    Uuid,
    /// The event together with topic, key and payload.
    Content,
}

/// The event that a record says it is. What its id tells by itself is told together with the topic as in the table, where there is one.
pub(crate) fn event_of<'a>(ids: Ids, in_table: Option<&str>, record: &Scanned<'a>) -> Option<EventId<'a>> {
    let id = record.id?;
    match ids {
        Ids::Uuid if id.len() == Hyphenated::LENGTH => Uuid::try_parse_ascii(id).ok().map(EventId::Uuid),
        Ids::Uuid => None,
        Ids::Content => {
            let text = std::str::from_utf8(id).ok()?;
            let fingerprint = Fingerprint::of_content(text, in_table?, record.key, record.value);
            Some(EventId::Text { text, fingerprint })
        }
    }
}

/// For how long marked rows stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The mark deletes them.
    NotAtAll,
    /// Until they are so old.
    For(Duration),
    /// Until a person deletes them.
    Forever,
}

/// A partition of a topic by its number, as one number that sorts by topic.
fn lane(topic: u32, partition: i32) -> u64 {
    u64::from(topic) << 32 | u64::from(partition.cast_unsigned())
}

/// Topic and partition of a [`lane`].
fn of_lane(lane: u64) -> (u32, i32) {
    ((lane >> 32) as u32, (lane as u32).cast_signed())
}
