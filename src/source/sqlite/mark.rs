//! Mark: exactly the rows of a batch, and the batch as applied, in one transaction of the only writer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::batch::Rows;
use super::connection::{Link, Work, get, statement};
use super::failure::{in_doubt, unreadable};
use super::names::{Names, Sql};
use super::settings::Settings;
use super::standing::{begin_claimed, json, pins as read_pins};
use crate::config::{Mark, OnPoison};
use crate::fault::{Cause, Fault};
use crate::journal::Applied;
use crate::park::{Ailing, Done, SetAside, Unfit};
use crate::sink::{Noted, Published};
use crate::source::{ClaimNumber, Marker, Pins};

/// By number and by id. Rejected: `AND sent_at IS NULL`, which would make a row that a person has marked look like a fault.
const MARK_ROWS: &str = "WITH {batch} UPDATE {outbox} AS o SET sent_at = {now} FROM b WHERE o.seq = b.seq AND lower(o.id) = b.id";
const DELETE_ROWS: &str = "WITH {batch} DELETE FROM {outbox} WHERE seq IN \
    (SELECT o.seq FROM b CROSS JOIN {outbox} o ON o.seq = b.seq AND lower(o.id) = b.id)";
/// How many of them are marked then: a trigger may swallow the mark, or put the old value back.
const MARKED: &str = "WITH {batch} SELECT count(*) FROM b CROSS JOIN {outbox} o ON o.seq = b.seq AND lower(o.id) = b.id \
    WHERE o.sent_at IS NOT NULL";
/// A row that is marked takes its parked entry along: a person may have marked it, or a release came when it was published already.
const FORGET_MARKED: &str = "DELETE FROM outboxd_parked WHERE name = ?2 AND seq IN (SELECT value ->> 0 FROM json_each(?1))";
/// The compare-and-set: a batch is applied once, and only after its predecessor.
const APPLY: &str = "INSERT INTO outboxd_applied (name, n, journal_offset, checksum) SELECT ?1, ?2, ?3, ?4 \
    WHERE ?2 = 1 + coalesce((SELECT max(n) FROM outboxd_applied WHERE name = ?1), 0)";

const PINS: &str = "SELECT pins FROM outboxd_state WHERE name = ?1";
const PIN: &str = "UPDATE outboxd_state SET pins = ?2 WHERE name = ?1";

/// Parks what is still unsent. The entry of another event that had the same number gives way.
const PARK: &str = "WITH {batch} INSERT INTO outboxd_parked AS p (name, seq, id, topic, key, code, detail, blocking) \
    SELECT ?2, o.seq, b.id, o.topic, {key_text}, ?3, ?4, ?5 \
    FROM b CROSS JOIN {outbox} o ON o.seq = b.seq AND lower(o.id) = b.id WHERE o.sent_at IS NULL \
    ON CONFLICT (name, seq) DO UPDATE SET id = excluded.id, topic = excluded.topic, key = excluded.key, code = excluded.code, \
    detail = excluded.detail, blocking = excluded.blocking, parked_at = {now} WHERE p.id <> excluded.id";
/// What is held already may be so for another reason by now.
const HOLD: &str = "INSERT INTO outboxd_held AS h (name, topic, code, detail) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name, topic) \
    DO UPDATE SET code = excluded.code, detail = excluded.detail WHERE h.code <> excluded.code";
const LET_GO: &str = "DELETE FROM outboxd_held WHERE name = ?1 AND topic IN (SELECT value FROM json_each(?2))";

/// The newest batch that this claim has left as applied, which the reader compares: a file that went back knows an older one.
#[derive(Clone, Debug)]
pub(super) struct Newest(Arc<AtomicU64>);

impl Newest {
    pub(super) fn new(n: u64) -> Self {
        Self(Arc::new(AtomicU64::new(n)))
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, n: u64) {
        self.0.store(n, Ordering::Release);
    }
}

/// Marks under one claim.
pub struct SqliteMarker {
    link: Link,
    names: Names,
    settings: Arc<Settings>,
    claim: ClaimNumber,
    marking: Marking,
    newest: Newest,
}

impl SqliteMarker {
    pub(super) fn new(link: Link, names: Names, settings: Arc<Settings>, claim: ClaimNumber, newest: Newest) -> Self {
        let marking = Marking::new(&names, &settings);
        Self { link, names, settings, claim, marking, newest }
    }

    /// Begins a transaction as the only writer, under this claim.
    async fn begin(&mut self) -> Result<Work<'_>, Fault> {
        begin_claimed(&mut self.link, &self.names, &self.settings, self.claim).await
    }
}

impl Marker for SqliteMarker {
    async fn mark(&mut self, published: &Published) -> Result<(), Fault> {
        let batch = published.batch();
        let rows: Rows = batch.seqs().zip(batch.ids()).collect();
        let mut work = begin_claimed(&mut self.link, &self.names, &self.settings, self.claim).await?;
        if let Some(at) = published.journalled() {
            self.marking.apply(&mut work, at, Cause::Mark).await?;
        }
        let marked = self.marking.rows(&mut work, &rows).await?;
        if marked != rows.count() {
            return Err(Fault::in_doubt(Cause::MarkCount, format!("{marked} of {} rows could be marked", rows.count())));
        }
        work.commit().await.map_err(in_doubt(Cause::Mark))?;
        published.journalled().into_iter().for_each(|at| self.newest.set(at.n));
        Ok(())
    }

    async fn note(&mut self, noted: &Noted) -> Result<(), Fault> {
        let mut work = begin_claimed(&mut self.link, &self.names, &self.settings, self.claim).await?;
        self.marking.apply(&mut work, noted.at(), Cause::Mark).await?;
        work.commit().await.map_err(in_doubt(Cause::Mark))?;
        self.newest.set(noted.at().n);
        Ok(())
    }

    async fn pin(&mut self, pins: &Pins) -> Result<(), Fault> {
        let (read, write, name) = (self.names.sql(PINS), self.names.sql(PIN), self.settings.name().to_owned());
        let mut work = self.begin().await?;
        let row = work.row(statement(&read).bind(name.clone())).await?.ok_or_else(|| unreadable("pins"))?;
        let mut all = read_pins(get(&row, 0, "pins")?)?;
        all.extend(pins.clone());
        work.execute(statement(&write).bind(name).bind(json(&all)?)).await?;
        work.commit().await
    }

    async fn set_aside(&mut self, what: &SetAside) -> Result<Done, Fault> {
        let (park, hold, settings) = (self.names.sql(PARK), self.names.sql(HOLD), self.settings.clone());
        let mut work = self.begin().await?;
        let mut done = Done::default();
        for unfit in &what.unfit {
            done.parked += park_one(&mut work, &park, &settings, unfit).await?;
        }
        for Ailing { topic, code, detail } in &what.ailing {
            done.held += work.execute(statement(&hold).bind(settings.name()).bind(topic).bind(*code).bind(detail)).await?;
        }
        work.commit().await?;
        Ok(done)
    }

    async fn let_go(&mut self, topics: &BTreeSet<String>) -> Result<(), Fault> {
        let (let_go, topics) = (self.names.sql(LET_GO), json(topics)?);
        let name = self.settings.name().to_owned();
        let mut work = self.begin().await?;
        work.execute(statement(&let_go).bind(name).bind(topics)).await?;
        work.commit().await
    }
}

async fn park_one(work: &mut Work<'_>, park: &Sql, settings: &Settings, unfit: &Unfit) -> Result<u64, Fault> {
    let row: Rows = [(unfit.seq, unfit.id.id())].into_iter().collect();
    let blocking = settings.outbox.on_poison == OnPoison::ParkKey;
    let park = statement(park).bind(row.bound()).bind(settings.name()).bind(unfit.code).bind(&unfit.detail).bind(blocking);
    work.execute(park).await
}

/// The statements that mark rows in the configured way.
pub(super) struct Marking {
    name: String,
    mark: Mark,
    rows: Sql,
    marked: Sql,
    forget: Sql,
    apply: Sql,
}

impl Marking {
    pub(super) fn new(names: &Names, settings: &Settings) -> Self {
        let rows = match settings.outbox.mark {
            Mark::Row => MARK_ROWS,
            Mark::Delete => DELETE_ROWS,
        };
        Self {
            name: settings.name().to_owned(),
            mark: settings.outbox.mark,
            rows: names.sql(rows),
            marked: names.sql(MARKED),
            forget: names.sql(FORGET_MARKED),
            apply: names.sql(APPLY),
        }
    }

    /// Records a batch as applied. `otherwise` when it is so already, or does not follow the newest one.
    pub(super) async fn apply(&self, work: &mut Work<'_>, at: Applied, otherwise: Cause) -> Result<(), Fault> {
        let (n, checksum) = (at.n.cast_signed(), at.checksum.0.cast_signed());
        let apply = statement(&self.apply).bind(&self.name).bind(n).bind(at.offset).bind(checksum);
        match work.execute(apply).await? {
            1 => Ok(()),
            _ => Err(Fault::in_doubt(otherwise, format!("batch {} does not follow the newest applied one", at.n))),
        }
    }

    /// Marks rows, and returns how many are marked then.
    pub(super) async fn rows(&self, work: &mut Work<'_>, rows: &Rows) -> Result<u64, Fault> {
        let bound = rows.bound();
        let changed = work.execute(statement(&self.rows).bind(bound.clone())).await?;
        work.execute(statement(&self.forget).bind(bound.clone()).bind(&self.name)).await?;
        match self.mark {
            Mark::Delete => Ok(changed),
            Mark::Row => {
                let row = work.row(statement(&self.marked).bind(bound)).await?.ok_or_else(|| unreadable("count"))?;
                get::<i64>(&row, 0, "count").map(i64::cast_unsigned)
            }
        }
    }
}
