//! The step relation: everything that may happen next. Each file adds its steps.

use crate::relay::{Cursor, Phase, Relay};
use crate::rules::{Rule, Rules};
use crate::state::{Budget, Database, State};
use crate::world::World;

/// Names of the two relays.
pub const NAMES: [&str; 2] = ["A", "B"];

/// A configuration under rules.
pub struct Model {
    pub world: &'static World,
    pub rules: Rules,
}

/// Situations that a search must have met, or it proves little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    Crashed,
    WentBack,
    Restarted,
    Truncated,
    RolledBack,
    LateFrameEnded,
    LateFrameInVain,
    TimedOut,
    Fenced,
    AbortedByInit,
    JournalMoved,
    LateCommit,
    LostAnswer,
    Stale,
    Settled,
    SettledTwo,
    ClaimChanged,
    TokenMissing,
    MarkRefused,
    MarkBesidePublish,
    FetchedAhead,
    GapOpened,
    GapFilled,
    GapDied,
    Trimmed,
    EvidenceGone,
    Halted,
    Parked,
    ParkRefused,
    Retried,
    Discarded,
    Refused,
    FileChanged,
    SequenceWentBack,
    Scanned,
    OtherTime,
}

impl Hit {
    pub const ALL: [Self; 36] = [
        Self::Crashed,
        Self::WentBack,
        Self::Restarted,
        Self::Truncated,
        Self::RolledBack,
        Self::LateFrameEnded,
        Self::LateFrameInVain,
        Self::TimedOut,
        Self::Fenced,
        Self::AbortedByInit,
        Self::JournalMoved,
        Self::LateCommit,
        Self::LostAnswer,
        Self::Stale,
        Self::Settled,
        Self::SettledTwo,
        Self::ClaimChanged,
        Self::TokenMissing,
        Self::MarkRefused,
        Self::MarkBesidePublish,
        Self::FetchedAhead,
        Self::GapOpened,
        Self::GapFilled,
        Self::GapDied,
        Self::Trimmed,
        Self::EvidenceGone,
        Self::Halted,
        Self::Parked,
        Self::ParkRefused,
        Self::Retried,
        Self::Discarded,
        Self::Refused,
        Self::FileChanged,
        Self::SequenceWentBack,
        Self::Scanned,
        Self::OtherTime,
    ];
}

/// What may happen next, each with its story when somebody listens.
#[derive(Default)]
pub struct Steps {
    pub found: Vec<State>,
    pub told: Option<Vec<String>>,
    pub hits: u64,
}

impl Steps {
    /// That tell what happens.
    pub fn told() -> Self {
        Self { told: Some(Vec::new()), ..Self::default() }
    }

    pub fn push(&mut self, state: State, tell: impl FnOnce() -> String) {
        self.found.push(state);
        if let Some(told) = &mut self.told {
            told.push(tell());
        }
    }

    pub fn hit(&mut self, hit: Hit) {
        self.hits |= 1 << hit as u64;
    }

    pub fn clear(&mut self) {
        self.found.clear();
        self.told.iter_mut().for_each(Vec::clear);
    }
}

impl Model {
    pub fn keeps(&self, rule: Rule) -> bool {
        self.rules.keep(rule)
    }

    /// Takes one from what may still happen.
    pub fn spend(&self, left: &mut u8) -> bool {
        let any = *left > 0;
        *left -= u8::from(any && *left != u8::MAX);
        any
    }

    /// The world before its first step.
    pub fn start(&self) -> State {
        let database = Database { claim: 1, timeline: 1, file: 1, ..Database::default() };
        let mut state = State { databases: [database, Database::default()], budget: self.world.budget, ..State::default() };
        (0..self.world.committed).for_each(|at| self.commit_at_once(&mut state, at));
        state
    }

    /// Everything that may happen next.
    pub fn steps(&self, state: &State, out: &mut Steps) {
        self.writer_steps(state, out);
        self.weather_steps(state, out);
        (0..self.world.relays).for_each(|relay| self.relay_steps(state, relay, out));
    }

    /// What a process does, and its crash.
    pub fn relay_steps(&self, state: &State, r: usize, out: &mut Steps) {
        let relay = &state.relays[r];
        let mut next = *state;
        if relay.phase != Phase::Dead && self.spend(&mut next.budget.crashes) {
            next.relays[r] = Relay::default();
            out.hit(Hit::Crashed);
            out.push(next, || format!("{}: CRASH", NAMES[r]));
        }
        match relay.phase {
            Phase::Dead => {
                let mut next = *state;
                if self.has_home(state, r) && self.spend(&mut next.budget.starts) {
                    self.again(&mut next, r);
                    out.push(next, || format!("{}: starts", NAMES[r]));
                }
            }
            Phase::Relay => self.loop_steps(state, r, out),
            _ => self.claim_steps(state, r, out),
        }
    }

    /// The database of a relay: the second one has the copy, or stayed with the old primary.
    pub fn home(&self, state: &State, r: usize) -> usize {
        usize::from(r == 1 && state.split)
    }

    fn has_home(&self, state: &State, r: usize) -> bool {
        r == 0 || self.world.foreign == 0 || state.split
    }

    /// Which transactional id a relay uses.
    pub fn id(&self, r: usize) -> usize {
        if self.keeps(Rule::SharedId) { 0 } else { r }
    }

    /// Whether a relay's producer is the current one.
    pub fn owns_log(&self, state: &State, r: usize) -> bool {
        state.log.producers[self.id(r)].owner as usize == r + 1
    }

    /// Throws away what was fetched and what is under way, and begins anew. What was refused is remembered.
    pub fn again(&self, state: &mut State, r: usize) {
        let Relay { search, suspects, .. } = state.relays[r];
        let early = !self.keeps(Rule::JournalAfterInit) || !self.keeps(Rule::AppliedAfterInit);
        let look = (self.world.looks || early) && self.keeps(Rule::LookFirst);
        let phase = if look { Phase::LookDatabase } else { Phase::Fence };
        state.relays[r] = Relay { phase, search, suspects, ..Relay::default() };
    }

    /// Pushes the state in which a relay begins anew.
    pub fn push_again(&self, state: &State, r: usize, out: &mut Steps, why: &str) {
        let mut next = *state;
        self.again(&mut next, r);
        out.push(next, || format!("{}: {why}: claims", NAMES[r]));
    }

    /// A cursor that knows nothing.
    pub fn fresh_cursor(&self) -> Cursor {
        if self.world.cursor { Cursor::Unknown } else { Cursor::FullOnly }
    }
}

impl Budget {
    /// Nothing more befalls anybody, and claims have no end.
    pub fn calm() -> Self {
        Self { claims: u8::MAX, starts: u8::MAX, ..Self::default() }
    }
}
