//! Settle: marks what the journal has and the table lacks, record by record.

use std::sync::Arc;

use super::batch::Rows;
use super::connection::{Link, Work, get, statement};
use super::failure::in_doubt;
use super::fetch::SqliteReader;
use super::mark::{Marking, Newest, SqliteMarker};
use super::names::{Names, Sql};
use super::rows::identity;
use super::settings::Settings;
use super::standing::{Claimed, begin_claimed, json};
use crate::config::Mark;
use crate::fault::{Cause, Fault, Halt, HaltCode};
use crate::journal::{Applied, Entry, History, Record};
use crate::source::{Standing, Tenure};

/// Which events now have the numbers of a record, with what makes each of them the one it is.
const ROWS: &str = "SELECT o.seq, o.id, o.topic, o.key, o.payload FROM json_each(?1) b CROSS JOIN {outbox} o ON o.seq = b.value";

/// What a trigger has kept from being marked, without an error.
const STILL_UNSENT: &str = "WITH {batch} SELECT count(*), min(o.seq) FROM b CROSS JOIN {outbox} o ON o.seq = b.seq \
    AND lower(o.id) = b.id WHERE o.sent_at IS NULL";
const STILL_THERE: &str =
    "WITH {batch} SELECT count(*), min(o.seq) FROM b CROSS JOIN {outbox} o ON o.seq = b.seq AND lower(o.id) = b.id";

/// Entries of events that are sent, gone, or another event by now.
const FORGET_PARKED: &str = "DELETE FROM outboxd_parked AS p WHERE p.name = ?1 AND NOT EXISTS \
    (SELECT 1 FROM {outbox} o WHERE o.seq = p.seq AND lower(o.id) = p.id AND o.sent_at IS NULL)";

/// A settled claim ends a halt. Under the claim number, so that a zombie ends nobody's halt.
pub(super) const END_HALT: &str =
    "UPDATE outboxd_state SET halted_code = NULL, halted_evidence = NULL, halted_at = NULL WHERE name = ?1 AND claim = ?2";

/// A claim on the outbox whose journal is not settled yet.
pub struct SqliteTenure {
    claimed: Claimed,
    reader: Link,
    marker: Link,
    names: Names,
    settings: Arc<Settings>,
}

impl SqliteTenure {
    /// Both links lead to the file that was claimed and to no other one.
    pub(super) fn new(claimed: Claimed, (reader, marker): (Link, Link), names: Names, settings: Arc<Settings>) -> Self {
        Self { claimed, reader, marker, names, settings }
    }

    /// One record in one transaction.
    async fn settle_one(&mut self, sql: &Statements, record: &Record, place: Applied) -> Result<(), Fault> {
        let claim = self.claimed.standing.claim;
        let mut work = begin_claimed(&mut self.marker, &self.names, &self.settings, claim).await?;
        sql.marking.apply(&mut work, place, Cause::Settle).await?;
        let rows = matching(&mut work, &self.names, &record.entries).await?;
        sql.marking.rows(&mut work, &rows).await?;
        expect_marked(&mut work, sql, record.n, &rows).await?;
        work.commit().await.map_err(in_doubt(Cause::Settle))
    }

    /// Forgets what is not parked any more, and ends a halt.
    async fn tidy_up(&mut self) -> Result<(), Fault> {
        let (name, claim) = (self.settings.name().to_owned(), self.claimed.standing.claim);
        let mut work = begin_claimed(&mut self.marker, &self.names, &self.settings, claim).await?;
        work.execute(statement(&self.names.sql(FORGET_PARKED)).bind(name.clone())).await?;
        if self.claimed.halted {
            work.execute(statement(&self.names.sql(END_HALT)).bind(name).bind(claim.0)).await?;
        }
        work.commit().await
    }
}

impl Tenure for SqliteTenure {
    type Reader = SqliteReader;
    type Marker = SqliteMarker;

    fn standing(&self) -> &Standing {
        &self.claimed.standing
    }

    async fn settle<H: History>(mut self, mut history: H) -> Result<(SqliteReader, SqliteMarker), Fault> {
        let sql = Statements::new(&self.names, &self.settings);
        let mut newest = self.claimed.standing.applied.n;
        while let Some((record, place)) = history.next().await? {
            self.settle_one(&sql, &record, place).await?;
            newest = place.n;
        }
        self.tidy_up().await?;
        let (claim, newest, names) = (self.claimed.standing.claim, Newest::new(newest), self.names);
        let reader = SqliteReader::new(self.reader, &names, &self.settings, claim, newest.clone());
        Ok((reader, SqliteMarker::new(self.marker, names, self.settings, claim, newest)))
    }
}

struct Statements {
    marking: Marking,
    left: Sql,
}

impl Statements {
    fn new(names: &Names, settings: &Settings) -> Self {
        let left = match settings.outbox.mark {
            Mark::Row => STILL_UNSENT,
            Mark::Delete => STILL_THERE,
        };
        Self { marking: Marking::new(names, settings), left: names.sql(left) }
    }
}

/// The rows that are these events, which come in order of their numbers: the same number is not enough.
pub(super) async fn matching(work: &mut Work<'_>, names: &Names, entries: &[Entry]) -> Result<Rows, Fault> {
    let asked: Vec<i64> = entries.iter().map(|entry| entry.seq).collect();
    let mut found = Rows::default();
    for row in work.rows(statement(&names.sql(ROWS)).bind(json(&asked)?)).await? {
        let (seq, id) = identity(&row)?;
        let entry = entries.binary_search_by_key(&seq, |entry| entry.seq).map(|at| entries[at]);
        if entry.is_ok_and(|entry| entry.fingerprint == id.fingerprint()) {
            found.push(seq, id);
        }
    }
    Ok(found)
}

async fn expect_marked(work: &mut Work<'_>, sql: &Statements, n: u64, rows: &Rows) -> Result<(), Fault> {
    let Some(row) = work.row(statement(&sql.left).bind(rows.bound())).await? else { return Ok(()) };
    match get::<i64>(&row, 0, "count")? {
        0 => Ok(()),
        count => {
            let first: i64 = get(&row, 1, "seq")?;
            let evidence = format!("{count} rows of batch {n} stay unsent after their mark, the first is seq {first}");
            Err(Halt::new(HaltCode::MarkRefused, evidence).into())
        }
    }
}
