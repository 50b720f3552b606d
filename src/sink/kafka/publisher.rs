//! The async side of the worker thread: [`Fenced`] and [`Publisher`] for Kafka.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use tokio::sync::oneshot;

use super::blocking::{self, Caller};
use super::client::lock;
use super::history::KafkaHistory;
use super::retention::Freshness;

use super::topics::{Found, Known};
use super::worker::{Command, Done, Order, Place, Worker, refused_names};
use super::{Shared, faults, journal};
use crate::config::Delivery;
use crate::event::Batch;
use crate::fault::{Alarm, Cause, EVENTS_TRUNCATED, Fault};
use crate::journal::{Applied, View, Writer};
use crate::park::{Ailing, SetAside};
use crate::sink::{Fence, Fenced, Inspection, Noted, Published, Publisher};
use crate::source::{Pin, Pins};

/// A Kafka cluster whose older publishers are shut out.
#[derive(Debug)]
pub struct KafkaFenced {
    shared: Arc<Shared>,
    orders: Sender<Command>,
    fence: Fence,
}

/// Starts the worker thread and waits until its producer has shut out every older owner.
pub(super) async fn fence(shared: Arc<Shared>) -> Result<KafkaFenced, Fault> {
    let (orders, inbox) = mpsc::channel();
    let (reply, fenced) = oneshot::channel();
    let theirs = Arc::clone(&shared);
    blocking::spawn("kafka-publisher", move || {
        match Worker::fence(theirs, &Caller(&|| reply.is_closed())) {
            // When nobody waits any more, the channel of orders is closed and the run ends at once.
            Ok(worker) => {
                drop(reply.send(Ok(())));
                worker.run(&inbox);
            }
            Err(fault) => drop(reply.send(Err(fault))),
        }
    })?;
    fenced.await.unwrap_or_else(|_| Err(ended()))?;
    Ok(KafkaFenced { shared, orders, fence: Fence::raised() })
}

impl Fenced for KafkaFenced {
    type Publisher = KafkaPublisher;
    type History = KafkaHistory;

    fn fence(&self) -> &Fence {
        &self.fence
    }

    async fn recover(self, writer: Writer, base: Applied) -> Result<(KafkaPublisher, View, KafkaHistory), Fault> {
        let Self { shared, orders, .. } = self;
        let (outbox, has_journal) = (writer.outbox, shared.settings.kafka.delivery == Delivery::ExactlyOnce);
        let mut freshness = Freshness::of(None);
        let (view, history) = if has_journal {
            let theirs = Arc::clone(&shared);
            let read = blocking::run("kafka-journal", move |caller| journal::recover(&theirs, outbox, base, caller)).await?;
            let (view, buffer, written_ms) = read;
            freshness = Freshness::of(written_ms);
            let history = KafkaHistory::new(Arc::clone(&shared), outbox, base, view.last, buffer);
            (view, history)
        } else {
            (journal::nothing_above(base), KafkaHistory::empty(Arc::clone(&shared), outbox, base))
        };
        let place = has_journal.then_some(Place { writer, last: view.last, end: view.end });
        Ok((KafkaPublisher { shared, orders: Some(orders), place, freshness }, view, history))
    }
}

/// Publishes batches through the worker thread. After a fault, and after a future of it was dropped half-way, it refuses further
/// work: only a new claim tells what was published.
#[derive(Debug)]
pub struct KafkaPublisher {
    shared: Arc<Shared>,
    /// Dropping it ends the thread.
    orders: Option<Sender<Command>>,
    place: Option<Place>,
    freshness: Freshness,
}

impl Publisher for KafkaPublisher {
    async fn inspect(&mut self, batch: &Arc<Batch>, pins: &Pins) -> Result<Inspection, Fault> {
        let topics = self.kafka_names(batch);
        let unfit = refused_names(batch, &topics, &self.shared.settings.kafka.allow_topics);
        if !unfit.is_empty() {
            return Ok(Inspection { set_aside: SetAside { unfit, ailing: Vec::new() }, pins: Pins::new() });
        }
        let found = self.ask(|reply| Command::Inspect { batch: Arc::clone(batch), topics, reply }).await?;
        let mut inspection = Inspection::default();
        inspection.set_aside.unfit = found.unfit;
        for (topic, found) in batch.topics().iter().zip(found.topics) {
            match self.judge(topic, found, pins.get(&**topic)) {
                Err(ailing) => inspection.set_aside.ailing.push(ailing),
                Ok(Some(pin)) => drop(inspection.pins.insert(topic.to_string(), pin)),
                Ok(None) => {}
            }
        }
        Ok(inspection)
    }

    async fn ailing(&mut self, topics: &BTreeSet<String>, pins: &Pins) -> Result<Vec<Ailing>, Fault> {
        let names = topics.iter().map(|topic| self.shared.settings.kafka.topic.apply(topic)).collect();
        let found = self.ask(|reply| Command::Look { topics: names, reply }).await?;
        let judged = topics.iter().zip(found).map(|(topic, found)| self.judge(topic, found, pins.get(topic)));
        Ok(judged.filter_map(Result::err).collect())
    }

    async fn refresh(&mut self) -> Result<Option<Noted>, Fault> {
        let Some(place) = self.place.clone() else { return Ok(None) };
        if !self.freshness.is_fading(&self.shared).await {
            return Ok(None);
        }
        let noted = self.ask(|reply| Command::Note { place: place.clone(), reply }).await?;
        self.place = Some(Place { last: noted, end: noted.offset + 2, ..place });
        self.freshness.renew();
        tracing::info!(batch = noted.n, "a journal record without events keeps the journal from running out");
        Ok(Some(Noted::committed(noted)))
    }

    async fn publish(&mut self, batch: Arc<Batch>, pins: &Pins) -> Result<Published, Fault> {
        let topics = self.kafka_names(&batch);
        let (since, pins) = pinned(&batch, pins)?.into_iter().map(|pin| (pin.since, pin.partitions)).unzip();
        let order = Order { topics, pins, since, place: self.place.clone(), batch: Arc::clone(&batch) };
        let done = self.ask(|reply| Command::Publish { order, reply }).await;
        let Done { journalled, commit } = done.map_err(|fault| self.by_its_name(fault, &batch))?;
        if let (Some(place), Some(journalled)) = (&mut self.place, journalled) {
            // The record, then the marker that ends its transaction.
            (place.last, place.end) = (journalled, journalled.offset + 2);
            self.freshness.renew();
        }
        Ok(Published::committed(batch, journalled, commit))
    }
}

impl KafkaFenced {
    /// Goes on from the journal's present end whatever lies below it: writes a record without events, as the batch after `last`. For a
    /// person's decision only: nothing of what the journal says is looked at.
    pub async fn adopt(self, writer: Writer, last: Applied) -> Result<Applied, Fault> {
        let theirs = Arc::clone(&self.shared);
        let end = blocking::run("kafka-tail", move |caller| journal::tail(&theirs, caller)).await?.end;
        let place = Place { writer, last, end };
        let (orders, freshness) = (Some(self.orders), Freshness::of(None));
        let mut publisher = KafkaPublisher { shared: self.shared, orders, place: None, freshness };
        publisher.ask(|reply| Command::Note { place, reply }).await
    }
}

impl KafkaPublisher {
    fn kafka_names(&self, batch: &Batch) -> Vec<String> {
        batch.topics().iter().map(|topic| self.shared.settings.kafka.topic.apply(topic)).collect()
    }

    /// Hands a command over and awaits its answer. The way to the thread comes back only with a good answer: a fault, and a future
    /// that is dropped before the answer is there, end the thread.
    async fn ask<T>(&mut self, command: impl FnOnce(oneshot::Sender<Result<T, Fault>>) -> Command) -> Result<T, Fault> {
        let orders = self.orders.take().ok_or_else(ended)?;
        let (reply, answer) = oneshot::channel();
        orders.send(command(reply)).map_err(|_| ended())?;
        let done = answer.await.unwrap_or_else(|_| Err(ended()))?;
        self.orders = Some(orders);
        Ok(done)
    }

    /// What there is to pin of a topic, or why it has to be held. One that was made anew, or has fewer partitions than it was pinned
    /// with, is another topic; one with more goes on with the pinned ones.
    fn judge(&self, topic: &str, found: Found, pinned: Option<&Pin>) -> Result<Option<Pin>, Ailing> {
        let Known { partitions, id } = found.map_err(|ailing| named(ailing, topic))?;
        let since = self.place.as_ref().map_or(0, |place| place.last.n);
        let Some(pinned) = pinned else { return Ok(Some(Pin { partitions, id, since, truncated: None })) };
        still_the_same(topic, partitions, id.as_deref(), pinned)?;
        if partitions > pinned.partitions {
            self.warn_of_growth(topic, partitions, pinned.partitions);
        }
        let name = self.shared.settings.kafka.topic.apply(topic);
        if let Some(evidence) = self.shared.ends.truncated(&name, pinned.since) {
            let Alarm { name: code, obx: error, remedy } = EVENTS_TRUNCATED;
            tracing::error!(code, error, topic, evidence, remedy, "the topic lacks events that were published");
            return Ok(Some(Pin { since, truncated: Some(evidence), ..pinned.clone() }));
        }
        Ok((pinned.id.is_none() && id.is_some()).then(|| Pin { id, ..pinned.clone() }))
    }

    fn warn_of_growth(&self, topic: &str, partitions: i32, used: i32) {
        if lock(&self.shared.warned).insert(topic.to_owned()) {
            tracing::warn!(
                topic,
                partitions,
                used,
                "topic has grown: its new partitions stay unused, the order of its keys is kept"
            );
        }
    }

    /// A topic that failed while it was written to, by its name in the table. The journal cannot be set aside.
    fn by_its_name(&self, fault: Fault, batch: &Batch) -> Fault {
        let Fault::Topic(ailing) = fault else { return fault };
        match self.kafka_names(batch).iter().position(|name| *name == ailing.topic) {
            Some(index) => named(ailing, &batch.topics()[index]).into(),
            None => faults::journal_ailing(ailing),
        }
    }
}

/// With the topic's name in the table, which is what `migrate` wants to hear.
fn named(ailing: Ailing, topic: &str) -> Ailing {
    let detail = match ailing.code {
        faults::TOPIC_MISSING => format!("{}; create it, for example with: outboxd migrate --topics {topic}:12", ailing.detail),
        _ => ailing.detail,
    };
    Ailing { topic: topic.to_owned(), code: ailing.code, detail }
}

/// A topic with another id, or with fewer partitions, is another one.
fn still_the_same(topic: &str, partitions: i32, id: Option<&str>, pinned: &Pin) -> Result<(), Ailing> {
    let another = |code, detail| Err(Ailing { topic: topic.to_owned(), code, detail });
    if let (Some(now), Some(then)) = (id, pinned.id.as_deref())
        && now != then
    {
        let detail = format!(
            "it was made anew: it has the id {now}, it was published to as {then}; accept it: outboxd repin {topic} --reason …"
        );
        return another("topic_recreated", detail);
    }
    if partitions < pinned.partitions {
        let used = pinned.partitions;
        let detail = format!("it has {partitions} partitions, it was published to with {used}: it is not the same topic");
        return another("topic_shrunk", detail);
    }
    Ok(())
}

fn pinned<'a>(batch: &Batch, pins: &'a Pins) -> Result<Vec<&'a Pin>, Fault> {
    let pin = |topic: &str| pins.get(topic).filter(|pin| pin.partitions > 0);
    let missing = |topic: &str| Fault::in_doubt(Cause::Publish, format!("topic {topic} is not pinned"));
    batch.topics().iter().map(|topic| pin(topic).ok_or_else(|| missing(topic))).collect()
}

fn ended() -> Fault {
    Fault::in_doubt(Cause::Publish, "this publisher has ended")
}

/// Topics that were warned about once.
pub(super) type Warned = HashSet<String>;
