//! The fault matrix: what is done to whom, and for how long.

use std::time::Duration;

use fastrand::Rng;

/// How often topics get more partitions in one run: readers read the first ones only.
const GROWS: usize = 12;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A relay is killed, and started again later.
    KillRelay,
    /// The leading relay dies at a failpoint, and is started again.
    DieAtPoint,
    /// The leading relay stands still for more than twice its lease.
    StopRelay,
    /// The leading relay stands still for longer than its transaction may last.
    OversleepRelay,
    /// The leading relay is started again with other batch sizes.
    Reconfigure,
    /// A relay's clock is an hour off.
    WrongClock,
    /// The relays are stopped in order and started again, one after the other.
    RollingUpgrade,
    /// The leading relay gets no more memory than it has.
    MemoryLimit,
    /// The leading relay writes its log to a full disk.
    LogDiskFull,
    /// The leading relay reaches the database through a pooler.
    Pooler,
    /// The broker that leads the journal is killed.
    KillLeader,
    /// The broker that coordinates the transactions is killed.
    KillCoordinator,
    /// A broker stands still.
    PauseBroker,
    /// The brokers are stopped and started in turn.
    RollingRestart,
    /// A broker is killed, and a topic asks for as many replicas as there were.
    TooFewReplicas,
    /// The leading relay cannot reach the broker that leads the journal.
    CutFromLeader,
    /// The leading relay cannot reach the coordinator.
    CutFromCoordinator,
    /// The leading relay's network to Kafka stands still.
    FreezeKafka,
    /// It is slow.
    DelayKafka,
    /// It loses answers.
    DropAnswers,
    /// A commit is held back, its connection is cut, and it arrives late.
    HoldCommit,
    /// The same with records.
    HoldProduce,
    /// The answer to a commit is lost.
    LoseCommitAnswer,
    /// Somebody else claims the transactional id.
    ForeignProducer,
    /// The database is killed hard, and started again later.
    KillDatabase,
    /// It is restarted in order.
    RestartDatabase,
    /// A backend of a relay is killed: the server recovers.
    KillBackend,
    /// All relays' connections are ended.
    EndConnections,
    /// The leading relay's network to the database is cut.
    CutDatabase,
    /// It stands still.
    FreezeDatabase,
    /// It is slow.
    DelayDatabase,
    /// Somebody holds a snapshot and an uncommitted event for long.
    IdleTransaction,
    /// The standby, which has everything, takes over.
    SynchronousFailover,
    /// The standby, which lacks the last commits, takes over.
    AsynchronousFailover,
    /// Somebody empties the lease.
    WipeLease,
    /// Somebody empties the token table.
    TruncateToken,
    /// A topic gets more partitions.
    AddPartitions,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 37] = [
        Kind::KillRelay,
        Kind::DieAtPoint,
        Kind::StopRelay,
        Kind::OversleepRelay,
        Kind::Reconfigure,
        Kind::WrongClock,
        Kind::RollingUpgrade,
        Kind::MemoryLimit,
        Kind::LogDiskFull,
        Kind::Pooler,
        Kind::KillLeader,
        Kind::KillCoordinator,
        Kind::PauseBroker,
        Kind::RollingRestart,
        Kind::TooFewReplicas,
        Kind::CutFromLeader,
        Kind::CutFromCoordinator,
        Kind::FreezeKafka,
        Kind::DelayKafka,
        Kind::DropAnswers,
        Kind::HoldCommit,
        Kind::HoldProduce,
        Kind::LoseCommitAnswer,
        Kind::ForeignProducer,
        Kind::KillDatabase,
        Kind::RestartDatabase,
        Kind::KillBackend,
        Kind::EndConnections,
        Kind::CutDatabase,
        Kind::FreezeDatabase,
        Kind::DelayDatabase,
        Kind::IdleTransaction,
        Kind::SynchronousFailover,
        Kind::AsynchronousFailover,
        Kind::WipeLease,
        Kind::TruncateToken,
        Kind::AddPartitions,
    ];

    /// Its name in the report: that of the variant, in small letters.
    pub fn name(self) -> String {
        let words = format!("{self:?}");
        let apart = |letter: char| if letter.is_uppercase() { format!("-{}", letter.to_lowercase()) } else { letter.to_string() };
        words.chars().map(apart).collect::<String>().trim_start_matches('-').to_owned()
    }

    /// How often it can be made in one run, where that is bounded.
    pub fn most(self) -> usize {
        match self {
            Kind::DieAtPoint if points().is_empty() => 0,
            Kind::AddPartitions => GROWS,
            _ => usize::MAX,
        }
    }

    /// Whether it takes so long that a short run leaves it out.
    pub fn is_slow(self) -> bool {
        matches!(self, Kind::OversleepRelay | Kind::RollingRestart | Kind::RollingUpgrade)
    }

    /// How long it lasts: some are over at once.
    pub fn lasts(self, chance: &mut Rng) -> Duration {
        let (least, most) = match self {
            Kind::Reconfigure
            | Kind::RollingRestart
            | Kind::RollingUpgrade
            | Kind::ForeignProducer
            | Kind::RestartDatabase
            | Kind::KillBackend
            | Kind::EndConnections
            | Kind::SynchronousFailover
            | Kind::AsynchronousFailover
            | Kind::WipeLease
            | Kind::TruncateToken
            | Kind::AddPartitions => (0, 300),
            Kind::StopRelay => (4_500, 6_000),
            Kind::OversleepRelay => (20_500, 22_000),
            Kind::KillLeader | Kind::KillCoordinator | Kind::TooFewReplicas | Kind::HoldCommit | Kind::HoldProduce => (500, 6_000),
            Kind::MemoryLimit | Kind::LogDiskFull | Kind::Pooler => (2_000, 6_000),
            Kind::PauseBroker => (500, 12_000),
            Kind::KillRelay
            | Kind::DieAtPoint
            | Kind::WrongClock
            | Kind::CutFromLeader
            | Kind::CutFromCoordinator
            | Kind::FreezeKafka
            | Kind::DelayKafka
            | Kind::DropAnswers
            | Kind::LoseCommitAnswer
            | Kind::KillDatabase
            | Kind::CutDatabase
            | Kind::FreezeDatabase
            | Kind::DelayDatabase
            | Kind::IdleTransaction => (200, 4_000),
        };
        Duration::from_millis(chance.u64(least..=most))
    }
}

/// Names of the points at which a relay of this build can die while it works: none in a build without failpoints.
#[cfg(feature = "failpoints")]
pub fn points() -> Vec<&'static str> {
    use outboxd::failpoint::Point;
    let rare = [
        Point::Settling,
        Point::SettleWritten,
        Point::Settled,
        Point::Pinning,
        Point::Pinned,
        Point::SettingAside,
        Point::SetAside,
    ];
    Point::ALL.iter().filter(|point| !rare.contains(point)).map(|point| point.name()).collect()
}

/// None: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
pub fn points() -> Vec<&'static str> {
    Vec::new()
}
