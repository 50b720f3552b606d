//! The signals that ask a process to leave.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// More than two are never looked at.
const KEPT: usize = 2;

/// A signal that asks the process to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from whoever runs services.
    Terminate,
    /// SIGINT, from a terminal.
    Interrupt,
}

impl Signal {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }
}

/// Takes the signals over from now on: they no longer end the process by themselves.
pub fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(KEPT);
    for (kind, name) in [(SignalKind::terminate(), Signal::Terminate), (SignalKind::interrupt(), Signal::Interrupt)] {
        let (mut stream, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                // a full queue already says what there is to say
                let _ = sender.try_send(name);
            }
        });
    }
    Ok(receiver)
}

/// The next signal; waits for ever when there will be none.
pub(super) async fn next(signals: &mut mpsc::Receiver<Signal>) -> Signal {
    match signals.recv().await {
        Some(signal) => signal,
        None => std::future::pending().await,
    }
}
