//! Tests that need no servers: the whole of it takes seconds.

#[path = "../conformance/sink.rs"]
mod sink_conformance;
#[path = "../conformance/source.rs"]
#[allow(dead_code, unused_imports, reason = "two of its sentences are about what memory does not have")]
mod source_conformance;

mod cli;
mod daemon;
mod demo;
mod documents;
mod failpoints;
mod log;
mod numbers;
mod packaging;
mod pages;
mod reference;
mod relay;
mod sink;
mod source;
mod sqlite;
mod systemd;
mod tidy;
