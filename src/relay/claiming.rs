//! Look, claim, settle: what comes before the loop.

use tokio::time::timeout;

use super::fetching::Fetching;
use super::work::{Work, truncated};
use super::{Relay, WorkOf};
use crate::failpoint::pass;
use crate::fault::{Cause, Fault, Halt, HaltCode};
use crate::identity;
use crate::journal::{Owner, Writer};
use crate::phase::Phase;
use crate::sink::{Fenced, Sink};
use crate::source::{ClaimNumber, Source, Tenure};

/// Tenure, publisher, last batch of the journal, history.
pub(super) type ClaimedOf<S, K> =
    (<S as Source>::Tenure, <<K as Sink>::Fenced as Fenced>::Publisher, u64, <<K as Sink>::Fenced as Fenced>::History);

impl<S: Source, K: Sink> Relay<S, K> {
    /// Look, fence, claim, read the journal: in this order, for the reasons given in docs/guarantees.md.
    pub(super) async fn claim(&mut self, owner: &Owner) -> Result<ClaimedOf<S, K>, Fault> {
        self.phase(Phase::Looking);
        let seen = self.look(owner).await?;
        pass!(Looked, await);
        self.phase(Phase::Claiming);
        let fenced = timeout(self.settings.waits.stuck, self.sink.fence()).await.unwrap_or_else(|_| Err(Fault::slow_fence()))?;
        pass!(Fenced, await);
        let tenure = self.source.claim(owner, ClaimNumber(self.chance.i64(..)), fenced.fence()).await?;
        pass!(Claimed, await);
        let standing = tenure.standing();
        identity::judge_database(standing)?;
        let writer = Writer { outbox: standing.outbox, owner: owner.clone(), database: standing.database.clone() };
        let (publisher, view, history) = fenced.recover(writer, standing.applied).await?;
        identity::judge_journal(standing, &view, seen.last.n).map_err(|halt| self.before_the_fence(halt))?;
        pass!(Recovered, await);
        Ok((tenure, publisher, view.last.n, history))
    }

    /// What a stranger's batch means that was committed between the look and the fence. Under a lease that has settled nothing yet it may
    /// be the last one of an owner whose grant a failover lost: that one is shut out now and stays silent, as another database does
    /// not. So the next look finds the stranger and watches, as it does for every batch of a lost lease. Nothing is settled before.
    fn before_the_fence(&self, halt: Halt) -> Fault {
        if halt.code == HaltCode::TwoDatabases && self.known == 0 {
            return Fault::in_doubt(Cause::JournalMoved, halt.evidence);
        }
        halt.into()
    }

    /// Marks what the journal has and the table lacks. Not cut short when the lease is lost meanwhile: the claim number guards it, and a
    /// settlement that takes longer than a lease would never come to its end.
    pub(super) async fn settle(&mut self, (tenure, publisher, last, history): ClaimedOf<S, K>) -> Result<WorkOf<S, K>, Fault> {
        self.phase(Phase::Settling);
        let standing = tenure.standing().clone();
        let (reader, marker) = tenure.settle(history).await?;
        self.known = last;
        let fetching = Fetching::start(reader, &self.settings.waits, self.metrics.clone()).await?;
        let held = standing.held;
        self.metrics.truncated(truncated(&standing.pins));
        Ok(Work { publisher, marker, fetching, pins: standing.pins, held, paused: standing.paused, next: None, unmarked: None })
    }
}
