//! Work that blocks, on threads of its own: librdkafka's calls take up to a minute, and the runtime must be able to stop at any time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::sync::oneshot;

use crate::fault::Fault;

/// Tells work on a thread whether anybody still waits for what it will bring.
pub(super) struct Caller<'a>(pub(super) &'a dyn Fn() -> bool);

impl Caller<'_> {
    /// Whether nobody waits any more.
    pub(super) fn is_gone(&self) -> bool {
        (self.0)()
    }
}

/// Runs `work` on a new thread. When the future is dropped the work is told, and its result is dropped on that thread.
pub(super) async fn run<T, W>(name: &str, work: W) -> Result<T, Fault>
where
    T: Send + 'static,
    W: FnOnce(&Caller<'_>) -> Result<T, Fault> + Send + 'static,
{
    let (reply, result) = oneshot::channel();
    spawn(name, move || {
        let done = work(&Caller(&|| reply.is_closed()));
        drop(reply.send(done));
    })?;
    result.await.unwrap_or_else(|_| Err(Fault::kafka("kafka", "a thread ended without an answer")))
}

/// Starts a thread that nobody waits for.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Fault> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| Fault::kafka("threads", format!("no thread can be started: {error}")))
}

/// Drops a client aside: it joins librdkafka's threads, which takes up to 100 ms.
pub(super) fn drop_aside<T: Send + 'static>(client: T) {
    drop(spawn("kafka-drop", move || drop(client)));
}

/// Waits for a future on this thread. For those of the admin client, which need no runtime.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}
