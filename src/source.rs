//! The seam to the outbox table. One implementation a database; all of them pass the same conformance suite.
//!
//! The order of the protocol is the order of the types: a [`Tenure`] needs the [`Fence`] that only a sink can raise, a [`Reader`] and
//! a [`Marker`] need the journal's [`History`], and `mark` needs a [`Published`] that only a sink can make.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cursor::{Form, Listing, Range};
use crate::event::{Batch, BatchLimits};
use crate::fault::{Fault, Halt};
use crate::journal::{Applied, DatabaseIdentity, History, Owner};
use crate::park::{Done, SetAside};
use crate::sink::{Fence, Noted, Published};

pub mod any;
pub mod desk;
pub mod memory;
mod migrations;
pub mod postgres;
pub mod sqlite;
mod state;
mod template;

/// Pinned topics, by their names in the table.
pub type Pins = BTreeMap<String, Pin>;

/// A topic as it was when it was published to for the first time, or when a person accepted what it had become.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Partitions that keys are spread over.
    pub partitions: i32,
    /// The log's own id of the topic: one that is deleted and made anew gets another. Nothing where the log does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The newest batch when this was pinned: what the journal says of the topic's name before that is about another topic, or is
    /// known to be lost.
    #[serde(default)]
    pub since: u64,
    /// Evidence that the topic has lost records that were acknowledged: the alarm events-truncated, until a person accepts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<String>,
}

impl Pin {
    /// A topic of which nothing but its partitions is known.
    pub fn of(partitions: i32) -> Self {
        Self { partitions, ..Self::default() }
    }
}

/// Random number that each claim, and each command that changes something, writes into the state row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimNumber(pub i64);

/// Where the outbox stands, as its database tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Identity of the outbox, given by `migrate`.
    pub outbox: Uuid,
    /// Claim number in the state row now.
    pub claim: ClaimNumber,
    /// Newest batch whose rows are marked.
    pub applied: Applied,
    /// Address (host, port, database) as configured.
    pub address: String,
    /// What the server says of itself.
    pub database: DatabaseIdentity,
    /// Addresses this outbox may be published from.
    pub accepted_addresses: Vec<String>,
    /// Systems this outbox may be published from.
    pub accepted_systems: Vec<String>,
    /// Number of the newest lease grant.
    pub epoch: u64,
    /// Start numbers of the newest grants, the last one belonging to `epoch`.
    pub grants: Vec<u64>,
    /// Pinned topics.
    pub pins: Pins,
    /// Topics that are held, by their names in the table.
    pub held: BTreeSet<String>,
    /// Whether a person has paused the outbox.
    pub paused: bool,
}

impl Standing {
    /// Whether this database gave `owner` its lease. Grants older than the remembered ones are believed.
    pub fn gave(&self, owner: &Owner) -> bool {
        let Some(age) = self.epoch.checked_sub(owner.epoch) else { return false };
        let remembered = self.grants.len() as u64;
        age >= remembered || self.grants[(remembered - 1 - age) as usize] == owner.start
    }
}

/// A table of events with the relay's own rows beside it.
pub trait Source: Send + Sync + 'static {
    /// What a claim gives.
    type Tenure: Tenure;

    /// Reads where the outbox stands; changes nothing.
    fn look(&self) -> impl Future<Output = Result<Standing, Fault>> + Send;

    /// The same fault, or what the database tells about it now: a refusal seldom names the right that is missing.
    fn explain(&self, fault: Fault) -> impl Future<Output = Fault> + Send {
        std::future::ready(fault)
    }

    /// Writes `claim` into state row and token, provided that `owner` still holds the lease, and reads what is applied. `fence` proves
    /// that every older owner is shut out of the log: what is read before that could still change.
    fn claim(&self, owner: &Owner, claim: ClaimNumber, fence: &Fence) -> impl Future<Output = Result<Self::Tenure, Fault>> + Send;

    /// Writes a halt into the state row, provided that claim number and applied batch still are those of `seen`. Says whether it was
    /// written.
    fn halt(&self, halt: &Halt, seen: &Standing) -> impl Future<Output = Result<bool, Fault>> + Send;
}

/// A claim whose journal is not settled yet.
pub trait Tenure: Send {
    /// Fetches.
    type Reader: Reader;
    /// Marks.
    type Marker: Marker;

    /// Where the outbox stood when it was claimed.
    fn standing(&self) -> &Standing;

    /// Marks what the journal has and the table lacks, record by record, then hands out reader and marker.
    fn settle<H: History>(self, history: H) -> impl Future<Output = Result<(Self::Reader, Self::Marker), Fault>> + Send;
}

/// What one fetch brought.
#[derive(Debug)]
pub struct Fetched {
    /// Came with the statement.
    pub listing: Listing,
    /// The rows; nothing when there were none.
    pub batch: Option<Arc<Batch>>,
}

/// What a fetch asks for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Full form, or by cursor.
    pub form: Form,
    /// Cursor form: highest number seen.
    pub head: i64,
    /// Cursor form: lower numbers never seen.
    pub gaps: Vec<Range>,
    /// How much to bring.
    pub limits: BatchLimits,
}

/// Fetches rows, in one snapshot each time.
pub trait Reader: Send {
    /// Whether the table keeps the rules that the cursor needs.
    fn allows_cursor(&self) -> bool;

    /// Reads where the sequence stands and then, in a later statement, who is writing.
    fn positions(&mut self) -> impl Future<Output = Result<Listing, Fault>> + Send;

    /// Fetches unsent rows in order. Claim number, token and files are compared in the same statement.
    fn fetch(&mut self, query: &Query) -> impl Future<Output = Result<Fetched, Fault>> + Send;

    /// Ends when something was committed since the last fetch, or may have been: a fetch is worth it before its time. Where the database
    /// does not tell that cheaply it never ends. May be dropped half way.
    fn news(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Marks rows and keeps what belongs to the state row, under the claim number.
pub trait Marker: Send {
    /// Marks exactly the rows of a batch and records it as applied, in one database transaction.
    fn mark(&mut self, published: &Published) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Records a batch without events as applied.
    fn note(&mut self, noted: &Noted) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Pins topics that occur for the first time, or of which something new is known.
    fn pin(&mut self, pins: &Pins) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Parks events that are still unsent, and holds topics. No fetch brings them any more, nor those that wait behind them.
    fn set_aside(&mut self, what: &SetAside) -> impl Future<Output = Result<Done, Fault>> + Send;

    /// Lets topics go on. The caller fetches in full form then.
    fn let_go(&mut self, topics: &BTreeSet<String>) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Whether the lease could be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Ours, under this grant.
    Held {
        /// Number of the grant.
        epoch: u64,
    },
    /// Another process has it.
    Taken {
        /// Its instance name.
        by: String,
        /// Its start number.
        start: u64,
        /// Number of its grant.
        epoch: u64,
    },
}

/// May the lease of an older process of the same instance name be taken while it still runs?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// Once, when the process starts: the older one is dead.
    OwnInstance,
    /// No: wait until it runs out.
    Expired,
}

/// The lease row: efficiency only, never safety.
pub trait Leases: Send + Sync + 'static {
    /// Takes the lease if it is free, run out, or ours already.
    fn take(&self, instance: &str, start: u64, takeover: Takeover) -> impl Future<Output = Result<Lease, Fault>> + Send;

    /// Renews a lease that is held; `Taken` when it is not ours any more.
    fn renew(&self, start: u64) -> impl Future<Output = Result<Lease, Fault>> + Send;

    /// Gives a lease up if it is ours.
    fn release(&self, start: u64) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What a running relay lets go of, in small steps.
pub trait Pruning: Send + Sync + 'static {
    /// Deletes sent rows older than the retention and old applied rows, one step. Returns how many rows went, and whether there is
    /// probably more.
    fn prune(&self) -> impl Future<Output = Result<Pruned, Fault>> + Send;
}

/// One step of pruning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows deleted.
    pub rows: u64,
    /// Whether the step ended at its limit.
    pub more: bool,
}

/// What waits in the table, for gauges.
pub trait Gauging: Send + Sync + 'static {
    /// Counts what is committed and not published, up to a bound, and looks at the oldest of it. Cheap enough for every few seconds.
    fn pending(&self) -> impl Future<Output = Result<Pending, Fault>> + Send;
}

/// Events that wait to be published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// How many, at most the bound that the source counts to.
    pub events: u64,
    /// When the oldest was created, microseconds since 1970 (UTC).
    pub oldest_created_us: Option<i64>,
    /// Events that are set aside.
    pub parked: u64,
    /// Events that wait behind those, or for their topic; at most the bound that the source counts to.
    pub blocked: u64,
    /// Topics that are held.
    pub held: u64,
}
