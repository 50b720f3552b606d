//! Tests with real servers: see `support`. `scripts/test` prepares what they need and runs them with few threads.
//!
//! Of the tests with the real binary, in reading order: `truth` (what writers know), `workload` (the writers), `history` and `account`
//! (what readers and the journal say), `checker` (what is wrong), `stage` (an outbox with all that belongs to it).

#[path = "../conformance/sink.rs"]
mod sink_conformance;
#[path = "../conformance/source.rs"]
mod source_conformance;
#[allow(dead_code, unused_imports, reason = "the support module offers more than each stage of the tests uses")]
mod support;

mod account;
mod checker;
mod history;
mod stage;
mod truth;
mod workload;

mod chaos;
mod chaos_identity;
mod chaos_instances;
mod chaos_journal;
mod chaos_kafka;
mod chaos_kill;
mod chaos_postgres;
mod chaos_storm;
mod check;
mod commands;
mod disks;
mod end_to_end;
#[cfg(feature = "failpoints")]
mod failpoints;
mod grants;
mod halts;
mod hands;
mod identities;
mod memory;
mod moving;
mod outages;
mod poison;
mod proof_scans;
mod reconcile;
mod renaming;
mod speed;
mod steering;
mod tables;
mod tour;
mod trace;
mod verify;
mod ways_out;
mod writers;

mod kafka_faults;
mod kafka_losses;
mod kafka_rights;
mod kafka_security;
mod kafka_sink;
mod kafka_world;
mod postgres;
mod smoke;
mod sqlite;
