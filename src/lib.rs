//! outboxd, a transactional outbox relay: a database table to Kafka, exactly once and in order per key.

pub mod cli;
pub mod commands;
pub mod config;
pub mod cursor;
pub mod daemon;
pub mod event;
pub mod fault;
pub mod heartbeat;
pub mod http;
pub mod identity;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod pace;
pub mod phase;
pub mod relay;
pub mod sink;
pub mod source;
pub mod stop;
pub mod waits;
