//! outboxd, a transactional outbox relay: a database table to Kafka, exactly once and in order per key.

pub mod cursor;
pub mod event;
pub mod fault;
pub mod journal;
pub mod metrics;
pub mod phase;
pub mod sink;
pub mod source;
pub mod waits;
