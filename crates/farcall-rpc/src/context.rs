//! What a handler knows of its call, kept in the thread while the handler is polled.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farcall_core::{Certainty, Code, Metadata, Trace};
use farcall_transport::PeerFacts;

use crate::auth::Identity;
use crate::caller::{Caller, Made};
use crate::method::Outgoing;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// Its address, as far as the link tells.
    pub address: String,
    /// Its software, as its hello tells.
    pub software: String,
    /// Grows with every start of its process.
    pub incarnation: u64,
    /// What the link tells of it: its process, the names that its certificate proves. A peer cannot lie
    /// about these as it can about what it says itself.
    pub facts: PeerFacts,
    /// Who it is, if it was asked and has proven it. Of a client's peer nothing is asked.
    pub identity: Option<Arc<Identity>>,
    /// Its record of idempotency keys, if it keeps one.
    pub(crate) keys: Option<crate::keys::Seen>,
    /// By what it is told from others, if it calls.
    pub(crate) made: Made,
}

impl Peer {
    /// By what it is told from other callers.
    pub(crate) fn caller(&self) -> &Caller {
        self.made.of(self)
    }
}

/// What is known of the call being handled. Empty outside of a handler.
///
/// ```
/// let cx = farcall_rpc::context();
/// assert_eq!(cx.remaining(), None);
/// assert_eq!(cx.metadata("tenant"), None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Context {
    pub(crate) peer: Option<Arc<Peer>>,
    pub(crate) expires: Option<Instant>,
    pub(crate) metadata: Option<Arc<Metadata>>,
    pub(crate) trace: Option<Trace>,
}

impl Context {
    /// Who calls; `None` for a local call.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_deref()
    }

    /// Who calls, as far as it is proven: `None` for callers that were let in without being asked, and for local
    /// calls.
    ///
    /// ```
    /// async fn whose() -> String {
    ///     farcall_rpc::context().identity().map_or("somebody".into(), |caller| caller.name().to_owned())
    /// }
    /// ```
    pub fn identity(&self) -> Option<&Identity> {
        self.peer.as_ref()?.identity.as_deref()
    }

    /// Time left until the caller gives up; `None` if it never does. Calls made by the handler
    /// inherit it.
    pub fn remaining(&self) -> Option<Duration> {
        self.expires.map(|at| at.saturating_duration_since(crate::time::now()))
    }

    /// The value the caller sent under `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.get(key)
    }

    /// The caller's trace. Calls made by the handler carry it on.
    pub fn trace(&self) -> Option<Trace> {
        self.trace
    }
}

/// How a handler's call ended, for the observer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Ok,
    AppError,
    Failed(Code, Certainty),
    /// With the reply of another attempt with the same key.
    Replayed,
}

/// What the driver lends to the thread while it polls a handler: the call's context, the buffer that
/// its reply goes into, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Current {
    pub(crate) context: Context,
    pub(crate) replies: Vec<u8>,
    pub(crate) finish: Option<Finish>,
    /// What the handler answered with, if it does not go into the buffer of replies.
    pub(crate) aside: Option<Box<Aside>>,
    /// A handler inside of interceptors was polled.
    pub(crate) began: bool,
}

/// An answer that is not one small frame.
pub(crate) enum Aside {
    /// A result or application error too large to be copied.
    Large { status: u16, head: Bytes, tail: Bytes },
    /// A stream.
    Stream(Outgoing),
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Aside::Large { .. } => "Large",
            Aside::Stream(_) => "Stream",
        })
    }
}

thread_local! {
    static CURRENT: RefCell<Current> = RefCell::default();
}

/// Runs `f` with `current` in place, and takes it back afterwards, also if `f` panics.
#[inline]
pub(crate) fn enter<R>(current: &mut Current, f: impl FnOnce() -> R) -> R {
    struct Leave<'a>(&'a mut Current);
    impl Drop for Leave<'_> {
        #[inline]
        fn drop(&mut self) {
            swap(self.0);
        }
    }
    fn swap(with: &mut Current) {
        // Fails only while the thread ends, when nobody can look any more.
        let _ = CURRENT.try_with(|c| std::mem::swap(&mut *c.borrow_mut(), with));
    }
    swap(current);
    let _leave = Leave(current);
    f()
}

/// The buffer of replies and the end of the call, inside of [`enter`].
#[inline]
pub(crate) fn with_current<R>(f: impl FnOnce(&mut Current) -> R) -> R {
    CURRENT.with(|c| f(&mut c.borrow_mut()))
}

/// The context of the call that is being handled on this thread; empty outside of a handler.
pub fn context() -> Context {
    with_current(|c| c.context.clone())
}

/// What an outgoing call inherits: deadline and trace of the call being handled.
#[inline]
pub(crate) fn inherited() -> (Option<Instant>, Option<Trace>) {
    with_current(|c| (c.context.expires, c.context.trace))
}

/// A future polled inside a context.
pub(crate) struct Scoped<F> {
    pub(crate) context: Context,
    pub(crate) future: Pin<Box<F>>,
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<F::Output> {
        let me = &mut *self;
        let mut current = Current { context: std::mem::take(&mut me.context), ..Current::default() };
        let future = &mut me.future;
        let polled = enter(&mut current, || future.as_mut().poll(cx));
        me.context = current.context;
        polled
    }
}

/// Spawns a task that keeps the context of the call being handled: its own calls inherit deadline
/// and trace.
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    crate::runtime::handle().spawn(Scoped { context: context(), future: Box::pin(future) })
}

/// Runs blocking code on the blocking pool, with the context of the call being handled. In it
/// `.wait()` is allowed.
pub fn spawn_blocking<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> tokio::task::JoinHandle<R> {
    let mut current = Current { context: context(), ..Current::default() };
    crate::runtime::run_blocking(move || enter(&mut current, f))
}
