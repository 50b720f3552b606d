//! `outboxd demo`: the whole way of an event on one machine, without any server. A shop writes orders and events into a SQLite database, a
//! real relay process publishes them to a broker inside this process, and a plain consumer reads everything back. The relay is killed
//! now and then. At the end what was committed is held against what was read.
//!
//! [`run`] plays it (`play`). Its parts: `folder` (everything that is written lies there), `broker`, `keeper` (the relay's process),
//! `table` and `shop`, `reader`, `account`; `view` and `screen` show it while it runs; `verdict` is what remains.

mod account;
mod broker;
mod folder;
mod keeper;
mod native;
mod paint;
mod play;
mod reader;
mod screen;
mod shop;
mod table;
mod trouble;
mod verdict;
mod view;

use std::io;
use std::time::Duration;

use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;

pub use broker::{Broker, PARTITIONS, TOPIC};
pub use paint::Colour;
pub use play::run;
pub use screen::{Screen, colour};
pub use trouble::Trouble;
pub use verdict::Verdict;

use crate::daemon::signals::{self, Signal};

/// What a person may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long the shop writes.
    pub lasts: Duration,
    /// About how many events a second it writes, at least 1.
    pub rate: u32,
}

/// How a person asks the demo to end: Ctrl-C, SIGTERM, or by closing the terminal.
#[derive(Debug)]
pub struct Asks {
    signals: mpsc::Receiver<Signal>,
    hangup: unix::Signal,
}

impl Asks {
    /// Takes the signals over from now on.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { signals: signals::listen()?, hangup: unix::signal(SignalKind::hangup())? })
    }

    /// Waits until somebody asks. May be dropped and called again.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.signals.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
