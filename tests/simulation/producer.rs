//! A producer as librdkafka makes one: requests that are repeated until they are answered, and a commit that is asked for again when
//! its connection breaks, while the first request may still be under way.

use std::collections::BTreeSet;
use std::time::Duration;

use outboxd::fault::{Cause, Fault};
use tokio::time::{Instant, sleep, sleep_until};

use super::kafka::{Content, Outcome, Refusal};
use super::net::Broken;
use super::sink::{SimSink, unreachable};

/// `retry.backoff.ms`: a commit is asked for again after about so long.
const BACKOFF: Duration = Duration::from_millis(100);
/// After that the outcome of a commit is unknown.
const COMMIT_MOST: Duration = Duration::from_secs(3);
/// From a commit to the next begin.
const MARKERS: Duration = Duration::from_millis(2);
/// A request that the brokers are not ready for is sent again after so long.
const AGAIN: Duration = Duration::from_millis(5);

/// One transaction after the other.
pub struct Producer {
    pub sink: SimSink,
    /// Nothing after a late commit: then it is made anew.
    epoch: Option<u32>,
    /// Lanes of the transaction that is under way.
    added: BTreeSet<usize>,
    /// Counts produce requests, so that a repetition is recognised.
    number: u64,
    committed: Option<Instant>,
}

/// What it means that a request was refused before the commit.
fn refused(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::Fenced => Fault::Fenced { detail: "simulated".into() },
        Refusal::NotNow => Fault::kafka("not_enough_replicas", "simulated"),
        Refusal::Concurrent | Refusal::State | Refusal::Event(_) => Fault::in_doubt(Cause::Publish, format!("{refusal:?}")),
    }
}

impl Producer {
    pub fn new(sink: SimSink, epoch: u32, number: u64) -> Self {
        Self { sink, epoch: Some(epoch), added: BTreeSet::new(), number, committed: None }
    }

    /// What a mutant goes on with.
    pub fn kept(&self) -> Option<(u32, u64)> {
        self.epoch.map(|epoch| (epoch, self.number))
    }

    /// It may have asked for a commit twice.
    pub fn retire(&mut self) {
        self.epoch = None;
    }

    /// Begins a transaction, when the markers of the one before are probably written.
    pub async fn begin(&mut self) -> Result<(), Fault> {
        self.epoch().await?;
        if let Some(committed) = self.committed {
            sleep_until(committed + MARKERS).await;
        }
        self.added.clear();
        Ok(())
    }

    /// Makes sure that there is a producer.
    pub async fn epoch(&mut self) -> Result<u32, Fault> {
        match self.epoch {
            Some(epoch) => Ok(epoch),
            None => {
                let epoch = self.sink.init().await?;
                self.epoch = Some(epoch);
                Ok(epoch)
            }
        }
    }

    /// Produces to one lane: told to the coordinator first, repeated by the library until it is acknowledged.
    pub async fn produce(&mut self, lane: usize, contents: Vec<Content>, until: Instant) -> Result<Result<i64, usize>, Fault> {
        let (epoch, tid) = (self.epoch().await?, self.sink.tid());
        while !self.added.contains(&lane) {
            let lanes = BTreeSet::from([lane]);
            match self.sink.net.call(move |world| world.add(tid, epoch, &lanes)).await {
                Ok(Ok(())) => drop(self.added.insert(lane)),
                Ok(Err(Refusal::Concurrent)) | Err(_) if Instant::now() < until => sleep(AGAIN).await,
                Ok(Err(refusal)) => return Err(refused(refusal)),
                Err(broken) => return Err(unreachable(broken)),
            }
        }
        self.number += 1;
        let number = self.number;
        loop {
            let contents = contents.clone();
            match self.sink.net.call(move |world| world.produce(tid, epoch, lane, number, contents)).await {
                Ok(Ok(offset)) => return Ok(Ok(offset)),
                Ok(Err(Refusal::Event(index))) => return Ok(Err(index)),
                Ok(Err(Refusal::NotNow)) if Instant::now() < until => sleep(AGAIN).await,
                Ok(Err(refusal)) => return Err(refused(refusal)),
                Err(_) if Instant::now() < until => sleep(AGAIN).await,
                Err(broken) => return Err(unreachable(broken)),
            }
        }
    }

    /// EndTxn as librdkafka does it: when the connection breaks it is sent again, and the first one may still be under way.
    pub async fn end(&mut self, outcome: Outcome) -> Result<bool, Fault> {
        let (began, epoch, tid) = (Instant::now(), self.epoch().await?, self.sink.tid());
        loop {
            let held = {
                let mut world = self.sink.net.world.lock();
                let resent = world.plan.resent;
                let breaks = !world.healed && world.chance(resent);
                breaks.then(|| if world.chance(600) { world.ms(1..=300) } else { world.ms(100..=3000) })
            };
            let answer = match held {
                None => self.sink.net.call(move |world| world.end(tid, epoch, outcome)).await,
                Some(after) => {
                    let mut world = self.sink.net.world.lock();
                    world.hit("an EndTxn was held back and sent again");
                    world.later(after, move |world| world.end_late(tid, epoch, outcome));
                    Err(Broken::Unknown)
                }
            };
            match answer {
                Ok(Ok(())) => {
                    self.committed = Some(Instant::now());
                    return Ok(began.elapsed() > BACKOFF / 2);
                }
                Ok(Err(Refusal::Concurrent)) => sleep(AGAIN).await,
                Ok(Err(Refusal::Fenced)) => return Err(refused(Refusal::Fenced)),
                Ok(Err(refusal)) => return Err(Fault::in_doubt(Cause::Commit, format!("{refusal:?}"))),
                Err(_) => {
                    let (gives_up, backoff) = {
                        let mut world = self.sink.net.world.lock();
                        (world.chance(300), world.ms(80..=120))
                    };
                    if gives_up || began.elapsed() > COMMIT_MOST {
                        self.sink.net.world.lock().hit("the outcome of a commit was unknown");
                        return Err(Fault::in_doubt(Cause::Commit, "no answer"));
                    }
                    sleep(backoff).await;
                }
            }
        }
    }
}
