//! Failpoints: named places on the way of a batch where a test makes the process die, stand still, or take a step for failed.
//!
//! Only builds with the feature `failpoints` have them, and those are never shipped: in any other build `pass!` is nothing, `lacks!`
//! is `false`, and this module is empty. `OUTBOXD_FAILPOINTS` says what happens where:
//!
//! ```text
//! committing=kill@3, marked=fail@*, sending=pause(50ms)@7, without-settlement
//! ```
//! At its third passing of a point the process dies; at each one (`*`) a step fails; `@1` where nothing is said. `stop` is SIGSTOP to the
//! process, `kill(2ms)` dies so much later while the point goes on. What is called `without-…` leaves a part of the protocol out, so that a
//! test can show that its checker sees the harm.

#[cfg(feature = "failpoints")]
mod armed;

#[cfg(feature = "failpoints")]
pub use armed::{Action, Order, Part, Plan, Point, VARIABLE, hit, hit_in_task, is_left_out};

/// Passes a point in a function that returns a `Result<_, Fault>`; with `await` in an `async` one.
#[cfg(feature = "failpoints")]
macro_rules! pass {
    ($point:ident) => {
        $crate::failpoint::hit($crate::failpoint::Point::$point)?
    };
    ($point:ident, await) => {
        $crate::failpoint::hit_in_task($crate::failpoint::Point::$point).await?
    };
}

/// Nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
macro_rules! pass {
    ($point:ident $(, await)?) => {};
}

/// Whether a part of the protocol is left out.
#[cfg(feature = "failpoints")]
macro_rules! lacks {
    ($part:ident) => {
        $crate::failpoint::is_left_out($crate::failpoint::Part::$part)
    };
}

/// Nothing is ever left out: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
macro_rules! lacks {
    ($part:ident) => {
        false
    };
}

pub(crate) use lacks;
pub(crate) use pass;
