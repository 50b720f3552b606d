//! Tests with real servers: see `support`. `scripts/test` prepares what they need and runs them with few threads.

#[path = "../conformance/mod.rs"]
mod conformance;
#[allow(dead_code, unused_imports, reason = "the support module offers more than each stage of the tests uses")]
mod support;

#[path = "../conformance/sink.rs"]
mod sink_conformance;
mod postgres;
mod smoke;

mod kafka_sink;
mod kafka_world;
