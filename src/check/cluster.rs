//! The brokers, and whether they have transactions.

use super::settings::{REPLICAS, user};
use super::{Finding, Name, Seen, journal, topics};
use crate::config::{Config, Delivery};
use crate::fault::Fault;
use crate::sink::kafka::ClusterFacts;
use crate::source::any::Checkup;

pub(super) fn findings(
    config: &Config,
    cluster: &Result<ClusterFacts, Fault>,
    seen: &Seen,
    database: Option<&Checkup>,
) -> Vec<Finding> {
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(fault) => return vec![Finding::by_fault(Name::KafkaReachable, fault)],
    };
    let who = user(config.kafka.security, config.kafka.username.as_deref());
    let mut findings = vec![reachable(config, &who), brokers(cluster.brokers)];
    if config.kafka.delivery == Delivery::ExactlyOnce {
        findings.extend([transactions(cluster), timeout(config, cluster), log(cluster)]);
        let activity = database.and_then(Checkup::activity);
        findings.extend(journal::findings(config, cluster, seen, activity, &who));
    }
    findings.extend(topics::findings(config, cluster, database, &who));
    findings
}

fn reachable(config: &Config, who: &str) -> Finding {
    let how = if config.kafka.security.uses_sasl() { format!(" and let {who} in") } else { String::new() };
    Finding::ok(Name::KafkaReachable, format!("the brokers of {} answer{how}", config.kafka.brokers))
}

fn brokers(count: i32) -> Finding {
    match count {
        REPLICAS.. => Finding::ok(Name::Brokers, format!("{count} brokers")),
        1 => Finding::warning(
            Name::Brokers,
            "one broker alone: when it is killed hard it can lose the end of a transaction that it had confirmed",
            "Use three; outboxd halts as journal-blocked when that happens",
        ),
        _ => Finding::warning(Name::Brokers, format!("{count} brokers: too few for three replicas"), "Use three"),
    }
}

fn transactions(cluster: &ClusterFacts) -> Finding {
    match &cluster.transactions {
        None => Finding::unseen(Name::Transactions, "not tried", "Let Kafka be reached first"),
        Some(Ok(())) => {
            Finding::ok(Name::Transactions, "a producer with transactions was had, under an id beside that of the relay")
        }
        Some(Err(fault)) => Finding::essential(Name::Transactions, fault),
    }
}

fn timeout(config: &Config, cluster: &ClusterFacts) -> Finding {
    let ours = config.kafka.transaction_timeout;
    let most = cluster.settings.get("transaction.max.timeout.ms").and_then(|most| most.parse::<u128>().ok());
    match (most, &cluster.transactions) {
        (Some(most), _) if ours.as_millis() > most => Finding::misconfigured(
            Name::TransactionTimeout,
            format!("kafka.transaction_timeout is {} ms, the brokers allow {most} ms", ours.as_millis()),
            "Lower it to at most transaction.max.timeout.ms of the brokers",
        ),
        (Some(most), _) => Finding::ok(Name::TransactionTimeout, format!("{} ms, the brokers allow {most} ms", ours.as_millis())),
        // the try was made with our timeout
        (None, Some(Ok(()))) => Finding::ok(Name::TransactionTimeout, format!("{} ms, which the brokers took", ours.as_millis())),
        (None, _) => unseen_broker(Name::TransactionTimeout),
    }
}

fn log(cluster: &ClusterFacts) -> Finding {
    let number = |setting: &str| cluster.settings.get(setting).and_then(|value| value.parse::<i32>().ok());
    let (replicas, in_sync) = (number("transaction.state.log.replication.factor"), number("transaction.state.log.min.isr"));
    let (Some(replicas), Some(in_sync)) = (replicas, in_sync) else { return unseen_broker(Name::TransactionLog) };
    let found = format!("topic __transaction_state is made with replication factor {replicas} and min.insync.replicas {in_sync}");
    if replicas >= REPLICAS && in_sync >= 2 {
        return Finding::ok(Name::TransactionLog, found);
    }
    Finding::warning(
        Name::TransactionLog,
        format!("{found}: with it goes what the brokers know of transactions"),
        "Set transaction.state.log.replication.factor=3 and transaction.state.log.min.isr=2 before the first transaction",
    )
}

fn unseen_broker(name: Name) -> Finding {
    Finding::unseen(name, "the brokers' settings are not told to us", "Grant DESCRIBE_CONFIGS on the cluster to look at them")
}
