//! The database of the shop: its own table of orders, and the outbox beside it, as any service would use them.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};
use uuid::Uuid;

use super::broker::TOPIC;
use super::trouble::Trouble;
use super::verdict::{Row, Sent};

const CREATE_ORDERS: &str = "CREATE TABLE orders (number INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL)";
const PLACE_ORDER: &str = "INSERT INTO orders (version) VALUES (1) RETURNING number, version";
const CHANGE_ORDER: &str = "UPDATE orders SET version = version + 1 WHERE number = ? RETURNING number, version";
/// In the same transaction as the change that it tells of: this is all that a service has to do.
const WRITE_EVENT: &str = "INSERT INTO outbox (topic, key, type, payload) VALUES (?, ?, ?, ?) RETURNING id";
/// The relay's index holds exactly these rows.
const COUNT_PENDING: &str = "SELECT count(*) FROM outbox WHERE sent_at IS NULL";
const READ_ROWS: &str = "SELECT id, sent_at IS NOT NULL FROM outbox";
/// Takes the right to write at once: a transaction that reads first and writes later may be refused.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// How long a writer waits for its turn, in the meantime of which others write.
const TURN_MOST: Duration = Duration::from_secs(20);

/// An order, and how often it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its number.
    pub number: i64,
    /// From 1 on.
    pub version: i64,
}

/// The database, once `migrate` has made the outbox.
#[derive(Clone, Debug)]
pub struct Table {
    pool: SqlitePool,
}

impl Table {
    /// Opens the database for so many writers and one that looks.
    pub async fn open(file: &Path, writers: u32) -> Result<Self, Trouble> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .journal_mode(SqliteJournalMode::Wal)
            // a commit that was answered survives a crash of the machine
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(TURN_MOST);
        let pool = SqlitePoolOptions::new().max_connections(writers + 1).connect_with(options).await?;
        sqlx::query(CREATE_ORDERS).execute(&pool).await?;
        Ok(Self { pool })
    }

    /// Begins a transaction that will write.
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Trouble> {
        Ok(self.pool.begin_with(BEGIN).await?)
    }

    /// How many events are not marked as sent.
    pub async fn pending(&self) -> Result<u64, Trouble> {
        let count: i64 = sqlx::query_scalar(COUNT_PENDING).fetch_one(&self.pool).await?;
        Ok(count.unsigned_abs())
    }

    /// All events, as they are now.
    pub async fn rows(&self) -> Result<Vec<Row>, Trouble> {
        let rows: Vec<(String, bool)> = sqlx::query_as(READ_ROWS).fetch_all(&self.pool).await?;
        let row = |(id, sent): (String, bool)| Ok(Row { id: uuid(&id)?, sent: if sent { Sent::Yes } else { Sent::No } });
        rows.into_iter().map(row).collect()
    }

    /// Lets go of the file.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

/// Changes the order of that number, or places a new one, and writes the event that tells of it. Gives the order and the event's id.
pub async fn change(transaction: &mut Transaction<'static, Sqlite>, number: Option<i64>) -> Result<(Order, Uuid), Trouble> {
    let changed: Option<(i64, i64)> = match number {
        Some(number) => sqlx::query_as(CHANGE_ORDER).bind(number).fetch_optional(&mut **transaction).await?,
        None => None,
    };
    let (number, version) = match changed {
        Some(changed) => changed,
        // none was asked for, or it was rolled back
        None => sqlx::query_as(PLACE_ORDER).fetch_one(&mut **transaction).await?,
    };
    let event = sqlx::query_scalar(WRITE_EVENT)
        .bind(TOPIC)
        .bind(format!("order-{number}"))
        .bind(kind(version))
        .bind(serde_json::json!({ "order": number, "version": version }).to_string());
    let id: String = event.fetch_one(&mut **transaction).await?;
    Ok((Order { number, version }, uuid(&id)?))
}

/// What happened to an order that has come so far.
fn kind(version: i64) -> &'static str {
    match version {
        1 => "OrderPlaced",
        2 => "OrderPaid",
        3 => "OrderShipped",
        _ => "OrderNoted",
    }
}

fn uuid(text: &str) -> Result<Uuid, Trouble> {
    Uuid::parse_str(text).map_err(|error| Trouble::Table(sqlx::Error::Decode(error.into())))
}
