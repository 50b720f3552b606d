//! The configuration: every setting with its type and default, read from a file, the environment and
//! the command line.
//!
//! [`load`] puts it together in four steps, and reports all that is wrong at once:
//! `layers` gives the entries of each source, `draft` reads each by the table in `keys` (later sources
//! win), `files` reads the secrets that stand in files, `rules` refuses what cannot be together. What
//! remains is a [`Config`] of plain types, whose sections go to the parts of the program they belong to,
//! and a list of [`Setting`]s that says where each value came from.

mod columns;
mod draft;
mod error;
mod files;
mod keys;
mod layers;
mod names;
mod origin;
mod properties;
mod rules;
mod secret;
mod show;
#[cfg(test)]
mod tests;
mod url;
mod value;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use columns::{Column, Columns};
pub use error::{ConfigError, ConfigErrors, ErrorCode};
pub use names::{Brokers, TableName, TopicPattern, TopicPatterns};
pub use origin::Origin;
pub use secret::Secret;
pub use show::{Setting, json, text};
pub use url::{Address, DatabaseUrl, Host};
pub use value::{Bytes, Listen, Retention, Shown, duration_text};
pub use words::{DatabaseTls, Delivery, LogFormat, LogLevel, Mark, OnPoison, Order, SaslMechanism, Security};

use draft::Draft;
use error::Refusal;
use rules::Build;

/// The file that is read when no other is named, if it is there.
pub const DEFAULT_FILE: &str = "/etc/outboxd/outboxd.toml";
/// The environment variable that names the file.
pub const FILE_VARIABLE: &str = "OUTBOXD_CONFIG";

/// All settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the outbox is.
    pub database: Database,
    /// The table, and what becomes of its rows.
    pub outbox: Outbox,
    /// Where the events go.
    pub kafka: Kafka,
    /// How the relay works.
    pub relay: Relay,
    /// Health, metrics and the reading interface.
    pub http: Http,
    /// Log lines.
    pub log: Log,
}

/// Where the outbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// The server, the database on it, and the role to log in as.
    pub url: DatabaseUrl,
    /// The file that `url` was read from.
    pub url_file: Option<PathBuf>,
    /// How the connection is encrypted.
    pub tls: DatabaseTls,
    /// The certificates to trust with `verify-full`; without it, those of the system.
    pub ca_file: Option<PathBuf>,
    /// The file that `password` was read from.
    pub password_file: Option<PathBuf>,
    /// The password, out of `password_file` or `url`. No key of its own.
    pub password: Option<Secret>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
}

impl Database {
    /// The URL as it was written, with the password it may hold.
    pub fn url(&self) -> Secret {
        self.url.raw.clone()
    }

    /// Host, port and database: one of the two things a database is recognised by.
    pub fn address(&self) -> &Address {
        &self.url.address
    }
}

/// The table, and what becomes of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// Names the journal topic and the transactional id: one per outbox and Kafka cluster.
    pub name: String,
    /// The table of events.
    pub table: TableName,
    /// How a published row is marked.
    pub mark: Mark,
    /// How long a row marked as sent stays; with `mark = "delete"` there is none.
    pub retention: Retention,
    /// Which order the events keep.
    pub order: Order,
    /// What waits behind an event that can never be published.
    pub on_poison: OnPoison,
    /// The header `source` of events whose row has none.
    pub source: Option<String>,
    /// What the columns are called in a table of one's own.
    pub columns: Columns,
}

/// Where the events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// The brokers to begin with.
    pub brokers: Brokers,
    /// What is promised to the consumers.
    pub delivery: Delivery,
    /// How the topic of a row becomes the topic in Kafka.
    pub topic: TopicPattern,
    /// Topics that rows may name; events to others are parked.
    pub allow_topics: TopicPatterns,
    /// How long journal records are kept, so far as they are not needed longer.
    pub journal_retention: Duration,
    /// How long a transaction may take; a dead owner's open one stops readers for so long.
    pub transaction_timeout: Duration,
    /// How the connection is secured.
    pub security: Security,
    /// How the relay authenticates itself; set exactly if `security` is one with SASL.
    pub sasl_mechanism: Option<SaslMechanism>,
    /// The user, for PLAIN and SCRAM.
    pub username: Option<String>,
    /// The user's password, also if it stands in `password_file`.
    pub password: Option<Secret>,
    /// The file that `password` was read from.
    pub password_file: Option<PathBuf>,
    /// The file with the bearer token, for OAUTHBEARER; read again whenever a token is needed.
    pub token_file: Option<PathBuf>,
    /// The certificates to trust; without it, those of the system.
    pub ca_file: Option<PathBuf>,
    /// The relay's own certificate; set exactly if `key_file` is.
    pub certificate_file: Option<PathBuf>,
    /// The private key to it.
    pub key_file: Option<PathBuf>,
    /// The password of the private key, also if it stands in `key_password_file`.
    pub key_password: Option<Secret>,
    /// The file that `key_password` was read from.
    pub key_password_file: Option<PathBuf>,
    /// Properties of librdkafka's producer that are passed on.
    pub properties: BTreeMap<String, String>,
}

/// How the relay works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The name of this process among those with the same outbox; by default the host's.
    pub instance: String,
    /// Most events of a batch.
    pub batch_max_events: u32,
    /// Most bytes of a batch; the memory of the process is a multiple of it.
    pub batch_max_bytes: Bytes,
    /// Least time between two transactions, and between two polls while there was work lately.
    pub linger: Duration,
    /// Time between two polls when there is nothing.
    pub idle_interval: Duration,
    /// How long a silent owner keeps the lease.
    pub lease: Duration,
    /// How long finishing may take after SIGTERM.
    pub shutdown_grace: Duration,
}

/// Health, metrics and the reading interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where they are served.
    pub listen: Listen,
}

/// Log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How they are written.
    pub format: LogFormat,
    /// The least level that is written.
    pub level: LogLevel,
}

/// The only place for defaults. `config/outboxd.toml` shows them, and a test holds it equal.
impl Default for Config {
    fn default() -> Self {
        Self {
            database: Database::default(),
            outbox: Outbox::default(),
            kafka: Kafka::default(),
            relay: Relay::default(),
            http: Http { listen: Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 9640))) },
            log: Log { format: LogFormat::Auto, level: LogLevel::Info },
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        let url = DatabaseUrl::parse("postgres://outboxd@127.0.0.1:5432/shop");
        Self {
            url: url.expect("the default URL is well formed"),
            url_file: None,
            tls: DatabaseTls::Prefer,
            ca_file: None,
            password_file: None,
            password: None,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
        }
    }
}

/// The name is empty, which [`load`] refuses: there is no default that would not clash one day.
impl Default for Outbox {
    fn default() -> Self {
        Self {
            name: String::new(),
            table: TableName { schema: None, table: "outbox".to_owned() },
            mark: Mark::Row,
            retention: Retention::For(Duration::from_secs(24 * 3_600)),
            order: Order::Key,
            on_poison: OnPoison::ParkKey,
            source: None,
            columns: Columns::default(),
        }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: Brokers(vec!["127.0.0.1:9092".to_owned()]),
            delivery: Delivery::ExactlyOnce,
            topic: TopicPattern { prefix: String::new(), suffix: String::new() },
            allow_topics: TopicPatterns(vec!["*".to_owned()]),
            journal_retention: Duration::from_secs(2 * 24 * 3_600),
            transaction_timeout: Duration::from_secs(15),
            security: Security::Plaintext,
            sasl_mechanism: None,
            username: None,
            password: None,
            password_file: None,
            token_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            key_password: None,
            key_password_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// The instance is empty, which [`load`] fills with the name of the host.
impl Default for Relay {
    fn default() -> Self {
        Self {
            instance: String::new(),
            batch_max_events: 5_000,
            batch_max_bytes: Bytes::mib(4),
            linger: Duration::from_millis(10),
            idle_interval: Duration::from_millis(100),
            lease: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(25),
        }
    }
}

/// Where settings are taken from: flags beat the environment, which beats the file, which beats the defaults.
/// Not to be printed: it may hold secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file named on the command line.
    pub file: Option<PathBuf>,
    /// Environment variables: `OUTBOXD_CONFIG`, and those that begin with `OUTBOXD__`; the others are not looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags as pairs of key (`relay.linger`) and value.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The environment of this process, and what its command line says.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), flags }
    }

    /// The file to read, and whether it was asked for by name.
    fn file_to_read(&self) -> (PathBuf, Named) {
        let variable = self.environment.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        match self.file.clone().or_else(|| variable.map(|(_, path)| PathBuf::from(path))) {
            Some(path) => (path, Named::Yes),
            None => (PathBuf::from(DEFAULT_FILE), Named::No),
        }
    }
}

/// Whether somebody asked for the file by name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Yes,
    No,
}

/// A configuration that holds together, and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The same as `config show` prints them, each with its origin; no secrets.
    pub settings: Vec<Setting>,
}

/// Reads the configuration. Fails with all that is wrong with it.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let (path, named) = sources.file_to_read();
    let text = match files::read_bounded(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && named == Named::No => Ok(String::new()),
        Err(error) => Err(unreadable(&path, &error)),
        Ok(text) => Ok(text),
    };
    assemble(text.map(|text| (path.as_path(), text)), sources, Build::THIS)
}

/// What is wrong with a file that cannot be read hides what is missing in it, but not what is wrong elsewhere.
fn assemble(file: Result<(&Path, String), ConfigError>, sources: &Sources, build: Build) -> Result<Loaded, ConfigErrors> {
    let mut draft = Draft::new();
    let entries = file.and_then(|(path, text)| layers::file_entries(path, &text));
    let whole = entries.is_ok();
    match entries {
        Ok(entries) => draft.apply_file(entries),
        Err(error) => draft.errors.push(error),
    }
    let others = layers::environment_entries(&sources.environment).into_iter();
    others.chain(layers::flag_entries(&sources.flags)).for_each(|entry| draft.apply(entry));
    if whole {
        files::resolve(&mut draft);
        rules::check(&mut draft, build);
        keep_history(&mut draft);
    }
    if !draft.errors.is_empty() {
        return Err(ConfigErrors::new(draft.errors));
    }
    Ok(Loaded { settings: show::settings(&draft), config: draft.config })
}

/// A table of one's own has a history: rows that were published by somebody else, or never. Nothing says that it may be deleted until a
/// person writes a retention down.
fn keep_history(draft: &mut Draft) {
    if !draft.config.outbox.columns.are_standard() {
        draft.follows("outbox.retention", "with outbox.columns", |config| config.outbox.retention = Retention::Forever);
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    let cause = format!("{} cannot be read: {error}", path.display());
    let remedy = "Name a file that the user of this program may read, with --config or OUTBOXD_CONFIG.";
    Refusal::new(ErrorCode::UnreadableConfig, cause, remedy).at(Origin::Default, "")
}
