//! What `check` looks at in the database. Everything here only reads: no lock, no lease, no claim.
//!
//! Each question is a transaction of its own, so that one that is refused does not take the others with it; the answer to each is kept
//! as it came, a fault where there is none.

mod catalog;
mod standing;

pub use catalog::{Activity, Policy, Sequence, Shape};

use std::time::{SystemTime, UNIX_EPOCH};

use super::connection::{Link, Statement, statement};
use super::names::{Names, Sql};
use super::table::{Table, get};
use super::{Acceptance, OpenWriter, Postgres, desk, roles, schema, table};
use crate::fault::Fault;
use crate::source::desk::{Aside, Row, TopicInUse};

/// Settings that every role may read. That of `synchronous_commit` is ours: a service may have another one.
const SERVER: &str = "SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), \
    current_setting('transaction_read_only')::bool, current_setting('fsync')::bool, current_setting('full_page_writes')::bool, \
    current_setting('synchronous_commit'), current_setting('autovacuum')::bool AND current_setting('track_counts')::bool, \
    (extract(epoch FROM clock_timestamp()) * 1000000)::int8";

/// What the server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// As `server_version_num`: 150004 is 15.4.
    pub version: i32,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Whether our transactions may not write.
    pub read_only: bool,
    /// `fsync`.
    pub fsync: bool,
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// `synchronous_commit`, as our role has it.
    pub synchronous_commit: String,
    /// Whether autovacuum runs at all.
    pub autovacuum: bool,
    /// How far its clock is ahead of ours, microseconds.
    pub ahead_us: i64,
}

/// A right that the relay needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What, in SQL's words.
    pub what: String,
    /// Whether our role has it.
    pub had: bool,
}

/// What the catalog makes of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Whether the payload is `jsonb`.
    pub payload_is_jsonb: bool,
    /// Whether it keeps the rules that the cursor needs.
    pub allows_cursor: bool,
}

/// All about the table and what stands beside it, each question with its own answer.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// Schema and table.
    pub table: String,
    /// The view of what is not published, as it stands in a statement.
    pub view: String,
    /// Whether the schema is of a version that this binary works with.
    pub schema: Result<(), Fault>,
    /// Whether the columns can be relayed. Nothing is said of the order here.
    pub fit: Result<Fit, Fault>,
    /// Every right that the relay needs.
    pub rights: Result<Vec<Right>, Fault>,
    /// How the table is made, and what stands in the way.
    pub shape: Result<Shape, Fault>,
    /// What was done to the table.
    pub activity: Result<Activity, Fault>,
    /// Transactions that keep it open for longer than a second.
    pub writers: Result<Vec<OpenWriter>, Fault>,
    /// The outbox's row; nothing when there is none.
    pub row: Result<Option<Row>, Fault>,
    /// Which databases are accepted.
    pub acceptance: Result<Acceptance, Fault>,
    /// What is set aside.
    pub aside: Result<Aside, Fault>,
    /// Names of the other outboxes of this schema.
    pub neighbours: Result<Vec<String>, Fault>,
    /// Topics that unsent rows name.
    pub topics: Result<Vec<TopicInUse>, Fault>,
}

/// The database as `check` found it.
#[derive(Clone, Debug)]
pub struct Checkup {
    /// The server.
    pub server: Server,
    /// The table; a fault when there is none that can be looked at.
    pub outbox: Result<Outbox, Fault>,
}

impl Postgres {
    /// Looks at everything; changes nothing. Fails only when the server cannot be asked at all.
    pub async fn checkup(&self) -> Result<Checkup, Fault> {
        let mut link = self.server.link().await?;
        let server = server(&mut link).await?;
        let outbox = match self.names().await {
            Ok(names) => Ok(self.outbox(&mut link, &names).await),
            Err(fault) => Err(fault),
        };
        Ok(Checkup { server, outbox })
    }

    async fn outbox(&self, link: &mut Link, names: &Names) -> Outbox {
        let table = unordered_table(link, names).await;
        let known = table.as_ref().ok();
        let name = self.settings.name();
        let writers = match known {
            Some(table) => writers(link, names, table).await,
            None => Err(unseen()),
        };
        Outbox {
            table: names.shown(),
            view: names.sql("{pending}").text().to_owned(),
            schema: schema::check(link, names, &self.settings).await,
            rights: match known {
                Some(table) => rights(link, names, table).await,
                None => Err(unseen()),
            },
            fit: table
                .map(|table| Fit { payload_is_jsonb: table.columns.payload.sql() == "jsonb", allows_cursor: table.allows_cursor }),
            shape: catalog::shape(link, names).await,
            activity: catalog::activity(link, names, name).await,
            writers,
            row: standing::row(link, names, name).await,
            acceptance: self.acceptance().await,
            aside: standing::aside(link, names, name).await,
            neighbours: standing::neighbours(link, names, name).await,
            topics: standing::topics(link, names).await,
        }
    }
}

/// The table, whatever its numbers are: what becomes of the order is a question of its own.
async fn unordered_table(link: &mut Link, names: &Names) -> Result<Table, Fault> {
    let mut work = link.begin().await?;
    let table = table::look_at(&mut work, names).await?;
    work.commit().await?;
    Ok(table)
}

/// For what cannot be asked because something before it has no answer.
fn unseen() -> Fault {
    Fault::Refused { detail: "the table could not be looked at".into(), remedy: "Correct what is told of the table first".into() }
}

async fn server(link: &mut Link) -> Result<Server, Fault> {
    let row = one(link, sqlx::query(SERVER).persistent(false)).await?.ok_or_else(|| super::failure::unreadable("server"))?;
    let theirs: i64 = get(&row, 7, "clock")?;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    Ok(Server {
        version: get(&row, 0, "server_version_num")?,
        in_recovery: get(&row, 1, "pg_is_in_recovery")?,
        read_only: get(&row, 2, "transaction_read_only")?,
        fsync: get(&row, 3, "fsync")?,
        full_page_writes: get(&row, 4, "full_page_writes")?,
        synchronous_commit: get(&row, 5, "synchronous_commit")?,
        autovacuum: get(&row, 6, "autovacuum")?,
        ahead_us: theirs - i64::try_from(ours).unwrap_or(i64::MAX),
    })
}

async fn rights(link: &mut Link, names: &Names, table: &Table) -> Result<Vec<Right>, Fault> {
    let needed = roles::needed(link, names, table).await?;
    Ok(needed.into_iter().map(|(what, had)| Right { what, had }).collect())
}

async fn writers(link: &mut Link, names: &Names, table: &Table) -> Result<Vec<OpenWriter>, Fault> {
    let mut work = link.begin().await?;
    let writers = desk::open_writers(&mut work, names, table.oid).await?;
    work.commit().await?;
    Ok(writers)
}

fn ask<'q>(sql: &Sql) -> Statement<'q> {
    statement(sql)
}

async fn one(link: &mut Link, query: Statement<'_>) -> Result<Option<sqlx::postgres::PgRow>, Fault> {
    let mut work = link.begin().await?;
    let row = work.row(query).await?;
    work.commit().await?;
    Ok(row)
}

async fn all(link: &mut Link, query: Statement<'_>) -> Result<Vec<sqlx::postgres::PgRow>, Fault> {
    let mut work = link.begin().await?;
    let rows = work.rows(query).await?;
    work.commit().await?;
    Ok(rows)
}
