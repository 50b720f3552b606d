//! outboxd, a transactional outbox relay: a database table to Kafka, exactly once and in order per key.
//!
//! # The way of an event
//!
//! ```text
//! outbox table --fetch--> Batch --publish--> Kafka: events + journal record, one transaction
//!      ^                                              |
//!      +------------------- mark ---------------------+
//! ```
//! A service inserts a row in its own transaction. The [`relay`] *fetches* unsent rows in order as a [`Batch`](event::Batch), *publishes*
//! them together with a record that says which they were (the [`journal`]), and *marks* them. Three batches are under way at once, but
//! never two transactions.
//!
//! # The guarantee
//!
//! Whoever reads committed records sees every committed row exactly once, in order per key. It does not rest on the mark: a process may
//! die between publishing and marking, and no flag in the database could tell. It rests on the journal, whose record is committed
//! together with the events. Whoever takes over *claims*: shuts older owners out, reads the journal to its end, and *settles*, which is
//! to mark what the journal has and the table lacks. `docs/guarantees.md` gives the protocol with its reasons.
//!
//! Whatever goes wrong is a [`Fault`](fault::Fault): it says what is known, and one match says what to do: back off, claim, step down,
//! leave, or halt until a person has looked.
//!
//! # Reading order
//!
//! 1. [`phase`]: the states in one picture.
//! 2. [`relay`]: the loop, which names no database and no log.
//! 3. [`source`] and [`sink`]: the two seams. Their types allow the right order only: no publisher without a fence and a read journal, no
//!    mark without something published.
//! 4. [`journal`], [`cursor`], [`identity`], [`fault`], [`event`]: pure, and where the reasons are.
//! 5. [`source::postgres`], [`source::sqlite`] and [`sink::kafka`]: the seams served;
//!    [`source::memory`] and [`sink::memory`]: their twins for tests.
//! 6. [`daemon`]: the process around the relay: lease, standby, signals; with [`http`], [`metrics`], [`log`].
//! 7. [`cli`], [`commands`], [`config`]: what a person touches. [`demo`] plays all of it on one machine.
//!
//! Dependencies point one way: `cli → commands → daemon → relay → {source, sink} → event, journal, cursor, fault`.

pub mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod cursor;
pub mod daemon;
pub mod demo;
pub mod event;
pub mod failpoint;
pub mod fault;
pub mod heartbeat;
pub mod http;
pub mod identity;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod pace;
pub mod park;
pub mod phase;
pub mod reconcile;
pub mod relay;
pub mod sink;
pub mod source;
pub mod stop;
pub mod trace;
pub mod verify;
pub mod waits;
