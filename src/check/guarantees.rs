//! What is promised, and what each promise rests on. A promise is only as good as the findings below it.

use super::{Finding, Kind, Name, State};

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Each committed event once.
    ExactlyOnce,
    /// Events of one key in causal order.
    OrderPerKey,
    /// No committed event is lost.
    NoLoss,
    /// Services never wait for the relay.
    WritersNeverWait,
    /// A copy of the database does not publish.
    CopiesDetected,
}

/// Whether a promise holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that it rests on is as it should be.
    Holds,
    /// It holds if what is named does no harm, or is as it should be where it could not be looked at.
    HoldsIf,
    /// What is named breaks it.
    DoesNotHold,
}

impl Verdict {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::HoldsIf => "holds if",
            Self::DoesNotHold => "does not hold",
        }
    }
}

/// A promise, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// Which.
    pub promise: Promise,
    /// Whether it holds.
    pub verdict: Verdict,
    /// All that it rests on.
    pub rests_on: Vec<Name>,
    /// What weakens or breaks it.
    pub because: Vec<Reason>,
}

/// One thing that weakens or breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What it is about.
    pub name: Name,
    /// Name, and which one, as the finding tells it.
    pub title: String,
    /// State of the finding, or [`NOT_LOOKED`].
    pub state: &'static str,
    /// What the promise would be with this alone.
    pub verdict: Verdict,
}

/// Of what has no finding at all: something before it failed, or nobody asked.
pub const NOT_LOOKED: &str = "not looked at";

/// What a finding that is not ok does to a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// The promise is void.
    Breaks,
    /// Void when it failed, in danger when it is a warning.
    Graded,
    /// The promise is in danger, or nothing is published at all.
    Endangers,
}

use Harm::{Breaks, Endangers, Graded};

/// What all rests on: without these nothing was looked at.
const GROUND: [(Name, Harm); 6] = [
    (Name::DatabaseReachable, Endangers),
    (Name::DatabaseVersion, Endangers),
    (Name::DatabasePrimary, Endangers),
    (Name::Table, Endangers),
    (Name::Schema, Endangers),
    (Name::KafkaReachable, Endangers),
];

const EXACTLY_ONCE: [(Name, Harm); 27] = [
    (Name::Delivery, Breaks),
    (Name::Fsync, Breaks),
    (Name::FullPageWrites, Endangers),
    (Name::TableLogged, Breaks),
    (Name::TableInheritance, Endangers),
    (Name::Columns, Endangers),
    (Name::Triggers, Endangers),
    (Name::Rules, Endangers),
    (Name::RowSecurity, Endangers),
    (Name::Identity, Endangers),
    (Name::Brokers, Endangers),
    (Name::Transactions, Endangers),
    (Name::TransactionTimeout, Endangers),
    (Name::TransactionLog, Endangers),
    (Name::Journal, Endangers),
    (Name::JournalPartitions, Endangers),
    (Name::JournalCleanup, Endangers),
    (Name::JournalRetention, Endangers),
    (Name::JournalReplicas, Endangers),
    (Name::JournalInSync, Endangers),
    (Name::JournalElection, Endangers),
    (Name::JournalRights, Endangers),
    (Name::JournalAgrees, Endangers),
    (Name::TopicReplicas, Endangers),
    (Name::TopicInSync, Endangers),
    (Name::TopicElection, Endangers),
    (Name::SynchronousCommit, Endangers),
];

const ORDER_PER_KEY: [(Name, Harm); 10] = [
    (Name::Delivery, Breaks),
    (Name::Order, Breaks),
    (Name::Poison, Endangers),
    (Name::Sequence, Endangers),
    (Name::FetchForm, Endangers),
    (Name::TableInheritance, Endangers),
    (Name::TableSubscription, Endangers),
    (Name::Topics, Endangers),
    (Name::Topic, Endangers),
    (Name::TopicPartitions, Endangers),
];

const NO_LOSS: [(Name, Harm); 22] = [
    (Name::Fsync, Breaks),
    (Name::FullPageWrites, Endangers),
    (Name::SynchronousCommit, Endangers),
    (Name::TableLogged, Breaks),
    (Name::UniqueNumbers, Endangers),
    (Name::RowSecurity, Graded),
    (Name::Triggers, Endangers),
    (Name::Rules, Endangers),
    (Name::InsertAndDelete, Breaks),
    (Name::OpenTransactions, Endangers),
    (Name::Brokers, Endangers),
    (Name::Topics, Endangers),
    (Name::Topic, Endangers),
    (Name::TopicIdentity, Endangers),
    (Name::TopicComplete, Breaks),
    (Name::TopicReplicas, Endangers),
    (Name::TopicInSync, Endangers),
    (Name::TopicElection, Endangers),
    (Name::TopicCleanup, Endangers),
    (Name::TopicRights, Endangers),
    (Name::DatabaseRight, Endangers),
    (Name::Halted, Endangers),
];

const WRITERS_NEVER_WAIT: [(Name, Harm); 6] = [
    (Name::OneWriter, Breaks),
    (Name::WalMode, Endangers),
    (Name::InsertAndDelete, Endangers),
    (Name::Triggers, Endangers),
    (Name::Rules, Endangers),
    (Name::Autovacuum, Endangers),
];

const COPIES_DETECTED: [(Name, Harm); 5] = [
    (Name::Delivery, Endangers),
    (Name::Identity, Graded),
    (Name::Outbox, Endangers),
    (Name::Journal, Endangers),
    (Name::JournalAgrees, Endangers),
];

impl Promise {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 5] = [Self::ExactlyOnce, Self::OrderPerKey, Self::NoLoss, Self::WritersNeverWait, Self::CopiesDetected];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::OrderPerKey => "order-per-key",
            Self::NoLoss => "no-loss",
            Self::WritersNeverWait => "writers-never-wait",
            Self::CopiesDetected => "copies-detected",
        }
    }

    /// The promise in one sentence, without its full stop.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "readers with isolation.level=read_committed see every committed event exactly once",
            Self::OrderPerKey => "events of one key come in causal order, in one partition",
            Self::NoLoss => "every committed row is published, whatever crashes in between",
            Self::WritersNeverWait => "a service that inserts never waits for the relay",
            Self::CopiesDetected => "a copy of this database does not publish beside it: it halts",
        }
    }

    fn rests_on(self) -> impl Iterator<Item = (Name, Harm)> {
        let own: &[(Name, Harm)] = match self {
            Self::ExactlyOnce => &EXACTLY_ONCE,
            Self::OrderPerKey => &ORDER_PER_KEY,
            Self::NoLoss => &NO_LOSS,
            Self::WritersNeverWait => &WRITERS_NEVER_WAIT,
            Self::CopiesDetected => &COPIES_DETECTED,
        };
        GROUND.iter().chain(own).copied()
    }
}

/// Judges each promise. `journalled`: whether the mode has a journal; what only that has, or only another kind of database, is not missed.
pub(super) fn follow(findings: &[Finding], journalled: bool, kind: Kind) -> Vec<Guarantee> {
    let asked = |name: Name| name.is_of(kind) && (journalled || !name.needs_journal());
    Promise::ALL.into_iter().map(|promise| judge(promise, findings, asked)).collect()
}

fn judge(promise: Promise, findings: &[Finding], asked: impl Fn(Name) -> bool) -> Guarantee {
    let rests_on: Vec<(Name, Harm)> = promise.rests_on().filter(|(name, _)| asked(*name)).collect();
    let mut because = Vec::new();
    for (name, harm) in &rests_on {
        let mut of_name = findings.iter().filter(|finding| finding.name == *name).peekable();
        if of_name.peek().is_none() && !name.is_by_topic() {
            because.push(Reason { name: *name, title: name.as_str().into(), state: NOT_LOOKED, verdict: Verdict::HoldsIf });
        }
        for finding in of_name.filter(|finding| finding.state != State::Ok) {
            let verdict = harmed(*harm, finding.state);
            because.push(Reason { name: *name, title: finding.title(), state: finding.state.as_str(), verdict });
        }
    }
    let verdict = because.iter().map(|reason| reason.verdict).fold(Verdict::Holds, worse);
    Guarantee { promise, verdict, rests_on: rests_on.into_iter().map(|(name, _)| name).collect(), because }
}

fn harmed(harm: Harm, state: State) -> Verdict {
    match (harm, state) {
        (_, State::Ok) => Verdict::Holds,
        (_, State::Unseen) | (Harm::Endangers, _) | (Harm::Graded, State::Warning) => Verdict::HoldsIf,
        (Harm::Breaks, State::Warning | State::Failed(_)) | (Harm::Graded, State::Failed(_)) => Verdict::DoesNotHold,
    }
}

fn worse(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Verdict::DoesNotHold, _) | (_, Verdict::DoesNotHold) => Verdict::DoesNotHold,
        (Verdict::HoldsIf, _) | (_, Verdict::HoldsIf) => Verdict::HoldsIf,
        (Verdict::Holds, Verdict::Holds) => Verdict::Holds,
    }
}
