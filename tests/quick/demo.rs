//! `outboxd demo`, run as a person runs it: its verdict, its port, its manners, and that nothing of it stays behind.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use outboxd::config::{self, Delivery};
use outboxd::demo::{Broker, PARTITIONS, TOPIC};
use outboxd::heartbeat::Heartbeat;
use outboxd::journal::Applied;
use outboxd::sink::kafka::{KafkaSink, Settings};
use outboxd::sink::{Fenced, Sink};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use uuid::Uuid;

use crate::sink_conformance as suite;

/// Longer than anything here may take, on a machine with much else to do.
const MOST: Duration = Duration::from_secs(90);
const STEP: Duration = Duration::from_millis(20);

/// Another Kafka client on this machine.
struct Client(BaseConsumer);

impl Client {
    fn new(address: &str) -> Self {
        let config = [("bootstrap.servers", address), ("group.id", "other"), ("fetch.wait.max.ms", "10")];
        let config: ClientConfig = config.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let consumer: BaseConsumer = config.create().unwrap();
        let mut lanes = TopicPartitionList::new();
        (0..PARTITIONS).for_each(|partition| lanes.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap());
        consumer.assign(&lanes).unwrap();
        Self(consumer)
    }

    /// The next record's id, key and partition, if one comes soon. A broker that is gone has none.
    fn next(&self) -> Option<(Uuid, String, i32)> {
        let message = self.0.poll(STEP)?.ok()?;
        let header = message.headers().unwrap().iter().find(|header| header.key == "id").unwrap();
        let id = Uuid::parse_str(str::from_utf8(header.value.unwrap()).unwrap()).unwrap();
        Some((id, String::from_utf8(message.key().unwrap().to_vec()).unwrap(), message.partition()))
    }
}

fn at_least_once(broker: &Broker) -> KafkaSink {
    let sources = config::Sources {
        flags: vec![("outbox.name".into(), "demo".into()), ("kafka.brokers".into(), broker.address().into())],
        ..Default::default()
    };
    let mut kafka = config::load(&sources).unwrap().config.kafka;
    kafka.delivery = Delivery::AtLeastOnce;
    KafkaSink::new(Settings { name: "demo".into(), source: None, kafka, signs: Heartbeat::new() }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_relay_publishes_to_the_broker_inside_any_client_can_read() {
    let broker = Broker::start().unwrap();
    assert!(broker.address().starts_with("127.0.0.1:"), "{}", broker.address());
    for (epoch, from) in [(1, 1), (2, 31)] {
        let claimed = at_least_once(&broker).fence().await.unwrap().recover(suite::writer(epoch), Applied::default()).await;
        let (mut publisher, ..) = claimed.unwrap();
        let published = suite::publish(&mut publisher, &suite::batch(TOPIC, from, from + 29)).await.unwrap();
        assert!(published.journalled().is_none());
    }
    let address = broker.address().to_owned();
    let (seen, lanes) = tokio::task::spawn_blocking(move || {
        let (client, until) = (Client::new(&address), Instant::now() + MOST);
        let (mut seen, mut lanes) = (Vec::new(), HashMap::new());
        while seen.len() < 60 && Instant::now() < until {
            let Some((id, key, partition)) = client.next() else { continue };
            assert_eq!(*lanes.entry(key.clone()).or_insert(partition), partition, "a key has one partition");
            seen.push((key, id));
        }
        (seen, lanes)
    })
    .await
    .unwrap();
    for key in lanes.keys() {
        let ids: Vec<Uuid> = seen.iter().filter(|(found, _)| found == key).map(|(_, id)| *id).collect();
        let expected: Vec<Uuid> = (1..=60).filter(|seq| format!("key-{}", seq % 3) == *key).map(suite::id).collect();
        assert_eq!(ids, expected, "{key}");
    }
    assert_eq!(lanes.len(), 3);
}

/// A demo that is running, in a folder for temporary files of its own.
struct Demo {
    child: Child,
    place: PathBuf,
    /// Lines of stderr as they come.
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// How a demo ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    /// All of stderr.
    lines: Vec<String>,
}

impl Ended {
    #[track_caller]
    fn verdict(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.lines.join("\n")))
    }
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, Stdio::piped(), &[])
    }

    fn start_with(arguments: &[&str], stderr: Stdio, environment: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("demo-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir(&place).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
        command.env_clear().env("TMPDIR", &place).envs(environment.iter().copied()).arg("demo").args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let lines = child.stderr.take().map_or_else(|| mpsc::channel().1, lines);
        Self { child, place, lines, seen: Vec::new() }
    }

    /// Waits for a line of stderr that holds this text.
    fn says(&mut self, text: &str) -> String {
        let until = Instant::now() + MOST;
        loop {
            let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("{text:?} was not said ({error}): {}", self.seen.join("\n")));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Where its broker listens, as it says.
    fn address(&mut self) -> String {
        let command = self.says("kcat -C -b 127.0.0.1:");
        self.says("Java's cannot");
        command.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap().to_owned()
    }

    /// Waits until something was read back.
    fn flows(&mut self) {
        while self.says("read back ").contains("read back 0,") {}
    }

    fn signal(&self, signal: i32) {
        send(self.child.id(), signal);
    }

    /// The process of its relay, once it has one.
    fn relay(&self) -> u32 {
        self.process("outboxd\0run\0")
    }

    /// The process that removes its folder if it cannot do that itself.
    fn heir(&self) -> u32 {
        self.process("/bin/sh\0")
    }

    /// The child whose command line begins like this, once there is one.
    fn process(&self, begins: &str) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let is_it = |process: &u32| command_line(*process).is_some_and(|line| line.starts_with(begins));
        wait_for(|| fs::read_to_string(&children).ok()?.split_whitespace().filter_map(|word| word.parse().ok()).find(is_it))
    }

    /// The folder that it made.
    fn folder(&self) -> PathBuf {
        wait_for(|| fs::read_dir(&self.place).ok()?.next()?.ok().map(|entry| entry.path()))
    }

    /// Waits for its end. It must leave nothing behind.
    #[track_caller]
    fn end(mut self) -> Ended {
        let mut stdout = String::new();
        // the end of this is the end of the process
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let code = self.child.wait().unwrap().code();
        let lines: Vec<String> = self.seen.drain(..).chain(self.lines.iter()).collect();
        let left: Vec<_> = fs::read_dir(&self.place).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
        Ended { code, stdout, lines }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // for a test that fails half-way: the process may have ended before
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.place);
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
    receiver
}

fn send(process: u32, signal: i32) {
    // SAFETY: a plain call without pointers.
    assert_eq!(unsafe { libc::kill(process as i32, signal) }, 0, "process {process} is gone");
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + MOST;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "it did not come within {MOST:?}");
        thread::sleep(STEP);
    }
}

fn command_line(process: u32) -> Option<String> {
    String::from_utf8(fs::read(format!("/proc/{process}/cmdline")).ok()?).ok()
}

/// Processes that have anything to do with this folder.
fn concerned(place: &Path) -> Vec<String> {
    let place = place.to_str().unwrap();
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(command_line).filter(|line| line.contains(place)).collect()
}

fn is_alive(process: u32) -> bool {
    // a process that has ended and that nobody has waited for yet is dead
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Writes to the shop's database beside the demo.
fn meddle(folder: &Path, statement: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join("shop.db")).busy_timeout(MOST);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use sqlx::{ConnectOptions, Connection};
        let mut connection = options.connect().await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn everything_that_is_committed_arrives_although_the_relay_is_killed() {
    let mut demo = Demo::start(&["--seconds", "6", "--rate", "200", "--json"]);
    let address = demo.address();
    let over = Arc::new(AtomicBool::new(false));
    let other = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let (client, mut seen) = (Client::new(&address), HashMap::new());
            while !over.load(Ordering::Relaxed) {
                if let Some((id, ..)) = client.next() {
                    *seen.entry(id).or_insert(0_u64) += 1;
                }
            }
            // a client whose broker is gone takes most of a minute to be dropped
            std::mem::forget(client);
            seen
        }
    });
    demo.flows();
    let ended = demo.end();
    over.store(true, Ordering::Relaxed);
    let (verdict, seen) = (ended.verdict(), other.join().unwrap());
    let count = |name: &str| verdict[name].as_u64().unwrap();
    assert_eq!((ended.code, &verdict["good"]), (Some(0), &Value::Bool(true)), "{verdict}");
    assert_eq!((count("lost"), count("out_of_order"), count("phantoms"), count("waiting")), (0, 0, 0, 0));
    assert_eq!((count("written"), count("written")), (count("published"), count("read_back")));
    assert!(count("written") > 100 && count("relay_kills") >= 1 && count("rolled_back") > 0, "{verdict}");
    let records: u64 = seen.values().sum();
    assert!(records <= count("read_back") + count("duplicated"), "{records}: {verdict}");
    // it reads until the broker goes, which may be a moment before the last record has come
    assert!(seen.len() as u64 * 10 > count("written") * 9, "{} of {verdict}", seen.len());
    let figures: Vec<&String> = ended.lines.iter().filter(|line| line.contains(" s: committed ")).collect();
    assert!(figures.len() >= 5, "one line a second: {:?}", ended.lines);
    assert!(ended.lines.iter().any(|line| line.contains("at_least_once")));
    assert!(!ended.lines.iter().any(|line| line.contains('\x1b')), "{:?}", ended.lines);
}

#[test]
fn an_event_that_was_marked_and_never_published_is_found_to_be_lost() {
    let mut demo = Demo::start(&["--seconds", "3"]);
    demo.flows();
    meddle(
        &demo.folder(),
        "INSERT INTO outbox (topic, key, payload, sent_at) VALUES ('orders', 'order-0', '{\"version\": 1}', '2026-01-01T00:00:00.000Z')",
    );
    let ended = demo.end();
    assert_eq!(ended.code, Some(3), "{}", ended.stdout);
    assert!(ended.stdout.contains("\n  lost                 1\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains("\nBad: events were lost.\n"), "{}", ended.stdout);
}

#[test]
fn ctrl_c_ends_it_with_a_verdict_and_a_relay_that_somebody_killed_comes_back() {
    let mut demo = Demo::start(&["--seconds", "3600"]);
    demo.flows();
    send(demo.relay(), libc::SIGKILL);
    demo.says("relay dead");
    demo.says("relay running");
    demo.signal(libc::SIGINT);
    let Ended { code, stdout, .. } = demo.end();
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("its relay was killed ") && stdout.contains("\nGood: "), "{stdout}");
    assert!(stdout.contains("\n  lost                 0\n"), "{stdout}");
    assert!(stdout.lines().all(|line| line.chars().count() <= 80) && !stdout.contains('\x1b'), "{stdout}");
}

#[test]
fn killed_at_any_moment_it_leaves_no_process_and_no_folder() {
    for moment in [0, 5, 15, 30, 60, 120, 250, 500, 1_000, 2_000] {
        let mut demo = Demo::start(&["--seconds", "3600"]);
        thread::sleep(Duration::from_millis(moment));
        demo.signal(libc::SIGKILL);
        demo.child.wait().unwrap();
        wait_for(|| concerned(&demo.place).is_empty().then_some(()));
        // nobody is left who could make or remove anything
        let left: Vec<_> = fs::read_dir(&demo.place).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "killed after {moment} ms: {left:?}");
    }
}

#[test]
fn when_the_demo_is_killed_its_relay_dies_with_it_and_the_next_one_sweeps() {
    let mut demo = Demo::start(&["--seconds", "3600"]);
    demo.flows();
    let (relay, folder) = (demo.relay(), demo.folder());
    assert!(is_alive(relay));
    send(demo.heir(), libc::SIGKILL);
    demo.signal(libc::SIGKILL);
    demo.child.wait().unwrap();
    wait_for(|| (!is_alive(relay)).then_some(()));
    assert!(folder.exists(), "nobody was left to remove it");
    let place = demo.place.to_str().unwrap().to_owned();
    let mut next = Demo::start_with(&["--seconds", "1"], Stdio::piped(), &[("TMPDIR", &place)]);
    next.address();
    assert!(!folder.exists());
    assert_eq!(next.end().code, Some(0));
}

/// A terminal of this many columns: its own side, and the program's.
fn terminal(columns: u16) -> (fs::File, Stdio) {
    use std::os::fd::FromRawFd;
    let (mut ours, mut theirs) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both numbers outlive the call, which makes two descriptors; each gets one owner.
    unsafe {
        assert_eq!(libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null_mut(), &size), 0);
        (fs::File::from_raw_fd(ours), Stdio::from_raw_fd(theirs))
    }
}

/// What a demo writes to a terminal of 80 columns.
fn drawn(environment: &[(&str, &str)]) -> String {
    let (ours, theirs) = terminal(80);
    let text = thread::spawn(move || {
        let mut text = Vec::new();
        // the end of a terminal is an error, after all that was written
        let _ = BufReader::new(ours).read_to_end(&mut text);
        String::from_utf8(text).unwrap()
    });
    let environment = [&[("TERM", "xterm"), ("LANG", "C.UTF-8")], environment].concat();
    let demo = Demo::start_with(&["--seconds", "2", "--json"], theirs, &environment);
    assert_eq!(demo.end().verdict()["good"], true);
    text.join().unwrap()
}

#[test]
fn on_a_terminal_a_block_is_drawn_in_place_within_its_columns() {
    for (environment, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let text = drawn(environment);
        assert!(text.contains("\r\x1b[8A"), "{text:?}");
        assert_eq!(text.contains("\x1b[2m"), coloured, "{text:?}");
        assert!(text.contains("░░░") && text.contains("read back"), "{text}");
        let block = text.rsplit("\x1b[8A").next().unwrap();
        assert_eq!(block.lines().filter(|line| line.contains("\x1b[K")).count(), 8, "{block:?}");
        for line in text.lines() {
            assert!(visible(line) <= 80, "{line:?}");
        }
    }
}

/// Characters of a line that are seen: without the orders to the terminal.
fn visible(line: &str) -> usize {
    let mut parts = line.trim_end_matches('\r').split('\x1b');
    let first = parts.next().unwrap().chars().filter(|c| *c != '\r').count();
    first + parts.map(|part| part.chars().skip_while(|c| !c.is_ascii_alphabetic()).skip(1).count()).sum::<usize>()
}

#[test]
fn the_demo_takes_no_configuration() {
    for flag in [["--config", "/nowhere"], ["--set", "outbox.name=shop"]] {
        let answer = super::cli::outboxd(&[&flag[..], &["demo"]].concat());
        answer.expect(2).says("the demo takes no configuration");
    }
}
