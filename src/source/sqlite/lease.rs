//! The lease in the state row, by this machine's clock, which all processes share that can open the file.

use sqlx::sqlite::SqliteRow;

use super::Sqlite;
use super::connection::{Work, get, statement};
use super::names::Names;
use super::standing::{json, list, unknown_outbox};
use crate::fault::Fault;
use crate::source::{Lease, Leases, Source, Takeover};

/// Decided on here and not in SQL: nobody else can write in between.
const HOLDER: &str = "SELECT lease_instance, lease_start, lease_epoch, lease_starts, lease_until IS NULL, lease_until > {now} \
    FROM outboxd_state WHERE name = ?1";
const GRANT: &str = "UPDATE outboxd_state SET lease_instance = ?2, lease_start = ?3, lease_epoch = ?4, lease_starts = ?5, \
    lease_until = {until} WHERE name = ?1";
const RENEW: &str = "UPDATE outboxd_state SET lease_until = {until} WHERE name = ?1";
/// `{seconds}` from now.
const UNTIL: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+{seconds} seconds')";
const RELEASE: &str = "UPDATE outboxd_state SET lease_until = NULL WHERE name = ?1 AND lease_start = ?2";

/// Start numbers of grants that are remembered, to tell later whether this database gave a lease.
const GRANTS_KEPT: usize = 64;

struct Holder {
    instance: String,
    start: u64,
    epoch: u64,
    starts: Vec<i64>,
    free: bool,
    alive: bool,
}

impl Holder {
    fn read(row: &SqliteRow) -> Result<Self, Fault> {
        Ok(Self {
            instance: get::<Option<String>>(row, 0, "lease_instance")?.unwrap_or_default(),
            start: get::<Option<i64>>(row, 1, "lease_start")?.unwrap_or_default().cast_unsigned(),
            epoch: get::<i64>(row, 2, "lease_epoch")?.cast_unsigned(),
            starts: list(row, 3, "lease_starts")?,
            free: get::<i64>(row, 4, "lease_until")? != 0,
            alive: get::<Option<i64>>(row, 5, "lease_until")? == Some(1),
        })
    }

    fn taken(self) -> Lease {
        Lease::Taken { by: self.instance, start: self.start, epoch: self.epoch }
    }

    /// Whether this process may have it: free, run out, of our own instance, or ours already.
    fn is_for(&self, instance: &str, start: u64, takeover: Takeover) -> bool {
        !self.alive || self.start == start || (takeover == Takeover::OwnInstance && self.instance == instance)
    }

    /// The grants with one more.
    fn grants(&self, start: u64) -> Vec<i64> {
        let mut starts = self.starts.clone();
        starts.push(start.cast_signed());
        starts.split_off(starts.len().saturating_sub(GRANTS_KEPT))
    }
}

impl Leases for Sqlite {
    async fn take(&self, instance: &str, start: u64, takeover: Takeover) -> Result<Lease, Fault> {
        match self.try_to_take(instance, start, takeover).await {
            Err(fault) => Err(self.explain(fault).await),
            lease => lease,
        }
    }

    /// One that ran out is still ours when nobody has taken it since.
    async fn renew(&self, start: u64) -> Result<Lease, Fault> {
        let mut link = self.leases.link().await;
        let mut work = link.write().await?;
        let holder = self.holder(&mut work, &self.names).await?;
        if holder.free || holder.start != start {
            work.commit().await?;
            return Ok(holder.taken());
        }
        work.execute(statement(&self.names.sql(&self.with_until(RENEW))).bind(self.settings.name())).await?;
        work.commit().await?;
        Ok(Lease::Held { epoch: holder.epoch })
    }

    async fn release(&self, start: u64) -> Result<(), Fault> {
        let mut link = self.leases.link().await;
        let mut work = link.write().await?;
        work.execute(statement(&self.names.sql(RELEASE)).bind(self.settings.name()).bind(start.cast_signed())).await?;
        work.commit().await
    }
}

impl Sqlite {
    /// A standby only reads, several times a second; who may have the lease looks again as the only writer. What is ours already is no
    /// new grant.
    async fn try_to_take(&self, instance: &str, start: u64, takeover: Takeover) -> Result<Lease, Fault> {
        let mut link = self.leases.link().await;
        let mut work = link.read().await?;
        let holder = self.holder(&mut work, &self.names).await?;
        work.commit().await?;
        if !holder.is_for(instance, start, takeover) {
            return Ok(holder.taken());
        }
        let mut work = link.write().await?;
        let holder = self.holder(&mut work, &self.names).await?;
        if !holder.is_for(instance, start, takeover) {
            work.commit().await?;
            return Ok(holder.taken());
        }
        let ours = holder.alive && holder.start == start;
        let (epoch, starts) = if ours { (holder.epoch, holder.starts.clone()) } else { (holder.epoch + 1, holder.grants(start)) };
        let grant = statement(&self.names.sql(&self.with_until(GRANT)))
            .bind(self.settings.name())
            .bind(instance)
            .bind(start.cast_signed())
            .bind(epoch.cast_signed())
            .bind(json(&starts)?);
        work.execute(grant).await?;
        work.commit().await?;
        Ok(Lease::Held { epoch })
    }

    async fn holder(&self, work: &mut Work<'_>, names: &Names) -> Result<Holder, Fault> {
        let row = work.row(statement(&names.sql(HOLDER)).bind(self.settings.name())).await?;
        Holder::read(&row.ok_or_else(|| unknown_outbox(self.settings.name()))?)
    }

    fn with_until(&self, template: &str) -> String {
        let seconds = format!("{:.3}", self.settings.lease.as_secs_f64());
        template.replace("{until}", &UNTIL.replace("{seconds}", &seconds))
    }
}
