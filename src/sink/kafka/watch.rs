//! Waiting for one event to be published: what `send --wait` does.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::journal::{Bounds, Reader, Stop, Until};
use super::{KafkaSink, Shared, blocking};
use crate::event::Fingerprint;
use crate::fault::Fault;
use crate::journal::Record;

/// Where an event was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Topic in Kafka.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Watches the journal from the moment it was made.
pub struct Watch {
    shared: Arc<Shared>,
    reader: Reader,
    bounds: Bounds,
}

impl KafkaSink {
    /// Begins to watch the journal. To be called before the event is written, so that it cannot be missed.
    pub async fn watch(&self) -> Result<Watch, Fault> {
        if !self.has_journal() {
            let detail = "with kafka.delivery = \"at_least_once\" nothing records where an event went".to_owned();
            return Err(Fault::Misconfigured { detail, remedy: "Leave --wait out".to_owned() });
        }
        let shared = Arc::clone(&self.shared);
        blocking::run("kafka-watch", move |caller| {
            let reader = Reader::open(&shared)?;
            let bounds = reader.bounds(caller)?;
            Ok(Watch { shared, reader, bounds })
        })
        .await
    }
}

impl Watch {
    /// Waits until the event is published, for as long as `most`. Nothing when it was not published by then. Without `seq` the
    /// fingerprint alone decides.
    pub async fn find(self, seq: Option<i64>, fingerprint: Fingerprint, most: Duration) -> Result<Option<Place>, Fault> {
        let Self { shared, reader, bounds } = self;
        blocking::run("kafka-watch", move |caller| {
            let mut found = None;
            let until = Until::Moment(Instant::now() + most);
            let read = reader.read(bounds.stable, bounds, until, caller, |_, bytes| {
                found = Record::decode(bytes).ok().and_then(|(record, _)| place(&record, seq, fingerprint));
                Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            match read {
                Ok(_) => Ok(found),
                Err(Stop::Fault(fault)) => Err(fault),
                Err(Stop::OutOfRange | Stop::Blocked(_)) => {
                    Err(Fault::kafka("journal_missing", format!("the journal {} was cut while it was watched", shared.journal)))
                }
            }
        })
        .await
    }
}

fn place(record: &Record, seq: Option<i64>, fingerprint: Fingerprint) -> Option<Place> {
    let entry = record.entries.iter().find(|entry| seq.is_none_or(|seq| seq == entry.seq) && entry.fingerprint == fingerprint)?;
    let topic = record.topics.get(entry.topic as usize)?.clone();
    Some(Place { topic, partition: entry.partition, offset: entry.offset })
}
