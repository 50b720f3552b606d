//! Tests that need no servers: the whole of it takes seconds.

#[path = "../conformance/sink.rs"]
mod sink_conformance;

mod cli;
mod daemon;
mod documents;
mod relay;
mod sink;
mod tidy;
