//! The outbox in PostgreSQL 15 to 18.
//!
//! Reading order: `settings` (what is configured), `connection` (one transaction at a time, fit for a pooler), `names` (quoting),
//! `failure` (errors to faults), `table` and `columns` (what the catalog says of the outbox), `identities`; then the verbs:
//! `standing` (look, claim, halt), `settle`, `fetch` with `rows`, `mark`, `lease`, `prune`; then what commands need: `schema` and
//! `migration`, `view`, `advice`, `roles`, `insert`, `desk`, `parked`, `steering`, `checkup`, `evidence`, `life`.
//! Each file holds its SQL as constants at its top. Of its placeholders, `columns` fills in what depends on types and `names` then
//! everything that somebody has named, each once, so that a name can hold anything.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::fault::{Fault, Halt};
use crate::journal::Owner;
use crate::sink::Fence;
use crate::source::{ClaimNumber, Source, Standing};

mod advice;
mod checkup;
mod columns;
mod connection;
mod desk;
mod evidence;
mod failure;
mod fetch;
mod identities;
mod indexes;
mod insert;
mod lease;
mod life;
mod mark;
mod migration;
mod names;
mod parked;
mod prune;
mod reconcile;
mod roles;
mod rows;
mod schema;
mod settings;
mod settle;
mod standing;
mod steering;
mod table;
mod view;

pub use super::desk::*;
pub use checkup::{Activity, Checkup, Fit, Outbox, Policy, Right, Sequence, Server as ServerFacts, Shape};
pub use fetch::PostgresReader;
pub use indexes::{Covers, Index};
pub use mark::PostgresMarker;
pub use roles::Roles;
pub use settings::Settings;
pub use settle::PostgresTenure;

use connection::{Kept, Link, Server};
use names::Names;
use table::Table;

/// An outbox table in PostgreSQL.
pub struct Postgres {
    settings: Arc<Settings>,
    server: Server,
    names: OnceCell<Arc<Names>>,
    leases: Kept,
    chores: Kept,
    walk: prune::Walk,
}

impl Postgres {
    /// Nothing is connected before it is needed.
    pub fn new(settings: Settings) -> Self {
        let server = Server::new(&settings);
        let (leases, chores) = (Kept::new(server.clone()), Kept::new(server.clone()));
        Self { settings: Arc::new(settings), server, names: OnceCell::new(), leases, chores, walk: prune::Walk::default() }
    }

    /// What must hold before a relay starts: the schema is ours or the one before, the table fits, no right is missing.
    pub async fn prepare(&self) -> Result<(), Fault> {
        let names = self.names().await?;
        let mut link = self.server.link().await?;
        schema::check(&mut link, &names, &self.settings).await?;
        let mut work = link.begin().await?;
        let table = table::look_up(&mut work, &names, &self.settings).await?;
        work.commit().await?;
        roles::check(&mut link, &names, &table).await
    }

    /// The outbox's names, with the schema that the search path led to the first time.
    async fn names(&self) -> Result<Arc<Names>, Fault> {
        let resolve = async {
            let mut link = self.server.link().await?;
            table::resolve(&mut link, &self.settings).await.map(Arc::new)
        };
        self.names.get_or_try_init(|| resolve).await.cloned()
    }

    async fn link(&self) -> Result<(Link, Arc<Names>), Fault> {
        let names = self.names().await?;
        Ok((self.server.link().await?, names))
    }
}

impl Source for Postgres {
    type Tenure = PostgresTenure;

    async fn look(&self) -> Result<Standing, Fault> {
        let (mut link, names) = self.link().await?;
        standing::look(&mut link, &names, &self.settings).await
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

    async fn claim(&self, owner: &Owner, claim: ClaimNumber, _fence: &Fence) -> Result<PostgresTenure, Fault> {
        let (mut link, names) = self.link().await?;
        let claimed = standing::claim(&mut link, &names, &self.settings, owner, claim).await?;
        let reader = self.server.link().await?;
        Ok(PostgresTenure::new(claimed, reader, link, names, self.settings.clone()))
    }

    async fn halt(&self, halt: &Halt, seen: &Standing) -> Result<bool, Fault> {
        let (mut link, names) = self.link().await?;
        standing::halt(&mut link, &names, &self.settings, halt, seen).await
    }
}
