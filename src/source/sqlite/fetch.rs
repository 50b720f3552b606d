//! Fetch: the guards and the rows, in one snapshot. Always in full form: SQLite has one writer at a time, so that a number that is
//! drawn earlier is committed earlier, and no dead entries lie at the bottom.

use std::sync::Arc;

use super::connection::{Link, Work, get, statement};
use super::mark::Newest;
use super::names::{Names, Sql};
use super::rows::Rows;
use super::settings::Settings;
use crate::cursor::Listing;
use crate::fault::{Cause, Fault};
use crate::source::{ClaimNumber, Fetched, Query, Reader};

/// Claim number, token, newest applied batch, and the highest number that was ever drawn.
const GUARDS: &str = "SELECT s.claim, (SELECT token FROM outboxd_token WHERE name = ?1), \
    (SELECT max(n) FROM outboxd_applied WHERE name = ?1), (SELECT max(seq) FROM sqlite_sequence WHERE name = ?2 COLLATE NOCASE) \
    FROM outboxd_state s WHERE s.name = ?1";

/// What may be published of the unsent: not parked, not behind a parked event of its key, its topic not held. The lists are read once.
pub(super) const FREE: &str = "(o.topic NOT IN (SELECT topic FROM outboxd_held WHERE name = ?1) \
    AND o.seq NOT IN (SELECT seq FROM outboxd_parked WHERE name = ?1) AND (o.key IS NULL OR (o.topic, {key_text}) NOT IN \
    (SELECT topic, key FROM outboxd_parked WHERE name = ?1 AND blocking AND key IS NOT NULL)))";
/// The index of unsent rows gives them in order, one after the other, so that reading ends where the batch is full. Milliseconds are what
/// SQLite reckons in; a moment that it cannot read is none.
const ROWS: &str = "SELECT o.seq, o.id, o.topic, o.key, o.payload, o.type, o.source, o.headers, \
    {micros o.created_at} \
    FROM {outbox} o WHERE o.sent_at IS NULL AND {is_free} ORDER BY o.seq LIMIT ?2";

/// Fetches under one claim.
pub struct SqliteReader {
    link: Link,
    guard: Guard,
    rows: Sql,
    /// Which commits of others the last fetch saw.
    version: Option<i64>,
}

impl SqliteReader {
    pub(super) fn new(link: Link, names: &Names, settings: &Settings, claim: ClaimNumber, newest: Newest) -> Self {
        let (name, table) = (settings.name().to_owned(), names.table.clone());
        let rows = names.sql(&ROWS.replace("{is_free}", FREE));
        Self { link, guard: Guard { sql: names.sql(GUARDS), name, table, claim, newest }, rows, version: None }
    }
}

impl Reader for SqliteReader {
    fn allows_cursor(&self) -> bool {
        false
    }

    async fn positions(&mut self) -> Result<Listing, Fault> {
        let mut work = self.link.read().await?;
        let listing = self.guard.pass(&mut work).await?;
        work.commit().await?;
        Ok(listing)
    }

    async fn fetch(&mut self, query: &Query) -> Result<Fetched, Fault> {
        let most = i64::try_from(query.limits.events).unwrap_or(i64::MAX);
        let statement = statement(&self.rows).bind(self.guard.name.clone()).bind(most);
        let mut work = self.link.read().await?;
        let listing = self.guard.pass(&mut work).await?;
        let mut rows = Rows::new(query.limits);
        work.each(statement, |row| rows.take(row)).await?;
        let version = work.version().await?;
        work.commit().await?;
        self.version = Some(version);
        Ok(Fetched { listing, batch: rows.build().map(Arc::new) })
    }

    async fn news(&mut self) {
        match self.version {
            Some(version) => self.link.changed(version).await,
            None => std::future::pending().await,
        }
    }
}

/// What must hold for whatever is read beside it.
struct Guard {
    sql: Sql,
    name: String,
    table: String,
    claim: ClaimNumber,
    newest: Newest,
}

impl Guard {
    /// Compares, in the snapshot of `work`, and tells where the numbers stand.
    async fn pass(&self, work: &mut Work<'_>) -> Result<Listing, Fault> {
        let doubt = |cause, detail: &str| Err(Fault::in_doubt(cause, detail));
        let Some(row) = work.row(statement(&self.sql).bind(self.name.clone()).bind(self.table.clone())).await? else {
            return doubt(Cause::ClaimChanged, "the state row is gone");
        };
        if get::<i64>(&row, 0, "claim")? != self.claim.0 {
            return doubt(Cause::ClaimChanged, "the state row holds another claim number");
        }
        match get::<Option<i64>>(&row, 1, "token")? {
            None => return doubt(Cause::TokenMissing, "the token is gone"),
            Some(token) if token != self.claim.0 => return doubt(Cause::ClaimChanged, "the token holds another claim number"),
            Some(_) => {}
        }
        self.same_past(get::<Option<i64>>(&row, 2, "n")?.unwrap_or(0).cast_unsigned())?;
        let last_value: Option<i64> = get(&row, 3, "seq")?;
        Ok(Listing { last_value: last_value.unwrap_or(0), ..Listing::default() })
    }

    /// A copy of the file that was made under this claim holds its claim number and its token too. What it lacks is what was marked since.
    fn same_past(&self, found: u64) -> Result<(), Fault> {
        let left = self.newest.get();
        if found == left {
            return Ok(());
        }
        let detail = format!("the newest applied batch is {found}, this claim has left {left}: the file is of another time");
        Err(Fault::in_doubt(Cause::TokenMissing, detail))
    }
}
