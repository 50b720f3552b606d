//! How a relay is asked to end.

use tokio::sync::watch;

/// Why a relay should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// It should not.
    No,
    /// Finish what was begun, then leave.
    Drain,
    /// Another process has the lease.
    LeaseLost,
}

/// The side that asks.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Stopping>);

/// The side that is asked.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Stopping>);

/// A connected pair.
pub fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(Stopping::No);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Asks; the first reason stays.
    pub fn stop(&self, why: Stopping) {
        self.0.send_if_modified(|now| {
            let first = *now == Stopping::No;
            if first {
                *now = why;
            }
            first
        });
    }
}

impl Stop {
    /// What was asked so far. A stopper that is gone asks for a drain.
    pub fn now(&self) -> Stopping {
        match *self.0.borrow() {
            Stopping::No if self.0.has_changed().is_err() => Stopping::Drain,
            asked => asked,
        }
    }

    /// Waits until something is asked. A stopper that is gone asks for a drain.
    pub async fn asked(&mut self) -> Stopping {
        match self.0.wait_for(|why| *why != Stopping::No).await {
            Ok(why) => *why,
            Err(_) => Stopping::Drain,
        }
    }
}
