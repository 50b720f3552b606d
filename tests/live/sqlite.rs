//! An outbox in a SQLite file, under the real binary and a real Kafka: killed, and with its file taken away, replaced and put back.

mod check;
mod instances;
mod killed;
mod past;
mod proof;
mod scene;
mod smoke;
mod writers;
