//! The failpoints of a build that has them: every point by name, the plan, and what a passing does.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::warn;

use crate::fault::{Cause, Fault};

/// The variable that holds the plan.
pub const VARIABLE: &str = "OUTBOXD_FAILPOINTS";

/// Of each point its name, and what is known when the step before it is taken for failed: nothing happened, or it may have.
macro_rules! points {
    ($($(#[doc = $doc:literal])+ $point:ident = $name:literal, $failure:expr;)+) => {
        /// A place on the way of a batch, called after what has just happened or is just happening. In the order of the way.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[doc = $doc])+ $point,)+ }

        impl Point {
            /// Every point, in the order of the way.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// Its name in a plan and in the log.
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)+ }
            }

            fn failure(self) -> Fault {
                match self { $(Self::$point => $failure,)+ }
            }
        }
    };
}

points! {
    /// Before the lease is renewed.
    Renewing = "renewing", database();
    /// Database and journal were looked at; nobody is fenced yet.
    Looked = "looked", database();
    /// Older owners are shut out of Kafka; the claim number is still theirs.
    Fenced = "fenced", kafka();
    /// The claim number is written; the journal is not read yet.
    Claimed = "claimed", database();
    /// The journal is read; nothing is settled.
    Recovered = "recovered", kafka();
    /// The rows of a journal record are found, the state row is locked, nothing is marked.
    Settling = "settling", database();
    /// They are marked; the transaction is open.
    SettleWritten = "settle-written", doubt(Cause::Settle);
    /// That is committed.
    Settled = "settled", doubt(Cause::Settle);
    /// Rows are read; nothing is done with them yet.
    Fetched = "fetched", database();
    /// A topic occurs for the first time; its pin is not written.
    Pinning = "pinning", database();
    /// It is.
    Pinned = "pinned", database();
    /// What cannot be published is known; nothing is parked or held yet.
    SettingAside = "setting-aside", database();
    /// It is parked or held.
    SetAside = "set-aside", database();
    /// A batch is to be sent; no transaction is open.
    Beginning = "beginning", kafka();
    /// Before each event of a batch is queued.
    Sending = "sending", kafka();
    /// All events are queued.
    Sent = "sent", kafka();
    /// All events are acknowledged; the journal does not know of them.
    Acknowledged = "acknowledged", kafka();
    /// The journal record is queued.
    Journalling = "journalling", kafka();
    /// The journal record is acknowledged where it was expected; the commit is not asked for.
    Committing = "committing", doubt(Cause::Commit);
    /// The commit is answered.
    Committed = "committed", doubt(Cause::Commit);
    /// A published batch is to be marked.
    Marking = "marking", database();
    /// The state row is locked and the claim number is ours.
    MarkLocked = "mark-locked", database();
    /// The rows are marked; the transaction is open.
    MarkWritten = "mark-written", doubt(Cause::Mark);
    /// That is committed.
    Marked = "marked", doubt(Cause::Mark);
}

const WHAT: &str = "a failpoint says so";

fn database() -> Fault {
    Fault::database("connection", WHAT)
}

fn kafka() -> Fault {
    Fault::kafka("kafka", WHAT)
}

fn doubt(cause: Cause) -> Fault {
    Fault::in_doubt(cause, WHAT)
}

/// A part of the protocol that a control leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A claim marks the rows that the journal has. Left out, only the batch numbers are taken note of.
    Settlement,
    /// After a late commit the producer is made anew.
    NewProducer,
    /// Numbers that were not seen are asked for again. Left out, only what is above the head is.
    Gaps,
    /// The journal's format of today is known. Left out, this is the program of a time before it.
    Format,
}

impl Part {
    /// Every part.
    pub const ALL: &[Self] = &[Self::Settlement, Self::NewProducer, Self::Gaps, Self::Format];

    /// How a plan leaves it out.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settlement => "without-settlement",
            Self::NewProducer => "without-new-producer",
            Self::Gaps => "without-gaps",
            Self::Format => "without-format",
        }
    }
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process dies by SIGABRT, so much later; the point goes on meanwhile.
    Kill(Duration),
    /// The process is stopped until somebody sends SIGCONT.
    Stop,
    /// Who passes the point waits; the others go on.
    Pause(Duration),
    /// The step is taken for failed.
    Fail,
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(Duration::ZERO) => out.write_str("kill"),
            Self::Kill(later) => write!(out, "kill({})", humantime::format_duration(*later)),
            Self::Stop => out.write_str("stop"),
            Self::Pause(time) => write!(out, "pause({})", humantime::format_duration(*time)),
            Self::Fail => out.write_str("fail"),
        }
    }
}

/// One thing that happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where.
    pub point: Point,
    /// What.
    pub action: Action,
    /// At which passing, counted from 1; at each one where there is none.
    pub passing: Option<u64>,
}

impl fmt::Display for Order {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}@", self.point.name(), self.action)?;
        match self.passing {
            Some(passing) => write!(out, "{passing}"),
            None => out.write_str("*"),
        }
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (point, rest) = text.split_once('=').ok_or_else(|| format!("{text}: not POINT=ACTION"))?;
        let (action, passing) = rest.split_once('@').unwrap_or((rest, "1"));
        let named = Point::ALL.iter().find(|known| known.name() == point);
        let passing = match passing {
            "*" => None,
            number => Some(number.parse().map_err(|_| format!("{text}: {number} is neither a number nor *"))?),
        };
        Ok(Self { point: *named.ok_or_else(|| format!("{text}: there is no point {point}"))?, action: action_of(action)?, passing })
    }
}

fn action_of(text: &str) -> Result<Action, String> {
    let (verb, time) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((verb, time)) => (verb, Some(humantime::parse_duration(time).map_err(|error| format!("{text}: {error}"))?)),
        None => (text, None),
    };
    match (verb, time) {
        ("kill", later) => Ok(Action::Kill(later.unwrap_or_default())),
        ("stop", None) => Ok(Action::Stop),
        ("pause", Some(time)) => Ok(Action::Pause(time)),
        ("fail", None) => Ok(Action::Fail),
        _ => Err(format!("{text}: neither kill, kill(TIME), stop, pause(TIME) nor fail")),
    }
}

/// Everything that is to happen, and what is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What happens where.
    pub orders: Vec<Order>,
    /// What is left out.
    pub lacking: Vec<Part>,
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match Part::ALL.iter().find(|part| part.name() == word) {
                Some(part) => plan.lacking.push(*part),
                None => plan.orders.push(word.parse()?),
            }
        }
        Ok(plan)
    }
}

/// The plan of this process. A wrong one ends it: a test that believes in a fault that never comes proves nothing.
fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        warn!(plan = text, "this build has failpoints: it is for tests only");
        text.parse().unwrap_or_else(|error| {
            eprintln!("error: {VARIABLE}: {error}");
            std::process::exit(2)
        })
    })
}

/// Whether the plan leaves this part of the protocol out.
pub fn is_left_out(part: Part) -> bool {
    plan().lacking.contains(&part)
}

/// Passes a point on a thread of its own.
///
/// # Errors
/// Where the plan says that the step failed.
pub fn hit(point: Point) -> Result<(), Fault> {
    match act(point) {
        Passing::On => Ok(()),
        Passing::After(time) => {
            std::thread::sleep(time);
            Ok(())
        }
        Passing::Failed => Err(point.failure()),
    }
}

/// Passes a point inside a task.
///
/// # Errors
/// Where the plan says that the step failed.
pub async fn hit_in_task(point: Point) -> Result<(), Fault> {
    match act(point) {
        Passing::On => Ok(()),
        Passing::After(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Passing::Failed => Err(point.failure()),
    }
}

/// What is left to do for whoever passes.
enum Passing {
    On,
    After(Duration),
    Failed,
}

fn act(point: Point) -> Passing {
    static PASSINGS: [AtomicU64; Point::ALL.len()] = [const { AtomicU64::new(0) }; Point::ALL.len()];
    let passing = 1 + PASSINGS[point as usize].fetch_add(1, Ordering::Relaxed);
    let is_due = |order: &&Order| order.point == point && order.passing.is_none_or(|at| at == passing);
    let Some(order) = plan().orders.iter().find(is_due) else { return Passing::On };
    warn!(point = point.name(), action = %order.action, passing, "failpoint");
    match order.action {
        Action::Kill(Duration::ZERO) => std::process::abort(),
        Action::Kill(later) => {
            std::thread::spawn(move || {
                std::thread::sleep(later);
                std::process::abort()
            });
            Passing::On
        }
        Action::Stop => {
            // SAFETY: a plain system call; the whole process stands still before it returns.
            unsafe { libc::raise(libc::SIGSTOP) };
            Passing::On
        }
        Action::Pause(time) => Passing::After(time),
        Action::Fail => Passing::Failed,
    }
}
