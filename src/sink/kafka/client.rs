//! How each of our librdkafka clients is set up, and what it tells while it runs.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext, ThreadedProducer};

use super::deliveries::Deliveries;

use super::{Settings, names, native};
use crate::config::{Delivery, SaslMechanism};
use crate::fault::Fault;

/// A bearer token is believed for this long and its file read again after four fifths of it, whatever the token itself says: the
/// file is there to be replaced before the token in it runs out.
const TOKEN_LIFE: Duration = Duration::from_secs(300);

/// What librdkafka calls back: keeps deliveries and the newest trouble of one client, and passes its log lines on.
pub(super) struct Context {
    pub(super) deliveries: Deliveries,
    trouble: Mutex<Option<Trouble>>,
    token_file: Option<PathBuf>,
}

/// Something that a client reported by itself.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) code: RDKafkaErrorCode,
    /// In librdkafka's words; names brokers and causes.
    pub(super) reason: String,
}

impl Context {
    fn new(settings: &Settings) -> Self {
        let token_file = match settings.kafka.sasl_mechanism {
            Some(SaslMechanism::OauthBearer) => settings.kafka.token_file.clone(),
            _ => None,
        };
        Self { deliveries: Deliveries::default(), trouble: Mutex::new(None), token_file }
    }

    /// The newest trouble that tells a cause.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        lock(&self.trouble).clone()
    }

    /// What was reported so far explains nothing of what comes.
    pub(super) fn forget_trouble(&self) {
        *lock(&self.trouble) = None;
    }
}

/// A panic in a callback must not hide what the callback had seen before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // CONFWARN: a property of producers was given to a reader too. That is meant so.
        let grave = matches!(
            level,
            RDKafkaLogLevel::Emerg
                | RDKafkaLogLevel::Alert
                | RDKafkaLogLevel::Critical
                | RDKafkaLogLevel::Error
                | RDKafkaLogLevel::Warning
        );
        if grave && facility != "CONFWARN" {
            tracing::warn!(facility, line, "librdkafka");
        } else {
            tracing::debug!(facility, line, "librdkafka");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        tracing::debug!(%code, reason, "librdkafka reports trouble");
        // We join no group: librdkafka asks for the coordinator of its own accord.
        if code == RDKafkaErrorCode::GroupAuthorizationFailed {
            return;
        }
        let mut trouble = lock(&self.trouble);
        // "All brokers are down" follows upon each cause and must not hide it.
        if code != RDKafkaErrorCode::AllBrokersDown || trouble.is_none() {
            *trouble = Some(Trouble { code, reason: reason.to_owned() });
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let file = self.token_file.as_ref().ok_or("kafka.token_file is not set")?;
        let token = std::fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        let expires = SystemTime::now().duration_since(UNIX_EPOCH)? + TOKEN_LIFE;
        // The principal is in the token; the name given here is not sent anywhere.
        Ok(OAuthToken {
            token: token.trim().to_owned(),
            principal_name: "outboxd".to_owned(),
            lifetime_ms: i64::try_from(expires.as_millis())?,
        })
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, position: usize) {
        self.deliveries.report(result, position);
    }
}

/// The settings of a producer that may differ from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerShape {
    /// `batch.size`: a batch is refused as a whole, so it must fit into the smallest `max.message.bytes` in use.
    pub(super) batch_bytes: u32,
    /// `message.max.bytes`: `send` refuses what is larger, so it must not be less than the largest `max.message.bytes` in use.
    pub(super) message_bytes: u32,
    /// `retry.backoff.ms`: a commit that was asked for twice takes at least 0.8 times this.
    pub(super) retry_backoff: Duration,
}

/// `batch.size` with which each record is a request of its own, so that a refusal tells which one it is about.
pub(super) const SINGLE: u32 = 1;

impl ProducerShape {
    /// Whether each record goes in a request of its own.
    pub(super) fn is_single(self) -> bool {
        self.batch_bytes == SINGLE
    }
}

/// The shape of a producer of which only the settings matter.
const USUAL: ProducerShape =
    ProducerShape { batch_bytes: 1_000_000, message_bytes: 1_000_000, retry_backoff: Duration::from_secs(1) };

/// The producer of events and journal records.
pub(super) type EventProducer = ThreadedProducer<Context>;

/// A new producer; in exactly-once mode with the outbox's transactional id, which does nothing before it is initialised.
pub(super) fn producer(settings: &Settings, shape: ProducerShape) -> Result<EventProducer, Fault> {
    let config = producer_config(settings, shape);
    config.create_with_context(Context::new(settings)).map_err(|error| misconfigured(&error))
}

/// A producer like that of the relay with another transactional id: for a try that must not shut the relay out.
pub(super) fn beside(settings: &Settings, transactional_id: &str) -> Result<EventProducer, Fault> {
    let mut config = producer_config(settings, USUAL);
    config.set("transactional.id", transactional_id);
    config.create_with_context(Context::new(settings)).map_err(|error| misconfigured(&error))
}

fn producer_config(settings: &Settings, shape: ProducerShape) -> ClientConfig {
    let mut config = base(settings);
    let transaction_ms = settings.kafka.transaction_timeout.as_millis().to_string();
    let backoff_ms = shape.retry_backoff.as_millis();
    config
        // flush() switches lingering off: it costs nothing in latency and a third of the CPU less than 0.
        .set("linger.ms", "5")
        .set("batch.size", shape.batch_bytes.to_string())
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("retry.backoff.ms", backoff_ms.to_string())
        .set("retry.backoff.max.ms", (2 * backoff_ms).to_string())
        // Its default of 10 s is how long a relay would sleep after the brokers are back.
        .set("reconnect.backoff.max.ms", "1000")
        // How long a topic may stay unknown before its records fail: 30 s by default.
        .set("topic.metadata.propagation.max.ms", "5000")
        // One batch at a time bounds what is queued; the other bound, 1 GiB, only guards.
        .set("queue.buffering.max.messages", "0");
    if !settings.kafka.properties.contains_key("message.max.bytes") {
        config.set("message.max.bytes", shape.message_bytes.to_string());
    }
    match settings.kafka.delivery {
        Delivery::ExactlyOnce => config
            .set("transactional.id", names::transactional_id(&settings.name))
            .set("transaction.timeout.ms", &transaction_ms)
            .set("message.timeout.ms", transaction_ms),
        Delivery::AtLeastOnce => config.set("message.timeout.ms", "0"),
    };
    config
}

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Those of committed transactions.
    Committed,
    /// Those of open and aborted ones too.
    Everything,
}

/// A reader of the journal, for explicit offsets: it never joins a group and never commits.
pub(super) fn reader(settings: &Settings, sight: Sight) -> Result<BaseConsumer<Context>, Fault> {
    consumer(settings, reader_config(settings, sight))
}

/// The same for whole topics: it reads no further ahead than its memory allows.
pub(super) fn scanner(settings: &Settings) -> Result<BaseConsumer<Context>, Fault> {
    let mut config = reader_config(settings, Sight::Committed);
    config.set("queued.max.messages.kbytes", "16384");
    consumer(settings, config)
}

/// A client that asks where a consumer group stands. It never joins it and never commits.
pub(super) fn asking_for(settings: &Settings, group: &str) -> Result<BaseConsumer<Context>, Fault> {
    let mut config = reader_config(settings, Sight::Committed);
    config.set("group.id", group);
    consumer(settings, config)
}

fn reader_config(settings: &Settings, sight: Sight) -> ClientConfig {
    let mut config = base(settings);
    config
        .set("group.id", names::transactional_id(&settings.name))
        .set(
            "isolation.level",
            match sight {
                Sight::Committed => "read_committed",
                Sight::Everything => "read_uncommitted",
            },
        )
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        // Anything else hides a truncated journal: the reader would jump to its end.
        .set("auto.offset.reset", "error")
        // The default delays the end of the journal by 500 ms.
        .set("fetch.wait.max.ms", "10")
        .set("reconnect.backoff.max.ms", "1000");
    config
}

fn consumer(settings: &Settings, config: ClientConfig) -> Result<BaseConsumer<Context>, Fault> {
    let context = Context::new(settings);
    let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(|error| misconfigured(&error))?;
    hand_token(consumer.client())?;
    Ok(consumer)
}

/// A client for single questions and orders to the cluster.
pub(super) fn admin(settings: &Settings) -> Result<AdminClient<Context>, Fault> {
    let admin = base(settings).create_with_context::<_, AdminClient<Context>>(Context::new(settings));
    let admin = admin.map_err(|error| misconfigured(&error))?;
    hand_token(admin.inner())?;
    Ok(admin)
}

/// For clients that ask for something before they are polled, or never are: only a poll would fetch them a token.
fn hand_token(client: &Client<Context>) -> Result<(), Fault> {
    if client.context().token_file.is_none() {
        return Ok(());
    }
    let token = client.context().generate_oauth_token(None).map_err(|error| error.to_string());
    token.and_then(|token| native::set_token(client, &token)).map_err(|reason| Fault::kafka("authentication", reason))
}

/// What all clients have in common.
fn base(settings: &Settings) -> ClientConfig {
    let kafka = &settings.kafka;
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info);
    config.set("client.id", names::transactional_id(&settings.name));
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
        .set("bootstrap.servers", kafka.brokers.to_string())
        .set("security.protocol", kafka.security.as_str())
        // A producer otherwise creates missing topics where the broker lets it (seen), with the broker's partition count.
        .set("allow.auto.create.topics", "false");
    let mut path = |name: &str, value: &Option<PathBuf>| {
        if let Some(value) = value {
            config.set(name, value.to_string_lossy());
        }
    };
    if kafka.security.uses_tls() {
        path("ssl.ca.location", &kafka.ca_file);
        path("ssl.certificate.location", &kafka.certificate_file);
        path("ssl.key.location", &kafka.key_file);
        if let Some(password) = &kafka.key_password {
            config.set("ssl.key.password", password.reveal());
        }
    }
    if let Some(mechanism) = kafka.sasl_mechanism.filter(|_| kafka.security.uses_sasl()) {
        config.set("sasl.mechanism", mechanism.as_str());
        if let Some(user) = &kafka.username {
            config.set("sasl.username", user);
        }
        if let Some(password) = &kafka.password {
            config.set("sasl.password", password.reveal());
        }
    }
    config
}

/// Refuses settings that this build or librdkafka cannot serve, before anything is tried.
pub(super) fn check(settings: &Settings) -> Result<(), Fault> {
    let kafka = &settings.kafka;
    let features = ClientConfig::new().create_native_config().and_then(|config| config.get("builtin.features"));
    let features = features.map_err(|error| misconfigured(&error))?;
    let has = |feature: &str| features.split(',').any(|found| found.trim() == feature);
    if kafka.security.uses_tls() && !has("ssl") {
        return Err(lacking("this build has no TLS to Kafka"));
    }
    let needed = kafka.sasl_mechanism.filter(|_| kafka.security.uses_sasl()).map(|mechanism| match mechanism {
        SaslMechanism::Plain => "sasl_plain",
        SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512 => "sasl_scram",
        SaslMechanism::OauthBearer => "sasl_oauthbearer",
    });
    if needed.is_some_and(|feature| !has(feature)) {
        return Err(lacking(
            "this build cannot authenticate itself to Kafka in the configured way: SCRAM and OAUTHBEARER need TLS",
        ));
    }
    producer_config(settings, USUAL).create_native_config().map(drop).map_err(|error| misconfigured(&error))
}

fn lacking(detail: &str) -> Fault {
    let remedy = "Use the packaged build, or cargo build --features full".to_owned();
    Fault::Misconfigured { detail: detail.to_owned(), remedy }
}

/// The wrapper's own message would show the value, which may be a password.
fn misconfigured(error: &KafkaError) -> Fault {
    let detail = match error {
        KafkaError::ClientConfig(_, why, name, _) => format!("librdkafka does not take {name}: {why}"),
        other => format!("librdkafka does not take these settings: {other}"),
    };
    Fault::Misconfigured { detail, remedy: "Correct the section [kafka] of the configuration".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_again_whenever_one_is_needed() {
        let file = std::env::temp_dir().join(format!("outboxd-token-{}", std::process::id()));
        let context = Context { deliveries: Deliveries::default(), trouble: Mutex::new(None), token_file: Some(file.clone()) };
        let token = || context.generate_oauth_token(None).map(|token| token.token).map_err(|error| error.to_string());
        for word in ["one", "two"] {
            std::fs::write(&file, format!("{word}\n")).expect("written");
            assert_eq!(token(), Ok(word.to_owned()));
        }
        std::fs::remove_file(&file).expect("it was there");
        let missing = token().expect_err("it is gone");
        assert!(missing.contains(&file.display().to_string()), "{missing}");
    }
}
