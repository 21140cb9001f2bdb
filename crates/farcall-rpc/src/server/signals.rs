//! The signals that ask a process to end.

use std::io::Error;
use std::task::{Context, Poll, ready};

use farcall_core::{Code, RpcError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::runtime;

/// SIGTERM and SIGINT (Ctrl-C), once they mean "end gracefully". From the moment there is one of these
/// on, and for as long as the process lives, they do not kill it any more: whoever makes one must
/// [wait](StopSignals::next) for it and act.
///
/// Make it before the server listens, and no signal comes too early:
///
/// ```no_run
/// # async fn run() -> Result<(), farcall_rpc::RpcError> {
/// use std::time::Duration;
/// use farcall_rpc::{Server, StopSignals};
///
/// let signals = StopSignals::new()?;
/// let server = Server::builder().listen("tcp://127.0.0.1:0").await?;
/// server.drain_on(signals, Duration::from_secs(5)).await
/// # }
/// ```
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Catches the signals from now on.
    pub fn new() -> Result<StopSignals, RpcError> {
        let runtime = runtime::handle();
        let _inside = runtime.enter();
        let catch = |kind, name: &str| signal(kind).map_err(|e| not_caught(name, e));
        Ok(StopSignals { terminate: catch(SignalKind::terminate(), "SIGTERM")?, interrupt: catch(SignalKind::interrupt(), "SIGINT")? })
    }

    /// The name of the next signal, when it comes.
    pub async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if self.terminate.poll_recv(cx).is_ready() {
            return Poll::Ready("SIGTERM");
        }
        ready!(self.interrupt.poll_recv(cx));
        Poll::Ready("SIGINT")
    }
}

fn not_caught(name: &str, e: Error) -> RpcError {
    RpcError::not_sent(Code::Internal, format!("{name} cannot be caught: {e}")).with_source(e)
}
