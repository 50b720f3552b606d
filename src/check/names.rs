//! The names of the findings. They are stable: scripts match on them, and `docs/check.md` has a part for each.

use crate::config::Config;

macro_rules! names {
    ($($part:ident { $($(#[$about:meta])* $name:ident = $word:literal,)+ })+) => {
        /// What a finding is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Name { $($($(#[$about])* $name,)+)+ }

        impl Name {
            /// All of them, in the order in which they are told.
            pub const ALL: &[Self] = &[$($(Self::$name,)+)+];

            /// The stable word.
            pub fn as_str(self) -> &'static str {
                match self { $($(Self::$name => $word,)+)+ }
            }

            /// Where it belongs to.
            pub fn part(self) -> Part {
                match self { $($(Self::$name => Part::$part,)+)+ }
            }
        }
    };
}

/// What was looked at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// What is written in file, environment and command line.
    Configuration,
    /// The server, the table and what stands beside it.
    Database,
    /// The cluster, the journal and the event topics.
    Kafka,
}

impl Part {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Configuration, Self::Database, Self::Kafka];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Database => "database",
            Self::Kafka => "kafka",
        }
    }
}

names! {
    Configuration {
        /// Whether it holds together.
        Configuration = "configuration",
        /// `kafka.delivery`
        Delivery = "delivery",
        /// `outbox.order`
        Order = "order",
        /// `outbox.retention`
        Retention = "retention",
        /// `outbox.on_poison`
        Poison = "poison",
        /// Whether the way to the database is encrypted for certain.
        DatabaseTls = "database-tls",
        /// Whether the way to the brokers is encrypted.
        KafkaTls = "kafka-tls",
        /// That services and the relay take turns at writing a file.
        OneWriter = "one-writer",
    }
    Database {
        /// Whether the server answers and lets us in.
        DatabaseReachable = "database-reachable",
        /// PostgreSQL 15 to 18.
        DatabaseVersion = "database-version",
        /// Neither a standby nor read only.
        DatabasePrimary = "database-primary",
        /// `fsync`
        Fsync = "fsync",
        /// `full_page_writes`
        FullPageWrites = "full-page-writes",
        /// `synchronous_commit`
        SynchronousCommit = "synchronous-commit",
        /// Whether readers and the writer of a file wait for each other.
        WalMode = "wal-mode",
        /// How far the two clocks are apart.
        Clock = "clock",
        /// Whether there is a table that can be relayed.
        Table = "table",
        /// Whether a crash leaves its rows.
        TableLogged = "table-logged",
        /// Parents or children by inheritance.
        TableInheritance = "table-inheritance",
        /// Rows that come by a subscription.
        TableSubscription = "table-subscription",
        /// Whether each column is there and of a type that can be passed on.
        Columns = "columns",
        /// What the type of the payload costs.
        Payload = "payload",
        /// Whether the numbers keep the order.
        Sequence = "sequence",
        /// By cursor, or in full form only.
        FetchForm = "fetch-form",
        /// Policies that hide rows from the relay.
        RowSecurity = "row-security",
        /// Triggers that may swallow a mark.
        Triggers = "triggers",
        /// Rules that may replace what is asked for.
        Rules = "rules",
        /// The index that the relay reads by.
        UnsentIndex = "unsent-index",
        /// Whether the table keeps two rows from having one number.
        UniqueNumbers = "unique-numbers",
        /// Whether dead rows go.
        Autovacuum = "autovacuum",
        /// A service that deletes its rows before anybody can see them.
        InsertAndDelete = "insert-and-delete",
        /// Transactions that stay open.
        OpenTransactions = "open-transactions",
        /// Version of the relay's own tables.
        Schema = "schema",
        /// One right of the relay's role.
        DatabaseRight = "database-right",
        /// Whether the outbox is set up under this name.
        Outbox = "outbox",
        /// Whether it was set up for the configured mode.
        OutboxDelivery = "outbox-delivery",
        /// Whether this database is one of the accepted ones.
        Identity = "identity",
        /// A halt in the state row.
        Halted = "halted",
        /// A pause in the state row.
        Paused = "paused",
        /// Events that are set aside.
        Parked = "parked",
        /// Topics that are held.
        Held = "held",
        /// Who relays it now.
        Owner = "owner",
        /// Other outboxes of this schema.
        Neighbours = "neighbours",
    }
    Kafka {
        /// Whether a broker answers and lets us in.
        KafkaReachable = "kafka-reachable",
        /// How many there are.
        Brokers = "brokers",
        /// Whether a producer with transactions can be had.
        Transactions = "transactions",
        /// Whether the brokers allow the configured timeout.
        TransactionTimeout = "transaction-timeout",
        /// Replicas of what the brokers know of transactions.
        TransactionLog = "transaction-log",
        /// Whether the journal topic is there.
        Journal = "journal",
        /// One partition.
        JournalPartitions = "journal-partitions",
        /// `cleanup.policy`
        JournalCleanup = "journal-cleanup",
        /// `retention.ms` and `retention.bytes`
        JournalRetention = "journal-retention",
        /// `max.message.bytes`
        JournalRecordSize = "journal-record-size",
        /// Replicas.
        JournalReplicas = "journal-replicas",
        /// `min.insync.replicas`
        JournalInSync = "journal-in-sync",
        /// `unclean.leader.election.enable`
        JournalElection = "journal-election",
        /// READ, WRITE and DESCRIBE on it.
        JournalRights = "journal-rights",
        /// The right to let go of old records.
        JournalTrim = "journal-trim",
        /// Whether what it holds agrees with the database.
        JournalAgrees = "journal-agrees",
        /// How large it becomes.
        JournalGrowth = "journal-growth",
        /// Which event topics were looked at.
        Topics = "topics",
        /// Whether an event topic is there.
        Topic = "topic",
        /// Its partitions against the pinned count.
        TopicPartitions = "topic-partitions",
        /// Whether it is the one that was published to.
        TopicIdentity = "topic-identity",
        /// Whether what was acknowledged is still there, as far as the relay knows.
        TopicComplete = "topic-complete",
        /// Its replicas.
        TopicReplicas = "topic-replicas",
        /// Its `min.insync.replicas`.
        TopicInSync = "topic-in-sync",
        /// Its `unclean.leader.election.enable`.
        TopicElection = "topic-election",
        /// Its `cleanup.policy`.
        TopicCleanup = "topic-cleanup",
        /// Its `max.message.bytes`.
        TopicRecordSize = "topic-record-size",
        /// Which timestamps it takes.
        TopicTimestamps = "topic-timestamps",
        /// WRITE and DESCRIBE on it.
        TopicRights = "topic-rights",
    }
}

/// What kind of database is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A PostgreSQL server.
    Server,
    /// A SQLite file.
    File,
}

impl Kind {
    /// That of the configured database.
    pub fn of(config: &Config) -> Self {
        if config.database.url.file().is_some() { Self::File } else { Self::Server }
    }
}

/// What a file has and a server has not.
const OF_FILES: [Name; 2] = [Name::OneWriter, Name::WalMode];
/// What a server has and a file has not.
const OF_SERVERS: [Name; 15] = [
    Name::DatabaseVersion,
    Name::DatabasePrimary,
    Name::Fsync,
    Name::FullPageWrites,
    Name::Clock,
    Name::TableLogged,
    Name::TableInheritance,
    Name::TableSubscription,
    Name::Payload,
    Name::RowSecurity,
    Name::Rules,
    Name::UniqueNumbers,
    Name::Autovacuum,
    Name::InsertAndDelete,
    Name::OpenTransactions,
];

impl Name {
    /// Whether such a database has it.
    pub fn is_of(self, kind: Kind) -> bool {
        match kind {
            Kind::Server => !OF_FILES.contains(&self),
            Kind::File => !OF_SERVERS.contains(&self),
        }
    }

    /// Whether it is told once for each event topic, so that it is missing where there is none.
    pub fn is_by_topic(self) -> bool {
        self.as_str().starts_with("topic-") || self == Self::Topic
    }

    /// Whether it is about what only exactly-once delivery has.
    pub fn needs_journal(self) -> bool {
        let word = self.as_str();
        word.starts_with("journal") || word.starts_with("transaction")
    }
}
