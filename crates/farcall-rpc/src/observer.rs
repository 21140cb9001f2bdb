//! What a call looked like when it was over, for whoever counts.

use std::time::Duration;

use farcall_core::{Certainty, Code, RpcError};

/// Which end of a call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The caller's.
    Client,
    /// The provider's.
    Server,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// With a result. One-way calls count as this once they are queued or have run.
    Ok,
    /// With the application's own error.
    AppError,
    /// With a system error.
    Failed(Code, Certainty),
    /// With the reply of another attempt with the same idempotency key, whatever that was; no handler ran
    /// for this one. Told to providers only.
    Replayed,
}

/// A call that is over.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// Which end this is.
    pub side: Side,
    /// Service name.
    pub service: &'a str,
    /// Method name.
    pub method: &'a str,
    /// The other end's address; empty where it is not known.
    pub peer: &'a str,
    /// From the start of the call to its end, as this side saw it.
    pub elapsed: Duration,
    /// How it ended.
    pub ended: Ended,
}

/// Outcomes out: monitors, ledgers, access logs. Called on the task that ends the call, so it must
/// be quick and must not block. A channel or server without observers does not even read the clock.
pub trait Observer: Send + Sync + 'static {
    /// A call is over.
    fn ended(&self, outcome: &Outcome<'_>);

    /// Something about a server that its operator should know when it starts: it listens beyond this machine without
    /// TLS. Told to its observers, and to `tracing` where that is built in; ignored by default.
    fn warned(&self, warning: &str) {
        let _ = warning;
    }

    /// A connection was refused before its first call: not a farcall peer, another version, no hello
    /// in time, no right certificate, plaintext where TLS is required. Told to a server's observers; ignored by default.
    fn refused(&self, peer: &str, error: &RpcError) {
        let _ = (peer, error);
    }

    /// A certificate or key file has changed and cannot be used; what was read before is used on. Told to a
    /// server's observers, once per change; ignored by default.
    fn not_reloaded(&self, error: &RpcError) {
        let _ = error;
    }
}
