//! How fast the real binary is. The figures mean something only for a release build on a quiet machine, so nobody runs this by the way:
//!
//! ```sh
//! cargo test --locked --release --test live -- --ignored speed --nocapture --test-threads=1
//! ```
//! PostgreSQL waits for its disk here (`fsync`), Kafka is one node. Everything runs on one machine, so client, relay and servers share it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::history;
use crate::support::{Daemon, DaemonOptions, Kafka, Postgres, PostgresOptions, Version, eventually};

const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 12;
const KEYS: usize = 10_000;
/// With it an event has a value of about 300 bytes.
const FILLER: usize = 270;

/// Drains: how many, and of how many events each.
const RUNS: usize = 5;
const EVENTS: usize = 200_000;
const LEAST_EVENTS_PER_SECOND: f64 = 60_000.0;
const MOST_CPU_SECONDS_PER_MILLION: f64 = 10.0;

/// Open loop: together the writers insert this much, whatever the database or the relay do.
const WRITERS: usize = 10;
const EVENTS_PER_SECOND: f64 = 500.0;
const WRITING: Duration = Duration::from_secs(20);
const MOST_MEDIAN_LATENCY: Duration = Duration::from_millis(25);

/// An outbox with every default and one topic.
struct Outbox {
    postgres: Postgres,
    database: String,
    topic: String,
    options: DaemonOptions,
}

impl Outbox {
    fn new(name: &str) -> Outbox {
        let kafka = Kafka::shared();
        let postgres = Postgres::start(Version::V18, PostgresOptions { settings: vec![("fsync", "on")], ..Default::default() });
        let (database, name) = (postgres.create_database(name), kafka.unique_topic(name));
        let topic = format!("{name}-events");
        let options = DaemonOptions::new(&name, &postgres.url(&database, "outboxd"), &kafka.brokers());
        let (code, _, stderr) = options.run_command(&["migrate", "--topics", &format!("{topic}:{PARTITIONS}")]);
        assert_eq!(code, 0, "migrate: {stderr}");
        postgres.sql(&database, "GRANT INSERT ON outbox TO shop");
        Outbox { postgres, database, topic, options }
    }

    fn fill(&self) {
        let events = format!(
            "INSERT INTO outbox (topic, key, type, payload) SELECT '{}', 'order-' || n % {KEYS}, 'OrderPlaced', \
             json_build_object('total', n, 'note', repeat('x', {FILLER})) FROM generate_series(1, {EVENTS}) AS n",
            self.topic
        );
        self.postgres.sql(&self.database, "TRUNCATE outbox");
        self.postgres.sql(&self.database, &events);
        self.postgres.sql(&self.database, "VACUUM ANALYZE outbox");
    }
}

/// What one run of the binary took, from its start to its end.
struct Drain {
    events_per_second: f64,
    cpu_seconds_per_million: f64,
    peak_rss: u64,
}

/// Runs the binary to its end.
fn drain(options: &DaemonOptions) -> Drain {
    let (cpu, start) = (cpu_seconds_of_ended_children(), Instant::now());
    let daemon = options.clone().argument("--once").start();
    let mut peak_rss = 0;
    eventually("it has drained", SOON, || {
        // While it runs: the figure that is left after its end also knows the memory of whoever started it.
        peak_rss = daemon.peak_rss_while_it_runs().unwrap_or(peak_rss);
        !daemon.is_running()
    });
    let took = start.elapsed();
    assert_eq!(daemon.wait_exit(SOON), 0, "{}", daemon.log());
    let (events, cpu) = (EVENTS as f64, cpu_seconds_of_ended_children() - cpu);
    Drain { events_per_second: events / took.as_secs_f64(), cpu_seconds_per_million: cpu / events * 1e6, peak_rss }
}

/// Drains again and again: events/s, and CPU seconds per million, both sorted.
fn drains(outbox: &Outbox, what: &str) -> (Vec<f64>, Vec<f64>) {
    let run = |run| {
        outbox.fill();
        let drain = drain(&outbox.options);
        println!(
            "{what}, drain {run}: {:.0} events/s, {:.2} CPU s per million, peak RSS {:.1} MiB",
            drain.events_per_second,
            drain.cpu_seconds_per_million,
            drain.peak_rss as f64 / f64::from(1 << 20)
        );
        assert_eq!(outbox.postgres.sql(&outbox.database, "SELECT count(*) FROM outbox WHERE sent_at IS NULL"), "0");
        drain
    };
    let drains: Vec<Drain> = (1..=RUNS).map(run).collect();
    let speed = sorted(drains.iter().map(|drain| drain.events_per_second));
    (speed, sorted(drains.iter().map(|drain| drain.cpu_seconds_per_million)))
}

fn cpu_seconds_of_ended_children() -> f64 {
    // SAFETY: a struct of numbers, all of them written by the call.
    let usage = unsafe {
        let mut usage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage), 0);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The value that this part of the sorted ones does not exceed.
fn part(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len()) - 1]
}

fn id_of(message: &BorrowedMessage<'_>) -> Uuid {
    let id = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "id")).and_then(|header| header.value);
    Uuid::parse_str(std::str::from_utf8(id.expect("every record has an id")).unwrap()).unwrap()
}

#[test]
#[ignore = "means something only with --release on a quiet machine"]
fn a_backlog_is_drained_fast_and_cheaply() {
    let outbox = Outbox::new("backlog");
    let (speed, cpu) = drains(&outbox, "ids by default");
    // What a service pays that makes its ids itself and at random.
    outbox.postgres.sql(&outbox.database, "ALTER TABLE outbox ALTER id SET DEFAULT gen_random_uuid()");
    let (random, _) = drains(&outbox, "random ids");
    let (mut records, mut ids) = (0, HashSet::new());
    history::each(Kafka::shared(), &outbox.topic, PARTITIONS, |message| {
        records += 1;
        ids.insert(id_of(message));
    });
    assert_eq!((records, ids.len()), (2 * RUNS * EVENTS, 2 * RUNS * EVENTS), "records and distinct ids");
    let print = |what: &str, values: &[f64], digits: usize| {
        let [least, median, most] = [values[0], part(values, 0.5), values[RUNS - 1]];
        println!("{what}: min {least:.digits$}, median {median:.digits$}, max {most:.digits$}");
    };
    print("events/s", &speed, 0);
    print("CPU s per million", &cpu, 2);
    print("events/s with random ids", &random, 0);
    assert!(part(&speed, 0.5) >= LEAST_EVENTS_PER_SECOND, "too slow");
    assert!(part(&cpu, 0.5) <= MOST_CPU_SECONDS_PER_MILLION, "too much processor time");
}

/// When the insert was due, and when its commit was answered.
#[derive(Clone, Copy)]
struct Written {
    due: Instant,
    committed: Instant,
}

/// One writer's part of the open loop: what was late is not left out, and its lateness is kept.
async fn write(url: String, topic: String, number: usize, start: Instant) -> Vec<(Uuid, Written)> {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let payload = format!("{{\"note\": \"{}\"}}", "x".repeat(FILLER));
    let insert = "INSERT INTO outbox (id, topic, key, type, payload) VALUES ($1, $2, $3, 'OrderPlaced', $4::text::json)";
    let count = (WRITING.as_secs_f64() * EVENTS_PER_SECOND) as usize / WRITERS;
    let mut written = Vec::with_capacity(count);
    for i in 0..count {
        let due = start + Duration::from_secs_f64((i * WRITERS + number) as f64 / EVENTS_PER_SECOND);
        tokio::time::sleep_until(due.into()).await;
        let (id, key) = (Uuid::new_v4(), format!("order-{}", fastrand::usize(..KEYS)));
        sqlx::query(insert).bind(id).bind(&topic).bind(key).bind(&payload).execute(&mut connection).await.unwrap();
        written.push((id, Written { due, committed: Instant::now() }));
    }
    written
}

fn write_all(outbox: &Outbox) -> HashMap<Uuid, Written> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let url = outbox.postgres.url(&outbox.database, "shop");
    // Time for all of them to connect.
    let start = Instant::now() + Duration::from_secs(1);
    let writers: Vec<_> =
        (0..WRITERS).map(|number| runtime.spawn(write(url.clone(), outbox.topic.clone(), number, start))).collect();
    writers.into_iter().flat_map(|writer| runtime.block_on(writer).unwrap()).collect()
}

/// A reader of committed records with its defaults, who notes when each of them came.
fn arrivals(topic: &str, seen: &AtomicUsize, enough: &AtomicBool) -> Vec<(Uuid, Instant)> {
    let mut config = Kafka::shared().client();
    config.set("group.id", "speed").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    (0..PARTITIONS).for_each(|partition| all.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
    consumer.assign(&all).unwrap();
    let mut arrived = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        arrived.push((id_of(&message.unwrap()), Instant::now()));
        seen.store(arrived.len(), Ordering::Relaxed);
    }
    arrived
}

fn ready(outbox: &Outbox) -> Daemon {
    let daemon = outbox.options.start();
    daemon.wait_log("claimed");
    daemon
}

fn print_latency(what: &str, milliseconds: &[f64]) {
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|p| part(milliseconds, p));
    println!("{what}: p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, max {:.1} ms", part(milliseconds, 1.0));
}

#[test]
#[ignore = "means something only with --release on a quiet machine"]
fn an_event_arrives_soon_after_its_commit() {
    let outbox = Outbox::new("latency");
    let daemon = ready(&outbox);
    let (seen, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let reader = {
        let (topic, seen, enough) = (outbox.topic.clone(), seen.clone(), enough.clone());
        std::thread::spawn(move || arrivals(&topic, &seen, &enough))
    };
    let written = write_all(&outbox);
    eventually("as many records came as were written", SOON, || seen.load(Ordering::Relaxed) >= written.len());
    daemon.sigterm();
    assert_eq!(daemon.wait_exit(SOON), 0, "{}", daemon.log());
    enough.store(true, Ordering::Relaxed);
    let arrived = reader.join().unwrap();
    let (mut records, mut ids) = (0, HashSet::new());
    history::each(Kafka::shared(), &outbox.topic, PARTITIONS, |message| {
        records += 1;
        ids.insert(id_of(message));
    });
    assert!(records == written.len() && ids.len() == records && written.keys().all(|id| ids.contains(id)), "all came, and once");
    let since = |from: fn(&Written) -> Instant| {
        sorted(arrived.iter().map(|(id, at)| at.saturating_duration_since(from(&written[id])).as_secs_f64() * 1e3))
    };
    let (first, last) = (written.values().map(|event| event.due).min(), written.values().map(|event| event.committed).max());
    let rate = written.len() as f64 / last.unwrap().duration_since(first.unwrap()).as_secs_f64();
    println!("latency of {} events at {rate:.0} events/s by {WRITERS} writers", written.len());
    let from_commit = since(|event| event.committed);
    print_latency("from the answered commit to the consumer", &from_commit);
    print_latency("from when the insert was due to the consumer", &since(|event| event.due));
    assert!(rate >= EVENTS_PER_SECOND * 0.95, "the writers could not keep their rate");
    assert!(part(&from_commit, 0.5) <= MOST_MEDIAN_LATENCY.as_secs_f64() * 1e3, "too late");
}
