//! Whichever database the configuration names. One `match` in each verb, at the outermost point: everything below knows its own.

use std::collections::BTreeSet;
use std::future::Future;

use super::desk::{
    Acceptance, Advice, Chosen, Decision, Discarded, EventRow, Figures, Footing, Insert, Inserted, OpenWriter, ParkedEvent,
    Request, Row, RowFacts, Step, TopicInUse, UnsentRow, Wanted,
};
use super::postgres::{self, Activity, Postgres, PostgresMarker, PostgresReader, PostgresTenure, Roles};
use super::sqlite::{self, Sqlite, SqliteMarker, SqliteReader, SqliteTenure};
use super::{
    ClaimNumber, Fetched, Gauging, Lease, Leases, Marker, Pending, Pins, Pruned, Pruning, Query, Reader, Source, Standing,
    Takeover, Tenure,
};
use crate::config::Delivery;
use crate::cursor::Listing;
use crate::fault::{Fault, Halt};
use crate::journal::{Applied, Entry, History, Owner, Record};
use crate::park::{Done, SetAside};
use crate::sink::{Fence, Noted, Published};

/// An outbox table in one of the databases.
pub enum AnySource {
    /// On a PostgreSQL server.
    Postgres(Box<Postgres>),
    /// In a SQLite file.
    Sqlite(Box<Sqlite>),
}

/// A claim on an [`AnySource`].
pub enum AnyTenure {
    /// In PostgreSQL.
    Postgres(Box<PostgresTenure>),
    /// In SQLite.
    Sqlite(Box<SqliteTenure>),
}

/// Fetches from an [`AnySource`].
pub enum AnyReader {
    /// In PostgreSQL.
    Postgres(Box<PostgresReader>),
    /// In SQLite.
    Sqlite(Box<SqliteReader>),
}

/// Marks in an [`AnySource`].
pub enum AnyMarker {
    /// In PostgreSQL.
    Postgres(Box<PostgresMarker>),
    /// In SQLite.
    Sqlite(Box<SqliteMarker>),
}

/// What `check` found in one of the databases.
#[derive(Clone, Debug)]
pub enum Checkup {
    /// On a PostgreSQL server.
    Postgres(Box<postgres::Checkup>),
    /// In a SQLite file.
    Sqlite(Box<sqlite::Checkup>),
}

impl Checkup {
    /// The outbox's row, where it could be read.
    pub fn row(&self) -> Option<&Row> {
        match self {
            Self::Postgres(checkup) => checkup.outbox.as_ref().ok()?.row.as_ref().ok()?.as_ref(),
            Self::Sqlite(checkup) => checkup.row.as_ref().ok()?.as_ref(),
        }
    }

    /// Topics that unsent rows name, where they could be read.
    pub fn topics(&self) -> &[TopicInUse] {
        let topics = match self {
            Self::Postgres(checkup) => checkup.outbox.as_ref().ok().and_then(|outbox| outbox.topics.as_ref().ok()),
            Self::Sqlite(checkup) => checkup.topics.as_ref().ok(),
        };
        topics.map_or(&[], Vec::as_slice)
    }

    /// What was done to the table, where the database counts it.
    pub fn activity(&self) -> Option<&Activity> {
        match self {
            Self::Postgres(checkup) => checkup.outbox.as_ref().ok()?.activity.as_ref().ok(),
            Self::Sqlite(_) => None,
        }
    }
}

/// The same call, whichever database it is.
macro_rules! whichever {
    ($of:expr, $one:ident => $call:expr) => {
        match $of {
            Self::Postgres($one) => $call,
            Self::Sqlite($one) => $call,
        }
    };
}

impl Source for AnySource {
    type Tenure = AnyTenure;

    async fn look(&self) -> Result<Standing, Fault> {
        whichever!(self, source => source.look().await)
    }

    async fn explain(&self, fault: Fault) -> Fault {
        whichever!(self, source => source.explain(fault).await)
    }

    async fn claim(&self, owner: &Owner, claim: ClaimNumber, fence: &Fence) -> Result<AnyTenure, Fault> {
        Ok(match self {
            Self::Postgres(source) => AnyTenure::Postgres(Box::new(source.claim(owner, claim, fence).await?)),
            Self::Sqlite(source) => AnyTenure::Sqlite(Box::new(source.claim(owner, claim, fence).await?)),
        })
    }

    async fn halt(&self, halt: &Halt, seen: &Standing) -> Result<bool, Fault> {
        whichever!(self, source => source.halt(halt, seen).await)
    }
}

impl Tenure for AnyTenure {
    type Reader = AnyReader;
    type Marker = AnyMarker;

    fn standing(&self) -> &Standing {
        whichever!(self, tenure => tenure.standing())
    }

    async fn settle<H: History>(self, history: H) -> Result<(AnyReader, AnyMarker), Fault> {
        Ok(match self {
            Self::Postgres(tenure) => {
                let (reader, marker) = tenure.settle(history).await?;
                (AnyReader::Postgres(Box::new(reader)), AnyMarker::Postgres(Box::new(marker)))
            }
            Self::Sqlite(tenure) => {
                let (reader, marker) = tenure.settle(history).await?;
                (AnyReader::Sqlite(Box::new(reader)), AnyMarker::Sqlite(Box::new(marker)))
            }
        })
    }
}

impl Reader for AnyReader {
    fn allows_cursor(&self) -> bool {
        whichever!(self, reader => reader.allows_cursor())
    }

    async fn positions(&mut self) -> Result<Listing, Fault> {
        whichever!(self, reader => reader.positions().await)
    }

    async fn fetch(&mut self, query: &Query) -> Result<Fetched, Fault> {
        whichever!(self, reader => reader.fetch(query).await)
    }

    async fn news(&mut self) {
        whichever!(self, reader => reader.news().await);
    }
}

impl Marker for AnyMarker {
    async fn mark(&mut self, published: &Published) -> Result<(), Fault> {
        whichever!(self, marker => marker.mark(published).await)
    }

    async fn note(&mut self, noted: &Noted) -> Result<(), Fault> {
        whichever!(self, marker => marker.note(noted).await)
    }

    async fn pin(&mut self, pins: &Pins) -> Result<(), Fault> {
        whichever!(self, marker => marker.pin(pins).await)
    }

    async fn set_aside(&mut self, what: &SetAside) -> Result<Done, Fault> {
        whichever!(self, marker => marker.set_aside(what).await)
    }

    async fn let_go(&mut self, topics: &BTreeSet<String>) -> Result<(), Fault> {
        whichever!(self, marker => marker.let_go(topics).await)
    }
}

impl Leases for AnySource {
    async fn take(&self, instance: &str, start: u64, takeover: Takeover) -> Result<Lease, Fault> {
        whichever!(self, source => source.take(instance, start, takeover).await)
    }

    async fn renew(&self, start: u64) -> Result<Lease, Fault> {
        whichever!(self, source => source.renew(start).await)
    }

    async fn release(&self, start: u64) -> Result<(), Fault> {
        whichever!(self, source => source.release(start).await)
    }
}

impl Pruning for AnySource {
    async fn prune(&self) -> Result<Pruned, Fault> {
        whichever!(self, source => source.prune().await)
    }
}

impl Gauging for AnySource {
    async fn pending(&self) -> Result<Pending, Fault> {
        whichever!(self, source => source.pending().await)
    }
}

/// What commands ask.
impl AnySource {
    /// What must hold before a relay starts.
    pub async fn prepare(&self) -> Result<(), Fault> {
        whichever!(self, source => source.prepare().await)
    }

    /// What `migrate` would run, in order.
    pub async fn plan(&self) -> Result<Vec<Step>, Fault> {
        whichever!(self, source => source.plan().await)
    }

    /// Creates what is missing, and returns what it did.
    pub async fn migrate(&self) -> Result<Vec<Step>, Fault> {
        whichever!(self, source => source.migrate().await)
    }

    /// What a person may do for the table.
    pub async fn advice(&self) -> Result<Vec<Advice>, Fault> {
        whichever!(self, source => source.advice().await)
    }

    /// The statements that give two roles the least rights they need.
    pub async fn grants(&self, roles: &Roles) -> Result<String, Fault> {
        match self {
            Self::Postgres(source) => source.grants(roles).await,
            Self::Sqlite(_) => Err(no_roles()),
        }
    }

    /// Runs [`AnySource::grants`].
    pub async fn grant(&self, roles: &Roles) -> Result<(), Fault> {
        match self {
            Self::Postgres(source) => source.grant(roles).await,
            Self::Sqlite(_) => Err(no_roles()),
        }
    }

    /// Changes the mode, provided that no lease is alive.
    pub async fn set_delivery(&self, delivery: Delivery, claim: ClaimNumber) -> Result<(), Fault> {
        whichever!(self, source => source.set_delivery(delivery, claim).await)
    }

    /// What `check` looks at.
    pub async fn checkup(&self) -> Result<Checkup, Fault> {
        Ok(match self {
            Self::Postgres(source) => Checkup::Postgres(Box::new(source.checkup().await?)),
            Self::Sqlite(source) => Checkup::Sqlite(Box::new(source.checkup().await?)),
        })
    }

    /// What `status` shows.
    pub async fn figures(&self) -> Result<Figures, Fault> {
        whichever!(self, source => source.figures().await)
    }

    /// Transactions that keep numbers of the outbox open for more than a second.
    pub async fn open_writers(&self) -> Result<Vec<OpenWriter>, Fault> {
        whichever!(self, source => source.open_writers().await)
    }

    /// Inserts one event, as a service would.
    pub async fn insert(&self, event: &Insert) -> Result<Inserted, Fault> {
        whichever!(self, source => source.insert(event).await)
    }

    /// Parked events by reason and number, at most `most`.
    pub async fn parked(&self, chosen: &Chosen, most: u32) -> Result<Vec<ParkedEvent>, Fault> {
        whichever!(self, source => source.parked(chosen, most).await)
    }

    /// How many parked events are meant.
    pub async fn count_parked(&self, chosen: &Chosen) -> Result<u64, Fault> {
        whichever!(self, source => source.count_parked(chosen).await)
    }

    /// Retries or discards parked events, and returns how many.
    pub async fn decide(&self, decision: Decision, chosen: &Chosen, who: &str, reason: &str) -> Result<u64, Fault> {
        whichever!(self, source => source.decide(decision, chosen, who, reason).await)
    }

    /// Pauses the outbox; says whether it was not paused before.
    pub async fn pause(&self, request: &Request) -> Result<bool, Fault> {
        whichever!(self, source => source.pause(request).await)
    }

    /// Resumes the outbox; says whether it was paused.
    pub async fn resume(&self, request: &Request) -> Result<bool, Fault> {
        whichever!(self, source => source.resume(request).await)
    }

    /// Which databases are accepted, and which one this is.
    pub async fn acceptance(&self) -> Result<Acceptance, Fault> {
        whichever!(self, source => source.acceptance().await)
    }

    /// Accepts this database beside those accepted before.
    pub async fn adopt_database(&self, here: &Acceptance, request: &Request) -> Result<(), Fault> {
        whichever!(self, source => source.adopt_database(here, request).await)
    }

    /// Has a journal record written and takes it for the newest applied batch, provided that nobody claimed or marked since `seen`.
    pub async fn adopt_journal(
        &self,
        write: impl Future<Output = Result<Applied, Fault>>,
        seen: &Standing,
        halt: &Halt,
        request: &Request,
    ) -> Result<Applied, Fault> {
        whichever!(self, source => source.adopt_journal(write, seen, halt, request).await)
    }

    /// Numbers of those events of a journal record that are still in the table.
    pub async fn still_there(&self, record: &Record) -> Result<BTreeSet<i64>, Fault> {
        whichever!(self, source => source.still_there(record).await)
    }

    /// Un-marks exactly the rows of the newest applied batch, provided that as many are there as were shown.
    pub async fn unmark(
        &self,
        record: &Record,
        shown: usize,
        seen: &Standing,
        detail: &str,
        request: &Request,
    ) -> Result<(), Fault> {
        whichever!(self, source => source.unmark(record, shown, seen, detail, request).await)
    }

    /// Shows a page of unsent rows above `after`, and returns the number of the last one; nothing when there are no more.
    pub async fn unsent_after(&self, after: i64, show: impl FnMut(UnsentRow<'_>) + Send) -> Result<Option<i64>, Fault> {
        whichever!(self, source => source.unsent_after(after, show).await)
    }

    /// Marks what was found to be published, has a journal record written and takes it for the newest applied batch, provided that
    /// nobody claimed or marked since `seen`. Returns that record and how many rows were marked.
    pub async fn reconcile(
        &self,
        (found, undecided): (impl Iterator<Item = Result<Vec<Entry>, Fault>> + Send, u64),
        write: impl Future<Output = Result<Applied, Fault>>,
        seen: &Standing,
        halt: &Halt,
        request: &Request,
    ) -> Result<(Applied, u64), Fault> {
        whichever!(self, source => source.reconcile((found, undecided), write, seen, halt, request).await)
    }

    /// Whether the outbox could get the name `new`.
    pub async fn may_be_renamed(&self, new: &str) -> Result<bool, Fault> {
        whichever!(self, source => source.may_be_renamed(new).await)
    }

    /// Gives the outbox another name, provided that nobody claimed or marked since `seen`.
    pub async fn rename(&self, new: &str, base: Option<Applied>, seen: &Standing, request: &Request) -> Result<(), Fault> {
        whichever!(self, source => source.rename(new, base, seen, request).await)
    }

    /// Pinned topics.
    pub async fn pins(&self) -> Result<Pins, Fault> {
        whichever!(self, source => source.pins().await)
    }

    /// Forgets what is pinned of a topic; says whether there was a pin.
    pub async fn repin(&self, topic: &str, request: &Request) -> Result<bool, Fault> {
        whichever!(self, source => source.repin(topic, request).await)
    }

    /// What a verification has to know before anything else is read.
    pub async fn footing(&self) -> Result<Footing, Fault> {
        whichever!(self, source => source.footing().await)
    }

    /// Shows a page of rows above `after`, and returns the number of the last one; nothing when there are no more.
    pub async fn rows_after(&self, after: i64, show: impl FnMut(RowFacts<'_>) + Send) -> Result<Option<i64>, Fault> {
        whichever!(self, source => source.rows_after(after, show).await)
    }

    /// A page of what the audit says was given up, after its entry `after`.
    pub async fn discarded_after(&self, after: i64) -> Result<Vec<Discarded>, Fault> {
        whichever!(self, source => source.discarded_after(after).await)
    }

    /// The rows that are meant, the newest first: all with an identity, the last ones of a key.
    pub async fn rows_of(&self, wanted: Wanted<'_>) -> Result<Vec<EventRow>, Fault> {
        whichever!(self, source => source.rows_of(wanted).await)
    }

    /// The database's clock, in microseconds since 1970, and the newest applied batch, 0 when there is none.
    pub async fn by_now(&self) -> Result<(i64, u64), Fault> {
        whichever!(self, source => source.by_now().await)
    }
}

/// SQLite knows no roles: the file's permissions are all there is.
fn no_roles() -> Fault {
    Fault::Misconfigured {
        detail: "SQLite has no roles to give rights to".into(),
        remedy: "Let the permissions of the file and its folder say who may write: the relay and the services".into(),
    }
}
