//! Publishing, over the simulated Kafka: events, all acknowledged; then the journal record, exactly where the journal ended; then the
//! commit. The rules are those of `src/sink/kafka/worker.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard};

use outboxd::event::{Batch, Event};
use outboxd::fault::{Cause, Fault};
use outboxd::journal::{Applied, Checksum, Entry, Record, Writer};
use outboxd::park::{Ailing, SetAside, Unfit};
use outboxd::sink::{Commit, Inspection, Noted, Published, Publisher, forged};
use outboxd::source::{Pin, Pins};
use tokio::time::Instant;

use super::kafka::{Content, GROWN, JOURNAL, Outcome, TOPICS, TRANSACTION_TIMEOUT};
use super::mutants::Mutant;
use super::producer::Producer;
use super::sink::unreachable;
use super::world::{Stage, World, index_of};

/// The end of the journal.
#[derive(Clone, Debug)]
pub struct Place {
    pub writer: Writer,
    pub last: Applied,
    pub end: i64,
}

/// Publishes batches.
pub struct SimPublisher {
    producer: Producer,
    place: Place,
    /// After a fault only a new claim tells what was published.
    ended: bool,
    /// Pinned topics.
    pins: Pins,
    /// A mutant's: the batch before is not committed yet.
    uncommitted: bool,
}

fn ended() -> Fault {
    Fault::in_doubt(Cause::Publish, "this publisher has ended")
}

fn unfit(seq: i64, id: outboxd::event::Identity, code: &'static str) -> Unfit {
    Unfit { seq, id, code, detail: "simulated".into() }
}

/// Where a partition is among all of them.
pub fn lane(topic: &str, partition: i32) -> usize {
    let topic = TOPICS.iter().position(|known| *known == topic).unwrap_or_default();
    topic * GROWN as usize + partition as usize
}

impl SimPublisher {
    pub fn new(producer: Producer, place: Place) -> Self {
        Self { producer, place, ended: false, pins: Pins::new(), uncommitted: false }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.producer.sink.net.world.lock()
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.world().is(mutant)
    }

    fn stage(&self, stage: Stage) {
        let process = self.producer.sink.net.process;
        self.world().stage(process, stage);
    }

    /// Partition of an event's key, over the pinned count.
    fn partition(&self, event: &Event<'_>) -> i32 {
        let pinned = self.pins.get(event.topic).map(|pin| pin.partitions).filter(|_| !self.is(Mutant::PinIgnored));
        let partitions = pinned.unwrap_or_else(|| self.world().partitions(event.topic));
        event.key.map_or(0, |key| key.iter().map(|byte| i32::from(*byte)).sum::<i32>() % partitions)
    }

    /// All events in order, lane by lane; returns where they lie, in the order of the batch.
    async fn send(&mut self, batch: &Batch, until: Instant) -> Result<Vec<Entry>, Fault> {
        let mut lanes: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (position, event) in batch.events().enumerate() {
            let index = index_of(event.id.uuid().unwrap_or_default());
            lanes.entry(lane(event.topic, self.partition(&event))).or_default().push((position, index));
        }
        let mut entries: Vec<Entry> = batch
            .events()
            .enumerate()
            .map(|(position, event)| Entry {
                seq: event.seq,
                fingerprint: event.fingerprint(),
                topic: batch.topic_index(position) as u32,
                partition: self.partition(&event),
                offset: -1,
            })
            .collect();
        for (lane, mut events) in lanes {
            if self.is(Mutant::SendIgnored) && self.world().chance(10) {
                events.pop();
            }
            let contents: Vec<Content> = events.iter().map(|(_, index)| Content::Event(*index)).collect();
            if contents.is_empty() {
                continue;
            }
            match self.producer.produce(lane, contents, until).await? {
                Ok(first) => events.iter().zip(first..).for_each(|((position, _), offset)| entries[*position].offset = offset),
                Err(index) => return Err(self.refusal(batch, index)),
            }
        }
        Ok(entries)
    }

    /// A batch is refused as a whole; which event it was is known when it was sent in a request of its own.
    fn refusal(&self, batch: &Batch, index: usize) -> Fault {
        let mut world = self.world();
        world.hit("the brokers refused an event");
        if batch.len() > 1 && world.chance(500) {
            return Fault::in_doubt(Cause::Search, "one of several events was refused");
        }
        let found = batch.events().find(|event| index_of(event.id.uuid().unwrap_or_default()) == index);
        found.map_or_else(ended, |event| unfit(event.seq, event.id.into(), "too_large").into())
    }

    fn record(&self, topics: Vec<String>, entries: Vec<Entry>) -> (Vec<u8>, Applied) {
        let (n, previous) = (self.place.last.n + 1, self.place.last.checksum);
        let (bytes, checksum) = Record { writer: self.place.writer.clone(), n, previous, topics, entries }.encode();
        (bytes, Applied { n, offset: self.place.end, checksum })
    }

    async fn send_journal(&mut self, bytes: Vec<u8>, at: Applied, until: Instant) -> Result<i64, Fault> {
        let found = self.producer.produce(JOURNAL, vec![Content::Journal(bytes)], until).await?.map_err(|_| ended())?;
        if found != at.offset {
            self.world().hit("the journal record did not lie where it should");
            if !self.is(Mutant::NoExpectedOffset) {
                let detail = format!("batch {} was to lie at offset {}, it lies at {found}", at.n, at.offset);
                return Err(Fault::in_doubt(Cause::JournalMoved, detail));
            }
        }
        Ok(found)
    }

    async fn transact(&mut self, batch: Option<&Batch>) -> Result<(Applied, Commit), Fault> {
        if std::mem::take(&mut self.uncommitted) {
            self.producer.end(Outcome::Committed).await?;
        }
        self.producer.begin().await?;
        let until = Instant::now() + TRANSACTION_TIMEOUT;
        self.stage(Stage::Sending);
        let topics: Vec<String> = batch.iter().flat_map(|batch| batch.topics()).map(ToString::to_string).collect();
        let first = self.is(Mutant::JournalFirst);
        let mut at = Applied { n: 0, offset: 0, checksum: Checksum(0) };
        if let (true, Some(batch)) = (first, batch) {
            let entries = batch.events().enumerate().map(|(position, event)| Entry {
                seq: event.seq,
                fingerprint: event.fingerprint(),
                topic: batch.topic_index(position) as u32,
                partition: self.partition(&event),
                offset: 0,
            });
            let (bytes, applied) = self.record(topics.clone(), entries.collect());
            at = Applied { offset: self.send_journal(bytes, applied, until).await?, ..applied };
        }
        let entries = match batch {
            Some(batch) => self.send(batch, until).await?,
            None => Vec::new(),
        };
        self.stage(Stage::Acknowledged);
        if !first || batch.is_none() {
            let (bytes, applied) = self.record(topics, entries);
            at = Applied { offset: self.send_journal(bytes, applied, until).await?, ..applied };
        }
        self.stage(Stage::Committing);
        if self.is(Mutant::MarkBeforeCommit) {
            self.uncommitted = true;
            (self.place.last, self.place.end) = (at, at.offset + 2);
            return Ok((at, Commit::Prompt));
        }
        let late = self.producer.end(Outcome::Committed).await?;
        self.stage(Stage::Committed);
        (self.place.last, self.place.end) = (at, at.offset + 2);
        if late {
            self.world().hit("a commit was late");
            if !self.is(Mutant::NoNewProducer) {
                self.producer.retire();
            }
        }
        Ok((at, if late { Commit::Late } else { Commit::Prompt }))
    }

    /// A mutant aborts, and goes on with the same producer after the next claim.
    async fn abort(&mut self) {
        if self.producer.end(Outcome::Aborted).await.is_ok() {
            *self.producer.sink.kept.lock().expect("nobody panics with it") = self.producer.kept();
        }
    }

    /// Retries in place what has an unknown outcome, where a mutant wants it.
    async fn publish_batch(&mut self, batch: &Batch) -> Result<(Applied, Commit), Fault> {
        let done = self.transact(Some(batch)).await;
        if let (Err(Fault::InDoubt { cause: Cause::Commit, .. }), true) = (&done, self.is(Mutant::RetryInPlace)) {
            self.producer.retire();
            return self.transact(Some(batch)).await;
        }
        done
    }
}

impl Publisher for SimPublisher {
    async fn inspect(&mut self, batch: &Arc<Batch>, pins: &Pins) -> Result<Inspection, Fault> {
        let topics: BTreeSet<String> = batch.topics().iter().map(ToString::to_string).collect();
        let ailing = self.ailing(&topics, pins).await?;
        let world = self.world();
        let is_unfit = |index: usize| world.happened[index].unfit;
        let found = batch.events().filter(|event| is_unfit(index_of(event.id.uuid().unwrap_or_default())));
        let unfit = found.map(|event| unfit(event.seq, event.id.into(), "malformed_headers")).collect();
        let new = topics.into_iter().filter(|topic| !pins.contains_key(topic) && !world.kafka.missing.contains(topic.as_str()));
        let pin = |topic: &str| Pin { since: self.place.last.n, id: Some("id".into()), ..Pin::of(world.partitions(topic)) };
        Ok(Inspection { set_aside: SetAside { unfit, ailing }, pins: new.map(|topic| (topic.clone(), pin(&topic))).collect() })
    }

    async fn ailing(&mut self, topics: &BTreeSet<String>, _pins: &Pins) -> Result<Vec<Ailing>, Fault> {
        if self.ended {
            return Err(ended());
        }
        // the producer may be gone after a late commit
        self.producer.epoch().await.inspect_err(|_| self.ended = true)?;
        let asked = topics.clone();
        let missing =
            self.producer.sink.net.call(move |world| {
                asked.into_iter().filter(|topic| world.kafka.missing.contains(topic.as_str())).collect::<Vec<_>>()
            });
        let missing = missing.await.map_err(unreachable).inspect_err(|_| self.ended = true)?;
        Ok(missing.into_iter().map(|topic| Ailing { topic, code: "topic_missing", detail: "simulated".into() }).collect())
    }

    async fn refresh(&mut self) -> Result<Option<Noted>, Fault> {
        if self.ended {
            return Err(ended());
        }
        if std::mem::take(&mut self.uncommitted) {
            self.producer.end(Outcome::Committed).await.inspect_err(|_| self.ended = true)?;
        }
        let fading = {
            let mut world = self.world();
            !world.healed && world.plan.fades && world.chance(50)
        };
        if !fading {
            return Ok(None);
        }
        match self.transact(None).await {
            Ok((at, _)) => {
                self.world().hit("a record without events was written");
                Ok(Some(forged::noted(at)))
            }
            Err(fault) => {
                self.ended = true;
                Err(fault)
            }
        }
    }

    async fn publish(&mut self, batch: Arc<Batch>, pins: &Pins) -> Result<Published, Fault> {
        if self.ended {
            return Err(ended());
        }
        self.pins.clone_from(pins);
        match self.publish_batch(&batch).await {
            Ok((at, Commit::Prompt)) => Ok(forged::published(batch, Some(at))),
            Ok((at, Commit::Late)) => Ok(forged::published_late(batch, Some(at))),
            Err(fault) => {
                self.ended = true;
                if self.is(Mutant::AbortAndGoOn) {
                    self.abort().await;
                }
                Err(fault)
            }
        }
    }
}
