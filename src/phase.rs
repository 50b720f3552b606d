//! What the relay is doing: one word that is the gauge, the field of `status` and the word in the log.
//!
//! ```text
//!             lease               identities, journal        fenced              journal settled
//!  standby ----------> looking ----------------> claiming ----------> settling ----------------> relaying --+
//!     ^                 ^  |  \                    |                    |                          |        |
//!     | lease lost      |  |   \ halt twice        | fault              | fault             fault  |        | stop
//!     |                 |  |    v                  v                    v                          v        v
//!     +-----------------+--+-- halted           backing_off <-------------------------------------+     draining
//!                       |        |                 |                                                        |
//!                       +--------+ evidence gone   |                                                        v
//!                       +--------------------------+ pause over                                          stopped
//!
//!  settling --> paused, where a person said so --> looking, when resumed
//! ```

use std::fmt;

/// The state of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Another process holds the lease, or the database is a standby.
    Standby,
    /// Identities and journal are looked at; nobody is fenced.
    Looking,
    /// Older owners are fenced and the journal is read.
    Claiming,
    /// What the journal has and the table lacks is marked.
    Settling,
    /// A person said so: settled, publishes nothing until resumed.
    Paused,
    /// Fetch, publish, mark.
    Relaying,
    /// A fault: waits before the next look.
    BackingOff,
    /// Going on cannot be proved safe: waits for a person, looking now and then.
    Halted,
    /// Asked to stop: finishes what was begun.
    Draining,
    /// The end.
    Stopped,
}

impl Phase {
    /// Every phase, for gauges that must exist from the start.
    pub const ALL: [Self; 10] = [
        Self::Standby,
        Self::Looking,
        Self::Claiming,
        Self::Settling,
        Self::Paused,
        Self::Relaying,
        Self::BackingOff,
        Self::Halted,
        Self::Draining,
        Self::Stopped,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Looking => "looking",
            Self::Claiming => "claiming",
            Self::Settling => "settling",
            Self::Paused => "paused",
            Self::Relaying => "relaying",
            Self::BackingOff => "backing_off",
            Self::Halted => "halted",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
