//! What is planted in a sound world, and what must be said of it.

use super::*;

/// A change of a sound world.
pub(super) type Plant = fn(&mut World);

pub(super) const WARNING: State = State::Warning;
pub(super) const FAILED: State = State::Failed(EXIT_FAILED);
pub(super) const MISCONFIGURED: State = State::Failed(EXIT_CONFIG);
pub(super) const REFUSED: State = State::Failed(EXIT_REFUSED);
pub(super) const UNREACHABLE: State = State::Failed(EXIT_UNREACHABLE);

pub(super) fn obstacle() -> Obstacle {
    Obstacle { name: "swallower".into(), on_mark: true, on_delete: false }
}

fn policy(command: &str, permissive: bool, lets_all: bool) -> Policy {
    Policy { name: "some".into(), command: command.into(), permissive, lets_all }
}

fn writer(gid: Option<&str>, age: Option<Duration>) -> OpenWriter {
    OpenWriter { pid: gid.is_none().then_some(42), gid: gid.map(str::to_owned), age }
}

/// What is planted in a sound world, and all that must be said of it.
pub(super) const DATABASE: &[(Plant, &[(Name, State)])] = &[
    (|w| w.config.outbox.on_poison = OnPoison::ParkEvent, &[(Name::Poison, WARNING)]),
    (|w| w.config.outbox.columns = Columns::default().with(Column::SentAt, Some("published_at")), &[(Name::Retention, WARNING)]),
    (
        |w| {
            w.config.outbox.columns = Columns::default().with(Column::SentAt, Some("published_at"));
            w.config.outbox.retention = Retention::Forever;
        },
        &[],
    ),
    (|w| w.config.outbox.order = Order::None, &[(Name::Order, WARNING)]),
    (|w| w.server.version = 140_009, &[(Name::DatabaseVersion, MISCONFIGURED)]),
    (|w| w.server.version = 190_000, &[(Name::DatabaseVersion, WARNING)]),
    (|w| w.server.in_recovery = true, &[(Name::DatabasePrimary, UNREACHABLE)]),
    (|w| w.server.read_only = true, &[(Name::DatabasePrimary, UNREACHABLE)]),
    (|w| w.server.fsync = false, &[(Name::Fsync, FAILED)]),
    (|w| w.server.full_page_writes = false, &[(Name::FullPageWrites, WARNING)]),
    (|w| w.server.synchronous_commit = "off".into(), &[(Name::SynchronousCommit, WARNING)]),
    (|w| w.server.ahead_us = -6_000_000, &[(Name::Clock, WARNING)]),
    (|w| w.server.autovacuum = false, &[(Name::Autovacuum, WARNING)]),
    (|w| w.shape().autovacuum_off = true, &[(Name::Autovacuum, WARNING)]),
    (|w| w.shape().kind = "f".into(), &[(Name::Table, MISCONFIGURED)]),
    (|w| w.shape().logged = false, &[(Name::TableLogged, FAILED)]),
    (|w| w.shape().inherits = true, &[(Name::TableInheritance, WARNING)]),
    (|w| w.shape().subscribed = true, &[(Name::TableSubscription, WARNING)]),
    (
        |w| w.outbox.fit = Ok(Fit { payload_is_jsonb: true, allows_cursor: false }),
        &[(Name::Payload, WARNING), (Name::FetchForm, WARNING)],
    ),
    (|w| w.shape().sequence = None, &[(Name::Sequence, MISCONFIGURED)]),
    (|w| w.shape().sequence = Some(Sequence { increment: 1, cache: 1, cycles: true }), &[(Name::Sequence, WARNING)]),
    (|w| w.shape().sequence = Some(Sequence { increment: 2, cache: 1, cycles: false }), &[(Name::Sequence, MISCONFIGURED)]),
    (|w| w.shape().policies = Some(Vec::new()), &[(Name::RowSecurity, FAILED)]),
    (|w| w.shape().policies = Some(vec![policy("r", true, true)]), &[(Name::RowSecurity, FAILED)]),
    (|w| w.shape().policies = Some(vec![policy("*", true, false)]), &[(Name::RowSecurity, WARNING)]),
    (|w| w.shape().policies = Some(vec![policy("*", true, true), policy("w", false, false)]), &[(Name::RowSecurity, WARNING)]),
    (|w| w.shape().policies = Some(vec![policy("*", true, true)]), &[]),
    (|w| w.shape().triggers = vec![obstacle()], &[(Name::Triggers, WARNING)]),
    (|w| w.shape().rules = vec![obstacle()], &[(Name::Rules, WARNING)]),
    (
        |w| {
            w.config.outbox.mark = Mark::Delete;
            w.shape().triggers = vec![obstacle()];
        },
        &[],
    ),
    (|w| w.shape().indexes.clear(), &[(Name::UnsentIndex, WARNING), (Name::UniqueNumbers, WARNING)]),
    (|w| w.shape().indexes[1].valid = false, &[(Name::UnsentIndex, WARNING)]),
    (|w| w.shape().indexes[1].covers = Covers::Others, &[(Name::UnsentIndex, WARNING)]),
    (|w| w.shape().indexes.truncate(1), &[(Name::UnsentIndex, WARNING)]),
    (|w| w.shape().indexes[0].unique = false, &[(Name::UniqueNumbers, WARNING)]),
    (|w| w.shape().indexes[0].valid = false, &[(Name::UniqueNumbers, WARNING)]),
    (|w| w.shape().indexes[0].covers = Covers::Others, &[(Name::UniqueNumbers, WARNING)]),
    (
        |w| {
            w.config.outbox.mark = Mark::Delete;
            w.shape().indexes.truncate(1);
        },
        &[],
    ),
    (
        |w| {
            w.shape().kind = "p".into();
            w.shape().indexes[0].unique = false;
        },
        &[],
    ),
    (
        |w| w.outbox.activity = Ok(Activity { inserted: 50, updated: 0, deleted: 50, seconds: None, applied: 0 }),
        &[(Name::InsertAndDelete, WARNING)],
    ),
    (|w| w.outbox.writers = Ok(vec![writer(Some("gid"), Some(Duration::from_secs(2)))]), &[(Name::OpenTransactions, WARNING)]),
    (|w| w.outbox.writers = Ok(vec![writer(None, Some(Duration::from_secs(61)))]), &[(Name::OpenTransactions, WARNING)]),
    (|w| w.outbox.writers = Ok(vec![writer(None, Some(Duration::from_secs(5)))]), &[]),
    (|w| w.outbox.writers = Ok(vec![writer(None, None)]), &[(Name::OpenTransactions, State::Unseen)]),
    (|w| w.outbox.rights = Ok(vec![Right { what: "x".into(), had: false }]), &[(Name::DatabaseRight, REFUSED)]),
    (|w| w.outbox.schema = Err(refused()), &[(Name::Schema, REFUSED)]),
    (|w| w.outbox.row = Ok(None), &[(Name::Outbox, MISCONFIGURED), (Name::Topics, State::Unseen)]),
    (|w| w.row().table = "other".into(), &[(Name::Outbox, MISCONFIGURED)]),
    (|w| w.row().delivery = "at_least_once".into(), &[(Name::OutboxDelivery, MISCONFIGURED)]),
    (|w| w.row().halted = Some(("old-primary".into(), "timeline".into())), &[(Name::Halted, FAILED)]),
    (|w| w.row().paused = Some(("anna".into(), "moving".into())), &[(Name::Paused, WARNING)]),
    (|w| w.outbox.acceptance.as_mut().expect("known").systems.clear(), &[(Name::Identity, FAILED)]),
    (
        |w| w.outbox.aside = Ok(Aside { parked: 2, held: vec![("gone".into(), "topic_missing".into())] }),
        &[(Name::Parked, WARNING), (Name::Held, WARNING)],
    ),
];

pub(super) const KAFKA: &[(Plant, &[(Name, State)])] = &[
    (|w| w.cluster.brokers = 1, &[(Name::Brokers, WARNING)]),
    (|w| w.cluster.brokers = 2, &[(Name::Brokers, WARNING)]),
    (|w| w.cluster.transactions = Some(Err(Fault::kafka("init", ""))), &[(Name::Transactions, UNREACHABLE)]),
    (|w| w.config.kafka.transaction_timeout = Duration::from_secs(901), &[(Name::TransactionTimeout, MISCONFIGURED)]),
    (
        |w| {
            w.cluster.settings.clear();
        },
        &[(Name::TransactionLog, State::Unseen)],
    ),
    (
        |w| {
            w.cluster.settings.insert("transaction.state.log.min.isr".into(), "1".into());
        },
        &[(Name::TransactionLog, WARNING)],
    ),
    (|w| w.topic(JOURNAL).state = None, &[(Name::Journal, MISCONFIGURED)]),
    (
        |w| {
            w.topic(JOURNAL).state = None;
            w.topic(JOURNAL).hidden = true;
        },
        &[(Name::Journal, REFUSED)],
    ),
    (|w| w.state(JOURNAL).partitions = 2, &[(Name::JournalPartitions, MISCONFIGURED)]),
    (|w| w.set(JOURNAL, "cleanup.policy", "compact"), &[(Name::JournalCleanup, MISCONFIGURED)]),
    (|w| w.set(JOURNAL, "retention.bytes", "1000"), &[(Name::JournalRetention, WARNING)]),
    (|w| w.set(JOURNAL, "max.message.bytes", "1000"), &[(Name::JournalRecordSize, WARNING)]),
    (|w| w.state(JOURNAL).replicas = 2, &[(Name::JournalReplicas, WARNING)]),
    (|w| w.set(JOURNAL, "min.insync.replicas", "1"), &[(Name::JournalInSync, WARNING)]),
    (|w| w.set(JOURNAL, "min.insync.replicas", "4"), &[(Name::JournalInSync, FAILED)]),
    (|w| w.set(JOURNAL, "unclean.leader.election.enable", "true"), &[(Name::JournalElection, WARNING)]),
    (|w| w.topic(JOURNAL).rights = None, &[(Name::JournalRights, State::Unseen), (Name::JournalTrim, State::Unseen)]),
    (
        |w| {
            w.topic(JOURNAL).rights.as_mut().expect("known").remove(&Operation::Delete);
        },
        &[(Name::JournalTrim, WARNING)],
    ),
    (
        |w| {
            w.topic(JOURNAL).rights.as_mut().expect("known").remove(&Operation::Read);
        },
        &[(Name::JournalRights, REFUSED)],
    ),
    (|w| w.agreement = Err(Halt::new(HaltCode::KafkaBehind, "").into()), &[(Name::JournalAgrees, FAILED)]),
    (|w| w.topic("orders").state = None, &[(Name::Topic, FAILED)]),
    (|w| w.state("orders").partitions = 2, &[(Name::TopicPartitions, FAILED)]),
    (|w| w.state("orders").partitions = 4, &[(Name::TopicPartitions, WARNING)]),
    (|w| w.state("orders").id = Some("old".into()), &[]),
    (|w| w.state("orders").id = Some("new".into()), &[(Name::TopicIdentity, FAILED)]),
    (|w| w.pin().truncated = Some("partition 0 ended at 9".into()), &[(Name::TopicComplete, FAILED)]),
    (|w| w.state("orders").replicas = 1, &[(Name::TopicReplicas, WARNING), (Name::TopicInSync, FAILED)]),
    (|w| w.set("orders", "unclean.leader.election.enable", "true"), &[(Name::TopicElection, WARNING)]),
    (|w| w.set("orders", "cleanup.policy", "compact,delete"), &[(Name::TopicCleanup, WARNING)]),
    (|w| w.set("orders", "max.message.bytes", "999"), &[(Name::TopicRecordSize, WARNING)]),
    (|w| w.set("orders", "message.timestamp.after.max.ms", "10"), &[(Name::TopicTimestamps, WARNING)]),
    (
        |w| {
            w.set("orders", "message.timestamp.type", "LogAppendTime");
            w.set("orders", "message.timestamp.after.max.ms", "10");
        },
        &[],
    ),
    (
        |w| {
            w.topic("orders").rights.as_mut().expect("known").remove(&Operation::Write);
        },
        &[(Name::TopicRights, REFUSED)],
    ),
];
