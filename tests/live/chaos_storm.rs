//! All faults at once, in random order, on two instances: what survives each alone must survive any two together.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::stage::{Mark, Stage, is_long};
use crate::support::proxy::api_key;
use crate::support::{Daemon, Kafka, Postgres, PostgresOptions, Proxy, Version, Weather, let_pass};
use crate::workload::Habits;

const SOON: Duration = Duration::from_secs(60);

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    /// A relay is killed and started again.
    Kill,
    /// A relay stands still for longer than its lease.
    Stop,
    /// All connections to Kafka are closed.
    CutKafka,
    /// Kafka stands still.
    FreezeKafka,
    /// A commit reaches the broker twice, the first time late.
    LateCommit,
    /// The answer to a commit is lost.
    LostAnswer,
    /// PostgreSQL is killed hard.
    CrashDatabase,
    /// A backend of the relay is killed: the server recovers.
    KillBackend,
    /// The relay's connections to the database are closed.
    CutDatabase,
    /// The database stands still.
    FreezeDatabase,
}

const BLOWS: [Blow; 10] = [
    Blow::Kill,
    Blow::Stop,
    Blow::CutKafka,
    Blow::FreezeKafka,
    Blow::LateCommit,
    Blow::LostAnswer,
    Blow::CrashDatabase,
    Blow::KillBackend,
    Blow::CutDatabase,
    Blow::FreezeDatabase,
];

/// What the blows fall on.
struct Storm<'a> {
    stage: Stage<'a>,
    daemons: Vec<Daemon>,
    network: &'a Proxy,
    database: &'a Proxy,
}

impl Storm<'_> {
    /// Deals a blow and says whether it fell: what aims at a commit needs one. What it holds back is given free before it returns,
    /// mostly after the relay had to do without.
    fn deal(&mut self, blow: Blow) -> bool {
        let a_while = Duration::from_millis(fastrand::u64(50..2500));
        let victim = fastrand::usize(0..self.daemons.len());
        match blow {
            Blow::Kill => {
                self.daemons[victim].sigkill();
                self.daemons[victim] = self.stage.start(NAMES[victim]);
            }
            Blow::Stop => {
                self.daemons[victim].sigstop();
                let_pass(a_while);
                self.daemons[victim].sigcont();
            }
            Blow::CutKafka => self.network.cut_once(),
            Blow::FreezeKafka => freeze(self.network, a_while),
            Blow::LateCommit => {
                let held = self.network.hold_request(api_key::END_TXN);
                let_pass(a_while / 2);
                if !held.is_caught() {
                    return false;
                }
                held.cut_client();
                let_pass(a_while);
            }
            Blow::LostAnswer => {
                let lost = self.network.lose_answer(api_key::END_TXN);
                let_pass(a_while);
                self.network.cut_once();
                return lost.is_caught();
            }
            Blow::CrashDatabase => {
                self.stage.postgres.kill_hard();
                self.stage.postgres.start_again();
            }
            Blow::KillBackend => {
                let pids = self.stage.relay_backends();
                let Some(pid) = fastrand::choice(&pids) else { return false };
                self.stage.postgres.kill_backend(*pid);
                self.stage.postgres.wait_ready();
            }
            Blow::CutDatabase => self.database.cut_once(),
            Blow::FreezeDatabase => freeze(self.database, a_while),
        }
        true
    }
}

const NAMES: [&str; 2] = ["one", "two"];

fn freeze(proxy: &Proxy, time: Duration) {
    proxy.set(Weather::Freeze);
    let_pass(time);
    proxy.set(Weather::Pass);
}

/// By chance one of those that fell least often, or just one.
fn draw(fell: &BTreeMap<Blow, usize>) -> Blow {
    let fewest = fell.values().min().copied().unwrap_or(0);
    let rare: Vec<Blow> = fell.iter().filter(|(_, count)| **count == fewest).map(|(blow, _)| *blow).collect();
    let among = if fastrand::bool() { &rare[..] } else { &BLOWS[..] };
    *fastrand::choice(among).expect("there are blows")
}

#[test]
fn any_faults_together_leave_each_event_published_once() {
    let postgres = Postgres::start(Version::V18, PostgresOptions::default());
    let (way, database) = (Kafka::shared().proxied(), Proxy::before(postgres.port()));
    let mut stage = Stage::with("storm", Mark::Row, &postgres, Kafka::shared(), Habits::default(), |options, name| {
        let url = format!("postgres://outboxd@{}/{name}", database.address());
        options.set("kafka.brokers", &way.brokers).set("database.url", &url).set("database.statement_timeout", "3s")
    });
    stage.write();
    let daemons = NAMES.iter().map(|name| stage.start(name)).collect();
    let mut storm = Storm { stage, daemons, network: &way.nodes[0], database: &database };
    let (seconds, least) = if is_long() { (600, 10) } else { (45, 2) };
    let (start, least_time) = (Instant::now(), Duration::from_secs(seconds));
    let mut fell: BTreeMap<Blow, usize> = BLOWS.iter().map(|blow| (*blow, 0)).collect();
    while start.elapsed() < least_time || fell.values().any(|count| *count < least) {
        assert!(start.elapsed() < 4 * least_time, "not {least} of each in time: {fell:?}");
        let blow = draw(&fell);
        *fell.get_mut(&blow).expect("every blow is counted") += usize::from(storm.deal(blow));
        // Mostly the next one falls while this one is not healed; now and then everything comes to rest.
        if fastrand::u8(0..4) == 0 {
            storm.stage.wait_for_batches(3, SOON);
        } else {
            let_pass(Duration::from_millis(fastrand::u64(0..800)));
        }
    }
    println!("storm: {fell:?} in {:?}", start.elapsed());
    storm.stage.wait_for_batches(3, SOON);
    assert!(storm.daemons.iter().all(Daemon::is_running), "whatever happens, a relay stays up");
    let rescued: f64 = storm.daemons.iter().map(|daemon| daemon.metric("outboxd_rescued_events_total")).sum();
    assert_eq!(rescued, 0.0);
    storm.stage.prove();
}
