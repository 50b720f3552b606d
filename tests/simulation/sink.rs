//! The seam to the log, over the simulated Kafka: look, fence, recover, trim. The reading of the journal is as in `src/sink/kafka`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outboxd::fault::{Fault, Halt, HaltCode};
use outboxd::journal::{Applied, History, Reading, Record, View, Writer};
use outboxd::sink::{Fence, Fenced, Sink, forged};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::database::HERE;
use super::kafka::{Content, JOURNAL, OURS, Refusal, TRANSACTION_TIMEOUT, Tid};
use super::mutants::Mutant;
use super::net::{Broken, Net};
use super::producer::Producer;
use super::publisher::{Place, SimPublisher};
use super::violation::Class;
use super::world::{Stage, World};

/// An open transaction is waited for so long beyond its timeout.
const MARGIN: Duration = Duration::from_millis(1500);
/// Between two polls.
const STEP: Duration = Duration::from_millis(10);
/// `init_transactions` asks again after so long.
const INIT_AGAIN: Duration = Duration::from_millis(20);
/// And for so long in all.
const INIT_MOST: Duration = Duration::from_secs(10);
/// A reader without a connection is patient for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Kafka as one process reaches it.
#[derive(Clone)]
pub struct SimSink {
    pub net: Net,
    /// Epoch and number of a producer that a mutant goes on with.
    pub kept: Arc<Mutex<Option<(u32, u64)>>>,
}

pub fn unreachable(_: Broken) -> Fault {
    Fault::kafka("unreachable", "simulated")
}

/// The journal as one fetch shows it.
struct Seen {
    start: i64,
    records: Vec<(i64, Vec<u8>)>,
    stable: i64,
    end: i64,
}

/// How far the journal is read.
#[derive(Clone, Copy)]
enum Until {
    /// Past this offset, if the topic has it.
    Past(i64),
    /// To its true end.
    End,
}

impl SimSink {
    /// The transactional id of this process.
    pub fn tid(&self) -> Tid {
        if self.net.world.lock().is(Mutant::OwnTransactionalId) { 10 + self.net.process } else { OURS }
    }

    async fn read(&self, from: i64, until: Until) -> Result<Seen, Fault> {
        let began = Instant::now();
        loop {
            let seen = match self.net.call(move |world| world.journal(from)).await {
                Ok(seen) => seen,
                Err(_) if began.elapsed() < PATIENCE => continue,
                Err(broken) => return Err(unreachable(broken)),
            };
            if from > seen.end {
                return Ok(seen);
            }
            let done = match until {
                Until::Past(offset) => seen.stable > offset || seen.end <= offset,
                Until::End => seen.stable >= seen.end,
            };
            if done {
                return Ok(seen);
            }
            if began.elapsed() > TRANSACTION_TIMEOUT + MARGIN {
                let evidence = format!("an open transaction from offset {} on, the end is {}", seen.stable, seen.end);
                return Err(Halt::new(HaltCode::JournalBlocked, evidence).into());
            }
            sleep(STEP).await;
        }
    }

    async fn view(&self, outbox: Uuid, base: Applied, until: Until) -> Result<(View, VecDeque<(Record, Applied)>), Fault> {
        let mut seen = self.read(base.offset, until).await?;
        if self.net.world.lock().is(Mutant::ResetToEnd) && !(seen.start..=seen.end).contains(&base.offset) {
            let view = View { last: base, end: seen.end, stable: seen.end, newest: None, owners_above: Vec::new() };
            return Ok((view, VecDeque::new()));
        }
        seen.records.retain(|(offset, _)| *offset >= base.offset);
        judge(outbox, base, seen)
    }
}

fn judge(outbox: Uuid, base: Applied, seen: Seen) -> Result<(View, VecDeque<(Record, Applied)>), Fault> {
    let mut reading = Reading::start(outbox, base, seen.start);
    let from = reading.from(seen.start);
    let mut above = VecDeque::new();
    for (offset, bytes) in seen.records.into_iter().filter(|(offset, _)| *offset >= from) {
        if let Some(record) = reading.accept(offset, &bytes)? {
            let checksum = Record::decode(&bytes).map(|(_, checksum)| checksum).unwrap_or_default();
            let at = Applied { n: record.n, offset, checksum };
            above.push_back((record, at));
        }
    }
    Ok((reading.finish(seen.end, seen.stable)?, above))
}

impl Sink for SimSink {
    type Fenced = SimFenced;

    async fn look(&self, outbox: Uuid, base: Applied) -> Result<View, Fault> {
        let until = Until::Past(if base.n > 0 { base.offset } else { -1 });
        self.view(outbox, base, until).await.map(|(view, _)| view)
    }

    async fn fence(&self) -> Result<SimFenced, Fault> {
        self.net.world.lock().stage(self.net.process, Stage::Fencing);
        let early = if self.net.world.lock().is(Mutant::JournalBeforeFence) { Some(self.early().await?) } else { None };
        let kept = self.kept.lock().expect("nobody panics with it").take();
        let (epoch, number) = match kept {
            Some(kept) => kept,
            None => (self.init().await?, 0),
        };
        Ok(SimFenced { producer: Producer::new(self.clone(), epoch, number), early, fence: forged::fence() })
    }

    async fn trim(&self, keep_from: i64) -> Result<i64, Fault> {
        let process = self.net.process;
        let trim = move |world: &mut World| {
            world.trimmed_astray |= world.astray[process];
            world.trim(keep_from)
        };
        self.net.call(trim).await.map_err(unreachable)
    }
}

impl SimSink {
    /// A new epoch, once nothing of the older owners is open.
    pub async fn init(&self) -> Result<u32, Fault> {
        let (began, tid) = (Instant::now(), self.tid());
        self.net.world.lock().nobody_else_fences(self.net.process);
        loop {
            match self.net.call(move |world| world.init(tid)).await {
                Ok(Ok(epoch)) => return Ok(epoch),
                Ok(Err(Refusal::Fenced)) => return Err(Fault::Fenced { detail: "simulated".into() }),
                Ok(Err(Refusal::Concurrent | Refusal::NotNow | Refusal::State | Refusal::Event(_))) | Err(_)
                    if began.elapsed() < INIT_MOST =>
                {
                    sleep(INIT_AGAIN).await;
                }
                Ok(Err(_)) => return Err(Fault::kafka("init", "simulated")),
                Err(broken) => return Err(unreachable(broken)),
            }
        }
    }

    /// The journal as a mutant sees it, before the fence.
    async fn early(&self) -> Result<Seen, Fault> {
        self.net.call(|world| world.journal(0)).await.map_err(unreachable)
    }
}

/// Kafka whose older publishers are shut out.
pub struct SimFenced {
    producer: Producer,
    early: Option<Seen>,
    fence: Fence,
}

impl Fenced for SimFenced {
    type Publisher = SimPublisher;
    type History = SimHistory;

    fn fence(&self) -> &Fence {
        &self.fence
    }

    async fn recover(self, writer: Writer, base: Applied) -> Result<(SimPublisher, View, SimHistory), Fault> {
        let (mut view, mut above) = match self.early {
            Some(mut early) => {
                early.records.retain(|(offset, _)| *offset >= base.offset);
                early.end = early.stable;
                judge(writer.outbox, base, early)?
            }
            None => self.producer.sink.view(writer.outbox, base, Until::End).await?,
        };
        {
            let mut world = self.producer.sink.net.world.lock();
            if world.is(Mutant::LastRecordOnly) && above.len() > 1 {
                above.drain(..above.len() - 1);
            }
            if world.is(Mutant::NoJournal) {
                above.clear();
                view.last = base;
            }
            world.hit(format!("a claim found {} batches to settle", above.len().min(3)));
        }
        let place = Place { writer, last: view.last, end: view.end };
        Ok((SimPublisher::new(self.producer, place), view, SimHistory(above)))
    }
}

/// The records above the base.
pub struct SimHistory(VecDeque<(Record, Applied)>);

impl History for SimHistory {
    async fn next(&mut self) -> Result<Option<(Record, Applied)>, Fault> {
        Ok(self.0.pop_front())
    }
}

impl World {
    /// A copy with an address of its own must not get so far.
    fn nobody_else_fences(&mut self, process: usize) {
        if self.astray[process] && self.other.as_ref().is_some_and(|other| other.address != HERE) {
            self.violated(Class::Trespass, "a copy of the database shut the living relay out".into());
        }
    }

    /// What a reader of committed records gets from an offset on: from a leader, or now and then from one that lags behind.
    fn journal(&mut self, from: i64) -> Seen {
        let partition = &self.kafka.lanes[JOURNAL];
        let known = self.kafka.stale.unwrap_or(usize::MAX);
        let end = partition.records.len().min(known);
        let stable = partition.stable().min(end);
        let visible = partition.visible(usize::try_from(from).unwrap_or(0)).take_while(|(offset, _)| *offset < stable);
        let records = visible.filter_map(|(offset, content)| match content {
            Content::Journal(bytes) => Some((offset as i64, bytes.clone())),
            Content::Event(_) | Content::Marker => None,
        });
        let seen = Seen { start: partition.start as i64, records: records.collect(), stable: stable as i64, end: end as i64 };
        if end < partition.records.len() {
            self.hit("a stale leader answered a reader of the journal");
            self.misled = Some(self.now);
        }
        seen
    }

    /// Lets go of old journal records.
    fn trim(&mut self, keep_from: i64) -> i64 {
        let all = self.is(Mutant::TrimAll);
        let partition = &mut self.kafka.lanes[JOURNAL];
        let until = if all { partition.records.len() } else { usize::try_from(keep_from).unwrap_or(0) };
        if until > partition.start {
            partition.start = until.min(partition.records.len());
            self.hit("the journal was trimmed");
        }
        self.kafka.lanes[JOURNAL].start as i64
    }
}
