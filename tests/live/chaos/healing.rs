//! How each fault ends.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::fault::Kind;
use super::world::World;
use crate::support::disk::Disk;
use crate::support::proxy::Frame;
use crate::support::{Weather, eventually};

/// How long a relay may take to come to the point at which it is to die.
const POINT: Duration = Duration::from_secs(12);

/// How a process ends that dies at a failpoint.
const DIED: i32 = -libc::SIGABRT;

/// What lasts of a fault.
pub enum Under {
    /// It is over.
    Nothing,
    /// A relay is dead.
    Dead(usize),
    /// A relay is to die at a point.
    Dying(usize),
    /// A relay stands still.
    Asleep(usize),
    /// A relay's clock is wrong.
    WrongClock(usize),
    /// A relay must not have more memory.
    Limited(usize),
    /// A relay's log goes to a full disk.
    Logless(usize, Disk),
    /// A relay goes through the pooler.
    Pooled(usize),
    /// A broker is dead.
    Down(usize),
    /// A broker is dead, and this topic asks for it.
    TooFew(usize, String),
    /// A broker stands still.
    Paused(usize),
    /// A relay has bad weather to Kafka.
    Network(usize),
    /// A frame is held back.
    Held(Frame),
    /// An answer was lost on a relay's connection, which is still there.
    Unanswered(usize, Frame),
    /// The database is dead.
    DatabaseDown,
    /// A relay has bad weather to the database.
    Line(usize),
    /// Somebody's transaction is open.
    Open(PgConnection),
}

impl World {
    /// Ends every fault that lasts; tells those that really happened.
    pub fn heal_all(&mut self) -> Vec<Kind> {
        let mut struck = Vec::new();
        while let Some((kind, what)) = self.under.pop_front() {
            struck.extend(self.heal(what).then_some(kind));
        }
        struck
    }

    /// Ends a fault; says whether it happened.
    fn heal(&mut self, under: Under) -> bool {
        match under {
            Under::Nothing => {}
            Under::Dead(relay) | Under::Pooled(relay) => self.start_relay(relay, |options| options),
            Under::Dying(relay) => return self.bury(relay),
            Under::Asleep(relay) => self.relays[relay].daemon.sigcont(),
            Under::WrongClock(relay) => self.relays[relay].clock.set(0),
            Under::Limited(relay) => self.unlimit(relay),
            Under::Logless(relay, disk) => {
                self.outlive_log(relay);
                drop(disk);
            }
            Under::Down(broker) => self.start_broker(broker),
            Under::TooFew(broker, topic) => {
                self.start_broker(broker);
                self.runtime.block_on(self.stage.kafka.alter_topic(&topic, "min.insync.replicas", "2"));
            }
            Under::Paused(broker) => {
                self.stage.kafka.sigcont(broker);
                self.stage.kafka.wait_ready(broker, 3);
                self.broker_down = None;
            }
            Under::Network(relay) => self.relays[relay].way.nodes.iter().for_each(|node| node.set(Weather::Pass)),
            Under::Held(frame) => frame.release(),
            Under::Unanswered(relay, frame) => {
                self.relays[relay].way.nodes.iter().for_each(|node| node.cut_once());
                drop(frame);
            }
            Under::DatabaseDown => {
                self.stage.postgres.start_again();
                self.database_down = false;
            }
            Under::Line(relay) => self.relays[relay].line.set(Weather::Pass),
            // an error means that the database has ended it before
            Under::Open(connection) => drop(self.runtime.block_on(connection.close())),
        }
        true
    }

    fn start_broker(&mut self, broker: usize) {
        self.stage.kafka.start_again(broker);
        self.stage.kafka.wait_ready(broker, 3);
        self.broker_down = None;
    }

    /// Like a container that was short of memory, it begins anew, dead or alive.
    fn unlimit(&mut self, relay: usize) {
        let daemon = &self.relays[relay].daemon;
        if !daemon.is_running() {
            self.windows.hit("died of the memory limit".to_owned());
        }
        self.start_relay(relay, |options| options);
    }

    /// Whatever its log comes to, a relay goes on; only another fault may have killed it.
    fn outlive_log(&mut self, relay: usize) {
        let daemon = &self.relays[relay].daemon;
        let code = if daemon.is_running() { None } else { Some(daemon.wait_exit(POINT)) };
        self.wrong
            .extend(code.filter(|code| *code != -libc::SIGKILL).map(|code| format!("with a full log disk a relay left: {code}")));
        self.start_relay(relay, |options| options);
    }

    /// Waits until a relay has died at its point, or long enough; it begins anew.
    fn bury(&mut self, relay: usize) -> bool {
        let start = std::time::Instant::now();
        let daemon = &self.relays[relay].daemon;
        eventually("it dies, or does not", 2 * POINT, || !daemon.is_running() || start.elapsed() > POINT);
        let died = !daemon.is_running() && daemon.wait_exit(POINT) == DIED;
        self.start_relay(relay, |options| options);
        died
    }
}
