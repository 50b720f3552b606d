//! How each fault begins.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};
use sqlx::{Connection, PgConnection};

use super::fault::{self, Kind};
use super::healing::Under;
use super::world::World;
use crate::support::proxy::{Frame, api_key};
use crate::support::{Weather, eventually};

/// How long a frame is waited for: a relay without work sends none.
const FRAME: Duration = Duration::from_secs(3);
/// How much later bytes arrive on a slow network.
const LATE: Duration = Duration::from_millis(120);
/// A broker may take this long to be in sync again.
const BROKER: usize = 3;

impl World {
    /// Begins a fault. Nothing where it could not be made now.
    pub fn strike(&mut self, kind: Kind) -> Option<Under> {
        match kind {
            Kind::KillRelay | Kind::DieAtPoint | Kind::StopRelay | Kind::OversleepRelay | Kind::Reconfigure | Kind::WrongClock => {
                self.strike_relay(kind)
            }
            Kind::KillLeader | Kind::KillCoordinator | Kind::PauseBroker | Kind::RollingRestart => self.strike_broker(kind),
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
            Kind::Reconfigure => {
                let events = self.chance.u32(50..2000).to_string();
                self.start_relay(leader, |options| options.set("relay.batch_max_events", &events).set("relay.linger", "0ms"));
                Some(Under::Nothing)
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
            _ => self.stage.kafka.kill_hard(node),
        }
        self.broker_down = Some(node);
        Some(if kind == Kind::PauseBroker { Under::Paused(node) } else { Under::Down(node) })
    }

    fn strike_network(&mut self, kind: Kind) -> Option<Under> {
        let leader = self.leader();
        let node = match kind {
            Kind::CutFromLeader | Kind::HoldProduce => self.broker_of(&self.stage.journal(), 0)?,
            _ => self.coordinator()?,
        };
        let nodes = &self.relays[leader].way.nodes;
        let all = |weather: Weather| {
            nodes.iter().for_each(|node| node.set(weather));
            Under::Network(leader)
        };
        match kind {
            Kind::CutFromLeader | Kind::CutFromCoordinator => {
                nodes[node].set(Weather::Cut);
                Some(Under::Network(leader))
            }
            Kind::FreezeKafka => Some(all(Weather::Freeze)),
            Kind::DelayKafka => Some(all(Weather::Delay(LATE))),
            Kind::DropAnswers => Some(all(Weather::DropAnswers)),
            Kind::HoldCommit => hold(nodes[node].hold_request(api_key::END_TXN)),
            Kind::HoldProduce => hold(nodes[node].hold_request(api_key::PRODUCE)),
            _ => {
                let lost = nodes[node].lose_answer(api_key::END_TXN);
                is_caught(&lost).then_some(Under::Unanswered(leader, lost))
            }
        }
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
                let backends = self.stage.relay_backends();
                let victim = self.chance.choice(&backends);
                victim.iter().for_each(|pid| postgres.kill_backend(**pid));
                postgres.wait_ready();
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

    fn grow_a_topic(&mut self) -> bool {
        let next = self.stage.topics.iter().find(|(topic, _)| !self.grown.contains(topic));
        let Some((topic, count)) = next.map(|(topic, count)| (topic.clone(), *count)).filter(|_| self.broker_down.is_none()) else {
            return false;
        };
        self.runtime.block_on(self.stage.kafka.grow_topic(&topic, 2 * count as usize));
        self.grown.push(topic);
        true
    }
}

fn is_caught(frame: &Frame) -> bool {
    let start = std::time::Instant::now();
    eventually("the frame comes, or it does not", 2 * FRAME, || frame.is_caught() || start.elapsed() > FRAME);
    frame.is_caught()
}

/// Holds a frame back and cuts its connection, so that the library sends it again.
fn hold(frame: Frame) -> Option<Under> {
    is_caught(&frame).then(|| {
        frame.cut_client();
        Under::Held(frame)
    })
}
