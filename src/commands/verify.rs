//! `outboxd verify`: holds table, journal and topics against each other while the relay runs. It only reads.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{EXIT_DONE, Failure, Format, assembly};
use crate::config::{Config, Delivery, Mark, Retention};
use crate::fault::{EXIT_NO, Fault};
use crate::sink::kafka::{Bounds, Lane, Scan, Scanner};
use crate::source::any::AnySource;
use crate::verify::{Books, CLOCKS_MS, Comparing, Extent, Holes, Ids, Kept, Progress, Report, Stage, Terms};

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct Verifying {
    /// Only what was published since.
    pub since: Option<SystemTime>,
    /// Only this topic, as in the table.
    pub topic: Option<String>,
    /// How to print.
    pub format: Format,
}

/// Prints what was found; the exit code says whether anything is wrong.
pub async fn verify(config: &Config, asked: Verifying) -> Result<u8, Failure> {
    let progress = Arc::new(Progress::default());
    let telling = tokio::spawn(tell(Arc::clone(&progress)));
    let report = compare(config, &asked, &progress).await;
    telling.abort();
    // whatever it was about to print is printed before anything else is
    drop(telling.await);
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let report = report?;
    if let Some(topic) = asked.topic.filter(|_| report.topics.is_empty()) {
        return Err(Failure::no(format!("neither table nor journal knows the topic {topic}")));
    }
    match asked.format {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", report.json(&config.outbox.name)),
    }
    Ok(if report.breaches() == 0 { EXIT_DONE } else { EXIT_NO })
}

/// Between two lines about the progress.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_ELSEWHERE: Duration = Duration::from_secs(10);

/// In place on a terminal, now and then elsewhere.
async fn tell(progress: Arc<Progress>) {
    let in_place = io::stderr().is_terminal();
    loop {
        tokio::time::sleep(if in_place { EVERY } else { EVERY_ELSEWHERE }).await;
        if in_place {
            eprint!("\r\x1b[K{progress}\r");
            // nothing can be done when even that fails
            let _ = io::stderr().flush();
        } else {
            eprintln!("{progress}");
        }
    }
}

async fn compare(config: &Config, asked: &Verifying, progress: &Arc<Progress>) -> Result<Report, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let sink = assembly::kafka(config, config.kafka.delivery)?;
    let books = read_database(config, asked, &source, progress).await?;
    let (since, progress) = (asked.since, Arc::clone(progress));
    Ok(sink.scan(move |scanner| Reading { scanner, progress: &progress, since }.report(books)).await?)
}

/// The newest applied batch and the audit first, then rows, then what the audit got meanwhile: each mark that is seen has its record in
/// what is read later.
async fn read_database(config: &Config, asked: &Verifying, source: &AnySource, progress: &Progress) -> Result<Books, Fault> {
    let footing = source.footing().await?;
    progress.begin(Stage::Rows, footing.rows);
    let mut books = Books::new(Terms {
        outbox: footing.outbox,
        journalled: footing.delivery == Delivery::ExactlyOnce.as_str(),
        applied: footing.applied,
        first_applied: footing.first_applied,
        set_up_us: footing.set_up_us,
        ids: if footing.has_uuids { Ids::Uuid } else { Ids::Content },
        kept: kept(config),
        pattern: config.kafka.topic.clone(),
        pins: footing.pins,
        only: asked.topic.clone(),
        since_us: asked.since.map(|since| milliseconds(since).saturating_mul(1_000)),
        folder: std::env::temp_dir(),
    });
    let last_discard = discards_after(source, &mut books, 0).await?;
    let (mut kept, mut after) = (Ok(()), Some(i64::MIN));
    while let Some(last) = after {
        after = source
            .rows_after(last, |row| {
                progress.add(1);
                if kept.is_ok() {
                    kept = books.row(row.seq, row.fingerprint, row.topic, row.marked_us);
                }
            })
            .await?;
        std::mem::replace(&mut kept, Ok(())).map_err(Fault::unkept)?;
    }
    let (now_us, applied) = source.by_now().await?;
    books.rows_are_read(now_us, applied);
    discards_after(source, &mut books, last_discard).await?;
    Ok(books)
}

/// What the audit says was given up after its entry `after`; returns the last entry there is.
async fn discards_after(source: &AnySource, books: &mut Books, mut after: i64) -> Result<i64, Fault> {
    loop {
        let page = source.discarded_after(after).await?;
        let Some(last) = page.last() else { return Ok(after) };
        after = last.n;
        page.iter().try_for_each(|event| books.discarded(event.seq, &event.id, &event.topic)).map_err(Fault::unkept)?;
    }
}

fn kept(config: &Config) -> Kept {
    match (config.outbox.mark, config.outbox.retention) {
        (Mark::Delete, _) => Kept::NotAtAll,
        (Mark::Row, Retention::For(retention)) => Kept::For(retention),
        (Mark::Row, Retention::Forever) => Kept::Forever,
    }
}

fn milliseconds(moment: SystemTime) -> i64 {
    let since_1970 = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// Reads journal and topics.
struct Reading<'a> {
    scanner: &'a Scanner<'a>,
    progress: &'a Progress,
    since: Option<SystemTime>,
}

/// Ends of partitions, by number of the topic and partition.
type Ends = BTreeMap<(usize, i32), i64>;

/// Progress is told every so many records.
const STEP: u64 = 1_024;

impl Reading<'_> {
    fn report(&self, mut books: Books) -> Result<Report, Fault> {
        // before the journal's end: what lies below these ends has its record below that one
        let ends = self.ends(&books)?;
        self.journal(&mut books)?;
        self.topics(books, &ends)
    }

    fn ends(&self, books: &Books) -> Result<Ends, Fault> {
        let mut ends = Ends::new();
        for (number, topic) in books.topics().iter().enumerate() {
            for partition in 0..self.scanner.partitions(topic)?.unwrap_or(0) {
                ends.insert((number, partition), self.scanner.bounds(Lane { topic, partition })?.stable);
            }
        }
        Ok(ends)
    }

    fn journal(&self, books: &mut Books) -> Result<(), Fault> {
        let topic = self.scanner.journal();
        let lane = Lane { topic, partition: 0 };
        if !books.is_journalled() || self.scanner.partitions(topic)?.is_none() {
            return Ok(());
        }
        let Bounds { start, high, .. } = self.scanner.bounds(lane)?;
        let from = match self.since {
            Some(since) => self.scanner.offset_at(lane, milliseconds(since))?.unwrap_or(high).max(start),
            None => start,
        };
        self.progress.begin(Stage::Journal, u64::try_from(high - from).unwrap_or(0));
        let mut kept = Ok(());
        let scan = self.scanner.read(lane, from, high, |record| {
            self.progress.reached(u64::try_from(record.offset - from).unwrap_or(0));
            kept = books.batch(record.offset, record.time_ms.unwrap_or(0), record.value.unwrap_or_default());
            if kept.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        kept.map_err(Fault::unkept)?;
        match scan {
            Scan::To(end) if end < high => Err(Fault::kafka(
                "open_transaction",
                format!("{topic} has an open transaction from offset {end} on, so nothing tells what follows"),
            )),
            Scan::To(_) => Ok(()),
            Scan::BeginsLater => Err(Fault::kafka("trimmed", format!("{topic} was trimmed while it was read: try again"))),
        }
    }

    fn topics(&self, books: Books, ends: &Ends) -> Result<Report, Fault> {
        let topics = books.topics();
        let traits = self.scanner.traits(&topics)?;
        let mut plans = Vec::new();
        for (number, topic) in topics.iter().enumerate() {
            let holes = Holes::from(traits.get(topic).and_then(|found| found.compacted));
            for partition in 0..self.scanner.partitions(topic)?.unwrap_or(0) {
                let span = self.span(&books, number, Lane { topic, partition }, ends)?;
                plans.push(Plan { number, partition, holes, span });
            }
        }
        self.progress.begin(Stage::Topics, plans.iter().map(Plan::length).sum());
        let mut comparing = books.compare().map_err(Fault::unkept)?;
        for plan in &plans {
            self.partition(&mut comparing, &topics[plan.number], plan)?;
        }
        self.progress.begin(Stage::Comparing, 0);
        comparing.finish().map_err(Fault::unkept)
    }

    /// From where to where a partition is read.
    fn span(&self, books: &Books, number: usize, lane: Lane<'_>, ends: &Ends) -> Result<(i64, i64), Fault> {
        let Bounds { start, high, .. } = self.scanner.bounds(lane)?;
        let named = books.named(number, lane.partition);
        let until = named.map_or(0, |(_, until)| until);
        let to = ends.get(&(number, lane.partition)).copied().unwrap_or(0).max(until).min(high);
        let from = match (self.since, named) {
            (None, _) => start,
            (Some(_), Some((first, _))) => first.max(start),
            (Some(_), None) if books.is_journalled() => to,
            // what was marked since was published a little earlier, by another clock
            (Some(since), None) => self.scanner.offset_at(lane, milliseconds(since) - CLOCKS_MS)?.unwrap_or(to).max(start),
        };
        Ok((from, to))
    }

    fn partition(&self, comparing: &mut Comparing, topic: &str, plan: &Plan) -> Result<(), Fault> {
        let lane = Lane { topic, partition: plan.partition };
        let (mut from, to) = plan.span;
        let mut kept = comparing.begin(plan.number, plan.partition, Extent { start: from, holes: plan.holes });
        let mut count = 0;
        while kept.is_ok() {
            let scan = self.scanner.read(lane, from, to, |record| {
                count += 1;
                if count % STEP == 0 {
                    self.progress.add(STEP);
                }
                kept = comparing.record(record);
                if kept.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            match scan {
                Scan::To(end) => {
                    if end < to {
                        comparing.stops_at(end);
                    }
                    break;
                }
                Scan::BeginsLater => {
                    from = self.scanner.bounds(lane)?.start;
                    comparing.begins_later(from);
                }
            }
        }
        self.progress.add(plan.length().saturating_sub(count - count % STEP));
        kept.and_then(|()| comparing.end()).map_err(Fault::unkept)
    }
}

/// One partition, and how it is read.
struct Plan {
    number: usize,
    partition: i32,
    holes: Holes,
    span: (i64, i64),
}

impl Plan {
    fn length(&self) -> u64 {
        u64::try_from(self.span.1 - self.span.0).unwrap_or(0)
    }
}
