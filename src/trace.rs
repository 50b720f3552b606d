//! The life of one event: from what table, journal, topic and consumer groups say to the stage at which it stands, or vanished. Pure.

use crate::event::Fingerprint;
use crate::journal::{Entry, Record};
use crate::source::desk::{Discarded, EventRow, OpenWriter, Waits};

mod show;
#[cfg(test)]
mod tests;

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody knows it.
    Unknown,
    /// Nobody knows it yet, and transactions that have written to the outbox are open.
    Uncommitted,
    /// Its turn has not come.
    Pending,
    /// It is set aside.
    Parked,
    /// An event of its key is set aside.
    Blocked,
    /// Its topic cannot be published to.
    Held,
    /// It lies in a transaction that has not ended.
    InFlight,
    /// It is in its topic.
    Published,
    /// And a consumer group has passed it.
    Consumed,
    /// It is in its topic, and readers do not come to it: a transaction before it has not ended.
    Hidden,
    /// A person has given it up.
    Discarded,
    /// It should be in its topic and is not.
    Vanished,
    /// It is marked, and the journal does not name it: it is older, or somebody else's, or was never published; or there is no journal.
    Unaccounted,
}

impl Stage {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Uncommitted => "uncommitted",
            Self::Pending => "pending",
            Self::Parked => "parked",
            Self::Blocked => "blocked",
            Self::Held => "held",
            Self::InFlight => "in_flight",
            Self::Published => "published",
            Self::Consumed => "consumed",
            Self::Hidden => "hidden",
            Self::Discarded => "discarded",
            Self::Vanished => "vanished",
            Self::Unaccounted => "unaccounted",
        }
    }
}

/// What the journal says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journalled {
    /// Its number in the table.
    pub seq: i64,
    /// Number of its batch.
    pub n: u64,
    /// When the batch was journalled, in milliseconds since 1970.
    pub time_ms: Option<i64>,
    /// Which instance published it.
    pub instance: String,
    /// Topic in Kafka.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// What is looked for in the journal: an event by its identity, and its number where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    /// What the journal knows it by.
    pub fingerprint: Fingerprint,
    /// Its number.
    pub seq: Option<i64>,
}

impl Sought {
    /// What a record of the journal says of it.
    pub fn find(&self, record: &Record, time_ms: Option<i64>) -> Option<Journalled> {
        let is_sought = |entry: &&Entry| entry.fingerprint == self.fingerprint && self.seq.is_none_or(|seq| seq == entry.seq);
        let entry = record.entries.iter().find(is_sought)?;
        Some(Journalled {
            seq: entry.seq,
            n: record.n,
            time_ms,
            instance: record.writer.owner.instance.clone(),
            topic: record.topics.get(entry.topic as usize)?.clone(),
            partition: entry.partition,
            offset: entry.offset,
        })
    }
}

/// What differs where another event lies.
const ID: &str = "id";

/// What lies at the place that the journal names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A record that says what the row says.
    Equal,
    /// A record with its id; there is no row to compare it with.
    Same,
    /// A record that says something else.
    Different {
        /// What differs: `id`, `key` or `value`.
        what: &'static str,
    },
    /// The topic begins at this later offset.
    Trimmed {
        /// First offset that is left.
        start: i64,
    },
    /// A record with its id, which says what the row says where there is one; readers cannot see so far: a transaction is open before it.
    Hidden,
    /// Nothing.
    Nothing,
    /// The topic is not there.
    NoTopic,
    /// Not this event: the topic is another one than it was published to, and a person has accepted that.
    EarlierTopic,
}

/// A record as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its header `id`.
    pub id: Option<Vec<u8>>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

impl Stored {
    /// Whether it says what the row says; without a row, whether it has this identity.
    pub fn compare(&self, row: Option<&EventRow>, id: &str) -> Found {
        let same_id = self.id.as_deref() == Some(row.map_or(id, |row| &row.id).as_bytes());
        match row {
            _ if !same_id => Found::Different { what: ID },
            None => Found::Same,
            Some(row) if row.key != self.key => Found::Different { what: "key" },
            Some(row) if row.payload != self.value => Found::Different { what: "value" },
            Some(_) => Found::Equal,
        }
    }
}

/// How far a consumer group has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    /// Its name.
    pub group: String,
    /// The next offset that it will read.
    pub next: i64,
    /// Records that it has not read.
    pub behind: u64,
    /// Whether there are more than were counted.
    pub is_more: bool,
    /// Age of the first of them.
    pub behind_seconds: Option<f64>,
}

/// How the partition of a key comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// murmur2 of the key, without its sign.
    pub hash: i32,
    /// Partitions that keys are spread over.
    pub partitions: i32,
}

/// Everything that is known of one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// What was asked for.
    pub asked: String,
    /// Whether a journal is kept.
    pub journalled: bool,
    /// Whether it was looked for in the journal, which knows an id that is no uuid only together with what the event says.
    pub is_sought: bool,
    /// First and last batch that the journal still has.
    pub batches: Option<(u64, u64)>,
    /// Its row.
    pub row: Option<EventRow>,
    /// What the journal says of it: of the newest batch that names it.
    pub entry: Option<Journalled>,
    /// How its partition comes about.
    pub arithmetic: Option<Arithmetic>,
    /// What lies where the journal says.
    pub found: Option<Found>,
    /// Where it lies in an open transaction: topic, partition, offset.
    pub in_flight: Option<(String, i32, i64)>,
    /// What the audit says of it.
    pub discarded: Option<Discarded>,
    /// Transactions that have written to the outbox and are open, where nobody knows the event.
    pub writers: Vec<OpenWriter>,
    /// Why nothing is published at all now.
    pub standstill: Option<String>,
    /// Consumer groups of its partition.
    pub consumers: Vec<Consumer>,
    /// Groups whose positions may not be read.
    pub hidden_groups: Vec<String>,
}

impl Life {
    /// Nothing is known of it yet.
    pub fn new(asked: &str, journalled: bool) -> Self {
        Self {
            asked: asked.to_owned(),
            journalled,
            is_sought: true,
            batches: None,
            row: None,
            entry: None,
            arithmetic: None,
            found: None,
            in_flight: None,
            discarded: None,
            writers: Vec::new(),
            standstill: None,
            consumers: Vec::new(),
            hidden_groups: Vec::new(),
        }
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        match (&self.row, &self.entry) {
            (_, Some(entry)) => self.published(entry),
            (Some(row), None) if row.marked_us.is_none() => self.unsent(row),
            (_, None) if self.discarded.is_some() => Stage::Discarded,
            (Some(_), None) => Stage::Unaccounted,
            (None, None) if self.writers.is_empty() => Stage::Unknown,
            (None, None) => Stage::Uncommitted,
        }
    }

    fn published(&self, entry: &Journalled) -> Stage {
        match &self.found {
            Some(Found::Different { .. } | Found::Nothing | Found::NoTopic) => Stage::Vanished,
            Some(Found::Hidden) => Stage::Hidden,
            Some(Found::EarlierTopic) => Stage::Published,
            _ if self.consumers.iter().any(|consumer| consumer.has_passed(entry)) => Stage::Consumed,
            Some(Found::Equal | Found::Same | Found::Trimmed { .. }) | None => Stage::Published,
        }
    }

    fn unsent(&self, row: &EventRow) -> Stage {
        match &row.waits {
            Some(Waits::Parked { .. }) => Stage::Parked,
            Some(Waits::Held { .. }) => Stage::Held,
            Some(Waits::Behind { .. }) => Stage::Blocked,
            None if self.in_flight.is_some() => Stage::InFlight,
            None => Stage::Pending,
        }
    }
}

impl Found {
    /// The same, where readers do not come so far.
    pub fn out_of_sight(self) -> Self {
        match self {
            Self::Equal | Self::Same => Self::Hidden,
            other @ (Self::Different { .. }
            | Self::Trimmed { .. }
            | Self::Hidden
            | Self::Nothing
            | Self::NoTopic
            | Self::EarlierTopic) => other,
        }
    }

    /// The same of an event that was published to a topic of this name before a person accepted what it had become. A record with its id
    /// shows that it is still the same one.
    pub fn before_acceptance(self) -> Self {
        match self {
            Self::Nothing | Self::NoTopic | Self::Different { what: ID } => Self::EarlierTopic,
            other @ (Self::Equal
            | Self::Same
            | Self::Different { .. }
            | Self::Trimmed { .. }
            | Self::Hidden
            | Self::EarlierTopic) => other,
        }
    }
}

impl Consumer {
    /// Whether it has read the event.
    pub fn has_passed(&self, entry: &Journalled) -> bool {
        self.next > entry.offset
    }
}
