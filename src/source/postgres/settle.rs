//! Settle: marks what the journal has and the table lacks, record by record.

use std::sync::Arc;

use super::columns::IdKind;
use super::connection::{Link, Work, statement};
use super::failure::{in_doubt, mark_refused};
use super::fetch::PostgresReader;
use super::identities::{Identities, identity};
use super::mark::{self, Marking, PostgresMarker, Rows};
use super::names::{Names, Sql};
use super::settings::Settings;
use super::standing::Claimed;
use super::table::{Table, get};
use crate::failpoint::{lacks, pass};
use crate::fault::{Cause, Fault};
use crate::journal::{Applied, Entry, History, Record};
use crate::source::{Standing, Tenure};

/// Which events now have the numbers of a record. Not locked: what is marked below is found by number and id again.
const ROWS: &str = "SELECT {seq}::int8, {identity} FROM unnest($1::int8[]) AS b (seq) JOIN {outbox} o ON {seq} = b.seq";

/// Entries of events that are sent, gone, or another event by now.
const FORGET_PARKED: &str = "DELETE FROM {parked} p WHERE p.name = $1 AND NOT EXISTS \
    (SELECT FROM {outbox} o WHERE {seq} = p.seq AND ({is_as_parked}) IS TRUE AND {sent_at} IS NULL)";

/// A settled claim ends a halt. Under the claim number, so that a zombie ends nobody's halt.
pub(super) const END_HALT: &str =
    "UPDATE {state} SET halted_code = NULL, halted_evidence = NULL, halted_at = NULL WHERE name = $1 AND claim = $2";

/// A claim on the outbox whose journal is not settled yet.
pub struct PostgresTenure {
    claimed: Claimed,
    reader: Link,
    marker: Link,
    names: Arc<Names>,
    settings: Arc<Settings>,
}

impl PostgresTenure {
    pub(super) fn new(claimed: Claimed, reader: Link, marker: Link, names: Arc<Names>, settings: Arc<Settings>) -> Self {
        Self { claimed, reader, marker, names, settings }
    }

    /// One record in one transaction.
    async fn settle_one(&mut self, sql: &Statements, record: &Record, place: Applied) -> Result<(), Fault> {
        let (names, settings) = (&self.names, &self.settings);
        let mut work = mark::begin_claimed(&mut self.marker, names, settings, self.claimed.standing.claim).await?;
        let mut rows = sql.rows.find(&mut work, &record.entries).await?;
        if lacks!(Settlement) {
            rows = (Vec::new(), Identities::empty(sql.rows.identities, 0));
        }
        pass!(Settling, await);
        let batch = format!("batch {}", record.n);
        sql.marking.apply(&mut work, rows.clone(), place, Cause::Settle).await.map_err(mark_refused(&batch))?;
        sql.marking.expect_marked(&mut work, &batch, rows).await?;
        pass!(SettleWritten, await);
        // a trigger may wait for the commit
        work.commit().await.map_err(mark_refused(&batch)).map_err(in_doubt(Cause::Settle))?;
        pass!(Settled, await);
        Ok(())
    }

    async fn forget_parked(&mut self) -> Result<(), Fault> {
        let (names, settings) = (&self.names, &self.settings);
        let mut work = mark::begin_claimed(&mut self.marker, names, settings, self.claimed.standing.claim).await?;
        let forget = self.claimed.table.sql(names, FORGET_PARKED);
        work.execute(statement(&forget).bind(settings.name())).await?;
        work.commit().await
    }

    async fn end_halt(&mut self) -> Result<(), Fault> {
        let mut work = self.marker.begin().await?;
        let claim = self.claimed.standing.claim.0;
        work.execute(statement(&self.names.sql(END_HALT)).bind(self.settings.name()).bind(claim)).await?;
        work.commit().await
    }
}

impl Tenure for PostgresTenure {
    type Reader = PostgresReader;
    type Marker = PostgresMarker;

    fn standing(&self) -> &Standing {
        &self.claimed.standing
    }

    async fn settle<H: History>(mut self, mut history: H) -> Result<(PostgresReader, PostgresMarker), Fault> {
        let sql = Statements::new(&self.names, &self.settings, &self.claimed.table);
        while let Some((record, place)) = history.next().await? {
            self.settle_one(&sql, &record, place).await?;
        }
        self.forget_parked().await?;
        if self.claimed.halted {
            self.end_halt().await?;
        }
        let claim = self.claimed.standing.claim;
        let marker = PostgresMarker::new(self.marker, self.names.clone(), self.settings.clone(), claim, &self.claimed.table);
        let reader = PostgresReader::new(self.reader, &self.names, &self.settings, claim, self.claimed.table);
        Ok((reader, marker))
    }
}

struct Statements {
    rows: Matching,
    marking: Marking,
}

impl Statements {
    fn new(names: &Names, settings: &Settings, table: &Table) -> Self {
        Self { rows: Matching::new(names, table), marking: Marking::new(names, settings, table) }
    }
}

/// Finds the rows that are these events, which come in order of their numbers.
pub(super) struct Matching {
    sql: Sql,
    identities: IdKind,
}

impl Matching {
    pub(super) fn new(names: &Names, table: &Table) -> Self {
        Self { sql: table.sql(names, ROWS), identities: table.columns.id }
    }

    /// Their numbers and identities: the same number is not enough.
    pub(super) async fn find(&self, work: &mut Work<'_>, entries: &[Entry]) -> Result<Rows, Fault> {
        let asked: Vec<i64> = entries.iter().map(|entry| entry.seq).collect();
        let mut found = (Vec::with_capacity(asked.len()), Identities::empty(self.identities, asked.len()));
        for row in work.rows(statement(&self.sql).bind(asked)).await? {
            let (seq, id) = (get(&row, 0, "seq")?, identity(&row, 1, self.identities)?);
            let entry = entries.binary_search_by_key(&seq, |entry| entry.seq).map(|at| entries[at]);
            if entry.is_ok_and(|entry| entry.fingerprint == id.fingerprint()) {
                found.0.push(seq);
                found.1.push(id)?;
            }
        }
        Ok(found)
    }
}
