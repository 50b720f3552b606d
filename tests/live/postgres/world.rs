//! An outbox in a schema of its own on a shared server, with roles that have exactly the rights they need.

use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outboxd::config::{self, Column, Columns, Config, Delivery, Mark, OnPoison, Order, Retention, Sources, TableName};
use outboxd::fault::Fault;
use outboxd::source::postgres::{Postgres as Source, Roles, Settings};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::sync::Mutex;

use crate::source_conformance::{Setup, SourceWorld};
use crate::support::{PgBouncer, Postgres, Version};

/// How the schema and the table of a world are called, and which columns differ.
pub trait Shape: Send + Sync + 'static {
    /// Schema, to which a number is added.
    const SCHEMA: &'static str;
    /// Table.
    const TABLE: &'static str;
    /// Statements that create the table `{outbox}`; empty: `migrate` does.
    const CREATE: &'static str;
    /// What its columns are called, where it is not what `migrate` calls them.
    const COLUMNS: &'static [(Column, Option<&'static str>)] = &[];
    /// What makes a row another event.
    const REPLACE: &'static str = "{id} = gen_random_uuid()";
    /// Whether the numbers keep the order.
    const ORDERED: bool = true;
    /// Whether the relay comes through a pooler in transaction mode.
    const POOLED: bool = false;
}

/// As `migrate` makes it.
pub struct Plain;

impl Shape for Plain {
    const SCHEMA: &'static str = "app";
    const TABLE: &'static str = "outbox";
    const CREATE: &'static str = "";
}

/// As `migrate` makes it, behind PgBouncer.
pub struct Pooled;

impl Shape for Pooled {
    const SCHEMA: &'static str = "pooled";
    const TABLE: &'static str = "outbox";
    const CREATE: &'static str = "";
    const POOLED: bool = true;
}

/// One outbox on the server of a version.
pub struct World<const VERSION: u32, S: Shape> {
    pub server: &'static Postgres,
    pub settings: Settings,
    pub admin: Mutex<PgConnection>,
    /// Schema and table, quoted.
    pub table: String,
    /// Schema, quoted.
    pub schema: String,
    shape: PhantomData<S>,
}

/// An identifier in a statement.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The shared server of a version, and a database in it that many worlds share.
pub fn server(version: u32) -> (&'static Postgres, &'static str) {
    static DATABASES: [OnceLock<String>; 2] = [OnceLock::new(), OnceLock::new()];
    let (version, at) = if version == 15 { (Version::V15, 0) } else { (Version::V18, 1) };
    let server = Postgres::shared(version);
    (server, DATABASES[at].get_or_init(|| server.create_database("worlds")))
}

/// A pooler before the shared server of version 15.
fn pooler() -> u16 {
    static POOLER: OnceLock<PgBouncer> = OnceLock::new();
    let pooler = POOLER.get_or_init(|| PgBouncer::start(server(15).0));
    let url = pooler.url("x", "x");
    url.trim_end_matches("/x").rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("the URL names a port")
}

/// A connection of a role.
pub async fn connect(server: &Postgres, database: &str, user: &str) -> PgConnection {
    PgConnection::connect(&format!("{}?sslmode=disable", server.url(database, user))).await.expect("the server answers")
}

/// Settings of an outbox on a server, for the relay's role.
pub fn settings(server: &Postgres, database: &str, schema: &str, table: &str) -> Settings {
    let (config, lease) = (configured(server.port(), database, "outboxd"), Duration::from_secs(60));
    let mut settings = Settings { database: config.database, outbox: config.outbox, delivery: Delivery::ExactlyOnce, lease };
    settings.outbox.table = TableName { schema: Some(schema.into()), table: table.into() };
    settings
}

/// The sections of a configuration file with this URL in it.
fn configured(port: u16, database: &str, user: &str) -> Config {
    let flags = [("database.url", format!("postgres://{user}@127.0.0.1:{port}/{database}")), ("outbox.name", "test".into())];
    let flags = flags.map(|(key, value)| (key.to_owned(), value)).into();
    config::load(&Sources { flags, ..Sources::default() }).expect("a configuration").config
}

/// The same settings at another port, database or role.
pub fn elsewhere(settings: &Settings, port: u16, database: &str, user: &str) -> Settings {
    let mut settings = settings.clone();
    settings.database.url = configured(port, database, user).database.url;
    settings
}

/// The same settings for another role.
pub fn of_role(settings: &Settings, user: &str) -> Settings {
    let address = settings.database.address();
    elsewhere(settings, address.port, &address.database, user)
}

/// The source of the role that may create tables.
pub fn administrator(settings: &Settings) -> Source {
    Source::new(of_role(settings, "postgres"))
}

/// The roles of the test servers.
pub fn roles() -> Roles {
    Roles { writer: "shop".into(), relay: "outboxd".into() }
}

impl<const VERSION: u32, S: Shape> World<VERSION, S> {
    /// A new outbox, or why it cannot be one.
    pub async fn try_fresh(setup: Setup) -> Result<Self, Fault> {
        let (server, database) = server(VERSION);
        Self::on(server, database, setup).await
    }

    /// A new outbox on a server of one's own.
    pub async fn on(server: &'static Postgres, database: &str, setup: Setup) -> Result<Self, Fault> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}{}", S::SCHEMA, COUNT.fetch_add(1, Ordering::Relaxed));
        let (schema, mut settings) = (quoted(&name), settings(server, database, &name, S::TABLE));
        settings.outbox.mark = if setup.delete { Mark::Delete } else { Mark::Row };
        settings.outbox.retention = Retention::For(setup.retention);
        settings.outbox.on_poison = if setup.park_event { OnPoison::ParkEvent } else { OnPoison::ParkKey };
        let named = |columns: Columns, (column, name): &(Column, Option<&str>)| columns.with(*column, *name);
        settings.outbox.columns = S::COLUMNS.iter().fold(Columns::default(), named);
        settings.outbox.order = if S::ORDERED { Order::Key } else { Order::None };
        if S::POOLED {
            settings = elsewhere(&settings, pooler(), database, "outboxd");
        }
        settings.delivery = if setup.at_least_once { Delivery::AtLeastOnce } else { Delivery::ExactlyOnce };
        let admin = Mutex::new(connect(server, database, "postgres").await);
        let table = format!("{schema}.{}", quoted(S::TABLE));
        let world = Self { server, settings, admin, table, schema, shape: PhantomData };
        world.sql("CREATE SCHEMA {schema}").await;
        if !S::CREATE.is_empty() {
            world.sql(S::CREATE).await;
        }
        let owner = administrator(&world.settings);
        owner.migrate().await?;
        owner.grant(&roles()).await?;
        world.source().prepare().await?;
        Ok(world)
    }

    /// Runs a statement as the superuser, with `{outbox}` and `{schema}` filled in.
    pub async fn sql(&self, statement: &str) {
        let done = self.admin.lock().await.execute(sqlx::raw_sql(self.fill(statement))).await;
        done.unwrap_or_else(|e| panic!("{}: {e}", self.fill(statement).0));
    }

    /// All numbers that a query gives.
    pub async fn numbers(&self, query: &str) -> Vec<i64> {
        let sql = self.fill(query);
        let rows = sqlx::query(sql).fetch_all(&mut *self.admin.lock().await).await.expect("the query works");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// A statement with its names filled in.
    pub fn fill(&self, statement: &str) -> AssertSqlSafe<String> {
        let columns = Column::ALL.into_iter().filter_map(|column| Some((column, self.settings.outbox.columns.of(column)?)));
        let named = |text: String, (column, name): (Column, &str)| text.replace(&format!("{{{}}}", column.name()), &quoted(name));
        let statement = columns.fold(statement.to_owned(), named);
        AssertSqlSafe(statement.replace("{outbox}", &self.table).replace("{schema}", &self.schema))
    }

    /// Name of the database.
    pub fn database(&self) -> &str {
        &self.settings.database.address().database
    }

    /// Name of the schema.
    pub fn schema_name(&self) -> &str {
        self.settings.outbox.table.schema.as_deref().expect("a schema of its own")
    }

    /// A connection of the service.
    pub async fn writer(&self) -> PgConnection {
        connect(self.server, self.database(), "shop").await
    }

    /// As the service inserts an event.
    pub fn insert_statement(&self) -> AssertSqlSafe<String> {
        self.fill("INSERT INTO {outbox} ({topic}, {key}, {type}, {payload}) VALUES ('orders', 'k', 'Placed', $1::json)")
    }

    async fn last(&self) -> i64 {
        let query = "SELECT pg_sequence_last_value(pg_get_serial_sequence($1, $2)::regclass)";
        let query = sqlx::query_scalar(query).bind(&self.table).bind(self.settings.outbox.columns.of(Column::Seq));
        query.fetch_one(&mut *self.admin.lock().await).await.expect("the sequence was called")
    }
}

impl<const VERSION: u32, S: Shape> SourceWorld for World<VERSION, S> {
    type Source = Source;
    type Open = PgConnection;

    async fn fresh(setup: Setup) -> Self {
        Self::try_fresh(setup).await.expect("an outbox that can be relayed")
    }

    fn source(&self) -> Source {
        Source::new(self.settings.clone())
    }

    async fn insert(&self, payloads: &[&str]) -> Vec<i64> {
        let mut writer = self.writer().await;
        let mut seqs = Vec::new();
        for payload in payloads {
            sqlx::query(self.insert_statement()).bind(*payload).execute(&mut writer).await.expect("the service may insert");
            seqs.push(self.last().await);
        }
        seqs
    }

    async fn insert_with_key(&self, key: &str, payload: &str) -> i64 {
        let mut writer = self.writer().await;
        let insert = self.insert_statement().0.replace("'k'", &format!("'{key}'"));
        sqlx::query(AssertSqlSafe(insert)).bind(payload).execute(&mut writer).await.expect("the service may insert");
        self.last().await
    }

    async fn open(&self, payload: &str) -> (PgConnection, i64) {
        let mut writer = self.writer().await;
        writer.execute("BEGIN").await.expect("begins");
        sqlx::query(self.insert_statement()).bind(payload).execute(&mut writer).await.expect("the service may insert");
        (writer, self.last().await)
    }

    async fn commit(&self, mut open: PgConnection) {
        open.execute("COMMIT").await.expect("commits");
    }

    async fn roll_back(&self, mut open: PgConnection) {
        open.execute("ROLLBACK").await.expect("rolls back");
    }

    async fn unsent(&self) -> Vec<i64> {
        self.numbers("SELECT {seq} FROM {outbox} WHERE {sent_at} IS NULL ORDER BY {seq}").await
    }

    async fn rows(&self) -> Vec<i64> {
        self.numbers("SELECT {seq} FROM {outbox} ORDER BY {seq}").await
    }

    async fn remove(&self, seq: i64) {
        self.sql(&format!("DELETE FROM {{outbox}} WHERE {{seq}} = {seq}")).await;
    }

    async fn replace(&self, seq: i64) {
        self.sql(&format!("UPDATE {{outbox}} SET {}, {{sent_at}} = NULL WHERE {{seq}} = {seq}", S::REPLACE)).await;
    }

    async fn refuse_mark(&self, seq: i64) {
        self.sql(&format!(
            "CREATE FUNCTION {{schema}}.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
             CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON {{outbox}} FOR EACH ROW WHEN (OLD.{{seq}} = {seq}) \
             EXECUTE FUNCTION {{schema}}.refuse()"
        ))
        .await;
    }

    async fn age(&self, by: Duration) {
        let seconds = by.as_secs();
        self.sql(&format!(
            "UPDATE {{outbox}} SET {{sent_at}} = {{sent_at}} - {seconds} * interval '1 second' WHERE {{sent_at}} IS NOT NULL"
        ))
        .await;
    }

    async fn lose_token(&self) {
        self.sql("DELETE FROM {schema}.outboxd_token").await;
    }

    async fn replace_files(&self) {
        self.sql("TRUNCATE {outbox}").await;
    }

    async fn expire_lease(&self) {
        self.sql("UPDATE {schema}.outboxd_state SET lease_until = now() - interval '1 ms' WHERE lease_until IS NOT NULL").await;
    }

    async fn halted(&self) -> Option<String> {
        let sql = self.fill("SELECT halted_code FROM {schema}.outboxd_state");
        sqlx::query_scalar(sql).fetch_one(&mut *self.admin.lock().await).await.expect("the state row")
    }
}
