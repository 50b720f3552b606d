//! What commands change in the state row: pause and resume, accepted databases, pins. Each leaves a row in the audit.

use std::collections::BTreeSet;

use super::connection::{Link, Statement, Work, statement};
use super::names::{Names, Sql};
use super::parked::new_claim;
use super::settings::Settings;
use super::settle::Matching;
use super::table::{self, get};
use super::{Postgres, settle, standing};
use crate::config::Column;
use crate::fault::{Cause, Fault, Halt};
use crate::journal::{Applied, Record};
use crate::source::desk::{Acceptance, Request};
use crate::source::{ClaimNumber, Pins, Source, Standing};

const PAUSE: &str = "UPDATE {state} SET paused_at = clock_timestamp(), paused_by = session_user || $2, paused_reason = $3 \
    WHERE name = $1 AND paused_at IS NULL";
const RESUME: &str = "UPDATE {state} SET paused_at = NULL, paused_by = NULL, paused_reason = NULL \
    WHERE name = $1 AND paused_at IS NOT NULL";
const ACCEPTED: &str = "SELECT accepted_addresses, accepted_systems FROM {state} WHERE name = $1";
const ADOPT: &str = "UPDATE {state} SET \
    accepted_addresses = CASE WHEN $2 = ANY (accepted_addresses) THEN accepted_addresses ELSE accepted_addresses || $2 END, \
    accepted_systems = CASE WHEN $3 = ANY (accepted_systems) THEN accepted_systems ELSE accepted_systems || $3 END WHERE name = $1";
const REPIN: &str = "UPDATE {state} SET pins = pins - $2 WHERE name = $1 AND pins ? $2";
/// What Kafka takes to write a record is idle time here: the timeouts of a transaction and of its end together, and more. Meanwhile
/// nobody waits for the state row but a relay that is halted.
pub(super) const PATIENT: &str = "SET LOCAL idle_in_transaction_session_timeout = 300000";
const BASE: &str = "INSERT INTO {applied} (name, n, journal_offset, checksum) VALUES ($1, $2, $3, $4)";
const UNMARK: &str = "UPDATE {outbox} o SET {sent_at_column} = NULL FROM unnest($1::int8[], $2::{identity_type}[]) AS b (seq, id) \
    WHERE {seq} = b.seq AND ({identity} = b.id) IS TRUE";
const OTHER_NAME: &str = "SELECT EXISTS (SELECT FROM {state} WHERE name = $1)";
const RENAME: [&str; 4] = [
    "UPDATE {state} SET name = $2, halted_code = NULL, halted_evidence = NULL, halted_at = NULL WHERE name = $1",
    "UPDATE {token} SET name = $2 WHERE name = $1",
    "UPDATE {parked} SET name = $2 WHERE name = $1",
    "UPDATE {held} SET name = $2 WHERE name = $1",
];
/// The offsets of the old rows are those of another journal.
const FORGET: &str = "DELETE FROM {applied} WHERE name = $1";
const UNAPPLY: &str = "DELETE FROM {applied} WHERE name = $1 AND n = $2";
const AUDIT: &str = "INSERT INTO {audit} (name, who, action, reason, detail) VALUES ($1, session_user || $2, $3, $4, $5::jsonb)";

impl Postgres {
    /// Pauses the outbox; says whether it was not paused before.
    pub async fn pause(&self, request: &Request) -> Result<bool, Fault> {
        let name = self.settings.name();
        let switch = |sql: &Sql| statement(sql).bind(name.to_owned()).bind(request.who.clone()).bind(request.reason.clone());
        self.switch(PAUSE, switch, "pause", request).await
    }

    /// Resumes the outbox; says whether it was paused.
    pub async fn resume(&self, request: &Request) -> Result<bool, Fault> {
        let resume = |sql: &Sql| statement(sql).bind(self.settings.name().to_owned());
        self.switch(RESUME, resume, "resume", request).await
    }

    async fn switch(
        &self,
        template: &str,
        fill: impl Fn(&Sql) -> Statement<'static>,
        action: &str,
        request: &Request,
    ) -> Result<bool, Fault> {
        let (mut link, names) = self.link().await?;
        let (mut work, _) = standing::begin_locked(&mut link, &names, &self.settings).await?;
        let name = self.settings.name();
        let switched = work.execute(fill(&names.sql(template))).await? > 0;
        if switched {
            audit_change(&mut work, &names, name, action, request, "{}").await?;
        }
        work.commit().await?;
        Ok(switched)
    }

    /// Which databases are accepted, and which one this is.
    pub async fn acceptance(&self) -> Result<Acceptance, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let database = standing::identity(&mut work, &names).await?;
        let row = work.row(statement(&names.sql(ACCEPTED)).bind(self.settings.name())).await?;
        let row = row.ok_or_else(|| standing::unknown_outbox(self.settings.name()))?;
        let (addresses, systems) = (get(&row, 0, "accepted_addresses")?, get(&row, 1, "accepted_systems")?);
        work.commit().await?;
        Ok(Acceptance { address: self.settings.address(), database, addresses, systems })
    }

    /// Accepts this database beside those accepted before.
    pub async fn adopt_database(&self, here: &Acceptance, request: &Request) -> Result<(), Fault> {
        let (mut link, names) = self.link().await?;
        let (mut work, _) = standing::begin_locked(&mut link, &names, &self.settings).await?;
        let (name, system) = (self.settings.name(), here.database.system.clone());
        work.execute(statement(&names.sql(ADOPT)).bind(name.to_owned()).bind(here.address.clone()).bind(system)).await?;
        let detail = serde_json::json!({ "address": here.address, "system": here.database.system }).to_string();
        audit_change(&mut work, &names, name, "adopt --database", request, &detail).await?;
        work.commit().await
    }

    /// Has a journal record written, takes it for the newest applied batch and ends the halt, provided that nobody claimed or marked
    /// since `seen`: the state row is locked meanwhile, so that nobody claims in between.
    pub async fn adopt_journal(
        &self,
        write: impl Future<Output = Result<Applied, Fault>>,
        seen: &Standing,
        halt: &Halt,
        request: &Request,
    ) -> Result<Applied, Fault> {
        let (mut link, names) = self.link().await?;
        let (mut work, claim) = begin_as_seen(&mut link, &names, &self.settings, seen).await?;
        let name = self.settings.name();
        work.script(PATIENT).await?;
        let at = write.await?;
        work.execute(insert_base(&names, name, at)).await?;
        work.execute(statement(&names.sql(settle::END_HALT)).bind(name.to_owned()).bind(claim.0)).await?;
        let detail = serde_json::json!({ "halt": halt.code.name(), "evidence": halt.evidence, "batch": at.n, "offset": at.offset });
        audit_change(&mut work, &names, name, "adopt --journal", request, &detail.to_string()).await?;
        work.commit().await?;
        Ok(at)
    }

    /// Numbers of those events of a journal record that are still in the table.
    pub async fn still_there(&self, record: &Record) -> Result<BTreeSet<i64>, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let table = table::look_up(&mut work, &names, &self.settings).await?;
        let (seqs, _) = Matching::new(&names, &table).find(&mut work, &record.entries).await?;
        work.commit().await?;
        Ok(seqs.into_iter().collect())
    }

    /// Un-marks exactly the rows of the newest applied batch, whose transaction readers will never see, so that they are published again.
    /// Provided that nobody claimed or marked since `seen`, and that as many rows are there as were shown.
    pub async fn unmark(
        &self,
        record: &Record,
        shown: usize,
        seen: &Standing,
        detail: &str,
        request: &Request,
    ) -> Result<(), Fault> {
        let (mut link, names) = self.link().await?;
        let (mut work, claim) = begin_as_seen(&mut link, &names, &self.settings, seen).await?;
        let name = self.settings.name();
        if record.n != seen.applied.n {
            return Err(Fault::in_doubt(Cause::ClaimChanged, "the record is not that of the newest batch: look again"));
        }
        let table = table::look_up(&mut work, &names, &self.settings).await?;
        let (seqs, ids) = Matching::new(&names, &table).find(&mut work, &record.entries).await?;
        if ids.len() != shown {
            return Err(Fault::in_doubt(Cause::ClaimChanged, "rows of that batch came or went meanwhile: look again"));
        }
        // where there is no such column, what is there was never marked
        if names.columns.of(Column::SentAt).is_some() {
            work.execute(ids.bind_to(statement(&table.sql(&names, UNMARK)).bind(seqs))).await?;
        }
        work.execute(statement(&names.sql(UNAPPLY)).bind(name.to_owned()).bind(record.n.cast_signed())).await?;
        work.execute(statement(&names.sql(settle::END_HALT)).bind(name.to_owned()).bind(claim.0)).await?;
        audit_change(&mut work, &names, name, "adopt --journal", request, detail).await?;
        work.commit().await
    }

    /// Whether the outbox could get the name `new`: no outbox has it.
    pub async fn may_be_renamed(&self, new: &str) -> Result<bool, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let row = work.row(statement(&names.sql(OTHER_NAME)).bind(new)).await?;
        let taken = row.map_or(Ok(false), |row| get(&row, 0, "exists"))?;
        work.commit().await?;
        Ok(!taken)
    }

    /// Gives the outbox another name, with the journal record at `base` for its newest applied batch, provided that nobody claimed or
    /// marked since `seen`. What the audit says of the old name stays under it.
    pub async fn rename(&self, new: &str, base: Option<Applied>, seen: &Standing, request: &Request) -> Result<(), Fault> {
        let (mut link, names) = self.link().await?;
        let (mut work, _) = begin_as_seen(&mut link, &names, &self.settings, seen).await?;
        let old = self.settings.name();
        for template in RENAME {
            work.execute(statement(&names.sql(template)).bind(old.to_owned()).bind(new.to_owned())).await?;
        }
        work.execute(statement(&names.sql(FORGET)).bind(old.to_owned())).await?;
        if let Some(at) = base {
            work.execute(insert_base(&names, new, at)).await?;
        }
        let detail = serde_json::json!({ "old": old, "batch": seen.applied.n }).to_string();
        audit_change(&mut work, &names, new, "adopt --name", request, &detail).await?;
        work.commit().await
    }

    /// Pinned topics.
    pub async fn pins(&self) -> Result<Pins, Fault> {
        Ok(self.look().await?.pins)
    }

    /// Forgets what is pinned of a topic, so that the relay pins it as it is; says whether there was a pin.
    pub async fn repin(&self, topic: &str, request: &Request) -> Result<bool, Fault> {
        let (mut link, names) = self.link().await?;
        let (mut work, _) = standing::begin_locked(&mut link, &names, &self.settings).await?;
        let name = self.settings.name();
        let repinned = work.execute(statement(&names.sql(REPIN)).bind(name.to_owned()).bind(topic.to_owned())).await? > 0;
        if repinned {
            let detail = serde_json::json!({ "topic": topic }).to_string();
            audit_change(&mut work, &names, name, "repin", request, &detail).await?;
        }
        work.commit().await?;
        Ok(repinned)
    }
}

pub(super) fn insert_base(names: &Names, name: &str, at: Applied) -> Statement<'static> {
    let (n, checksum) = (at.n.cast_signed(), at.checksum.0.cast_signed());
    statement(&names.sql(BASE)).bind(name.to_owned()).bind(n).bind(at.offset).bind(checksum)
}

/// Begins a transaction with the state row locked, provided that nobody claimed or marked since `seen`.
pub(super) async fn begin_as_seen<'a>(
    link: &'a mut Link,
    names: &Names,
    settings: &Settings,
    seen: &Standing,
) -> Result<(Work<'a>, ClaimNumber), Fault> {
    let (mut work, claim) = standing::begin_locked(link, names, settings).await?;
    if claim == seen.claim && standing::newest(&mut work, names, settings).await? == seen.applied.n {
        return Ok((work, claim));
    }
    Err(Fault::in_doubt(Cause::ClaimChanged, "somebody claimed or marked meanwhile: look again"))
}

/// A new claim number, so that whoever relays looks again, and the row in the audit.
pub(super) async fn audit_change(
    work: &mut Work<'_>,
    names: &Names,
    name: &str,
    action: &str,
    request: &Request,
    detail: &str,
) -> Result<(), Fault> {
    new_claim(work, names, name).await?;
    let audit = statement(&names.sql(AUDIT))
        .bind(name.to_owned())
        .bind(request.who.clone())
        .bind(action.to_owned())
        .bind(request.reason.clone())
        .bind(detail.to_owned());
    work.execute(audit).await.map(drop)
}
