//! Tests that need no servers: the whole of it takes seconds.

mod relay;
mod tidy;
