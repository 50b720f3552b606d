//! How each fault begins.

use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer};
use sqlx::{Connection, PgConnection};

use super::SOON;
use super::fault::{self, Kind};
use super::healing::Under;
use super::world::World;
use crate::support::disk::Disk;
use crate::support::proxy::{Frame, api_key};
use crate::support::{Postgres, Proxy, Weather, eventually, place};

/// How long a frame is waited for: none comes while nobody leads, or from a relay that cannot get through.
const FRAME: Duration = Duration::from_secs(10);
/// How long a relay may take to leave in order. One that stands still or cannot get through takes longer.
const LEAVE: Duration = Duration::from_secs(20);
/// How much later bytes arrive on a slow network.
const LATE: Duration = Duration::from_millis(120);
/// A broker may take this long to be in sync again.
const BROKER: usize = 3;

impl World {
    /// Begins a fault. Nothing where it could not be made now.
    pub fn strike(&mut self, kind: Kind) -> Option<Under> {
        match kind {
            Kind::KillRelay | Kind::DieAtPoint | Kind::StopRelay | Kind::OversleepRelay | Kind::WrongClock => {
                self.strike_relay(kind)
            }
            Kind::Reconfigure | Kind::RollingUpgrade | Kind::MemoryLimit | Kind::LogDiskFull | Kind::Pooler => {
                self.treat_relay(kind)
            }
            Kind::KillLeader | Kind::KillCoordinator | Kind::PauseBroker | Kind::RollingRestart | Kind::TooFewReplicas => {
                self.strike_broker(kind)
            }
            Kind::CutFromLeader
            | Kind::CutFromCoordinator
            | Kind::FreezeKafka
            | Kind::DelayKafka
            | Kind::DropAnswers
            | Kind::HoldCommit
            | Kind::HoldProduce
            | Kind::LoseCommitAnswer => self.strike_network(kind),
            Kind::KillDatabase
            | Kind::RestartDatabase
            | Kind::KillBackend
            | Kind::EndConnections
            | Kind::SynchronousFailover
            | Kind::AsynchronousFailover => self.strike_database(kind),
            Kind::CutDatabase => Some(self.weather_to_database(Weather::Cut)),
            Kind::FreezeDatabase => Some(self.weather_to_database(Weather::Freeze)),
            Kind::DelayDatabase => Some(self.weather_to_database(Weather::Delay(LATE))),
            Kind::ForeignProducer | Kind::IdleTransaction | Kind::WipeLease | Kind::TruncateToken | Kind::AddPartitions => {
                self.strike_by_hand(kind)
            }
        }
    }

    fn strike_relay(&mut self, kind: Kind) -> Option<Under> {
        let leader = self.leader();
        match kind {
            Kind::KillRelay => {
                let victim = self.chance.usize(0..self.relays.len());
                self.relays[victim].daemon.sigkill();
                Some(Under::Dead(victim))
            }
            Kind::DieAtPoint => {
                let points = fault::points();
                let point = self.chance.choice(&points)?;
                // most batches are of a hundred events or so; a claim is made once
                let passing = match *point {
                    "looked" | "fenced" | "claimed" | "recovered" => 1,
                    "sending" => self.chance.u32(1..300),
                    _ => self.chance.u32(1..8),
                };
                let plan = format!("{point}=kill@{passing}");
                self.start_relay(leader, |options| options.variable("OUTBOXD_FAILPOINTS", &plan));
                Some(Under::Dying(leader))
            }
            Kind::WrongClock => {
                self.relays[leader].clock.set(if self.chance.bool() { 3600 } else { -3600 });
                Some(Under::WrongClock(leader))
            }
            _ => {
                self.relays[leader].daemon.sigstop();
                Some(Under::Asleep(leader))
            }
        }
    }

    /// What people do to a relay, or its machine.
    fn treat_relay(&mut self, kind: Kind) -> Option<Under> {
        let leader = self.leader();
        match kind {
            Kind::Reconfigure => {
                let events = self.chance.u32(50..2000).to_string();
                self.start_relay(leader, |options| options.set("relay.batch_max_events", &events).set("relay.linger", "0ms"));
                Some(Under::Nothing)
            }
            Kind::RollingUpgrade => {
                (0..self.relays.len()).for_each(|number| self.upgrade(number));
                Some(Under::Nothing)
            }
            Kind::MemoryLimit => self.relays[leader].daemon.limit_memory().then_some(Under::Limited(leader)),
            Kind::LogDiskFull => {
                let folder = place::folder("full");
                let disk = Disk::mount(&folder, 1).ok()?;
                disk.fill(0);
                self.start_relay(leader, |options| options.log_into(&folder));
                Some(Under::Logless(leader, disk))
            }
            _ => {
                let url = self.pooler.url(&self.stage.database, "outboxd");
                self.start_relay(leader, |options| options.set("database.url", &url));
                Some(Under::Pooled(leader))
            }
        }
    }

    /// A relay leaves in order, and the next program takes its place.
    fn upgrade(&mut self, number: usize) {
        let (start, daemon) = (Instant::now(), &self.relays[number].daemon);
        daemon.sigterm();
        eventually("it leaves, or does not", 2 * LEAVE, || !daemon.is_running() || start.elapsed() > LEAVE);
        self.start_relay(number, |options| options);
        let daemon = &self.relays[number].daemon;
        eventually("the relay is there", SOON, || daemon.get("/healthz").is_some());
    }

    fn strike_broker(&mut self, kind: Kind) -> Option<Under> {
        if self.broker_down.is_some() {
            return None;
        }
        let node = match kind {
            Kind::KillLeader => self.broker_of(&self.stage.journal(), 0)?,
            Kind::KillCoordinator => self.coordinator()?,
            _ => self.chance.usize(0..BROKER),
        };
        match kind {
            Kind::RollingRestart => {
                for node in 0..BROKER {
                    self.stage.kafka.stop(node);
                    self.stage.kafka.start_again(node);
                    self.stage.kafka.wait_ready(node, BROKER);
                }
                return Some(Under::Nothing);
            }
            Kind::PauseBroker => self.stage.kafka.sigstop(node),
            Kind::TooFewReplicas => {
                let topic = format!("{}-of-12", self.stage.name);
                self.runtime.block_on(self.stage.kafka.alter_topic(&topic, "min.insync.replicas", "3"));
                self.stage.kafka.kill_hard(node);
                self.broker_down = Some(node);
                return Some(Under::TooFew(node, topic));
            }
            _ => self.stage.kafka.kill_hard(node),
        }
        self.broker_down = Some(node);
        Some(if kind == Kind::PauseBroker { Under::Paused(node) } else { Under::Down(node) })
    }

    fn strike_network(&mut self, kind: Kind) -> Option<Under> {
        match kind {
            Kind::HoldCommit => return self.hold(api_key::END_TXN),
            Kind::HoldProduce => return self.hold(api_key::PRODUCE),
            Kind::LoseCommitAnswer => {
                let (relay, lost) = self.catch(|node| node.lose_answer(api_key::END_TXN))?;
                return Some(Under::Unanswered(relay, lost));
            }
            _ => {}
        }
        let leader = self.leader();
        let nodes = &self.relays[leader].way.nodes;
        let all = |weather: Weather| nodes.iter().for_each(|node| node.set(weather));
        match kind {
            Kind::CutFromLeader => nodes[self.broker_of(&self.stage.journal(), 0)?].set(Weather::Cut),
            Kind::CutFromCoordinator => nodes[self.coordinator()?].set(Weather::Cut),
            Kind::FreezeKafka => all(Weather::Freeze),
            Kind::DelayKafka => all(Weather::Delay(LATE)),
            _ => all(Weather::DropAnswers),
        }
        Some(Under::Network(leader))
    }

    /// Holds a frame back and cuts its connection, so that the library sends it again.
    fn hold(&self, api_key: i16) -> Option<Under> {
        let (_, frame) = self.catch(|node| node.hold_request(api_key))?;
        frame.cut_client();
        Some(Under::Held(frame))
    }

    /// The first such frame of any relay to any broker; nothing where none comes.
    fn catch(&self, trap: impl Fn(&Proxy) -> Frame) -> Option<(usize, Frame)> {
        let relays = self.relays.iter().enumerate();
        let mut frames: Vec<(usize, Frame)> = relays
            .flat_map(|(number, relay)| relay.way.nodes.iter().map(move |node| (number, node)))
            .map(|(n, node)| (n, trap(node)))
            .collect();
        let start = Instant::now();
        let caught = |frames: &[(usize, Frame)]| frames.iter().position(|(_, frame)| frame.is_caught());
        eventually("a frame comes, or none does", 2 * FRAME, || caught(&frames).is_some() || start.elapsed() > FRAME);
        caught(&frames).map(|number| frames.swap_remove(number))
    }

    fn strike_database(&mut self, kind: Kind) -> Option<Under> {
        if self.database_down {
            return None;
        }
        let postgres = self.stage.postgres;
        let happened = match kind {
            Kind::KillDatabase => {
                postgres.kill_hard();
                self.database_down = true;
                return Some(Under::DatabaseDown);
            }
            Kind::RestartDatabase => {
                postgres.restart();
                true
            }
            Kind::KillBackend => {
                let backends = self.relay_backends();
                let victim = self.chance.choice(&backends);
                victim.iter().for_each(|pid| crash(postgres, **pid));
                victim.is_some()
            }
            Kind::EndConnections => self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'outboxd'"),
            _ => self.fail_over(kind == Kind::SynchronousFailover),
        };
        happened.then_some(Under::Nothing)
    }

    fn weather_to_database(&mut self, weather: Weather) -> Under {
        let leader = self.leader();
        self.relays[leader].line.set(weather);
        Under::Line(leader)
    }

    fn strike_by_hand(&mut self, kind: Kind) -> Option<Under> {
        let happened = match kind {
            Kind::ForeignProducer => self.intrude(),
            Kind::IdleTransaction => return self.hold_a_transaction().map(Under::Open),
            Kind::WipeLease => self.sql("UPDATE outboxd_state SET lease_until = NULL"),
            Kind::TruncateToken => self.sql("TRUNCATE outboxd_token"),
            _ => self.grow_a_topic(),
        };
        happened.then_some(Under::Nothing)
    }

    /// Somebody else inits a producer with the outbox's transactional id.
    fn intrude(&self) -> bool {
        let mut config = self.stage.kafka.client();
        config.set("transactional.id", format!("outboxd-{}", self.stage.name)).set("transaction.timeout.ms", "10000");
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(Duration::from_secs(10)).is_ok()
    }

    /// Somebody holds a snapshot, and a number of the outbox that is never committed.
    fn hold_a_transaction(&self) -> Option<PgConnection> {
        let url = self.stage.postgres.url(&self.stage.database, "postgres");
        let topic = self.stage.topics.keys().next()?;
        let insert = "INSERT INTO outbox (topic, key, payload) VALUES ($1, 'idle', '{}')";
        let held = async {
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ").execute(&mut connection).await?;
            sqlx::query(insert).bind(topic).execute(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        if self.database_down { None } else { self.runtime.block_on(held).ok() }
    }

    /// The topics in turn.
    fn grow_a_topic(&mut self) -> bool {
        let number = self.grown % self.stage.topics.len();
        let Some((topic, count)) = self.stage.topics.iter().nth(number).filter(|_| self.broker_down.is_none()) else {
            return false;
        };
        let count = *count as usize + 1 + self.grown / self.stage.topics.len();
        self.runtime.block_on(self.stage.kafka.grow_topic(topic, count));
        self.grown += 1;
        true
    }

    fn relay_backends(&self) -> Vec<i32> {
        let query = "SELECT pid FROM pg_stat_activity WHERE usename = 'outboxd'";
        let pids = self.stage.postgres.try_sql("postgres", query).unwrap_or_default();
        pids.lines().map(|pid| pid.parse().expect("a number")).collect()
    }
}

/// Kills a backend, and waits until the server has recovered from that.
fn crash(postgres: &Postgres, backend: i32) {
    let starts = || postgres.log().matches("ready to accept connections").count();
    let before = starts();
    postgres.kill_backend(backend);
    eventually("the server has recovered", SOON, || starts() > before);
    postgres.wait_ready();
}
