//! What is done beside the relay: writers, leases, pruning, counting, commands.

use uuid::Uuid;

use super::{Database, GRANTS_KEPT, MemorySource, Row, Writer};
use crate::fault::Fault;
use crate::source::{ClaimNumber, Gauging, Lease, Leases, Pending, Pruned, Pruning, Takeover};

impl Writer {
    /// Draws a number and inserts; nobody sees it before the commit.
    pub fn insert(&self, topic: &str, key: Option<&str>, payload: &str) -> i64 {
        let mut database = self.source.database();
        database.last_value += 1;
        let (seq, id) = (database.last_value, Uuid::new_v4());
        let row = Row { id, topic: topic.into(), key: key.map(Into::into), payload: payload.into(), sent: false };
        database.open.entry(self.name.clone()).or_default().push((seq, row));
        seq
    }

    /// Makes the rows visible.
    pub fn commit(self) {
        let mut database = self.source.database();
        let rows = database.open.remove(&self.name).unwrap_or_default();
        database.rows.extend(rows);
    }

    /// Throws the rows away; their numbers stay drawn.
    pub fn rollback(self) {
        self.source.database().open.remove(&self.name);
    }
}

impl Database {
    /// What the command `parked retry` does to one event: a new claim number makes the relay read the table anew.
    pub fn retry(&mut self, seq: i64) {
        self.parked.remove(&seq);
        self.standing.claim = ClaimNumber(self.standing.claim.0.wrapping_add(1));
    }

    /// What the command `parked discard` does to one event.
    pub fn discard(&mut self, seq: i64) {
        if let Some(row) = self.rows.get_mut(&seq) {
            row.sent = true;
        }
        self.retry(seq);
    }

    /// Gives the lease to a process, as a new grant.
    fn grant(&mut self, instance: &str, start: u64) -> Lease {
        self.lease = Some((instance.into(), start));
        self.lease_ran_out = false;
        self.standing.epoch += 1;
        self.standing.grants.push(start);
        if self.standing.grants.len() > GRANTS_KEPT {
            self.standing.grants.remove(0);
        }
        Lease::Held { epoch: self.standing.epoch }
    }
}

impl Leases for MemorySource {
    async fn take(&self, instance: &str, start: u64, takeover: Takeover) -> Result<Lease, Fault> {
        let mut database = self.database();
        let ran_out = database.lease_ran_out;
        match &database.lease {
            Some(_) if ran_out => Ok(database.grant(instance, start)),
            Some((by, holder)) if *holder != start && (takeover == Takeover::Expired || by != instance) => {
                Ok(Lease::Taken { by: by.clone(), start: *holder, epoch: database.standing.epoch })
            }
            Some((_, holder)) if *holder == start => Ok(Lease::Held { epoch: database.standing.epoch }),
            Some(_) | None => Ok(database.grant(instance, start)),
        }
    }

    async fn renew(&self, start: u64) -> Result<Lease, Fault> {
        let mut database = self.database();
        if database.lease.as_ref().is_some_and(|(_, holder)| *holder == start) {
            database.lease_ran_out = false;
        }
        Ok(match &database.lease {
            Some((_, holder)) if *holder == start => Lease::Held { epoch: database.standing.epoch },
            Some((by, holder)) => Lease::Taken { by: by.clone(), start: *holder, epoch: database.standing.epoch },
            None => Lease::Taken { by: String::new(), start: 0, epoch: database.standing.epoch },
        })
    }

    async fn release(&self, start: u64) -> Result<(), Fault> {
        self.database().lease.take_if(|(_, holder)| *holder == start);
        Ok(())
    }
}

impl Pruning for MemorySource {
    async fn prune(&self) -> Result<Pruned, Fault> {
        let mut database = self.database();
        let before = database.rows.len();
        database.rows.retain(|_, row| !row.sent);
        Ok(Pruned { rows: (before - database.rows.len()) as u64, more: false })
    }
}

impl Gauging for MemorySource {
    async fn pending(&self) -> Result<Pending, Fault> {
        let database = self.database();
        let unsent = database.rows.iter().filter(|(_, row)| !row.sent).count() as u64;
        let events = database.rows.iter().filter(|(seq, row)| !row.sent && database.is_free(**seq, row)).count() as u64;
        let (parked, held) = (database.parked.len() as u64, database.standing.held.len() as u64);
        let oldest_created_us = (events > 0).then_some(0);
        Ok(Pending { events, oldest_created_us, parked, blocked: unsent - events - parked, held })
    }
}
