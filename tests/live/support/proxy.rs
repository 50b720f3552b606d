//! A TCP proxy that makes the faults of a network, and, before Kafka, faults of single requests and answers.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::place;
use super::wait::eventually;

mod connection;

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    Pass,
    /// Nobody gets through: connections are closed, new ones are accepted and closed at once.
    Cut,
    /// They wait; connections stay, new ones are accepted. They go on when the weather changes.
    Freeze,
    /// They arrive late, in each direction by this much.
    Delay(Duration),
    /// Requests pass, answers are thrown away while the connection stays (before Kafka: whole answers).
    DropAnswers,
}

/// Api keys of the Kafka protocol, for the faults of single frames.
pub mod api_key {
    /// Records to a partition.
    pub const PRODUCE: i16 = 0;
    /// Records from a partition.
    pub const FETCH: i16 = 1;
    /// A producer claims its transactional id.
    pub const INIT_PRODUCER_ID: i16 = 22;
    /// A partition joins the transaction.
    pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
    /// Commit or abort.
    pub const END_TXN: i16 = 26;
    /// The end of a transaction, from the coordinator to the leader of each of its partitions.
    pub const WRITE_TXN_MARKERS: i16 = 27;
}

/// Listens on a port of 127.0.0.1 and connects each client to one server; everything passes at first.
pub struct Proxy {
    port: u16,
    sky: Arc<Sky>,
    runtime: Option<Runtime>,
}

/// What all connections of a proxy look at.
struct Sky {
    server_port: AtomicU16,
    frames: bool,
    weather: watch::Sender<Weather>,
    cuts: watch::Sender<u64>,
    traps: Mutex<Vec<Trap>>,
    accepted: AtomicUsize,
}

/// Waits for one frame of Kafka's protocol.
struct Trap {
    side: Side,
    api_key: i16,
    /// Whether the frame is lost instead of held.
    lose: bool,
    state: Arc<watch::Sender<Caught>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Caught {
    NotYet,
    Held,
    ClientCut,
    Released,
}

/// The frame that a trap waits for, or has caught. Dropping it releases the frame, or disarms the trap.
pub struct Frame {
    state: Arc<watch::Sender<Caught>>,
}

impl Frame {
    /// Waits until the trap has caught its frame.
    pub fn wait_caught(&self, within: Duration) {
        eventually("the proxy catches the frame", within, || self.is_caught());
    }

    /// Whether the trap has caught its frame.
    pub fn is_caught(&self) -> bool {
        *self.state.borrow() != Caught::NotYet
    }

    /// Closes the client's side of the connection; the server's side stays open with the frame still held back.
    pub fn cut_client(&self) {
        self.state.send_replace(Caught::ClientCut);
    }

    /// Lets the held frame go on, and what came behind it.
    pub fn release(&self) {
        self.state.send_replace(Caught::Released);
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // A trap that has caught nothing catches nothing any more.
        self.state.send_if_modified(|state| std::mem::replace(state, Caught::Released) != Caught::Released);
    }
}

impl Proxy {
    /// A proxy on a free port before any server on 127.0.0.1.
    pub fn before(server_port: u16) -> Proxy {
        Proxy::start(place::free_port(), server_port, false)
    }

    /// A proxy that knows Kafka's frames; clients come back only if the broker advertises `port`
    /// (see [`super::Kafka::proxied`]).
    pub fn before_kafka(port: u16, server_port: u16) -> Proxy {
        Proxy::start(port, server_port, true)
    }

    fn start(port: u16, server_port: u16, frames: bool) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|e| panic!("proxy on {port}: {e}"));
        listener.set_nonblocking(true).unwrap();
        let sky = Arc::new(Sky {
            server_port: AtomicU16::new(server_port),
            frames,
            weather: watch::Sender::new(Weather::Pass),
            cuts: watch::Sender::new(0),
            traps: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        // A runtime of its own: a test may block its thread, or stop its clock, and the proxy goes on.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(connection::accept(listener, sky.clone()));
        Proxy { port, sky, runtime: Some(runtime) }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Leads to another server on 127.0.0.1 from now on; the present connections are closed.
    pub fn turn_to(&self, server_port: u16) {
        self.sky.server_port.store(server_port, Ordering::Relaxed);
        self.cut_once();
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.sky.accepted.load(Ordering::Relaxed)
    }

    /// Changes the weather for all connections.
    pub fn set(&self, weather: Weather) {
        self.sky.weather.send_replace(weather);
        if weather == Weather::Cut {
            self.cut_once();
        }
    }

    /// Closes the present connections; new ones are served as the weather has it.
    pub fn cut_once(&self) {
        self.sky.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Holds the next request with this api key, and what comes behind it on its connection; later ones pass.
    #[must_use = "dropping it releases the frame"]
    pub fn hold_request(&self, api_key: i16) -> Frame {
        self.trap(Side::Request, api_key, false)
    }

    /// Holds the next answer to a request with this api key.
    #[must_use = "dropping it releases the frame"]
    pub fn hold_answer(&self, api_key: i16) -> Frame {
        self.trap(Side::Answer, api_key, false)
    }

    /// Loses the next answer to a request with this api key; the connection stays.
    pub fn lose_answer(&self, api_key: i16) -> Frame {
        self.trap(Side::Answer, api_key, true)
    }

    fn trap(&self, side: Side, api_key: i16, lose: bool) -> Frame {
        assert!(self.sky.frames, "only a proxy before Kafka knows its frames");
        let state = Arc::new(watch::Sender::new(Caught::NotYet));
        self.sky.traps.lock().unwrap().push(Trap { side, api_key, lose, state: state.clone() });
        Frame { state }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
