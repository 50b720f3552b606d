//! The parts of a relay, made from their sections of the configuration.

use std::time::Duration;

use crate::config::{Config, Delivery, LogFormat, LogLevel};
use crate::event::BatchLimits;
use crate::fault::Fault;
use crate::heartbeat::Heartbeat;
use crate::log::{self, Style};
use crate::sink::kafka::{self, KafkaSink};
use crate::source::any::AnySource;
use crate::source::postgres::{self, Postgres};
use crate::source::sqlite::{self, Sqlite};
use crate::waits::Waits;

/// The outbox table, in the configured mode or in another one.
pub(super) fn database(config: &Config, delivery: Delivery) -> AnySource {
    let (database, outbox, lease) = (config.database.clone(), config.outbox.clone(), config.relay.lease);
    match config.database.url.file() {
        Some(file) => {
            let settings = sqlite::Settings { file: file.to_owned(), database, outbox, delivery, lease };
            AnySource::Sqlite(Box::new(Sqlite::new(settings)))
        }
        None => AnySource::Postgres(Box::new(Postgres::new(postgres::Settings { database, outbox, delivery, lease }))),
    }
}

/// The Kafka cluster, in the configured mode or in another one.
pub(super) fn kafka(config: &Config, delivery: Delivery) -> Result<KafkaSink, Fault> {
    watched_kafka(config, delivery, Heartbeat::new())
}

/// The Kafka cluster, for somebody who looks whether long work goes on.
pub(super) fn watched_kafka(config: &Config, delivery: Delivery, signs: Heartbeat) -> Result<KafkaSink, Fault> {
    let mut kafka = config.kafka.clone();
    kafka.delivery = delivery;
    KafkaSink::new(kafka::Settings { name: config.outbox.name.clone(), source: config.outbox.source.clone(), kafka, signs })
}

/// Every wait of the protocol.
pub(super) fn waits(config: &Config) -> Waits {
    Waits::new(config.relay.lease, config.relay.linger, config.relay.idle_interval)
}

/// How much a batch holds.
pub(super) fn limits(config: &Config) -> BatchLimits {
    let bytes = usize::try_from(config.relay.batch_max_bytes.0).unwrap_or(usize::MAX);
    BatchLimits { events: config.relay.batch_max_events as usize, bytes }
}

/// How long a relay may say nothing: longer than any of its waits and timeouts.
pub(super) fn silence(config: &Config) -> Duration {
    let waits = waits(config);
    waits.stuck
        + waits.went_back
        + config.kafka.transaction_timeout * 4
        + config.database.statement_timeout
        + Duration::from_secs(60)
}

/// Log lines as configured.
pub(super) fn start_log(config: &Config) {
    let style = match config.log.format {
        LogFormat::Auto => Style::auto(),
        LogFormat::Text => Style::Text,
        LogFormat::Json => Style::Json,
    };
    let level = match config.log.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    log::start(style, level);
}
