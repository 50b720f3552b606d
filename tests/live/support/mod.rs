//! Real servers for the tests: each on free ports of 127.0.0.1, in a folder of its own below the system's temporary
//! folder, and gone when the test process is gone, however that ends.
//!
//! Reading order: `process` (children that cannot outlive us), `place` (folders, ports, the other user), `wait`
//! (the one way to wait), then the servers `postgres`, `pgbouncer`, `kafka`, the faults between them (`proxy`),
//! and `daemon`, the program under test.

pub mod acl;
pub mod certificates;
pub mod clock;
pub mod daemon;
pub mod disk;
pub mod kafka;
mod kafka_config;
pub mod pgbouncer;
pub mod place;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod standby;
pub mod wait;

pub use daemon::{Daemon, DaemonOptions};
pub use kafka::{Kafka, KafkaOptions};
pub use pgbouncer::PgBouncer;
pub use postgres::{Postgres, PostgresOptions, Version};
pub use proxy::{Proxy, Weather};
pub use wait::{eventually, eventually_async, eventually_get, let_pass};
