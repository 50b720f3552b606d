//! Tests with real servers: see `support`. `scripts/test` prepares what they need and runs them with few threads.

#[path = "../conformance/sink.rs"]
mod sink_conformance;
#[path = "../conformance/source.rs"]
mod source_conformance;
#[allow(dead_code, unused_imports, reason = "the support module offers more than each stage of the tests uses")]
mod support;

mod kafka_faults;
mod kafka_sink;
mod kafka_world;
mod postgres;
mod smoke;
