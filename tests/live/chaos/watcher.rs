//! A reader of committed records that reads all the while. What it has seen must be there in the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::checker::{Kind, Place, Violation};
use crate::support::Kafka;

/// Of each place the event that was seen there.
type Places = HashMap<(Arc<str>, i32, i64), Option<Uuid>>;

/// A reader at work.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Places>,
}

impl Watcher {
    /// Begins to read all partitions of all topics.
    pub fn start(kafka: &Kafka, topics: &BTreeMap<String, i32>) -> Watcher {
        let mut config = kafka.client();
        config.set("group.id", "watcher").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.set("reconnect.backoff.max.ms", "500").create().unwrap();
        let mut all = TopicPartitionList::new();
        for (topic, count) in topics {
            (0..*count).for_each(|partition| all.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
        }
        consumer.assign(&all).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let names: Vec<Arc<str>> = topics.keys().map(|topic| topic.as_str().into()).collect();
        let thread = std::thread::spawn(move || read(&consumer, &names, &asked));
        Watcher { stop, thread }
    }

    /// Stops reading; gives everything that was seen and is not there, or is another event there, in the end.
    pub fn vanished(self, seen: &[Place]) -> Vec<Violation> {
        self.stop.store(true, Ordering::Relaxed);
        let places = self.thread.join().expect("the reader does not panic");
        println!("chaos: the reader saw {} of {} records on the way", places.len(), seen.len());
        assert!(places.len() * 2 > seen.len(), "the reader has read");
        let there: Places = seen.iter().map(|place| ((place.topic.clone(), place.partition, place.offset), place.id)).collect();
        let gone = places.iter().filter(|(place, id)| there.get(*place) != Some(id));
        gone.map(|(place, id)| Violation { kind: Kind::Vanished, what: format!("{id:?} at {place:?}") }).collect()
    }
}

fn read(consumer: &BaseConsumer, names: &[Arc<str>], asked: &AtomicBool) -> Places {
    let mut places = Places::new();
    while !asked.load(Ordering::Relaxed) {
        // errors pass: brokers come and go
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let topic = names.iter().find(|name| ***name == *message.topic()).expect("it reads these topics").clone();
            places.insert((topic, message.partition(), message.offset()), id(&message));
        }
    }
    places
}

fn id(message: &BorrowedMessage<'_>) -> Option<Uuid> {
    let header = message.headers()?.iter().find(|header| header.key == "id")?;
    std::str::from_utf8(header.value?).ok()?.parse().ok()
}
