//! From what librdkafka says to what it proves.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode as Code};

use super::client::Trouble;
use crate::event::Event;
use crate::fault::{AUTHENTICATION, Cause, Fault, REFUSED_RECORD};
use crate::park::{Ailing, Unfit};

/// The stable short code of an error: a bounded set.
pub(super) fn short(code: Code) -> &'static str {
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownTopicId => "topic_missing",
        Code::UnknownPartition => "topic_shrunk",
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => "not_authorised",
        Code::Authentication | Code::SaslAuthenticationFailed | Code::IllegalSASLState | Code::UnsupportedSASLMechanism => {
            AUTHENTICATION
        }
        Code::SSL => "tls",
        Code::MessageTimedOut | Code::RequestTimedOut | Code::OperationTimedOut | Code::TimedOutQueue => "timeout",
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => "not_enough_replicas",
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::NetworkException => "unreachable",
        Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::UnknownLeaderEpoch
        | Code::FencedLeaderEpoch
        | Code::OffsetNotAvailable => "no_leader",
        Code::ConcurrentTransactions | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress | Code::NotCoordinator => {
            "coordinator"
        }
        Code::InvalidTimestamp => "clock",
        Code::KafkaStorageError => "storage",
        _ => "kafka",
    }
}

/// Whether the error says that no broker is connected.
pub(super) fn is_no_connection(code: Code) -> bool {
    matches!(short(code), "unreachable" | "tls" | AUTHENTICATION)
}

/// Whether the error says that the record itself can never be stored, or one that it was bundled with.
pub(super) fn is_refusal(code: Code) -> bool {
    matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidRecord | Code::InvalidDifferentRecord)
}

/// Whether the error says only that something else went wrong in the same transaction.
pub(super) fn is_consequence(code: Code) -> bool {
    matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::State | Code::Fatal)
}

/// Whether another owner, or the transaction's timeout, has taken the transactional id from us.
pub(super) fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced)
}

/// A fault of the cluster, with what librdkafka reported of its own accord: a timeout alone does not tell its cause.
pub(super) fn unavailable(code: Code, what: &str, trouble: Option<Trouble>) -> Fault {
    let told = trouble.as_ref().map(|trouble| trouble.code).filter(|&told| is_no_connection(told));
    let name = short(told.filter(|_| short(code) == "timeout").unwrap_or(code));
    Fault::kafka(name, format!("{what}: {code}{}", in_its_words(trouble)))
}

fn in_its_words(trouble: Option<Trouble>) -> String {
    trouble.map_or_else(String::new, |trouble| format!("; {}", trouble.reason))
}

/// A fault of a question to the cluster.
pub(super) fn asked(error: &KafkaError, what: &str) -> Fault {
    match error.rdkafka_error_code() {
        Some(code) => unavailable(code, what, None),
        None => Fault::kafka("kafka", format!("{what}: {error}")),
    }
}

/// Short code of a topic that does not exist.
pub(super) const TOPIC_MISSING: &str = "topic_missing";

/// A topic that does not exist.
pub(super) fn topic_missing(topic: &str) -> Ailing {
    Ailing { topic: topic.to_owned(), code: TOPIC_MISSING, detail: format!("topic {topic} does not exist") }
}

/// A topic on which we lack this right.
pub(super) fn not_granted(right: &str, topic: &str) -> Ailing {
    Ailing { topic: topic.to_owned(), code: NOT_AUTHORISED, detail: format!("{right} on topic {topic} is not granted") }
}

/// Short code of a right that is missing.
const NOT_AUTHORISED: &str = "not_authorised";

/// The journal cannot be set aside: without it nothing is published.
pub(super) fn journal_ailing(ailing: Ailing) -> Fault {
    let code = if ailing.code == TOPIC_MISSING { "journal_missing" } else { ailing.code };
    Fault::kafka(code, format!("{} (the journal)", ailing.detail))
}

/// A right without which nothing can be published, where that is what the code says.
pub(super) fn refused(code: Code, what: &str) -> Option<Fault> {
    let right = match code {
        Code::TransactionalIdAuthorizationFailed => "WRITE and DESCRIBE on the transactional id",
        Code::ClusterAuthorizationFailed => "IDEMPOTENT_WRITE on the cluster",
        _ => return None,
    };
    Some(Fault::kafka(NOT_AUTHORISED, format!("not granted: {right}; {what}")))
}

/// An event that can never be published, to be parked.
pub(super) fn unfit(event: &Event<'_>, code: &'static str, detail: impl Into<String>) -> Unfit {
    Unfit { seq: event.seq, id: event.id.into(), code, detail: detail.into() }
}

/// An event that can never be published, found while it was being sent.
pub(super) fn poison(event: &Event<'_>, code: &'static str, detail: String) -> Fault {
    unfit(event, code, detail).into()
}

/// The short code of an event that is refused for what it is.
pub(super) fn poison_code(code: Code) -> &'static str {
    match code {
        Code::InvalidRecord => "invalid_record",
        _ => "too_large",
    }
}

/// Begin, or anything before the commit, failed in a way that a new claim may cure: nothing was committed.
pub(super) fn transaction(code: Code, what: &str, trouble: Option<Trouble>) -> Fault {
    let detail = format!("{what}: {code}{}", in_its_words(trouble));
    if is_fenced(code) { Fault::Fenced { detail } } else { Fault::in_doubt(Cause::Publish, detail) }
}

/// The journal record of a batch was refused: nothing that bisecting could find.
pub(super) fn journal_refused(topic: &str, bytes: usize, code: Code) -> Fault {
    let size = if bytes > 0 { format!(" of {bytes} bytes") } else { String::new() };
    let detail =
        format!("the journal record{size} was refused: {code}; raise max.message.bytes of {topic} or lower relay.batch_max_events");
    Fault::kafka(REFUSED_RECORD, detail)
}

/// What holds `init_transactions` up: librdkafka does not tell which partition it is.
pub(super) const INIT_HINT: &str =
    "a partition below its min.insync.replicas may hold it up: kafka-topics.sh --describe --under-min-isr-partitions";

/// `init_transactions` did not come to an end.
pub(super) fn init(error: &RDKafkaError, after: Duration, trouble: Option<Trouble>) -> Fault {
    let text = format!("{}{}", error.string(), in_its_words(trouble));
    if let Some(refused) = refused(error.code(), &text) {
        return refused;
    }
    match error.code() {
        code if is_fenced(code) => Fault::Fenced { detail: text },
        Code::InvalidTransactionTimeout => Fault::Misconfigured {
            detail: format!("the brokers do not allow this kafka.transaction_timeout: {text}"),
            remedy: "Lower it to at most transaction.max.timeout.ms of the brokers".to_owned(),
        },
        Code::UnsupportedFeature => Fault::Misconfigured {
            detail: format!("the brokers have no transactions: {text}"),
            remedy: "Use newer brokers, or kafka.delivery = \"at_least_once\"".to_owned(),
        },
        _ => Fault::kafka("init", format!("init_transactions is not done after {} s: {text}; {INIT_HINT}", after.as_secs())),
    }
}
