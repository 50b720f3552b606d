//! Transactional outbox relay: a database table to Kafka, exactly once and in order per key.

pub mod config;
