//! The outbox in a SQLite file.
//!
//! Reading order: `settings` (what is configured), `connection` (one transaction at a time, never to another file than the path leads
//! to), `network` (file systems that are refused), `names`, `failure`, `table` (what the file says of the outbox), `batch` (rows as one
//! bound value); then the verbs: `standing` (look, claim, halt), `settle`, `fetch` with `rows`, `mark`, `lease`, `prune`; then what
//! commands need: `schema` and `migration`, `insert`, `desk`, `parked`, `steering`, `checkup`, `evidence`, `life`.
//!
//! Names and order of all this are those of `source::postgres`; what differs is what SQLite is. It has one writer at a time: whoever has
//! begun to write can read first and decide in Rust, and numbers are committed in the order in which they are drawn. It has no server: a
//! claim is of a file, and the path may lead to another one the next moment.

use std::sync::Arc;

use crate::fault::{Fault, Halt};
use crate::journal::Owner;
use crate::sink::Fence;
use crate::source::{ClaimNumber, Source, Standing};

mod advice;
mod batch;
mod checkup;
mod connection;
mod desk;
mod evidence;
mod failure;
mod fetch;
mod insert;
mod lease;
mod life;
mod mark;
mod migration;
mod names;
mod network;
mod parked;
mod prune;
mod reconcile;
mod rows;
mod schema;
mod settings;
mod settle;
mod standing;
mod steering;
mod table;

pub use checkup::Checkup;
pub use fetch::SqliteReader;
pub use mark::SqliteMarker;
pub use settings::Settings;
pub use settle::SqliteTenure;

use connection::{Kept, Place};
use names::Names;

/// An outbox table in a SQLite file.
pub struct Sqlite {
    settings: Arc<Settings>,
    place: Place,
    names: Names,
    leases: Kept,
    chores: Kept,
    walk: prune::Walk,
}

impl Sqlite {
    /// Nothing is opened before it is needed.
    pub fn new(settings: Settings) -> Self {
        let place = Place::new(&settings);
        let names = Names { table: settings.outbox.table.table.clone() };
        let (leases, chores) = (Kept::new(&place), Kept::new(&place));
        Self { settings: Arc::new(settings), place, names, leases, chores, walk: prune::Walk::default() }
    }

    /// What must hold before a relay starts: the schema is ours or the one before, and the table fits.
    pub async fn prepare(&self) -> Result<(), Fault> {
        schema::check(&mut self.place.link(), &self.names, &self.settings).await
    }
}

impl Source for Sqlite {
    type Tenure = SqliteTenure;

    async fn look(&self) -> Result<Standing, Fault> {
        standing::look(&mut self.place.link(), &self.place, &self.names, &self.settings).await
    }

    async fn explain(&self, fault: Fault) -> Fault {
        if !fault.may_be_undone() {
            return fault;
        }
        match self.prepare().await {
            Err(named) if named.may_be_undone() => named,
            // mended meanwhile, or nobody answers: what was said stands
            Ok(()) | Err(_) => fault,
        }
    }

    async fn claim(&self, owner: &Owner, claim: ClaimNumber, _fence: &Fence) -> Result<SqliteTenure, Fault> {
        let mut link = self.place.link();
        let claimed = standing::claim(&mut link, &self.place, &self.names, &self.settings, owner, claim).await?;
        Ok(SqliteTenure::new(claimed, link.pinned()?, self.names.clone(), self.settings.clone()))
    }

    async fn halt(&self, halt: &Halt, seen: &Standing) -> Result<bool, Fault> {
        standing::halt(&mut self.place.link(), &self.names, &self.settings, halt, seen).await
    }
}
