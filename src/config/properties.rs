//! `[kafka.properties]`: what is passed on to librdkafka as it is, and what is not, and why.
//!
//! The rule: a property is refused when the promise rests on its value, when the protocol's timing
//! does (a resent commit is recognised by how long it took), when it has a key of its own, or when
//! it belongs to the program (callbacks, logging, the journal's reader). Everything else is passed on,
//! also where it is unwise: speed, sockets, compression, names.

use super::error::{ErrorCode, Refusal};
use super::value::Raw;

/// The section that holds the properties.
pub(super) const SECTION: &str = "kafka.properties";

/// Why a property is refused.
#[derive(Clone, Copy)]
enum Why {
    /// The reason why the promise rests on it.
    Promise(&'static str),
    /// The key that says the same.
    OwnKey(&'static str),
    /// A callback, or something that only a program can set.
    Program,
    /// A property of consumers.
    Reader,
}
use Why::{OwnKey, Program, Promise, Reader};

const ACKNOWLEDGED: Why = Promise("what was acknowledged by fewer than all replicas can be lost");
const REPEATED: Why = Promise("without it a retry publishes twice or out of order");
const RETRIED: Why = Promise("the client must retry until the transaction runs out, in order");
const TIMED: Why = Promise("a commit that was sent twice is recognised by the time it took");
const PARTITIONED: Why = Promise("the relay chooses the partition of each event, so that the order of a key is kept");
const CREATES: Why = Promise("a topic that is created by accident has the wrong partitions");
const NEGOTIATED: Why = Promise("transactions need to know what the broker can do");
const SIZED: Why = Promise("it follows the smallest max.message.bytes in use: a larger batch is refused whole");
const BOUNDED: Why = Promise("it follows relay.batch_max_events and relay.batch_max_bytes, which bound the memory");
const ORDERED: Why = Promise("the order of the events rests on it");
const REPORTED: Why = Promise("the relay must hear of each event that was stored");
const HIDDEN: Why = Promise("a topic that is hidden looks as if it were missing");
const FOREIGN: Why = Promise("code that is loaded into the client could change what is published");

/// Every property that is refused by its whole name.
const REFUSED: &[(&str, Why)] = &[
    ("acks", ACKNOWLEDGED),
    ("request.required.acks", ACKNOWLEDGED),
    ("enable.idempotence", REPEATED),
    ("enable.gapless.guarantee", REPEATED),
    ("max.in.flight", REPEATED),
    ("max.in.flight.requests.per.connection", REPEATED),
    ("retries", RETRIED),
    ("message.send.max.retries", RETRIED),
    ("message.timeout.ms", OwnKey("kafka.transaction_timeout")),
    ("delivery.timeout.ms", OwnKey("kafka.transaction_timeout")),
    ("transaction.timeout.ms", OwnKey("kafka.transaction_timeout")),
    ("transactional.id", OwnKey("outbox.name")),
    ("retry.backoff.ms", TIMED),
    ("retry.backoff.max.ms", TIMED),
    ("partitioner", PARTITIONED),
    ("allow.auto.create.topics", CREATES),
    ("api.version.request", NEGOTIATED),
    ("api.version.fallback.ms", NEGOTIATED),
    ("broker.version.fallback", NEGOTIATED),
    ("batch.size", SIZED),
    ("queue.buffering.max.messages", BOUNDED),
    ("queue.buffering.max.kbytes", BOUNDED),
    ("queuing.strategy", ORDERED),
    ("msg_order_cmp", ORDERED),
    ("delivery.report.only.error", REPORTED),
    ("topic.blacklist", HIDDEN),
    ("plugin.library.paths", FOREIGN),
    ("interceptors", FOREIGN),
    ("bootstrap.servers", OwnKey("kafka.brokers")),
    ("metadata.broker.list", OwnKey("kafka.brokers")),
    ("security.protocol", OwnKey("kafka.security")),
    ("sasl.mechanism", OwnKey("kafka.sasl_mechanism")),
    ("sasl.mechanisms", OwnKey("kafka.sasl_mechanism")),
    ("sasl.username", OwnKey("kafka.username")),
    ("sasl.password", OwnKey("kafka.password")),
    ("enable.sasl.oauthbearer.unsecure.jwt", OwnKey("kafka.token_file")),
    ("ssl.ca.location", OwnKey("kafka.ca_file")),
    ("ssl.ca.pem", OwnKey("kafka.ca_file")),
    ("ssl.certificate.location", OwnKey("kafka.certificate_file")),
    ("ssl.certificate.pem", OwnKey("kafka.certificate_file")),
    ("ssl.keystore.location", OwnKey("kafka.certificate_file")),
    ("ssl.keystore.password", OwnKey("kafka.key_password")),
    ("ssl.key.location", OwnKey("kafka.key_file")),
    ("ssl.key.pem", OwnKey("kafka.key_file")),
    ("ssl.key.password", OwnKey("kafka.key_password")),
    ("log_level", OwnKey("log.level")),
    ("log.queue", Program),
    ("ssl_key", Program),
    ("ssl_certificate", Program),
    ("ssl_ca", Program),
    ("ssl_engine_callback_data", Program),
    ("opaque", Program),
    ("default_topic_conf", Program),
    ("enabled_events", Program),
    ("statistics.interval.ms", Program),
    ("internal.termination.signal", Program),
    ("builtin.features", Program),
    ("session.timeout.ms", Reader),
    ("heartbeat.interval.ms", Reader),
    ("partition.assignment.strategy", Reader),
    ("coordinator.query.interval.ms", Reader),
    ("max.poll.interval.ms", Reader),
    ("max.partition.fetch.bytes", Reader),
    ("queued.min.messages", Reader),
    ("queued.max.messages.kbytes", Reader),
    ("isolation.level", Reader),
    ("enable.partition.eof", Reader),
    ("check.crcs", Reader),
];

/// Every family of properties that is refused by how its names begin.
const REFUSED_PREFIXES: &[(&str, Why)] = &[
    ("sasl.oauthbearer.", OwnKey("kafka.token_file")),
    ("group.", Reader),
    ("enable.auto.", Reader),
    ("auto.", Reader),
    ("fetch.", Reader),
    ("offset.", Reader),
    ("consume.", Reader),
];

/// Reads the value of a property: strings as they are, numbers and booleans as text.
pub(super) fn read(name: &str, raw: &Raw) -> Result<String, Refusal> {
    check_name(name)?;
    if let Some(why) = refused(name) {
        return Err(refusal(name, why));
    }
    match raw {
        Raw::Integer(number) => Ok(number.to_string()),
        Raw::Boolean(boolean) => Ok(boolean.to_string()),
        Raw::Quoted(_) | Raw::Word(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => raw.text().map(str::to_owned),
    }
}

/// Whether the value of this property should not be printed.
pub(super) fn is_secret(name: &str) -> bool {
    let smells = ["password", "passphrase", "secret", "token", "credential", "pem", "jaas"];
    smells.into_iter().any(|smell| name.contains(smell))
}

/// A property as it is named in an environment variable: dots are written as underscores.
pub(super) fn from_variable(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', ".")
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    if !name.is_empty() && name.chars().all(fits) && name.split('.').all(|part| !part.is_empty()) {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::Malformed,
        "this cannot be the name of a property",
        "Write it as librdkafka does, in lower case with dots: compression.type.",
    ))
}

fn refused(name: &str) -> Option<Why> {
    if name.ends_with("_cb") {
        return Some(Program);
    }
    let whole = REFUSED.iter().find(|(refused, _)| name == *refused);
    let family = || REFUSED_PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    whole.or_else(family).map(|(_, why)| *why)
}

fn refusal(name: &str, why: Why) -> Refusal {
    let (reason, remedy) = match why {
        Promise(reason) => (reason.to_owned(), "Remove it: the relay sets it as its promise needs it.".to_owned()),
        OwnKey(key) => (format!("it follows {key}"), format!("Remove it, and set {key} instead.")),
        Program => ("only the program can set it".to_owned(), "Remove it.".to_owned()),
        Reader => {
            let reason = "it belongs to consumers, and the reader of the journal has settings of its own";
            (reason.to_owned(), "Remove it: only properties of producers are passed on.".to_owned())
        }
    };
    let cause = format!("{name} cannot be set here: {reason}");
    Refusal::new(ErrorCode::ProtectedProperty, cause, remedy)
}

#[cfg(test)]
pub(super) fn refused_names() -> impl Iterator<Item = &'static str> {
    REFUSED.iter().map(|(name, _)| *name)
}
