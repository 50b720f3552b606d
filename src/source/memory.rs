//! The outbox table in memory: the twin of a database for tests. Transactions, a sequence that runs ahead of commits, claims, leases,
//! and faults on demand.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::{ClaimNumber, Fetched, Marker, Pins, Query, Reader, Source, Standing, Tenure};
use crate::cursor::{Form, Listing};
use crate::event::{BatchBuilder, Event, Fingerprint, Pushed};
use crate::fault::{Cause, Fault, Halt, HaltCode};
use crate::journal::{Applied, DatabaseIdentity, History, Owner, Record};
use crate::park::{Done, SetAside};
use crate::sink::{Fence, Noted, Published};

mod chores;

/// Start numbers of grants that are remembered.
const GRANTS_KEPT: usize = 64;

/// Verbs that a test can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `Source::look`.
    Look,
    /// `Source::claim`.
    Claim,
    /// One record of `Tenure::settle`.
    Settle,
    /// `Reader::fetch`.
    Fetch,
    /// `Marker::mark`.
    Mark,
    /// `Marker::set_aside`.
    SetAside,
    /// `Marker::let_go`.
    LetGo,
}

/// What a failing verb did before it failed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nothing.
    Before(Fault),
    /// Everything: only the answer got lost.
    After(Fault),
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Identity.
    pub id: Uuid,
    /// Topic.
    pub topic: String,
    /// Key.
    pub key: Option<String>,
    /// Value.
    pub payload: String,
    /// Whether it is marked.
    pub sent: bool,
}

/// An event that is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its identity.
    pub id: Uuid,
    /// Its topic.
    pub topic: String,
    /// Its key.
    pub key: Option<String>,
    /// Why.
    pub code: &'static str,
    /// Whether its key waits.
    pub blocking: bool,
}

/// Everything the database holds.
#[derive(Clone, Debug)]
pub struct Database {
    /// Committed rows by number.
    pub rows: BTreeMap<i64, Row>,
    /// Rows of open transactions.
    open: HashMap<String, Vec<(i64, Row)>>,
    /// Highest number drawn.
    pub last_value: i64,
    /// What is applied, ascending.
    pub applied: Vec<Applied>,
    /// The state row, but for what is derived.
    pub standing: Standing,
    /// The token of the unlogged table.
    pub token: Option<ClaimNumber>,
    /// Instance and start of whoever holds the lease.
    pub lease: Option<(String, u64)>,
    /// It has run out, and nobody has taken it since.
    pub lease_ran_out: bool,
    /// The halt that was written.
    pub halted: Option<Halt>,
    /// File number of the table.
    pub file: u64,
    /// Marks touch no row, as with a trigger that swallows updates.
    pub swallows_marks: bool,
    /// Marks are undone when they are made, as by a trigger that fires after the update; a claim sees that there is one.
    pub undoes_marks: bool,
    /// The only row that is not touched.
    pub swallows_mark_of: Option<i64>,
    /// Marked rows are deleted.
    pub deletes: bool,
    /// Events that are set aside.
    pub parked: BTreeMap<i64, Parked>,
    /// Events behind a parked one of their key wait.
    pub parks_keys: bool,
    /// Whether the cursor may be used.
    pub allows_cursor: bool,
    next_transaction: u64,
    failures: HashMap<Verb, VecDeque<Option<Failure>>>,
    /// Verbs as they were called.
    pub calls: Vec<Verb>,
}

/// A handle to one database; clones see the same one.
#[derive(Clone, Debug)]
pub struct MemorySource(Arc<Mutex<Database>>);

/// An open transaction of a service.
#[derive(Debug)]
pub struct Writer {
    source: MemorySource,
    name: String,
}

impl MemorySource {
    /// An empty outbox as `migrate` leaves it.
    pub fn new(outbox: Uuid) -> Self {
        let standing = Standing {
            outbox,
            claim: ClaimNumber(0),
            applied: Applied::default(),
            address: "memory".into(),
            database: DatabaseIdentity { system: "1".into(), timeline: 1 },
            accepted_addresses: vec!["memory".into()],
            accepted_systems: vec!["1".into()],
            epoch: 0,
            grants: Vec::new(),
            pins: Pins::new(),
            held: BTreeSet::new(),
            paused: false,
        };
        Self(Arc::new(Mutex::new(Database {
            rows: BTreeMap::new(),
            open: HashMap::new(),
            last_value: 0,
            applied: Vec::new(),
            standing,
            token: None,
            lease: None,
            lease_ran_out: false,
            halted: None,
            file: 1,
            swallows_marks: false,
            undoes_marks: false,
            swallows_mark_of: None,
            deletes: false,
            parked: BTreeMap::new(),
            parks_keys: true,
            allows_cursor: true,
            next_transaction: 1,
            failures: HashMap::new(),
            calls: Vec::new(),
        })))
    }

    /// The database itself, to look at it or to do it harm.
    pub fn database(&self) -> MutexGuard<'_, Database> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another database with the same contents: a copy, or a backup.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.database().clone())))
    }

    /// Puts the contents of `backup` back.
    pub fn restore(&self, backup: &Self) {
        let backup = backup.database().clone();
        *self.database() = backup;
    }

    /// Begins a transaction of a service.
    pub fn begin(&self) -> Writer {
        let mut database = self.database();
        let name = format!("9/{}", database.next_transaction);
        database.next_transaction += 1;
        Writer { source: self.clone(), name }
    }

    /// Inserts one event in a transaction of its own.
    pub fn insert(&self, topic: &str, key: Option<&str>, payload: &str) -> i64 {
        let writer = self.begin();
        let seq = writer.insert(topic, key, payload);
        writer.commit();
        seq
    }

    /// The next call of `verb` that is not spoken for fails.
    pub fn fail(&self, verb: Verb, failure: Failure) {
        self.database().failures.entry(verb).or_default().push_back(Some(failure));
    }

    /// The next call of `verb` that is not spoken for succeeds.
    pub fn pass(&self, verb: Verb) {
        self.database().failures.entry(verb).or_default().push_back(None);
    }

    fn call<T>(&self, verb: Verb, action: impl FnOnce(&mut Database) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut database = self.database();
        database.calls.push(verb);
        match database.failures.get_mut(&verb).and_then(VecDeque::pop_front).flatten() {
            None => action(&mut database),
            Some(Failure::Before(fault)) => Err(fault),
            Some(Failure::After(fault)) => action(&mut database).and(Err(fault)),
        }
    }
}

impl Database {
    fn applied(&self) -> Applied {
        self.applied.last().copied().unwrap_or_default()
    }

    fn standing(&self) -> Standing {
        Standing { applied: self.applied(), ..self.standing.clone() }
    }

    fn guard(&self, claim: ClaimNumber) -> Result<(), Fault> {
        if self.standing.claim == claim { Ok(()) } else { Err(Fault::in_doubt(Cause::ClaimChanged, "another claim")) }
    }

    fn mark(&mut self, seq: i64, matches: impl Fn(&Row) -> bool) -> bool {
        let swallows = self.swallows_marks || self.swallows_mark_of == Some(seq);
        let Some(row) = self.rows.get_mut(&seq).filter(|row| matches(row) && !row.sent && !swallows) else { return false };
        row.sent = !self.undoes_marks;
        self.parked.remove(&seq);
        if self.deletes {
            self.rows.remove(&seq);
        }
        true
    }

    /// Whether an event may be published now.
    fn is_free(&self, seq: i64, row: &Row) -> bool {
        let behind = |parked: &Parked| parked.blocking && row.key.is_some() && parked.topic == row.topic && parked.key == row.key;
        !self.standing.held.contains(&row.topic) && !self.parked.contains_key(&seq) && !self.parked.values().any(behind)
    }

    /// Entries whose row is gone, sent, or another event go away.
    fn forget_parked(&mut self) {
        let rows = &self.rows;
        self.parked.retain(|seq, parked| rows.get(seq).is_some_and(|row| row.id == parked.id && !row.sent));
    }

    /// Records a batch as applied: once, and after its predecessor.
    fn apply(&mut self, at: Applied, otherwise: Cause) -> Result<(), Fault> {
        if self.applied().n + 1 != at.n {
            return Err(Fault::in_doubt(otherwise, format!("batch {} does not follow the newest applied one", at.n)));
        }
        self.applied.push(at);
        Ok(())
    }

    fn listing(&self) -> Listing {
        Listing { last_value: self.last_value, holders: self.open.keys().cloned().collect::<BTreeSet<_>>() }
    }
}

impl Source for MemorySource {
    type Tenure = MemoryTenure;

    async fn look(&self) -> Result<Standing, Fault> {
        self.call(Verb::Look, |database| Ok(database.standing()))
    }

    async fn claim(&self, owner: &Owner, claim: ClaimNumber, _fence: &Fence) -> Result<MemoryTenure, Fault> {
        self.call(Verb::Claim, |database| {
            let held = database.lease.as_ref().is_some_and(|(_, start)| *start == owner.start) && !database.lease_ran_out;
            if !held || database.standing.epoch != owner.epoch {
                return Err(Fault::LeaseLost);
            }
            database.standing.claim = claim;
            database.token = Some(claim);
            database.halted = None;
            Ok(MemoryTenure { source: self.clone(), claim, standing: database.standing(), file: database.file })
        })
    }

    async fn halt(&self, halt: &Halt, seen: &Standing) -> Result<bool, Fault> {
        let mut database = self.database();
        let same = database.standing.claim == seen.claim && database.applied().n == seen.applied.n;
        if same {
            database.halted = Some(halt.clone());
        }
        Ok(same)
    }
}

/// A claim on a [`MemorySource`].
#[derive(Debug)]
pub struct MemoryTenure {
    source: MemorySource,
    claim: ClaimNumber,
    standing: Standing,
    file: u64,
}

impl MemoryTenure {
    fn settle_one(&self, record: &Record, at: Applied) -> Result<(), Fault> {
        self.source.call(Verb::Settle, |database| {
            database.guard(self.claim)?;
            let before = database.clone();
            database.apply(at, Cause::Settle)?;
            for entry in &record.entries {
                let ours = |row: &Row| Fingerprint::of(row.id) == entry.fingerprint;
                database.mark(entry.seq, ours);
                if database.rows.get(&entry.seq).is_some_and(|row| ours(row) && !row.sent) {
                    (database.rows, database.applied) = (before.rows, before.applied);
                    return Err(Halt::new(HaltCode::MarkRefused, format!("seq {} is still unsent", entry.seq)).into());
                }
            }
            Ok(())
        })
    }
}

impl Tenure for MemoryTenure {
    type Reader = MemoryReader;
    type Marker = MemoryMarker;

    fn standing(&self) -> &Standing {
        &self.standing
    }

    async fn settle<H: History>(self, mut history: H) -> Result<(MemoryReader, MemoryMarker), Fault> {
        while let Some((record, at)) = history.next().await? {
            self.settle_one(&record, at)?;
        }
        self.source.database().forget_parked();
        let looks_twice = self.source.database().undoes_marks;
        let reader = MemoryReader { source: self.source.clone(), claim: self.claim, file: self.file };
        Ok((reader, MemoryMarker { source: self.source, claim: self.claim, looks_twice }))
    }
}

/// Fetches from a [`MemorySource`].
#[derive(Debug)]
pub struct MemoryReader {
    source: MemorySource,
    claim: ClaimNumber,
    file: u64,
}

impl Reader for MemoryReader {
    fn allows_cursor(&self) -> bool {
        self.source.database().allows_cursor
    }

    async fn positions(&mut self) -> Result<Listing, Fault> {
        Ok(self.source.database().listing())
    }

    async fn fetch(&mut self, query: &Query) -> Result<Fetched, Fault> {
        self.source.call(Verb::Fetch, |database| {
            database.guard(self.claim)?;
            match database.token {
                Some(token) if token == self.claim => {}
                Some(_) => return Err(Fault::in_doubt(Cause::ClaimChanged, "another token")),
                None => return Err(Fault::in_doubt(Cause::TokenMissing, "no token")),
            }
            if database.file != self.file {
                return Err(Fault::in_doubt(Cause::FileChanged, "another file"));
            }
            Ok(Fetched { listing: database.listing(), batch: select(database, query).build().map(Arc::new) })
        })
    }
}

fn select(database: &Database, query: &Query) -> BatchBuilder {
    let wanted = |seq: i64| match query.form {
        Form::Full => true,
        Form::Cursor => seq > query.head || query.gaps.iter().any(|gap| (gap.low..=gap.high).contains(&seq)),
    };
    let mut batch = BatchBuilder::new(query.limits);
    for (&seq, row) in database.rows.iter().filter(|(seq, row)| !row.sent && wanted(**seq) && database.is_free(**seq, row)) {
        let pushed = batch.push(&Event {
            seq,
            id: row.id.into(),
            topic: &row.topic,
            key: row.key.as_deref().map(str::as_bytes),
            kind: "",
            source: None,
            payload: Some(row.payload.as_bytes()),
            headers: None,
            created_at_us: Some(0),
        });
        if pushed != Pushed::Kept {
            break;
        }
    }
    batch
}

/// Marks in a [`MemorySource`].
#[derive(Debug)]
pub struct MemoryMarker {
    source: MemorySource,
    claim: ClaimNumber,
    looks_twice: bool,
}

impl Marker for MemoryMarker {
    async fn mark(&mut self, published: &Published) -> Result<(), Fault> {
        self.source.call(Verb::Mark, |database| {
            database.guard(self.claim)?;
            let before = database.clone();
            if let Some(at) = published.journalled() {
                database.apply(at, Cause::Mark)?;
            }
            let marked =
                published.batch().events().filter(|event| database.mark(event.seq, |row| event.id == row.id.into())).count();
            let undone = |event: Event<'_>| database.rows.get(&event.seq).is_some_and(|row| event.id == row.id.into() && !row.sent);
            if marked != published.batch().len() || self.looks_twice && published.batch().events().any(undone) {
                (database.rows, database.applied) = (before.rows, before.applied);
                return Err(Fault::in_doubt(Cause::MarkCount, format!("{marked} of {} rows", published.batch().len())));
            }
            Ok(())
        })
    }

    async fn note(&mut self, noted: &Noted) -> Result<(), Fault> {
        self.source.call(Verb::Mark, |database| {
            database.guard(self.claim)?;
            database.apply(noted.at(), Cause::Mark)
        })
    }

    async fn pin(&mut self, pins: &Pins) -> Result<(), Fault> {
        let mut database = self.source.database();
        database.guard(self.claim)?;
        database.standing.pins.extend(pins.clone());
        Ok(())
    }

    async fn set_aside(&mut self, what: &SetAside) -> Result<Done, Fault> {
        self.source.call(Verb::SetAside, |database| {
            database.guard(self.claim)?;
            let before = (database.parked.len(), database.standing.held.len());
            for unfit in &what.unfit {
                let Some(row) = database.rows.get(&unfit.seq).filter(|row| unfit.id.id() == row.id.into() && !row.sent) else {
                    continue;
                };
                let (topic, key, blocking) = (row.topic.clone(), row.key.clone(), database.parks_keys);
                let parked = Parked { id: row.id, topic, key, code: unfit.code, blocking };
                database.parked.insert(unfit.seq, parked);
            }
            database.standing.held.extend(what.ailing.iter().map(|ailing| ailing.topic.clone()));
            let after = (database.parked.len(), database.standing.held.len());
            Ok(Done { parked: (after.0 - before.0) as u64, held: (after.1 - before.1) as u64 })
        })
    }

    async fn let_go(&mut self, topics: &BTreeSet<String>) -> Result<(), Fault> {
        self.source.call(Verb::LetGo, |database| {
            database.guard(self.claim)?;
            database.standing.held.retain(|topic| !topics.contains(topic));
            Ok(())
        })
    }
}
