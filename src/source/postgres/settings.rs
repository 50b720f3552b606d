//! What is configured about the database and the outbox in it.

use std::path::PathBuf;
use std::time::Duration;

use super::names::quoted;

/// What a PostgreSQL source needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Server: a name or address, or the folder of a socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database on it.
    pub database: String,
    /// The role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<String>,
    /// How the connection is encrypted.
    pub tls: Tls,
    /// Certificates to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Host, port and database as configured: one of the two things a database is recognised by.
    pub address: String,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// Name of the outbox.
    pub name: String,
    /// Schema of the table, as the catalog has it; nothing: the search path decides.
    pub schema: Option<String>,
    /// Name of the table, as the catalog has it.
    pub table: String,
    /// How a published row is marked.
    pub mark: MarkMode,
    /// How long sent rows stay; nothing: for ever.
    pub retention: Option<Duration>,
    /// Whether events of one key need their order.
    pub ordered: bool,
    /// What is promised to consumers.
    pub delivery: Delivery,
    /// Life of a lease without renewal.
    pub lease: Duration,
}

impl Settings {
    /// The configured table as it stands in a statement, with a schema only where one is configured.
    pub(super) fn quoted_table(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&self.table)),
            None => quoted(&self.table),
        }
    }
}

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Where the server offers it, without a look at its certificate.
    Prefer,
    /// Always; the certificate is looked at when there is a `ca_file`.
    Require,
    /// Always, by a server that proves its name.
    VerifyFull,
}

/// How a published row is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkMode {
    /// `sent_at` is set.
    Row,
    /// The row is deleted.
    Delete,
}

/// What is promised to consumers; kept in the state row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Transactions and the journal.
    ExactlyOnce,
    /// Neither.
    AtLeastOnce,
}

impl Delivery {
    /// Word in configuration and state row.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
        }
    }
}
