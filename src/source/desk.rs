//! What commands ask of a source, and what they get: the words that every database has in common.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::{Pending, Pins};
use crate::event::Fingerprint;
use crate::fault::Halt;
use crate::journal::{Applied, DatabaseIdentity};

/// Where the outbox stands, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Identity of the outbox.
    pub outbox: Uuid,
    /// Mode in the state row.
    pub delivery: String,
    /// Events that wait, at most 10,001.
    pub pending: u64,
    /// How long the first of them has waited.
    pub oldest: Option<Duration>,
    /// Events that are set aside.
    pub parked: u64,
    /// Events that wait behind those, or for their topic, at most 10,001.
    pub blocked: u64,
    /// Topics that are held.
    pub held: u64,
    /// Newest batch whose rows are marked.
    pub applied: u64,
    /// Instance that holds the lease, when one does.
    pub owner: Option<String>,
    /// Number of the newest grant.
    pub epoch: u64,
    /// How long the lease still runs.
    pub lease_left: Option<Duration>,
    /// Who has paused the outbox, why, and for how long it has been.
    pub paused: Option<(String, String, Duration)>,
    /// The halt that is written in the state row: code, evidence, age.
    pub halted: Option<(String, String, Duration)>,
    /// Pinned topics.
    pub pins: Pins,
    /// Why a relay refuses to serve this table, and the remedy.
    pub refused: Option<(String, String)>,
}

impl Figures {
    /// What the metrics show of it.
    pub(super) fn gauged(&self) -> Pending {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // an age by the database's clock, as a moment of ours: whoever reads it takes our clock again
        let created = |age: Duration| i64::try_from(now.saturating_sub(age).as_micros()).unwrap_or(i64::MAX);
        Pending {
            events: self.pending,
            oldest_created_us: self.oldest.map(created),
            parked: self.parked,
            blocked: self.blocked,
            held: self.held,
        }
    }
}

/// A transaction that has written to the outbox and not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenWriter {
    /// Process of the server; nothing for a prepared transaction.
    pub pid: Option<i32>,
    /// Name of a prepared transaction.
    pub gid: Option<String>,
    /// How long it has been open; nothing where the role may not see that.
    pub age: Option<Duration>,
}

/// An event to insert.
#[derive(Clone, Debug)]
pub struct Insert {
    /// Its identity, where the column takes one; a number is left to the database.
    pub id: Uuid,
    /// Its topic.
    pub topic: String,
    /// Its key.
    pub key: Option<String>,
    /// Which event.
    pub kind: String,
    /// Its value; nothing is a tombstone.
    pub payload: Option<String>,
    /// A JSON object.
    pub headers: Option<String>,
}

/// An event that is in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inserted {
    /// Its number; nothing when the role may not read the table.
    pub seq: Option<i64>,
    /// Its identity as text; nothing when the database drew it and the role may not read the table.
    pub id: Option<String>,
    /// By what the journal knows it; nothing as for `id`, also where the id is text.
    pub fingerprint: Option<Fingerprint>,
    /// When, by the database's clock, microseconds since 1970.
    pub created_at_us: i64,
}

/// Which parked events are meant: all that fit each of what is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Those with these identities; none given: any.
    pub ids: Vec<String>,
    /// Those that were parked for this reason.
    pub code: Option<String>,
    /// Those of this topic.
    pub topic: Option<String>,
}

/// A parked event, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Its number.
    pub seq: i64,
    /// Its identity as text.
    pub id: String,
    /// Its topic as in the table.
    pub topic: String,
    /// Its key as text.
    pub key: Option<String>,
    /// Why, as a stable word.
    pub code: String,
    /// Why, as a sentence.
    pub detail: String,
    /// Whether later events of its key wait.
    pub blocking: bool,
    /// For how long it has been parked.
    pub age: Duration,
    /// How many events wait behind it, among the first 100,000 that are unsent.
    pub waiting: u64,
}

/// What becomes of parked events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They are tried again.
    Retry,
    /// They are marked as sent and never published.
    Discard,
}

impl Decision {
    /// Its name in the audit.
    pub fn action(self) -> &'static str {
        match self {
            Self::Retry => "parked retry",
            Self::Discard => "parked discard",
        }
    }
}

/// Who wants a change, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks, added to the name of the database role.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// What the audit keeps of a reconciliation: how many rows were marked, and how many nothing was known of.
pub(super) fn reconciled(halt: &Halt, at: Applied, (marked, undecided): (u64, u64)) -> String {
    let (code, evidence, n, offset) = (halt.code.name(), &halt.evidence, at.n, at.offset);
    let detail = serde_json::json!({
        "halt": code, "evidence": evidence, "batch": n, "offset": offset, "marked": marked, "undecided": undecided,
    });
    detail.to_string()
}

/// Which databases an outbox may be published from, and which one this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// Host, port and database as configured.
    pub address: String,
    /// What the server says of itself.
    pub database: DatabaseIdentity,
    /// Accepted addresses.
    pub addresses: Vec<String>,
    /// Accepted system identifiers.
    pub systems: Vec<String>,
}

impl Acceptance {
    /// Whether this database is one of the accepted ones.
    pub fn holds(&self) -> bool {
        self.addresses.contains(&self.address) && self.systems.contains(&self.database.system)
    }
}

/// One transaction of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub title: String,
    /// The statements.
    pub sql: String,
}

/// Something to know about a table of one's own, or to do for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What and why.
    pub why: String,
    /// A statement for a person to run.
    pub sql: Option<String>,
}

/// The outbox's row, as far as `check` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Table that the name belongs to.
    pub table: String,
    /// Mode that it was set up for.
    pub delivery: String,
    /// Code and evidence of a halt.
    pub halted: Option<(String, String)>,
    /// Who has paused it, and why.
    pub paused: Option<(String, String)>,
    /// Who relays it now.
    pub owner: Option<String>,
    /// Pinned topics.
    pub pins: Pins,
}

/// What is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Events.
    pub parked: i64,
    /// Topics and why they are held, at most twenty.
    pub held: Vec<(String, String)>,
}

/// A topic that unsent rows name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInUse {
    /// As in the table.
    pub topic: String,
    /// Whether one of them has no key.
    pub without_key: bool,
}

/// A trigger or rule that may swallow what the relay does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Its name.
    pub name: String,
    /// Whether it concerns rows that are marked.
    pub on_mark: bool,
    /// Whether it concerns rows that are deleted.
    pub on_delete: bool,
}

/// What a verification has to know before it reads anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footing {
    /// Identity of the outbox.
    pub outbox: Uuid,
    /// Mode in the state row.
    pub delivery: String,
    /// Newest applied batch.
    pub applied: Applied,
    /// The oldest batch of which the database still knows when it was marked, and when: microseconds since 1970.
    pub first_applied: Option<(u64, i64)>,
    /// When the outbox was set up, in microseconds since 1970.
    pub set_up_us: i64,
    /// Pinned topics.
    pub pins: Pins,
    /// Whether the id of an event is a uuid.
    pub has_uuids: bool,
    /// About how many rows the table has; 0 where nobody knows.
    pub rows: u64,
}

/// A row as a verification needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowFacts<'a> {
    /// Its number.
    pub seq: i64,
    /// What the journal knows it by.
    pub fingerprint: Fingerprint,
    /// Its topic as in the table.
    pub topic: &'a str,
    /// When it was marked, in microseconds since 1970; nothing: it was not.
    pub marked_us: Option<i64>,
}

/// An unsent row, as `reconcile` looks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsentRow<'a> {
    /// Its number.
    pub seq: i64,
    /// Its identity as text.
    pub id: &'a str,
    /// What the journal knows it by.
    pub fingerprint: Fingerprint,
    /// Its topic as in the table.
    pub topic: &'a str,
    /// When it was inserted, in microseconds since 1970, where the table says so.
    pub created_us: Option<i64>,
}

/// An event that a person has given up, as the audit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// Number of the entry in the audit.
    pub n: i64,
    /// Number of the event.
    pub seq: i64,
    /// Its identity as text.
    pub id: String,
    /// Its topic as in the table.
    pub topic: String,
}

/// A row with all that is known of its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its number.
    pub seq: i64,
    /// Its identity as text.
    pub id: String,
    /// What the journal knows it by.
    pub fingerprint: Fingerprint,
    /// Its topic as in the table.
    pub topic: String,
    /// Its key, as it is published.
    pub key: Option<Vec<u8>>,
    /// Its value, as it is published.
    pub payload: Option<Vec<u8>>,
    /// Which event it is.
    pub kind: String,
    /// When it was inserted, in microseconds since 1970.
    pub created_us: Option<i64>,
    /// When it was marked, in microseconds since 1970.
    pub marked_us: Option<i64>,
    /// What it waits for, other than its turn.
    pub waits: Option<Waits>,
    /// The transaction that inserted it, where the database still tells.
    pub transaction: Option<String>,
    /// When that was committed, in microseconds since 1970, where the database keeps it.
    pub committed_us: Option<i64>,
}

/// What keeps an unsent event from being published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It is set aside itself.
    Parked {
        /// Why, as a stable word.
        code: String,
        /// Why, as a sentence.
        detail: String,
    },
    /// Its topic cannot be published to.
    Held {
        /// Why, as a stable word.
        code: String,
        /// Why, as a sentence.
        detail: String,
    },
    /// An event of its key is set aside.
    Behind {
        /// Number of that one.
        seq: i64,
        /// Its identity.
        id: String,
        /// Why it is set aside.
        code: String,
    },
}

impl Waits {
    /// From what the tables of parked events and held topics say, each nothing where they say nothing: of the event itself, of its topic,
    /// and number, identity and code of the event before it.
    pub(super) fn of(
        parked: Option<(String, String)>,
        held: Option<(String, String)>,
        behind: Option<(i64, String, String)>,
    ) -> Option<Self> {
        let parked = parked.map(|(code, detail)| Self::Parked { code, detail });
        let held = held.map(|(code, detail)| Self::Held { code, detail });
        let behind = behind.map(|(seq, id, code)| Self::Behind { seq, id, code });
        parked.or(held).or(behind)
    }
}

/// Which rows are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Those with this identity.
    Id(&'a str),
    /// Those of this key.
    Key(&'a str),
}

/// How many rows of a key are told, the newest first.
pub const ROWS_OF_A_KEY: i64 = 20;

/// Rows that are read at once.
pub(super) const ROWS_AT_ONCE: i64 = 20_000;
