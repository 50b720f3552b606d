//! Mark: exactly the rows of a batch, and the batch as applied, in one transaction under the locked state row.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::columns::IdKind;
use super::connection::{Link, Statement, Work, statement};
use super::failure::{in_doubt, mark_refused, unreadable};
use super::identities::Identities;
use super::names::{Names, Sql, literal};
use super::settings::Settings;
use super::standing;
use super::table::{Table, get};
use crate::config::{Mark, OnPoison};
use crate::failpoint::pass;
use crate::fault::{Cause, Fault, Halt, HaltCode};
use crate::journal::Applied;
use crate::park::{Ailing, Done, SetAside, Unfit};
use crate::sink::{Noted, Published};
use crate::source::{ClaimNumber, Marker, Pins};

/// By number, row by row of the batch: `INDEXES_ONLY` keeps the planner from reading the whole table, and `IS TRUE` from taking the index
/// on `id`, whose entries lie scattered. By id too, since another event may have got the same number after a failover. Rejected:
/// `AND sent_at IS NULL`, which would make a row that a person has marked look like a fault.
const MARK_ROWS: &str = "UPDATE {outbox} o SET {sent_at_column} = {now} FROM unnest($1::int8[], $2::{identity_type}[]) AS b (seq, id) \
    WHERE {seq} = b.seq AND ({identity} = b.id) IS TRUE RETURNING {sent_at} IS NOT NULL AS is_marked";
const DELETE_ROWS: &str = "DELETE FROM {outbox} o USING unnest($1::int8[], $2::{identity_type}[]) AS b (seq, id) \
    WHERE {seq} = b.seq AND ({identity} = b.id) IS TRUE RETURNING true AS is_marked";

/// A row that is marked takes its parked entry along: a person may have marked it, or a release came when it was published already.
const FORGET_MARKED: &str = "forgotten AS (DELETE FROM {parked} p WHERE p.name = {name} AND p.seq >= ($1::int8[])[1] \
    AND p.seq = ANY ($1))";
/// Marks rows and says how many are marked then, since a trigger may put the old value back: with the batch as applied, in one statement
/// under the locked state row, or without a journal. The key (name, n) is the compare-and-set: a batch is applied once, and
/// only after its predecessor.
const WITH_JOURNAL: &str = "WITH applied AS (INSERT INTO {applied} (name, n, journal_offset, checksum) SELECT $3, $4, $5, $6 \
    WHERE $4 = 1 + coalesce((SELECT n FROM {applied} WHERE name = $3 ORDER BY n DESC LIMIT 1), 0) RETURNING 1), \
    marked AS ({rows}), {forget} SELECT (SELECT count(*) FILTER (WHERE is_marked) FROM marked), (SELECT count(*) FROM applied)";
const WITHOUT_JOURNAL: &str = "WITH marked AS ({rows}), {forget} SELECT (SELECT count(*) FILTER (WHERE is_marked) FROM marked)";

/// What a row security policy or a trigger has kept from being marked: the UPDATE says 0 rows and no error, or a trigger undid it later.
const STILL_UNSENT: &str = "SELECT count(*), min({seq})::int8 FROM unnest($1::int8[], $2::{identity_type}[]) AS b (seq, id) \
    JOIN {outbox} o ON {seq} = b.seq AND {identity} = b.id WHERE {sent_at} IS NULL";
const STILL_THERE: &str = "SELECT count(*), min({seq})::int8 FROM unnest($1::int8[], $2::{identity_type}[]) AS b (seq, id) \
    JOIN {outbox} o ON {seq} = b.seq AND {identity} = b.id";

const PIN: &str = "UPDATE {state} SET pins = pins || $2::jsonb WHERE name = $1";

/// Parks what is still unsent. The entry of another event that had the same number gives way.
const PARK: &str = "INSERT INTO {parked} AS p (name, seq, id, fingerprint, topic, key, code, detail, blocking) \
    SELECT DISTINCT ON ({seq}) $1, {seq}, {id}::text, {fingerprint}, coalesce({topic}::text, ''), {key_text}, b.code, b.detail, $6 \
    FROM unnest($2::int8[], $3::{identity_type}[], $4::text[], $5::text[]) AS b (seq, id, code, detail) \
    JOIN {outbox} o ON {seq} = b.seq AND ({identity} = b.id) IS TRUE WHERE {sent_at} IS NULL \
    ON CONFLICT (name, seq) DO UPDATE SET id = excluded.id, fingerprint = excluded.fingerprint, topic = excluded.topic, \
    key = excluded.key, code = excluded.code, detail = excluded.detail, blocking = excluded.blocking, parked_at = now() \
    WHERE (p.id, p.fingerprint) IS DISTINCT FROM (excluded.id, excluded.fingerprint)";
/// What is held already may be so for another reason by now.
const HOLD: &str = "INSERT INTO {held} AS h (name, topic, code, detail) \
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[]) ON CONFLICT (name, topic) \
    DO UPDATE SET code = excluded.code, detail = excluded.detail WHERE h.code <> excluded.code";
const LET_GO: &str = "DELETE FROM {held} WHERE name = $1 AND topic = ANY ($2)";

/// Marks under one claim.
pub struct PostgresMarker {
    link: Link,
    names: Arc<Names>,
    settings: Arc<Settings>,
    claim: ClaimNumber,
    marking: Marking,
    identities: IdKind,
    park: Sql,
}

impl PostgresMarker {
    pub(super) fn new(link: Link, names: Arc<Names>, settings: Arc<Settings>, claim: ClaimNumber, table: &Table) -> Self {
        let marking = Marking::new(&names, &settings, table);
        let (identities, park) = (table.columns.id, table.sql(&names, PARK));
        Self { link, names, settings, claim, marking, identities, park }
    }

    /// Begins a transaction under the locked state row.
    async fn begin(&mut self) -> Result<Work<'_>, Fault> {
        begin_claimed(&mut self.link, &self.names, &self.settings, self.claim).await
    }
}

impl Marker for PostgresMarker {
    async fn mark(&mut self, published: &Published) -> Result<(), Fault> {
        pass!(Marking, await);
        let mut work = begin_claimed(&mut self.link, &self.names, &self.settings, self.claim).await?;
        pass!(MarkLocked, await);
        let batch = published.batch();
        let rows: Rows = (batch.seqs().collect(), Identities::of(self.identities, batch.ids())?);
        match published.journalled() {
            Some(applied) => self.marking.apply_all(&mut work, rows, applied).await?,
            // nothing else would tell: there is no settlement
            None => self.marking.only_rows(&mut work, rows).await.map_err(mark_refused("a batch"))?,
        }
        pass!(MarkWritten, await);
        work.commit().await.map_err(in_doubt(Cause::Mark))?;
        pass!(Marked, await);
        Ok(())
    }

    async fn note(&mut self, noted: &Noted) -> Result<(), Fault> {
        let mut work = begin_claimed(&mut self.link, &self.names, &self.settings, self.claim).await?;
        let none = (Vec::new(), Identities::empty(self.identities, 0));
        self.marking.apply(&mut work, none, noted.at(), Cause::Mark).await?;
        work.commit().await.map_err(in_doubt(Cause::Mark))
    }

    async fn pin(&mut self, pins: &Pins) -> Result<(), Fault> {
        let pins = serde_json::to_string(pins).map_err(|_| unreadable("pins"))?;
        let pin = statement(&self.names.sql(PIN)).bind(self.settings.name().to_owned()).bind(pins);
        let mut work = self.begin().await?;
        work.execute(pin).await?;
        work.commit().await
    }

    async fn set_aside(&mut self, what: &SetAside) -> Result<Done, Fault> {
        let identities = Identities::of(self.identities, what.unfit.iter().map(|one| one.id.id()))?;
        let park = park(&self.park, &self.settings, &what.unfit, identities);
        let hold = hold(&self.names.sql(HOLD), &self.settings, &what.ailing);
        let mut work = self.begin().await?;
        let done = Done { parked: work.execute(park).await?, held: work.execute(hold).await? };
        work.commit().await?;
        Ok(done)
    }

    async fn let_go(&mut self, topics: &BTreeSet<String>) -> Result<(), Fault> {
        let topics: Vec<String> = topics.iter().cloned().collect();
        let let_go = statement(&self.names.sql(LET_GO)).bind(self.settings.name().to_owned()).bind(topics);
        let mut work = self.begin().await?;
        work.execute(let_go).await?;
        work.commit().await
    }
}

fn park(sql: &Sql, settings: &Settings, unfit: &[Unfit], identities: Identities) -> Statement<'static> {
    let column = |get: fn(&Unfit) -> &str| -> Vec<String> { unfit.iter().map(|one| get(one).to_owned()).collect() };
    let seqs: Vec<i64> = unfit.iter().map(|one| one.seq).collect();
    let park = statement(sql).bind(settings.name().to_owned()).bind(seqs);
    identities
        .bind_to(park)
        .bind(column(|one| one.code))
        .bind(column(|one| &one.detail))
        .bind(settings.outbox.on_poison == OnPoison::ParkKey)
}

fn hold(sql: &Sql, settings: &Settings, ailing: &[Ailing]) -> Statement<'static> {
    let column = |get: fn(&Ailing) -> &str| -> Vec<String> { ailing.iter().map(|one| get(one).to_owned()).collect() };
    let (topics, codes, details) = (column(|one| &one.topic), column(|one| one.code), column(|one| &one.detail));
    statement(sql).bind(settings.name().to_owned()).bind(topics).bind(codes).bind(details)
}

/// Begins a transaction with the state row locked, and compares its claim number there: in a sub-select it would not be looked at
/// again after a wait.
pub(super) async fn begin_claimed<'a>(
    link: &'a mut Link,
    names: &Names,
    settings: &Settings,
    claim: ClaimNumber,
) -> Result<Work<'a>, Fault> {
    let (work, found) = standing::begin_locked(link, names, settings).await?;
    if found == claim {
        return Ok(work);
    }
    Err(Fault::in_doubt(Cause::ClaimChanged, "the state row holds another claim number"))
}

/// Numbers and identities of rows to mark.
pub(super) type Rows = (Vec<i64>, Identities);

/// The statements that mark rows in the configured way.
pub(super) struct Marking {
    name: String,
    with_journal: Sql,
    without_journal: Sql,
    left: Sql,
    has_after_trigger: bool,
}

impl Marking {
    pub(super) fn new(names: &Names, settings: &Settings, table: &Table) -> Self {
        let (rows, left) = match settings.outbox.mark {
            Mark::Row => (MARK_ROWS, STILL_UNSENT),
            Mark::Delete => (DELETE_ROWS, STILL_THERE),
        };
        let (rows, left) = (table.sql(names, rows), table.sql(names, left));
        let forget = names.sql_with(FORGET_MARKED, &[("name", &literal(settings.name()))]);
        let fill = |template| names.sql_with(template, &[("rows", rows.text()), ("forget", forget.text())]);
        let (with_journal, without_journal) = (fill(WITH_JOURNAL), fill(WITHOUT_JOURNAL));
        let has_after_trigger = table.has_after_trigger;
        Self { name: settings.name().to_owned(), with_journal, without_journal, left, has_after_trigger }
    }

    /// Marks rows and records their batch as applied; returns how many rows were there. `otherwise` when the batch is applied already
    /// or does not follow the newest one.
    pub(super) async fn apply(&self, work: &mut Work<'_>, rows: Rows, at: Applied, otherwise: Cause) -> Result<u64, Fault> {
        let mark = rows
            .1
            .bind_to(statement(&self.with_journal).bind(rows.0))
            .bind(&self.name)
            .bind(at.n.cast_signed())
            .bind(at.offset)
            .bind(at.checksum.0.cast_signed());
        let row = work.row(mark).await?.ok_or_else(|| unreadable("count"))?;
        if get::<i64>(&row, 1, "count")? != 1 {
            return Err(Fault::in_doubt(otherwise, format!("batch {} does not follow the newest applied one", at.n)));
        }
        get::<i64>(&row, 0, "count").map(i64::cast_unsigned)
    }

    /// The same for rows that must all be there. Where one is not, or is unsent again, the settlement tells what that means.
    async fn apply_all(&self, work: &mut Work<'_>, rows: Rows, at: Applied) -> Result<(), Fault> {
        let asked = rows.0.len() as u64;
        let again = self.has_after_trigger.then(|| rows.clone());
        let marked = self.apply(work, rows, at, Cause::Mark).await?;
        let undone = match again {
            Some(rows) => self.left_unsent(work, rows).await?.map_or(0, |(count, _)| count),
            None => 0,
        };
        expect_all(asked, marked.saturating_sub(undone))
    }

    pub(super) async fn only_rows(&self, work: &mut Work<'_>, rows: Rows) -> Result<(), Fault> {
        let (asked, again) = (rows.0.len() as u64, rows.clone());
        let mark = rows.1.bind_to(statement(&self.without_journal).bind(rows.0));
        let row = work.row(mark).await?.ok_or_else(|| unreadable("count"))?;
        let marked = get::<i64>(&row, 0, "count")?.cast_unsigned();
        if marked != asked || self.has_after_trigger {
            self.expect_marked(work, "the batch", again).await?;
        }
        expect_all(asked, marked)
    }

    /// None of these rows may be unsent after its mark.
    pub(super) async fn expect_marked(&self, work: &mut Work<'_>, batch: &str, rows: Rows) -> Result<(), Fault> {
        let Some((count, first)) = self.left_unsent(work, rows).await? else { return Ok(()) };
        let evidence = format!("{count} rows of {batch} stay unsent after their mark, the first is seq {first}");
        Err(Halt::new(HaltCode::MarkRefused, evidence).into())
    }

    /// How many of these rows are unsent, and the number of the first; nothing when none is.
    async fn left_unsent(&self, work: &mut Work<'_>, (seqs, ids): Rows) -> Result<Option<(u64, i64)>, Fault> {
        let row = work.row(ids.bind_to(statement(&self.left).bind(seqs))).await?.ok_or_else(|| unreadable("count"))?;
        let count = get::<i64>(&row, 0, "count")?.cast_unsigned();
        get::<Option<i64>>(&row, 1, "seq").map(|first| first.map(|first| (count, first)))
    }
}

fn expect_all(asked: u64, marked: u64) -> Result<(), Fault> {
    if marked == asked {
        return Ok(());
    }
    Err(Fault::in_doubt(Cause::MarkCount, format!("{marked} of {asked} rows could be marked")))
}
