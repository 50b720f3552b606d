//! Kafka passes what every log must pass, and what only a real one can be asked.

use crate::kafka_world::KafkaWorld;
use crate::sink_conformance as suite;

macro_rules! run {
    ($name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            suite::$name(KafkaWorld::new().await).await;
        }
    };
}
suite::each!(run);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_halts() {
    suite::a_damaged_journal_halts(KafkaWorld::new().await, KafkaWorld::new).await;
}
