//! `outboxd run`, and the settlement that other commands need first.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{EXIT_DONE, Failure, LISTENING, RELAYED, assembly, status, target, unsettled};
use crate::config::{Config, Delivery, Listen};
use crate::daemon::{self, Daemon, Janitor, Leader, signals};
use crate::fault::{EXIT_NO, EXIT_NOT_NOW, Fault, Verdict};
use crate::heartbeat::Heartbeat;
use crate::http::{Health, Server};
use crate::metrics::Metrics;
use crate::relay::{self, End, Relay, Until};
use crate::sink::kafka::KafkaSink;
use crate::source::any::AnySource;
use crate::stop::Stop;

/// Whether to leave when everything is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// Relay until asked to stop.
    No,
    /// Drain what is there and leave.
    Yes,
}

impl From<bool> for Once {
    fn from(once: bool) -> Self {
        if once { Self::Yes } else { Self::No }
    }
}

/// Looks at schema and rights before it relays.
struct Prepared {
    source: Arc<AnySource>,
    relay: Relay<AnySource, KafkaSink>,
}

impl Leader for Prepared {
    async fn lead(&mut self, epoch: u64, stop: &mut Stop) -> End {
        match self.source.prepare().await {
            Err(fault) if matches!(fault.verdict(), Verdict::Exit(_)) && !self.relay.outlives(&fault) => End::Exit(fault),
            // anything else is met again by the relay, which knows how to wait
            Ok(()) | Err(_) => self.relay.run(epoch, stop).await,
        }
    }
}

/// Relays until asked to stop, or until everything is drained.
pub async fn run(config: &Config, once: Once) -> Result<u8, Failure> {
    let parts = Parts::assemble(config, config.kafka.delivery)?;
    serve(config, &parts).await?;
    let (version, database, brokers) = (env!("CARGO_PKG_VERSION"), target(config), &config.kafka.brokers);
    info!(version, outbox = config.outbox.name, instance = config.relay.instance, database, %brokers, "started");
    if config.kafka.delivery == Delivery::AtLeastOnce {
        warn!("kafka.delivery is at_least_once: after a crash events may come twice, and older ones after newer ones of their key");
    }
    let until = match once {
        Once::No => Until::Stopped,
        Once::Yes => Until::Drained,
    };
    let source = Arc::clone(&parts.source);
    match relay(config, until, parts).await {
        EXIT_DONE if once == Once::Yes => Ok(tell_rest(&source, &config.outbox.name).await?),
        code => Ok(code),
    }
}

/// After everything is drained: what was left, because it cannot be published now. With such a rest the answer is no.
async fn tell_rest(source: &AnySource, name: &str) -> Result<u8, Fault> {
    let figures = source.figures().await?;
    let (parked, behind, held) = (figures.parked, figures.blocked, figures.held);
    if parked == 0 && behind == 0 {
        info!(outbox = name, exit_code = EXIT_DONE, "drained: nothing is left");
        return Ok(EXIT_DONE);
    }
    let remedy = "`outboxd parked list`, and `reason` in the view …_pending, say why; mend it, and run again";
    warn!(
        outbox = name,
        parked,
        behind_these = behind,
        held_topics = held,
        remedy,
        exit_code = EXIT_NO,
        "drained, but this is left"
    );
    Ok(EXIT_NO)
}

/// Takes the lease, claims and settles in the mode `delivery`, publishes nothing, and gives the lease back. Afterwards every row that the
/// journal has is marked, and every relay that led before is shut out. Tells its course in the log. Gives the start number that the lease
/// was granted to: while it is the newest one, nobody has led since.
pub(super) async fn settle(config: &Config, delivery: Delivery) -> Result<u64, Failure> {
    let parts = Parts::assemble(config, delivery)?;
    let start = parts.start;
    match relay(config, Until::Settled, parts).await {
        EXIT_DONE => Ok(start),
        EXIT_NOT_NOW => {
            let remedy = "Stop its relay, or wait until its lease is over, and try again";
            Err(Failure::new(RELAYED, format!("outbox {} is being relayed", config.outbox.name), remedy))
        }
        code => {
            let cause = format!("outbox {} could not be settled, and nothing was changed", config.outbox.name);
            Err(Failure::new(unsettled(code), cause, "The error above says why, and what to do"))
        }
    }
}

/// What a process that relays is made of.
struct Parts {
    /// Start number: positive in the database's signed column, so that a person can compare it with a log line.
    start: u64,
    source: Arc<AnySource>,
    sink: Arc<KafkaSink>,
    metrics: Metrics,
    heart: Heartbeat,
    signals: mpsc::Receiver<signals::Signal>,
}

impl Parts {
    /// Starts the log and listens for signals; connects to nobody.
    fn assemble(config: &Config, delivery: Delivery) -> Result<Self, Failure> {
        assembly::start_log(config);
        let signals = signals::listen().map_err(|error| Failure::refused_by_system("signals cannot be received", &error))?;
        let (metrics, heart) = (Metrics::new(&config.outbox.name), Heartbeat::new());
        let source = Arc::new(assembly::database(config, delivery));
        let sink = Arc::new(assembly::watched_kafka(config, delivery, metrics.signs())?);
        Ok(Self { start: fastrand::u64(1..=i64::MAX.unsigned_abs()), source, sink, metrics, heart, signals })
    }
}

async fn relay(config: &Config, until: Until, parts: Parts) -> u8 {
    let Parts { start, source, sink, metrics, heart, signals } = parts;
    let (waits, limits) = (assembly::waits(config), assembly::limits(config));
    let instance = match until {
        Until::Stopped => config.relay.instance.clone(),
        // beside a daemon of the same machine it must not look like a second one of its name
        Until::Drained | Until::Settled => format!("{} (once)", config.relay.instance),
    };
    let settings = relay::Settings { waits, limits, instance: instance.clone(), start, until };
    let relay = Relay::new(source.clone(), sink.clone(), settings, metrics.clone(), fastrand::Rng::new());
    let janitor = Janitor::new(source.clone(), sink, metrics.clone());
    let (silence, shutdown_grace) = (assembly::silence(config), config.relay.shutdown_grace);
    let settings = daemon::Settings { waits, instance, start, until, silence, shutdown_grace };
    let leader = Prepared { source: source.clone(), relay };
    Daemon::new(source, leader, janitor, settings, metrics, heart).run(signals).await.exit_code()
}

/// Health, metrics and status over HTTP, for as long as the process lives.
async fn serve(config: &Config, Parts { source, metrics, heart, .. }: &Parts) -> Result<(), Failure> {
    let Listen::At(address) = config.http.listen else { return Ok(()) };
    let bound = Server::bind(address).await;
    let server = bound.map_err(|error| Failure::new(LISTENING, &error, error.remedy()))?;
    info!(address = %server.address(), "serving health and metrics");
    let (health, metrics, source, name) =
        (Health::new(heart.clone(), metrics.clone()), metrics.clone(), source.clone(), config.outbox.name.clone());
    tokio::spawn(server.serve(health, metrics, move || {
        let (source, name) = (source.clone(), name.clone());
        async move { status::report(&source, &name).await.map(|report| report.json()) }
    }));
    Ok(())
}
