//! The seam to the log. A [`Publisher`] can only be had by fencing every older one and reading the journal; a [`Published`] only from
//! a publisher.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use crate::event::Batch;
use crate::fault::Fault;
use crate::journal::{Applied, History, View, Writer};
use crate::park::{Ailing, SetAside};
use crate::source::Pins;

pub mod kafka;
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

/// A journal record without events: it follows one that the log would let go of by itself.
#[derive(Clone, Copy, Debug)]
pub struct Noted(Applied);

impl Noted {
    /// Says that the record is committed.
    pub(crate) fn committed(at: Applied) -> Self {
        Self(at)
    }

    /// Its number, offset and checksum.
    pub fn at(&self) -> Applied {
        self.0
    }
}

/// Proofs without a log, for the suites that every source must pass and for the simulation: they play the log themselves. Nothing else
/// may use this.
#[doc(hidden)]
pub mod forged {
    use super::{Applied, Arc, Batch, Commit, Fence, Noted, Published};

    /// A fence that nobody raised.
    pub fn fence() -> Fence {
        Fence::raised()
    }

    /// A record that nobody wrote.
    pub fn noted(at: Applied) -> Noted {
        Noted::committed(at)
    }

    /// A batch that nobody published.
    pub fn published(batch: Arc<Batch>, journalled: Option<Applied>) -> Published {
        Published::committed(batch, journalled, Commit::Prompt)
    }

    /// The same, with a commit that was late.
    pub fn published_late(batch: Arc<Batch>, journalled: Option<Applied>) -> Published {
        Published::committed(batch, journalled, Commit::Late)
    }
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

/// What a look at a batch found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// What cannot be published. When there is any of it, the batch must not be published.
    pub set_aside: SetAside,
    /// Topics that are not pinned yet, or of which something new is known.
    pub pins: Pins,
}

/// Publishes batches, one at a time.
pub trait Publisher: Send {
    /// Looks at a batch before anything of it is sent: what has to be set aside, and what has to be pinned of its topics.
    fn inspect(&mut self, batch: &Arc<Batch>, pins: &Pins) -> impl Future<Output = Result<Inspection, Fault>> + Send;

    /// Those of the topics (names as in the table) that still cannot be published to. Asks anew.
    fn ailing(&mut self, topics: &BTreeSet<String>, pins: &Pins) -> impl Future<Output = Result<Vec<Ailing>, Fault>> + Send;

    /// Writes a journal record without events, where the log would otherwise let go of the newest one by itself before long. Costs nothing
    /// where it does not. Only when everything that was published is marked.
    fn refresh(&mut self) -> impl Future<Output = Result<Option<Noted>, Fault>> + Send;

    /// Publishes a batch that was inspected, with its journal record in one transaction.
    fn publish(&mut self, batch: Arc<Batch>, pins: &Pins) -> impl Future<Output = Result<Published, Fault>> + Send;
}
