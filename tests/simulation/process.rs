//! A relay process: what `src/daemon.rs` does around the relay, and how it dies and stands still.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use outboxd::event::BatchLimits;
use outboxd::metrics::Metrics;
use outboxd::relay::{End, Relay, Settings, Until};
use outboxd::sink::Sink;
use outboxd::source::{Lease, Leases, Source, Takeover};
use outboxd::stop::{self, Stopping};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout, timeout_at};

use super::net::{Net, Side};
use super::plan::waits;
use super::sink::SimSink;
use super::source::SimSource;
use super::violation::Class;
use super::world::{Handle, Process};

/// Lives, dies and lives again, for as long as the world lasts.
pub async fn live(world: Handle, process: usize) {
    let mut first = true;
    loop {
        let mortal = Mortal::born(&world, process, first);
        mortal.await;
        first = false;
        let pause = {
            let mut world = world.lock();
            world.processes[process] = Process::default();
            if world.chance(500) { world.ms(0..=20) } else { world.ms(20..=1500) }
        };
        sleep(pause).await;
    }
}

/// A future that is dropped, or not polled for a while, after so many steps of leading.
struct Mortal {
    world: Handle,
    process: usize,
    life: Pin<Box<dyn Future<Output = ()> + Send>>,
    steps: u32,
    dies_after: u32,
    freezes_after: u32,
    frozen: Option<Pin<Box<Sleep>>>,
}

impl Mortal {
    fn born(handle: &Handle, process: usize, first: bool) -> Self {
        let (dies_after, freezes_after, start) = {
            let mut world = handle.lock();
            let (kills, freezes) = (world.plan.kills, world.plan.freezes);
            let mut after = |mean: u32| if mean == 0 { u32::MAX } else { world.chance.u32(1..=2 * mean) };
            (after(kills), after(freezes), world.chance.u64(1..))
        };
        let life = Box::pin(run(handle.clone(), process, start, first));
        Self { world: handle.clone(), process, life, steps: 0, dies_after, freezes_after, frozen: None }
    }

    /// One more step; how long it stands still now, if it does.
    fn fate(&mut self) -> Result<Option<Duration>, ()> {
        let mut world = self.world.lock();
        let of = world.processes[self.process];
        if of.doomed {
            return Err(());
        }
        if !of.leading || world.healed {
            return Ok(None);
        }
        self.steps += 1;
        if self.steps == self.dies_after {
            world.hit(format!("killed while {}", of.told()));
            return Err(());
        }
        if self.steps != self.freezes_after {
            return Ok(None);
        }
        world.hit(format!("frozen while {}", of.told()));
        let freezes = world.plan.freezes;
        self.freezes_after += world.chance.u32(1..=2 * freezes);
        Ok(Some(if world.chance(500) { world.ms(5..=900) } else { world.ms(900..=4000) }))
    }
}

impl Future for Mortal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(frozen) = &mut self.frozen {
            match frozen.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.frozen = None,
            }
        }
        match self.fate() {
            Err(()) => return Poll::Ready(()),
            Ok(None) => {}
            Ok(Some(pause)) => {
                let mut frozen = Box::pin(sleep(pause));
                if frozen.as_mut().poll(context).is_pending() {
                    self.frozen = Some(frozen);
                    return Poll::Pending;
                }
            }
        }
        self.life.as_mut().poll(context)
    }
}

/// Standby and leading by turns.
async fn run(world: Handle, process: usize, start: u64, first: bool) {
    let (twins, settings, seed) = {
        let mut world = world.lock();
        let limits = BatchLimits { events: world.plan.batch, bytes: 1 << 20 };
        let settings =
            Settings { waits: waits(&world.plan), limits, instance: format!("p{process}"), start, until: Until::Stopped };
        (world.plan.twins && process == 1, settings, world.chance.u64(..))
    };
    let settings = if twins { clone_of_the_leader(&world, settings).await } else { settings };
    let net = |side| Net { world: world.clone(), process, side };
    let source = Arc::new(SimSource { net: net(Side::Database) });
    let sink = Arc::new(SimSink { net: net(Side::Kafka), kept: Arc::default() });
    let metrics = Metrics::new("simulation");
    let chance = fastrand::Rng::with_seed(seed);
    let mut relay = Relay::new(Arc::clone(&source), Arc::clone(&sink), settings.clone(), metrics, chance);
    let mut takeover = if first { Takeover::Expired } else { Takeover::OwnInstance };
    loop {
        let asked = Instant::now();
        match source.take(&settings.instance, settings.start, takeover).await {
            Ok(Lease::Held { epoch }) => {
                world.lock().processes[process].leading = true;
                lead(&world, &source, &sink, &mut relay, (epoch, asked), &settings).await;
                world.lock().processes[process].leading = false;
                sleep(settings.waits.standby * 5).await;
            }
            Ok(Lease::Taken { .. }) => sleep(settings.waits.standby * 5).await,
            Err(_) => sleep(settings.waits.standby).await,
        }
        takeover = Takeover::Expired;
    }
}

/// A machine that was cloned while it ran: the same instance, the same start number, so the same lease.
async fn clone_of_the_leader(world: &Handle, settings: Settings) -> Settings {
    loop {
        let holder = world.lock().database.lease.clone();
        if let Some(holder) = holder {
            world.lock().hit("a clone had the same lease");
            return Settings { instance: holder.instance, start: holder.start, ..settings };
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Leads under one grant, for as long as the lease can be renewed.
async fn lead(
    world: &Handle,
    source: &Arc<SimSource>,
    sink: &Arc<SimSink>,
    relay: &mut Relay<SimSource, SimSink>,
    (epoch, granted): (u64, Instant),
    settings: &Settings,
) {
    let (stopper, mut stop) = stop::pair();
    let mut leading = Box::pin(relay.run(epoch, &mut stop));
    let ended = tokio::select! {
        biased;
        end = &mut leading => Some(end),
        () = hold(source, granted, settings) => None,
        () = chores(world, source, sink) => None,
    };
    if let Some(end) = ended {
        drop(leading);
        let gives_back = !matches!(end, End::LeaseLost);
        tell(world, end);
        if gives_back {
            // an answer is not waited for: the lease runs out by itself
            let _ = timeout(settings.waits.lease, source.release(settings.start)).await;
        }
        return;
    }
    world.lock().hit("a lease was lost while leading");
    stopper.stop(Stopping::LeaseLost);
    if let Ok(end) = timeout(settings.waits.stuck, leading).await {
        tell(world, end);
    }
}

fn tell(world: &Handle, end: End) {
    let mut world = world.lock();
    match end {
        End::Exit(fault) => world.violated(Class::Left, format!("a relay left for good: {fault}")),
        End::GaveUp => world.hit("a relay gave its lease up"),
        End::LeaseLost => world.hit("a relay stepped down"),
        End::Stopped => {}
    }
}

/// Renews the lease until that fails for too long.
async fn hold(source: &SimSource, granted: Instant, settings: &Settings) {
    let mut until = granted + settings.waits.lease;
    loop {
        sleep_until(until.min(Instant::now() + settings.waits.renewal)).await;
        let sent = Instant::now();
        if sent >= until {
            return;
        }
        let within = until.min(sent + settings.waits.renewal);
        match timeout_at(within, source.renew(settings.start)).await {
            Ok(Ok(Lease::Held { .. })) => until = sent + settings.waits.lease,
            Ok(Ok(Lease::Taken { .. })) => return,
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Trims the journal and prunes the table, as `src/daemon/janitor.rs` does.
async fn chores(world: &Handle, source: &SimSource, sink: &SimSink) {
    loop {
        let (pause, wanted) = {
            let mut world = world.lock();
            (world.ms(200..=1500), world.plan.chores && !world.healed)
        };
        sleep(pause).await;
        if !wanted {
            continue;
        }
        if let Ok(standing) = source.look().await {
            let _ = sink.trim(standing.applied.offset).await;
        }
        let prune = |world: &mut super::world::World| world.database.rows.retain(|_, row| !row.sent);
        let _ = source.net.call(prune).await;
    }
}
