use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::fault::Cause;
use crate::journal::{Applied, Owner};
use crate::sink::Fence;
use crate::sink::memory::MemorySink;
use crate::source::memory::{MemorySource, MemoryTenure};
use crate::source::{ClaimNumber, Pending, Standing};

const SECOND: Duration = Duration::from_secs(1);

/// A table whose pruning does as it is told, and finds nothing when nothing is told.
struct Scripted {
    table: MemorySource,
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Result<Pruned, Fault>>,
    pruned_at: Vec<Instant>,
}

impl Scripted {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Scripted {
    type Tenure = MemoryTenure;

    async fn look(&self) -> Result<Standing, Fault> {
        self.table.look().await
    }

    async fn claim(&self, owner: &Owner, claim: ClaimNumber, fence: &Fence) -> Result<MemoryTenure, Fault> {
        self.table.claim(owner, claim, fence).await
    }

    async fn halt(&self, halt: &crate::fault::Halt, seen: &Standing) -> Result<bool, Fault> {
        self.table.halt(halt, seen).await
    }
}

impl Pruning for Scripted {
    async fn prune(&self) -> Result<Pruned, Fault> {
        let mut script = self.script();
        script.pruned_at.push(Instant::now());
        script.answers.pop_front().unwrap_or(Ok(Pruned::default()))
    }
}

impl Gauging for Scripted {
    async fn pending(&self) -> Result<Pending, Fault> {
        self.table.pending().await
    }
}

struct Setup {
    source: Arc<Scripted>,
    sink: MemorySink,
    metrics: Metrics,
    work: JoinHandle<Infallible>,
}

fn start(answers: impl IntoIterator<Item = Result<Pruned, Fault>>) -> Setup {
    let script = Script { answers: answers.into_iter().collect(), pruned_at: Vec::new() };
    let source = Arc::new(Scripted { table: MemorySource::new(Uuid::from_u128(7)), script: Mutex::new(script) });
    let (sink, metrics) = (MemorySink::default(), Metrics::new("shop"));
    metrics.phase(Phase::Relaying);
    let janitor = Janitor::new(source.clone(), Arc::new(sink.clone()), metrics.clone());
    let work = tokio::spawn(async move { janitor.run().await });
    Setup { source, sink, metrics, work }
}

fn more() -> Result<Pruned, Fault> {
    Ok(Pruned { rows: 1000, more: true })
}

fn refused() -> Fault {
    Fault::Refused { detail: "DELETE on outbox".into(), remedy: "Grant it.".into() }
}

#[tokio::test(start_paused = true)]
async fn pruning_is_quick_while_there_is_more_and_slow_after_that() {
    let setup = start((0..20).map(|_| more()));
    tokio::time::sleep(SECOND).await;
    assert_eq!(setup.source.script().pruned_at.len(), 21);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(setup.source.script().pruned_at.len(), 22);
}

#[tokio::test(start_paused = true)]
async fn a_chore_that_fails_is_tried_again_and_stops_nothing() {
    let setup = start([Err(refused()), Err(refused()), more()]);
    setup.source.table.insert("orders", None, "1");
    tokio::time::sleep(2 * PAUSE + SECOND).await;
    assert!(!setup.work.is_finished());
    assert_eq!(setup.source.script().pruned_at.len(), 4);
    assert!(setup.metrics.text().contains("outboxd_pending_events{outbox=\"shop\"} 1\n"));
}

#[tokio::test(start_paused = true)]
async fn a_halted_relay_lets_go_of_nothing() {
    let setup = start((0..20).map(|_| more()));
    setup.metrics.phase(Phase::Halted);
    setup.source.table.database().applied.push(Applied { n: 3, offset: 17, ..Applied::default() });
    tokio::time::sleep(2 * TRIM_EVERY).await;
    assert_eq!((setup.source.script().pruned_at.len(), setup.sink.log().journal_start), (0, 0));
    setup.metrics.phase(Phase::Relaying);
    tokio::time::sleep(TRIM_EVERY).await;
    assert_eq!(setup.sink.log().journal_start, 17);
    assert!(setup.source.script().pruned_at.len() > 20, "{}", setup.source.script().pruned_at.len());
}

#[tokio::test(start_paused = true)]
async fn the_journal_is_trimmed_up_to_the_newest_applied_batch() {
    let setup = start([]);
    setup.source.table.database().applied.push(Applied { n: 3, offset: 17, ..Applied::default() });
    tokio::time::sleep(FIRST_TRIM - SECOND).await;
    assert_eq!(setup.sink.log().journal_start, 0);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(setup.sink.log().journal_start, 17);
    setup.source.table.database().applied.push(Applied { n: 4, offset: 19, ..Applied::default() });
    tokio::time::sleep(TRIM_EVERY).await;
    assert_eq!(setup.sink.log().journal_start, 19);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_counted_now_and_then() {
    let setup = start([]);
    let pending = |events: u64| setup.metrics.text().contains(&format!("outboxd_pending_events{{outbox=\"shop\"}} {events}\n"));
    tokio::time::sleep(SECOND).await;
    assert!(pending(0));
    setup.source.table.insert("orders", None, "1");
    setup.source.table.insert("orders", None, "2");
    tokio::time::sleep(COUNT_EVERY).await;
    assert!(pending(2));
}

#[test]
fn each_kind_is_complained_about_once_until_it_went_well() {
    let mut complaints = Complaints::about("a test");
    complaints.note::<()>(Err(refused()));
    complaints.note::<()>(Err(Fault::in_doubt(Cause::Mark, "")));
    complaints.note::<()>(Err(refused()));
    assert_eq!(complaints.made, ["refused", "mark"]);
    complaints.note(Ok(()));
    assert!(complaints.made.is_empty());
    complaints.note::<()>(Err(refused()));
    assert_eq!(complaints.made, ["refused"]);
}

#[test]
fn outages_are_for_others_to_tell() {
    let mut complaints = Complaints::about("a test");
    complaints.note::<()>(Err(Fault::database("connect", "")));
    complaints.note::<()>(Err(Fault::kafka("transport", "")));
    assert!(complaints.made.is_empty());
    complaints.note::<()>(Err(Fault::database("constraint", "a foreign key")));
    assert_eq!(complaints.made, ["constraint"], "nobody else meets what the table refuses");
}
