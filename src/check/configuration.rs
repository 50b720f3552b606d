//! What follows from the configuration alone.

use super::{Finding, Kind, Name};
use crate::config::{Column, Config, DatabaseTls, Delivery, Host, Mark, OnPoison, Order, Retention, duration_text};

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let held = Finding::ok(Name::Configuration, format!("it holds together; the outbox is {}", config.outbox.name));
    let mut findings =
        vec![held, delivery(config), order(config), retention(config), poison(config), database_tls(config), kafka_tls(config)];
    if Kind::of(config) == Kind::File {
        findings.push(one_writer());
    }
    findings
}

fn delivery(config: &Config) -> Finding {
    match config.kafka.delivery {
        Delivery::ExactlyOnce => Finding::ok(Name::Delivery, "exactly_once: transactions and a journal"),
        Delivery::AtLeastOnce => Finding::warning(
            Name::Delivery,
            "at_least_once: after a crash events may come twice, and older ones after newer ones of their key",
            "Set kafka.delivery = \"exactly_once\" where the brokers have transactions",
        ),
    }
}

fn order(config: &Config) -> Finding {
    match config.outbox.order {
        Order::Key => Finding::ok(Name::Order, "key: events of one key keep their order"),
        Order::None => Finding::warning(
            Name::Order,
            "none: no order is promised",
            "Set outbox.order = \"key\" when the table's numbers step by one",
        ),
    }
}

/// A table of one's own has rows that were sent before outboxd came.
fn retention(config: &Config) -> Finding {
    let (mark, columns) = (config.outbox.mark, &config.outbox.columns);
    let sent_at = columns.of(Column::SentAt).unwrap_or_default();
    match (mark, config.outbox.retention) {
        (Mark::Delete, _) => Finding::ok(Name::Retention, "rows are deleted when they are published, and nothing else is"),
        (Mark::Row, Retention::Forever) => Finding::ok(Name::Retention, "forever: rows stay after they were sent"),
        (Mark::Row, Retention::For(age)) if columns.are_standard() => {
            Finding::ok(Name::Retention, format!("rows go {} after they were sent", duration_text(age)))
        }
        (Mark::Row, Retention::For(age)) => Finding::warning(
            Name::Retention,
            format!(
                "every row whose {sent_at} is older than {} is deleted, also those that outboxd never published",
                duration_text(age)
            ),
            "Write outbox.retention = \"forever\" unless the history of this table may go",
        ),
    }
}

fn poison(config: &Config) -> Finding {
    match config.outbox.on_poison {
        OnPoison::ParkKey => Finding::ok(Name::Poison, "park_key: events wait behind one of their key that cannot be published"),
        OnPoison::ParkEvent => Finding::warning(
            Name::Poison,
            "park_event: events overtake one of their key that cannot be published",
            "Set outbox.on_poison = \"park_key\" where the order matters more",
        ),
    }
}

fn database_tls(config: &Config) -> Finding {
    let (host, tls) = (&config.database.address().host, config.database.tls);
    match (host, tls) {
        (Host::Socket(_), _) => Finding::ok(Name::DatabaseTls, "a socket on this machine"),
        (Host::File(_), _) => Finding::ok(Name::DatabaseTls, "a file on this machine"),
        (Host::Name(name), DatabaseTls::Prefer) if is_here(name) => {
            Finding::ok(Name::DatabaseTls, "the database is on this machine")
        }
        (Host::Name(name), DatabaseTls::Prefer) => Finding::warning(
            Name::DatabaseTls,
            format!("prefer: whoever stands between here and {name} can have the connection without encryption"),
            "Set database.tls = \"verify-full\", or at least \"require\"",
        ),
        (Host::Name(_), DatabaseTls::Require) => {
            Finding::ok(Name::DatabaseTls, "require: encrypted, the server's name is not verified")
        }
        (Host::Name(_), DatabaseTls::VerifyFull) => {
            Finding::ok(Name::DatabaseTls, "verify-full: encrypted, the server's name is verified")
        }
    }
}

fn kafka_tls(config: &Config) -> Finding {
    let far = config.kafka.brokers.0.iter().find(|broker| !is_here(broker.rsplit_once(':').map_or(broker, |(host, _)| host)));
    match (far, config.kafka.security.uses_tls()) {
        (_, true) => Finding::ok(Name::KafkaTls, format!("{}: encrypted", config.kafka.security.as_str())),
        (None, false) => Finding::ok(Name::KafkaTls, "the brokers are on this machine"),
        (Some(broker), false) => Finding::warning(
            Name::KafkaTls,
            format!("{}: events go to {broker} without encryption", config.kafka.security.as_str()),
            "Set kafka.security = \"ssl\" or \"sasl_ssl\", unless the network is trusted",
        ),
    }
}

fn one_writer() -> Finding {
    Finding::warning(
        Name::OneWriter,
        "SQLite has one writer at a time: while the relay marks a batch, services wait",
        "Set PRAGMA busy_timeout for each connection of a service; a lower relay.batch_max_events makes the wait shorter",
    )
}

/// Whether a host is this machine. Names are not looked up: the answer would be today's.
fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
