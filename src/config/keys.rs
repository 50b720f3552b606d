//! Every key of the configuration, once: its name is its path in `Config`, its type says how it is
//! read and shown, and its bounds stand behind it.

use std::time::Duration;

use super::Config;
use super::error::Refusal;
use super::names::{check_instance, check_outbox_name};
use super::value::{Bytes, Raw, Retention, Shown, Value, within};

/// One key.
pub(super) struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// Reads a value, checks it, and puts it into the configuration.
    pub set: fn(&mut Config, &Raw) -> Result<(), Refusal>,
    /// What the configuration holds.
    pub show: fn(&Config) -> Shown,
}

/// A key, and the check of its value: bounds, both included, or a function.
macro_rules! key {
    ($section:ident . $field:ident) => {
        key!($section.$field, check | _ | Ok(()))
    };
    ($section:ident . $field:ident, $least:expr, $most:expr) => {
        key!($section.$field, check | value | within(value, $least, $most))
    };
    ($section:ident . $field:ident, check $check:expr) => {
        Key {
            name: concat!(stringify!($section), ".", stringify!($field)),
            set: |config, raw| {
                let value = Value::read(raw)?;
                check(&value, $check)?;
                config.$section.$field = value;
                Ok(())
            },
            show: |config| config.$section.$field.shown(),
        }
    };
}

/// Helps the compiler to the type of a closure's argument.
fn check<T>(value: &T, check: impl FnOnce(&T) -> Result<(), Refusal>) -> Result<(), Refusal> {
    check(value)
}

/// All keys but `kafka.properties`, in the order of the documentation.
pub(super) const KEYS: &[Key] = &[
    key!(database.url),
    key!(database.url_file),
    key!(database.tls),
    key!(database.ca_file),
    key!(database.password_file),
    key!(database.connect_timeout, millis(100), minutes(10)),
    key!(database.statement_timeout, millis(1_000), minutes(60)),
    key!(outbox.name, check |name: &String| check_outbox_name(name)),
    key!(outbox.table),
    key!(outbox.mark),
    key!(outbox.retention, check check_retention),
    key!(outbox.order),
    key!(outbox.on_poison),
    key!(outbox.source),
    key!(outbox.columns),
    key!(kafka.brokers),
    key!(kafka.delivery),
    key!(kafka.topic),
    key!(kafka.allow_topics),
    key!(kafka.journal_retention, millis(1_000), TEN_YEARS),
    key!(kafka.transaction_timeout, millis(1_000), minutes(15)),
    key!(kafka.security),
    key!(kafka.sasl_mechanism),
    key!(kafka.username),
    key!(kafka.password),
    key!(kafka.password_file),
    key!(kafka.token_file),
    key!(kafka.ca_file),
    key!(kafka.certificate_file),
    key!(kafka.key_file),
    key!(kafka.key_password),
    key!(kafka.key_password_file),
    key!(relay.instance, check |name: &String| check_instance(name)),
    key!(relay.batch_max_events, 1, 20_000), // the journal record of more would not fit into its topic
    key!(relay.batch_max_bytes, Bytes::kib(64), Bytes::mib(512)),
    key!(relay.linger, Duration::ZERO, millis(10_000)),
    key!(relay.idle_interval, millis(1), millis(10_000)),
    key!(relay.lease, millis(1_000), minutes(10)),
    key!(relay.shutdown_grace, millis(1_000), minutes(60)),
    key!(http.listen),
    key!(log.format),
    key!(log.level),
];

/// The sections, in the order of the documentation.
pub(super) const SECTIONS: [&str; 6] = ["database", "outbox", "kafka", "relay", "http", "log"];

/// Longer than this, `forever` is meant.
const TEN_YEARS: Duration = minutes(60 * 24 * 3_650);

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Rows go at once with `mark = "delete"`, not with a retention of nothing.
fn check_retention(retention: &Retention) -> Result<(), Refusal> {
    match retention {
        Retention::For(time) => within(time, millis(1_000), TEN_YEARS),
        Retention::Forever => Ok(()),
    }
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}
