//! What follows from the configuration alone.

use super::{Finding, Name};
use crate::config::{Config, DatabaseTls, Delivery, Host, OnPoison, Order};

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let held = Finding::ok(Name::Configuration, format!("it holds together; the outbox is {}", config.outbox.name));
    vec![held, delivery(config), order(config), poison(config), database_tls(config), kafka_tls(config)]
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

/// Whether a host is this machine. Names are not looked up: the answer would be today's.
fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
