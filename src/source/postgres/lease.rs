//! The lease in the state row, by the database's clock.

use super::connection::{Work, statement};
use super::failure::unreadable;
use super::names::Names;
use super::standing::unknown_outbox;
use super::table::get;
use super::{Postgres, names::Sql};
use crate::failpoint::pass;
use crate::fault::Fault;
use crate::source::{Lease, Leases, Source, Takeover};

/// Takes the lease when it is free, run out, of our own instance (`$5`), or ours already; only the last is no new grant. The last 64
/// start numbers stay, to tell later whether this database gave a lease. All conditions are on the locked row, so they are looked at
/// again after a wait.
const TAKE: &str = "UPDATE {state} SET lease_instance = $2, lease_until = clock_timestamp() + $4 * interval '1 microsecond', \
    lease_epoch = lease_epoch + CASE WHEN {ours} THEN 0 ELSE 1 END, \
    lease_starts = CASE WHEN {ours} THEN lease_starts ELSE (lease_starts || $3::int8)[greatest(1, cardinality(lease_starts) - 62):] END, \
    lease_start = $3 WHERE name = $1 AND ({ours} OR lease_until IS NULL OR lease_until <= clock_timestamp() \
    OR ($5 AND lease_instance = $2)) RETURNING lease_epoch";
const OURS: &str = "(lease_start = $3 AND lease_until > clock_timestamp()) IS TRUE";

/// One that ran out is still ours when nobody has taken it since.
const RENEW: &str = "UPDATE {state} SET lease_until = clock_timestamp() + $3 * interval '1 microsecond' \
    WHERE name = $1 AND lease_start = $2 AND lease_until IS NOT NULL RETURNING lease_epoch";
const RELEASE: &str = "UPDATE {state} SET lease_until = NULL WHERE name = $1 AND lease_start = $2";
const HOLDER: &str = "SELECT lease_instance, lease_start, lease_epoch FROM {state} WHERE name = $1";

impl Leases for Postgres {
    async fn take(&self, instance: &str, start: u64, takeover: Takeover) -> Result<Lease, Fault> {
        match self.try_to_take(instance, start, takeover).await {
            Err(fault) => Err(self.explain(fault).await),
            lease => lease,
        }
    }

    async fn renew(&self, start: u64) -> Result<Lease, Fault> {
        pass!(Renewing, await);
        let names = self.names().await?;
        let renew = statement(&names.sql(RENEW)).bind(self.settings.name()).bind(start.cast_signed()).bind(self.lease_us()?);
        let mut link = self.leases.link().await;
        let mut work = link.begin().await?;
        let lease = match work.row(renew).await? {
            Some(row) => Lease::Held { epoch: get::<i64>(&row, 0, "lease_epoch")?.cast_unsigned() },
            None => self.holder(&mut work, &names).await?,
        };
        work.commit().await?;
        Ok(lease)
    }

    async fn release(&self, start: u64) -> Result<(), Fault> {
        let release: Sql = self.names().await?.sql(RELEASE);
        let mut link = self.leases.link().await;
        let mut work = link.begin().await?;
        work.execute(statement(&release).bind(self.settings.name()).bind(start.cast_signed())).await?;
        work.commit().await
    }
}

impl Postgres {
    async fn try_to_take(&self, instance: &str, start: u64, takeover: Takeover) -> Result<Lease, Fault> {
        let names = self.names().await?;
        let take = statement(&names.sql_with(&TAKE.replace("{ours}", OURS), &[]))
            .bind(self.settings.name())
            .bind(instance)
            .bind(start.cast_signed())
            .bind(self.lease_us()?)
            .bind(takeover == Takeover::OwnInstance);
        let mut link = self.leases.link().await;
        let mut work = link.begin().await?;
        let lease = match work.row(take).await? {
            Some(row) => Lease::Held { epoch: get::<i64>(&row, 0, "lease_epoch")?.cast_unsigned() },
            None => self.holder(&mut work, &names).await?,
        };
        work.commit().await?;
        Ok(lease)
    }

    fn lease_us(&self) -> Result<i64, Fault> {
        i64::try_from(self.settings.lease.as_micros()).map_err(|_| unreadable("lease"))
    }

    async fn holder(&self, work: &mut Work<'_>, names: &Names) -> Result<Lease, Fault> {
        let Some(row) = work.row(statement(&names.sql(HOLDER)).bind(self.settings.name())).await? else {
            return Err(unknown_outbox(self.settings.name()));
        };
        let by: Option<String> = get(&row, 0, "lease_instance")?;
        let start: Option<i64> = get(&row, 1, "lease_start")?;
        let epoch = get::<i64>(&row, 2, "lease_epoch")?.cast_unsigned();
        Ok(Lease::Taken { by: by.unwrap_or_default(), start: start.unwrap_or_default().cast_unsigned(), epoch })
    }
}
