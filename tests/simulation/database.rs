//! The database as outboxd meets it: committed rows, a sequence that runs ahead of commits, writers that hold their lock on the table,
//! the state row, what is applied, the token that a crash empties.

use std::collections::{BTreeMap, BTreeSet};

use outboxd::cursor::Listing;
use outboxd::fault::{Cause, Fault, HaltCode};
use outboxd::journal::{Applied, DatabaseIdentity};
use outboxd::source::{ClaimNumber, Pins, Standing};
use tokio::time::Instant;
use uuid::Uuid;

/// Identity of the outbox.
pub const OUTBOX: Uuid = Uuid::from_u128(7);

/// The address that the outbox was set up with.
pub const HERE: &str = "here";

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: Uuid,
    pub topic: &'static str,
    pub key: Option<String>,
    pub sent: bool,
}

/// A transaction of a service that has not ended.
#[derive(Clone, Debug, Default)]
pub struct Open {
    /// Its name among the writers, once it has locked the table.
    pub holder: Option<String>,
    pub rows: Vec<(i64, Row)>,
    /// Keys whose aggregates it has locked.
    pub keys: BTreeSet<String>,
    /// It outlives a crash of the server.
    pub prepared: bool,
    /// When it began.
    pub since: Option<Instant>,
}

/// An event that is set aside.
#[derive(Clone, Debug)]
pub struct Parked {
    pub id: Uuid,
    pub topic: &'static str,
    pub key: Option<String>,
}

/// Who has the lease.
#[derive(Clone, Debug)]
pub struct Holder {
    pub instance: String,
    pub start: u64,
    pub until: Option<Instant>,
}

/// Everything that the database holds.
#[derive(Clone, Debug)]
pub struct Database {
    pub rows: BTreeMap<i64, Row>,
    pub open: BTreeMap<u64, Open>,
    /// Highest number drawn.
    pub last_value: i64,
    /// Up to where the write-ahead log has the sequence: a crash makes it go on from there.
    pub logged: i64,
    pub applied: Vec<Applied>,
    pub claim: ClaimNumber,
    pub token: Option<ClaimNumber>,
    pub lease: Option<Holder>,
    pub epoch: u64,
    pub grants: Vec<u64>,
    pub pins: Pins,
    pub held: BTreeSet<String>,
    pub halted: Option<HaltCode>,
    pub parked: BTreeMap<i64, Parked>,
    /// What was given up: number, identity, topic.
    pub audit: Vec<(i64, Uuid, &'static str)>,
    /// A trigger keeps rows with even numbers from being marked.
    pub swallows: bool,
    /// Until when somebody else has the state row locked.
    pub locked: Option<Instant>,
    /// There is no room left on its disk: it can be read, and nothing can be written.
    pub full: bool,
    /// By which address it is reached.
    pub address: &'static str,
    pub timeline: u32,
    /// Connections of another generation are broken.
    pub generation: u64,
}

/// Which rows a trigger keeps from being marked.
pub fn is_swallowed(seq: i64) -> bool {
    seq % 2 == 0
}

impl Database {
    pub fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            open: BTreeMap::new(),
            last_value: 0,
            logged: 0,
            applied: Vec::new(),
            claim: ClaimNumber(0),
            token: None,
            lease: None,
            epoch: 0,
            grants: Vec::new(),
            pins: Pins::new(),
            held: BTreeSet::new(),
            halted: None,
            parked: BTreeMap::new(),
            audit: Vec::new(),
            swallows: false,
            locked: None,
            full: false,
            address: HERE,
            timeline: 1,
            generation: 1,
        }
    }

    /// Draws the next number.
    pub fn draw(&mut self, ahead: i64) -> i64 {
        self.last_value += 1;
        if self.last_value > self.logged {
            self.logged = self.last_value + ahead;
        }
        self.last_value
    }

    pub fn applied(&self) -> Applied {
        self.applied.last().copied().unwrap_or_default()
    }

    pub fn standing(&self) -> Standing {
        Standing {
            outbox: OUTBOX,
            claim: self.claim,
            applied: self.applied(),
            address: self.address.into(),
            database: DatabaseIdentity { system: "1".into(), timeline: self.timeline },
            accepted_addresses: vec![HERE.into()],
            accepted_systems: vec!["1".into()],
            epoch: self.epoch,
            grants: self.grants.clone(),
            pins: self.pins.clone(),
            held: self.held.clone(),
            paused: false,
        }
    }

    pub fn listing(&self) -> Listing {
        let holders = self.open.values().filter_map(|open| open.holder.clone()).collect();
        Listing { last_value: self.last_value, holders }
    }

    /// Whether an event may be published now.
    pub fn is_free(&self, seq: i64, row: &Row) -> bool {
        let behind = |parked: &Parked| row.key.is_some() && parked.topic == row.topic && parked.key == row.key;
        !self.held.contains(row.topic) && !self.parked.contains_key(&seq) && !self.parked.values().any(behind)
    }

    pub fn guard(&self, claim: ClaimNumber) -> Result<(), Fault> {
        if self.claim == claim { Ok(()) } else { Err(Fault::in_doubt(Cause::ClaimChanged, "another claim")) }
    }

    /// Marks a row; says whether it was there.
    pub fn mark(&mut self, seq: i64, deletes: bool, is_it: impl Fn(&Row) -> bool) -> bool {
        let swallows = self.swallows && is_swallowed(seq);
        let Some(row) = self.rows.get_mut(&seq).filter(|row| is_it(row) && !swallows) else { return false };
        row.sent = true;
        self.parked.remove(&seq);
        if deletes {
            self.rows.remove(&seq);
        }
        true
    }

    pub fn apply(&mut self, at: Applied, otherwise: Cause) -> Result<(), Fault> {
        if self.applied().n + 1 != at.n {
            return Err(Fault::in_doubt(otherwise, format!("batch {} does not follow the newest applied one", at.n)));
        }
        self.applied.push(at);
        Ok(())
    }

    /// Entries whose row is gone, sent, or another event go away.
    pub fn forget_parked(&mut self) {
        let rows = &self.rows;
        self.parked.retain(|seq, parked| rows.get(seq).is_some_and(|row| row.id == parked.id && !row.sent));
    }

    /// A crash: the token is gone, who was writing is rolled back, the sequence goes on from where the log has it.
    pub fn crash(&mut self) {
        (self.token, self.locked) = (None, None);
        self.last_value = self.logged;
        self.generation += 1;
        self.open.retain(|_, open| open.prepared);
        for (number, open) in &mut self.open {
            open.holder = open.holder.take().map(|_| format!("-1/{number}"));
        }
    }
}
