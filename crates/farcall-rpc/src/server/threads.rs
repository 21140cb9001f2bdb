//! Threads with a runtime each: what a connection does stays on one of them.
//!
//! On a runtime of several threads a connection's task wanders: each time it is woken, any of them may
//! take it, with its data in another core's cache, and every wake-up is a matter between threads. Here
//! it is where it was. The price is that nobody helps out a thread whose connections are busy.

use std::io::Error;
use std::sync::atomic::{AtomicUsize, Ordering};

use farcall_core::{Code, RpcError};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// See the module's text. None at all means that connections run where the server was started.
pub(super) struct Threads {
    runtimes: Vec<Handle>,
    turn: AtomicUsize,
}

impl Threads {
    /// Starts `count` threads. Each ends when the future is done that `until` gave for it.
    pub(super) async fn start<F>(count: usize, until: impl Fn() -> F) -> Result<Threads, RpcError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut runtimes = Vec::new();
        for number in 0..count {
            runtimes.push(start(number, until()).await.map_err(|e| cannot_start(number, count, e))?);
        }
        Ok(Threads { runtimes, turn: AtomicUsize::new(0) })
    }

    /// Where the next connection runs.
    pub(super) fn next(&self) -> Option<&Handle> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.runtimes.get(turn.checked_rem(self.runtimes.len())?)
    }
}

async fn start(number: usize, until: impl Future<Output = ()> + Send + 'static) -> Result<Handle, Error> {
    let (started, handle) = oneshot::channel();
    std::thread::Builder::new().name(format!("farcall-{number}")).spawn(move || {
        // Made and dropped here: a runtime must not be dropped on another's thread.
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = started.send(Ok(runtime.handle().clone()));
                runtime.block_on(until);
            }
            Err(e) => drop(started.send(Err(e))),
        }
    })?;
    handle.await.unwrap_or_else(|_| Err(Error::other("it ended at once")))
}

fn cannot_start(number: usize, count: usize, e: Error) -> RpcError {
    let why = format!("threads({count}): the system lets only {number} be started ({e}): ask for fewer, or raise its limit");
    RpcError::not_sent(Code::ResourceExhausted, why).with_source(e)
}
