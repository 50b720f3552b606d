//! Settle: marks what the journal has and the table lacks, record by record.

use std::sync::Arc;

use sqlx::types::Uuid;

use super::connection::{Link, Work, statement};
use super::failure::in_doubt;
use super::fetch::PostgresReader;
use super::mark::{self, Marking, PostgresMarker, Rows};
use super::names::{Names, Sql};
use super::settings::Settings;
use super::standing::Claimed;
use super::table::get;
use crate::config::Mark;
use crate::event::Fingerprint;
use crate::fault::{Cause, Fault, Halt, HaltCode};
use crate::journal::{Applied, History, Record};
use crate::source::{Standing, Tenure};

/// Which events now have the numbers of a record. Not locked: what is marked below is found by number and id again.
pub(super) const ROWS: &str = "SELECT o.seq::int8, o.id FROM unnest($1::int8[]) AS b (seq) JOIN {outbox} o ON o.seq = b.seq";

/// What a row security policy or a trigger has kept from being marked: the UPDATE says 0 rows and no error.
const STILL_UNSENT: &str = "SELECT count(*), min(o.seq)::int8 FROM unnest($1::int8[], $2::uuid[]) AS b (seq, id) \
    JOIN {outbox} o ON o.seq = b.seq AND o.id = b.id WHERE o.sent_at IS NULL";
const STILL_THERE: &str = "SELECT count(*), min(o.seq)::int8 FROM unnest($1::int8[], $2::uuid[]) AS b (seq, id) \
    JOIN {outbox} o ON o.seq = b.seq AND o.id = b.id";

/// Entries of events that are sent, gone, or another event by now.
pub(super) const FORGET_PARKED: &str = "DELETE FROM {parked} p WHERE p.name = $1 AND NOT EXISTS \
    (SELECT FROM {outbox} o WHERE o.seq = p.seq AND (o.id = p.id) IS TRUE AND o.sent_at IS NULL)";

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
        let rows = matching(&mut work, &sql.rows, record).await?;
        sql.marking.apply(&mut work, rows.clone(), place, Cause::Settle).await?;
        expect_marked(&mut work, sql, record.n, rows).await?;
        work.commit().await.map_err(in_doubt(Cause::Settle))
    }

    async fn forget_parked(&mut self) -> Result<(), Fault> {
        let (names, settings) = (&self.names, &self.settings);
        let mut work = mark::begin_claimed(&mut self.marker, names, settings, self.claimed.standing.claim).await?;
        work.execute(statement(&names.sql(FORGET_PARKED)).bind(settings.name())).await?;
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
        let sql = Statements::new(&self.names, &self.settings);
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
    rows: Sql,
    marking: Marking,
    left: Sql,
}

impl Statements {
    fn new(names: &Names, settings: &Settings) -> Self {
        let left = match settings.outbox.mark {
            Mark::Row => STILL_UNSENT,
            Mark::Delete => STILL_THERE,
        };
        Self { rows: names.sql(ROWS), marking: Marking::new(names, settings), left: names.sql(left) }
    }
}

/// Numbers and ids of the rows that are the record's events: the same number is not enough.
pub(super) async fn matching(work: &mut Work<'_>, sql: &Sql, record: &Record) -> Result<Rows, Fault> {
    let asked: Vec<i64> = record.entries.iter().map(|entry| entry.seq).collect();
    let mut found = (Vec::with_capacity(asked.len()), Vec::with_capacity(asked.len()));
    for row in work.rows(statement(sql).bind(asked)).await? {
        let (seq, id): (i64, Uuid) = (get(&row, 0, "seq")?, get(&row, 1, "id")?);
        let entry = record.entries.binary_search_by_key(&seq, |entry| entry.seq).map(|at| record.entries[at]);
        if entry.is_ok_and(|entry| entry.fingerprint == Fingerprint::of(id)) {
            found.0.push(seq);
            found.1.push(id);
        }
    }
    Ok(found)
}

async fn expect_marked(work: &mut Work<'_>, sql: &Statements, n: u64, (seqs, ids): Rows) -> Result<(), Fault> {
    let Some(row) = work.row(statement(&sql.left).bind(seqs).bind(ids)).await? else { return Ok(()) };
    match get::<i64>(&row, 0, "count")? {
        0 => Ok(()),
        count => {
            let first: i64 = get(&row, 1, "seq")?;
            let evidence = format!("{count} rows of batch {n} stay unsent after their mark, the first is seq {first}");
            Err(Halt::new(HaltCode::MarkRefused, evidence).into())
        }
    }
}
