//! Tests that need no servers: the whole of it takes seconds.

mod relay;
mod sink;
#[path = "../conformance/sink.rs"]
mod sink_conformance;
