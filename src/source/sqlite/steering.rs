//! What commands change in the state row: pause and resume, accepted databases, pins. Each leaves a row in the audit.

use std::collections::BTreeSet;
use std::future::Future;

use super::Sqlite;
use super::batch::Rows;
use super::connection::{Link, Statement, Work, get, statement};
use super::names::{Names, Sql};
use super::parked::new_claim;
use super::settings::Settings;
use super::settle::{END_HALT, matching};
use super::standing::{begin_locked, identity, json, list, newest, pins as read_pins, unknown_outbox};
use crate::fault::{Cause, Fault, Halt};
use crate::journal::{Applied, Record};
use crate::source::desk::{Acceptance, Request};
use crate::source::{ClaimNumber, Pins, Source, Standing};

const PAUSE: &str =
    "UPDATE outboxd_state SET paused_at = {now}, paused_by = ?2, paused_reason = ?3 WHERE name = ?1 AND paused_at IS NULL";
const RESUME: &str = "UPDATE outboxd_state SET paused_at = NULL, paused_by = NULL, paused_reason = NULL \
    WHERE name = ?1 AND paused_at IS NOT NULL";
const ACCEPTED: &str = "SELECT accepted_addresses, accepted_systems FROM outboxd_state WHERE name = ?1";
const ADOPT: &str = "UPDATE outboxd_state SET accepted_addresses = ?2, accepted_systems = ?3 WHERE name = ?1";
const PINS: &str = "SELECT pins FROM outboxd_state WHERE name = ?1";
const PIN: &str = "UPDATE outboxd_state SET pins = ?2 WHERE name = ?1";
const BASE: &str = "INSERT INTO outboxd_applied (name, n, journal_offset, checksum) VALUES (?1, ?2, ?3, ?4)";
const UNMARK: &str = "WITH {batch} UPDATE {outbox} AS o SET sent_at = NULL FROM b WHERE o.seq = b.seq AND lower(o.id) = b.id";
const OTHER_NAME: &str = "SELECT 1 FROM outboxd_state WHERE name = ?1";
const RENAME: [&str; 4] = [
    "UPDATE outboxd_state SET name = ?2, halted_code = NULL, halted_evidence = NULL, halted_at = NULL WHERE name = ?1",
    "UPDATE outboxd_token SET name = ?2 WHERE name = ?1",
    "UPDATE outboxd_parked SET name = ?2 WHERE name = ?1",
    "UPDATE outboxd_held SET name = ?2 WHERE name = ?1",
];
/// The offsets of the old rows are those of another journal.
const FORGET: &str = "DELETE FROM outboxd_applied WHERE name = ?1";
const UNAPPLY: &str = "DELETE FROM outboxd_applied WHERE name = ?1 AND n = ?2";
const AUDIT: &str = "INSERT INTO outboxd_audit (name, who, action, reason, detail) VALUES (?1, ?2, ?3, ?4, ?5)";

impl Sqlite {
    /// Pauses the outbox; says whether it was not paused before.
    pub async fn pause(&self, request: &Request) -> Result<bool, Fault> {
        let pause =
            |sql: &Sql| statement(sql).bind(self.settings.name().to_owned()).bind(whoever(request)).bind(request.reason.clone());
        self.switch(PAUSE, pause, "pause", request).await
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
        let mut link = self.place.link();
        let (mut work, _) = begin_locked(&mut link, &self.names, &self.settings).await?;
        let switched = work.execute(fill(&self.names.sql(template))).await? > 0;
        if switched {
            audit_change(&mut work, &self.names, self.settings.name(), action, request, "{}").await?;
        }
        work.commit().await?;
        Ok(switched)
    }

    /// Which paths are accepted, and which one this is.
    pub async fn acceptance(&self) -> Result<Acceptance, Fault> {
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let row = work.row(statement(&self.names.sql(ACCEPTED)).bind(self.settings.name())).await?;
        let row = row.ok_or_else(|| unknown_outbox(self.settings.name()))?;
        let (addresses, systems) = (list(&row, 0, "accepted_addresses")?, list(&row, 1, "accepted_systems")?);
        work.commit().await?;
        Ok(Acceptance { address: self.place.address()?, database: identity(), addresses, systems })
    }

    /// Accepts this file beside those accepted before.
    pub async fn adopt_database(&self, here: &Acceptance, request: &Request) -> Result<(), Fault> {
        let mut link = self.place.link();
        let (mut work, _) = begin_locked(&mut link, &self.names, &self.settings).await?;
        let (name, system) = (self.settings.name(), &here.database.system);
        let row = work.row(statement(&self.names.sql(ACCEPTED)).bind(name)).await?.ok_or_else(|| unknown_outbox(name))?;
        let addresses = with(list(&row, 0, "accepted_addresses")?, &here.address);
        let systems = with(list(&row, 1, "accepted_systems")?, system);
        work.execute(statement(&self.names.sql(ADOPT)).bind(name).bind(json(&addresses)?).bind(json(&systems)?)).await?;
        let detail = serde_json::json!({ "address": here.address, "system": system }).to_string();
        audit_change(&mut work, &self.names, name, "adopt --database", request, &detail).await?;
        work.commit().await
    }

    /// Has a journal record written, takes it for the newest applied batch and ends the halt, provided that nobody claimed or marked
    /// since `seen`: nobody else can write meanwhile, so that nobody claims in between.
    pub async fn adopt_journal(
        &self,
        write: impl Future<Output = Result<Applied, Fault>>,
        seen: &Standing,
        halt: &Halt,
        request: &Request,
    ) -> Result<Applied, Fault> {
        let (names, name) = (&self.names, self.settings.name());
        let mut link = self.place.link();
        let (mut work, claim) = begin_as_seen(&mut link, names, &self.settings, seen).await?;
        let at = write.await?;
        work.execute(insert_base(names, name, at)).await?;
        work.execute(statement(&names.sql(END_HALT)).bind(name).bind(claim.0)).await?;
        let detail = serde_json::json!({ "halt": halt.code.name(), "evidence": halt.evidence, "batch": at.n, "offset": at.offset });
        audit_change(&mut work, names, name, "adopt --journal", request, &detail.to_string()).await?;
        work.commit().await?;
        Ok(at)
    }

    /// Numbers of those events of a journal record that are still in the table.
    pub async fn still_there(&self, record: &Record) -> Result<BTreeSet<i64>, Fault> {
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let rows = matching(&mut work, &self.names, &record.entries).await?;
        work.commit().await?;
        Ok(rows.seqs().iter().copied().collect())
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
        let (names, name) = (&self.names, self.settings.name());
        let mut link = self.place.link();
        let (mut work, claim) = begin_as_seen(&mut link, names, &self.settings, seen).await?;
        if record.n != seen.applied.n {
            return Err(Fault::in_doubt(Cause::ClaimChanged, "the record is not that of the newest batch: look again"));
        }
        let rows: Rows = matching(&mut work, names, &record.entries).await?;
        if rows.seqs().len() != shown {
            return Err(Fault::in_doubt(Cause::ClaimChanged, "rows of that batch came or went meanwhile: look again"));
        }
        work.execute(statement(&names.sql(UNMARK)).bind(rows.bound())).await?;
        work.execute(statement(&names.sql(UNAPPLY)).bind(name).bind(record.n.cast_signed())).await?;
        work.execute(statement(&names.sql(END_HALT)).bind(name).bind(claim.0)).await?;
        audit_change(&mut work, names, name, "adopt --journal", request, detail).await?;
        work.commit().await
    }

    /// Whether the outbox could get the name `new`: no outbox has it.
    pub async fn may_be_renamed(&self, new: &str) -> Result<bool, Fault> {
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let taken = work.row(statement(&self.names.sql(OTHER_NAME)).bind(new)).await?.is_some();
        work.commit().await?;
        Ok(!taken)
    }

    /// Gives the outbox another name, with the journal record at `base` for its newest applied batch, provided that nobody claimed or
    /// marked since `seen`. What the audit says of the old name stays under it.
    pub async fn rename(&self, new: &str, base: Option<Applied>, seen: &Standing, request: &Request) -> Result<(), Fault> {
        let (names, old) = (&self.names, self.settings.name());
        let mut link = self.place.link();
        let (mut work, _) = begin_as_seen(&mut link, names, &self.settings, seen).await?;
        for template in RENAME {
            work.execute(statement(&names.sql(template)).bind(old).bind(new)).await?;
        }
        work.execute(statement(&names.sql(FORGET)).bind(old)).await?;
        if let Some(at) = base {
            work.execute(insert_base(names, new, at)).await?;
        }
        let detail = serde_json::json!({ "old": old, "batch": seen.applied.n }).to_string();
        audit_change(&mut work, names, new, "adopt --name", request, &detail).await?;
        work.commit().await
    }

    /// Pinned topics.
    pub async fn pins(&self) -> Result<Pins, Fault> {
        Ok(self.look().await?.pins)
    }

    /// Forgets what is pinned of a topic, so that the relay pins it as it is; says whether there was a pin.
    pub async fn repin(&self, topic: &str, request: &Request) -> Result<bool, Fault> {
        let (names, name) = (&self.names, self.settings.name());
        let mut link = self.place.link();
        let (mut work, _) = begin_locked(&mut link, names, &self.settings).await?;
        let row = work.row(statement(&names.sql(PINS)).bind(name)).await?.ok_or_else(|| unknown_outbox(name))?;
        let mut pins = read_pins(get(&row, 0, "pins")?)?;
        let repinned = pins.remove(topic).is_some();
        if repinned {
            work.execute(statement(&names.sql(PIN)).bind(name).bind(json(&pins)?)).await?;
            let detail = serde_json::json!({ "topic": topic }).to_string();
            audit_change(&mut work, names, name, "repin", request, &detail).await?;
        }
        work.commit().await?;
        Ok(repinned)
    }
}

/// SQLite has no roles: whoever can write the file is asked for no name but that of the system.
fn whoever(request: &Request) -> String {
    let who = request.who.trim().trim_matches(['(', ')']);
    if who.is_empty() { "somebody".into() } else { who.to_owned() }
}

fn with(mut list: Vec<String>, more: &str) -> Vec<String> {
    if !list.iter().any(|known| known == more) {
        list.push(more.to_owned());
    }
    list
}

pub(super) fn insert_base(names: &Names, name: &str, at: Applied) -> Statement<'static> {
    let (n, checksum) = (at.n.cast_signed(), at.checksum.0.cast_signed());
    statement(&names.sql(BASE)).bind(name.to_owned()).bind(n).bind(at.offset).bind(checksum)
}

/// Begins a transaction as the only writer, provided that nobody claimed or marked since `seen`.
pub(super) async fn begin_as_seen<'a>(
    link: &'a mut Link,
    names: &Names,
    settings: &Settings,
    seen: &Standing,
) -> Result<(Work<'a>, ClaimNumber), Fault> {
    let (mut work, claim) = begin_locked(link, names, settings).await?;
    if claim == seen.claim && newest(&mut work, names, settings).await? == seen.applied.n {
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
    audit(work, names, name, action, request, detail).await
}

/// A row in the audit.
pub(super) async fn audit(
    work: &mut Work<'_>,
    names: &Names,
    name: &str,
    action: &str,
    request: &Request,
    detail: &str,
) -> Result<(), Fault> {
    let audit = statement(&names.sql(AUDIT)).bind(name).bind(whoever(request)).bind(action).bind(&request.reason).bind(detail);
    work.execute(audit).await.map(drop)
}
