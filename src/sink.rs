//! The seam to the log. A [`Publisher`] can only be had by fencing every older one and reading the journal; a [`Published`] only from
//! a publisher.

use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use crate::event::Batch;
use crate::fault::Fault;
use crate::journal::{Applied, History, View, Writer};
use crate::source::Pins;

pub mod memory;

/// Proof that every older owner is shut out and its transactions are over. Only sinks make one.
#[derive(Debug)]
pub struct Fence(());

impl Fence {
    /// Says that the fence is up.
    pub(crate) fn raised() -> Self {
        Self(())
    }
}

/// A batch that is committed in the log.
#[derive(Debug)]
pub struct Published {
    batch: Arc<Batch>,
    journalled: Option<Applied>,
    commit: Commit,
}

/// How the commit of a batch went. Both are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Within the time that proves that it was asked for only once.
    Prompt,
    /// Later: the library may have asked twice, so the publisher makes itself a new producer before the next batch.
    Late,
}

impl Published {
    /// Says that `batch` is committed. `journalled` is where its record lies; nothing in the mode without a journal.
    pub(crate) fn committed(batch: Arc<Batch>, journalled: Option<Applied>, commit: Commit) -> Self {
        Self { batch, journalled, commit }
    }

    /// How the commit went.
    pub fn commit(&self) -> Commit {
        self.commit
    }

    /// The events.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Number, offset and checksum of the journal record; nothing in the mode without a journal.
    pub fn journalled(&self) -> Option<Applied> {
        self.journalled
    }
}

/// A log with topics and a journal.
pub trait Sink: Send + Sync + 'static {
    /// What fencing gives.
    type Fenced: Fenced;

    /// Reads the journal from `base` to where readers can see, fencing nobody.
    fn look(&self, outbox: Uuid, base: Applied) -> impl Future<Output = Result<View, Fault>> + Send;

    /// Shuts out every older owner; returns when all their transactions are over.
    fn fence(&self) -> impl Future<Output = Result<Self::Fenced, Fault>> + Send;

    /// Lets go of journal records that are older than the configured retention, never at or above `keep_from`. Returns the new start.
    fn trim(&self, keep_from: i64) -> impl Future<Output = Result<i64, Fault>> + Send;
}

/// A fenced log whose journal is not read yet.
pub trait Fenced: Send {
    /// Publishes.
    type Publisher: Publisher;
    /// The journal's records above the base.
    type History: History;

    /// For [`crate::source::Source::claim`].
    fn fence(&self) -> &Fence;

    /// Reads the journal from `base` to its true end and checks it. The publisher goes on from there, as `writer`.
    fn recover(
        self,
        writer: Writer,
        base: Applied,
    ) -> impl Future<Output = Result<(Self::Publisher, View, Self::History), Fault>> + Send;
}

/// Publishes batches, one at a time.
pub trait Publisher: Send {
    /// Partition counts of those topics (names as in the table) that are not in `pins`. Also says so when a pinned topic has fewer
    /// partitions than it was pinned with.
    fn count_partitions(&mut self, batch: &Batch, pins: &Pins) -> impl Future<Output = Result<Pins, Fault>> + Send;

    /// Publishes a batch with its journal record in one transaction.
    fn publish(&mut self, batch: Arc<Batch>, pins: &Pins) -> impl Future<Output = Result<Published, Fault>> + Send;
}
