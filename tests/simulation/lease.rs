//! The lease in the simulated state row: who tries, never who may.

use outboxd::fault::Fault;
use outboxd::source::{Lease, Leases, Takeover};

use super::database::Holder;
use super::plan::waits;
use super::source::{SimSource, gone};
use super::world::World;

impl Leases for SimSource {
    async fn take(&self, instance: &str, start: u64, takeover: Takeover) -> Result<Lease, Fault> {
        let instance = instance.to_owned();
        self.net.write(move |world| world.take_lease(&instance, start, takeover)).await.map_err(gone)
    }

    async fn renew(&self, start: u64) -> Result<Lease, Fault> {
        self.net.write(move |world| world.renew_lease(start)).await.map_err(gone)
    }

    async fn release(&self, start: u64) -> Result<(), Fault> {
        let release = move |world: &mut World| {
            let ours = world.database.lease.as_mut().filter(|holder| holder.start == start);
            ours.map(|holder| holder.until = None)
        };
        self.net.write(release).await.map_err(gone).map(drop)
    }
}

/// Start numbers of grants that are remembered.
const GRANTS_KEPT: usize = 64;

impl World {
    fn take_lease(&mut self, instance: &str, start: u64, takeover: Takeover) -> Lease {
        let (now, until) = (self.now, self.now + waits(&self.plan).lease);
        let alive = |holder: &Holder| holder.until.is_some_and(|until| until > now);
        match &mut self.database.lease {
            Some(holder) if holder.start == start && alive(holder) => holder.until = Some(until),
            Some(holder) if alive(holder) && !(takeover == Takeover::OwnInstance && holder.instance == instance) => {
                let (by, start, epoch) = (holder.instance.clone(), holder.start, self.database.epoch);
                return Lease::Taken { by, start, epoch };
            }
            Some(_) | None => {
                self.database.lease = Some(Holder { instance: instance.into(), start, until: Some(until) });
                self.database.epoch += 1;
                self.database.grants.push(start);
                if self.database.grants.len() > GRANTS_KEPT {
                    self.database.grants.remove(0);
                }
            }
        }
        Lease::Held { epoch: self.database.epoch }
    }

    fn renew_lease(&mut self, start: u64) -> Lease {
        let epoch = self.database.epoch;
        let until = self.now + waits(&self.plan).lease;
        match &mut self.database.lease {
            Some(holder) if holder.start == start && holder.until.is_some() => {
                holder.until = Some(until);
                Lease::Held { epoch }
            }
            Some(holder) => Lease::Taken { by: holder.instance.clone(), start: holder.start, epoch },
            None => Lease::Taken { by: String::new(), start: 0, epoch },
        }
    }
}
