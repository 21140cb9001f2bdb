//! Interceptors: plain async functions around calls, on both sides.
//!
//! ```
//! use farcall_rpc::intercept::{CallInfo, Next};
//! use farcall_rpc::{Ended, RpcError};
//!
//! async fn patient(mut call: CallInfo, next: Next) -> Result<Ended, RpcError> {
//!     call.set_metadata("via", "gateway")?;
//!     let name = call.method_name();
//!     let ended = next.run(call).await?;
//!     println!("{name}: {ended:?}");
//!     Ok(ended)
//! }
//! ```
//!
//! They are given to [`Connect::intercept`](crate::Connect::intercept) (around each call),
//! [`Connect::intercept_attempts`](crate::Connect::intercept_attempts) (around each attempt, when its connection is
//! known: a call with a hedge has up to two) and [`ServerBuilder::intercept`](crate::ServerBuilder::intercept) (around
//! the handler, whatever the protocol). The first that is given is the outermost. They see what is called, by whom,
//! its metadata, deadline and how it ends, never bytes. They may add metadata, shorten the deadline, or end the call
//! with an error; to repeat it is not theirs. Where there are none, they cost nothing.

mod access_log;
mod adaptive;
mod client;
mod faults;
mod limits;
mod server;
#[cfg(feature = "tracing")]
mod traced;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use farcall_core::{Certainty, Code, MethodDescriptor, RpcError, ServiceDescriptor, Trace};

pub use self::access_log::AccessLog;
pub use self::adaptive::{AdaptiveLimit, Gradient};
pub(crate) use self::client::{Around, Changed, Service};
pub use self::faults::Faults;
pub use self::limits::{ConcurrencyLimit, RateLimit};
pub(crate) use self::server::{Guarded, Outside};
#[cfg(feature = "tracing")]
pub use self::traced::Traced;
use crate::auth::Identity;
use crate::caller::Caller;
use crate::context::{Context, Peer};
use crate::method::BoxFuture;
use crate::observer::{Ended, Side};
use crate::skeleton::Skeleton;

/// Stands around calls. Every `async fn(CallInfo, Next) -> Result<Ended, RpcError>` is one.
///
/// It either ends the call with an error, which is the caller's [`RpcError`], or awaits [`Next::run`] and gives back how
/// that ended. An error after the call has run takes the place of its reply; it then counts as possibly executed,
/// whatever it says.
pub trait Interceptor: Send + Sync + 'static {
    /// Stands around one call.
    fn intercept(&self, call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>>;

    /// Lets the call pass or refuses it, where that takes no future. `None`: [`intercept`](Interceptor::intercept) does it.
    #[doc(hidden)]
    fn pass(&self, _call: &mut CallInfo) -> Option<Result<(), RpcError>> {
        None
    }
}

impl<F, Fut> Interceptor for F
where
    F: Fn(CallInfo, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Ended, RpcError>> + Send + 'static,
{
    fn intercept(&self, call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>> {
        Box::pin(self(call, next))
    }
}

/// One for all its users.
pub(crate) type Chain = Arc<[Arc<dyn Interceptor>]>;

/// `chain` with one more, the innermost.
pub(crate) fn with(chain: Option<&Chain>, interceptor: impl Interceptor) -> Chain {
    let one: Arc<dyn Interceptor> = Arc::new(interceptor);
    chain.into_iter().flat_map(|chain| chain.iter().cloned()).chain([one]).collect()
}

/// The call itself, as the interceptors left it.
trait Inmost: Send {
    fn run(self: Box<Self>, call: CallInfo) -> BoxFuture<'static, Result<Ended, RpcError>>;
}

impl<F: FnOnce(CallInfo) -> BoxFuture<'static, Result<Ended, RpcError>> + Send> Inmost for F {
    fn run(self: Box<F>, call: CallInfo) -> BoxFuture<'static, Result<Ended, RpcError>> {
        self(call)
    }
}

type Last = Box<dyn Inmost>;

/// The rest of a call's way: the interceptors further in, then the call itself.
#[must_use = "dropped, it ends the call before it has run"]
pub struct Next {
    chain: Chain,
    at: usize,
    last: Last,
}

impl Next {
    /// Goes on with the call and gives back how it ended: [`Ended::Failed`] if it failed there, an error if an
    /// interceptor further in has ended it.
    pub fn run(self, mut call: CallInfo) -> BoxFuture<'static, Result<Ended, RpcError>> {
        let Next { chain, mut at, last } = self;
        while let Some(interceptor) = chain.get(at) {
            at += 1;
            match interceptor.pass(&mut call) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Box::pin(std::future::ready(Err(error))),
                None => return Arc::clone(interceptor).intercept(call, Next { chain, at, last }),
            }
        }
        last.run(call)
    }
}

/// Runs `last` inside of `chain`.
fn start(chain: &Chain, call: CallInfo, last: Last) -> BoxFuture<'static, Result<Ended, RpcError>> {
    Next { chain: Arc::clone(chain), at: 0, last }.run(call)
}

/// Where a descriptor is.
enum Called {
    Static(&'static ServiceDescriptor),
    Shared(Arc<ServiceDescriptor>),
    Served(Arc<dyn Skeleton>),
}

/// A call, as interceptors see it.
pub struct CallInfo(
    /// It goes from one to the next, and into the future of each that waits.
    Box<Info>,
);

struct Info {
    side: Side,
    called: Called,
    method: usize,
    context: Context,
    /// An interceptor took time from it.
    shortened: bool,
    /// Held until the call itself has ended.
    place: Option<limits::Place>,
    ends: Ends,
    /// As its connection knew the time when it started it; that is not looked up for each call.
    came: Option<Instant>,
}

impl CallInfo {
    fn new(side: Side, called: Called, method: usize, context: Context, came: Option<Instant>) -> CallInfo {
        CallInfo(Box::new(Info { side, called, method, context, shortened: false, place: None, ends: Ends::default(), came }))
    }

    /// Which end of the call this is.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// What is called.
    pub fn service(&self) -> &ServiceDescriptor {
        match &self.0.called {
            Called::Static(service) => service,
            Called::Shared(service) => service,
            Called::Served(skeleton) => skeleton.descriptor(),
        }
    }

    /// Which of its methods.
    pub fn method(&self) -> Option<&MethodDescriptor> {
        self.service().methods.get(self.0.method)
    }

    /// `Service.method`.
    pub fn method_name(&self) -> String {
        self.service().full_name(self.0.method)
    }

    /// The other side. For a client it is known around attempts only, and `None` for a provider of this process.
    pub fn peer(&self) -> Option<&Peer> {
        self.0.context.peer()
    }

    /// Who calls, for a server, if that is proven.
    pub fn identity(&self) -> Option<&Identity> {
        self.0.context.identity()
    }

    /// By what a caller is told from others: its name (`id:shop`), else the host or process that it calls from. Empty
    /// where there is no other side.
    pub fn caller(&self) -> &str {
        self.peer().map_or("", |peer| peer.caller().name())
    }

    /// The same to look up in a table.
    fn caller_key(&self) -> &Caller {
        match self.peer() {
            Some(peer) => peer.caller(),
            None => Caller::nobody(),
        }
    }

    /// When it came.
    fn came(&self) -> Instant {
        self.0.came.unwrap_or_else(crate::time::now)
    }

    /// The value under `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.0.context.metadata(key)
    }

    /// Sets metadata: for a client what is sent, for a server what the handler sees. Fails on a key that is not
    /// lower-case ASCII.
    pub fn set_metadata(&mut self, key: &str, value: impl Into<String>) -> Result<(), RpcError> {
        Arc::make_mut(self.0.context.metadata.get_or_insert_default()).set(key, value)
    }

    /// Time left until the caller gives up.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.context.remaining()
    }

    /// Gives the call at most this long from now. A deadline that is nearer stays. At a server, a handler that may
    /// be dropped is dropped then; another only sees that it should make haste.
    pub fn shorten_deadline(&mut self, time: Duration) {
        if let Some(at) = crate::time::now().checked_add(time) {
            let Info { context: Context { expires, .. }, shortened, .. } = &mut *self.0;
            if expires.is_none_or(|old| at < old) {
                (*expires, *shortened) = (Some(at), true);
            }
        }
    }

    /// The trace that goes with it.
    pub fn trace(&self) -> Option<Trace> {
        self.0.context.trace
    }

    /// Lets it go on under another span. At a server, the handler's own calls inherit it.
    pub fn set_trace(&mut self, trace: Trace) {
        self.0.context.trace = Some(trace);
    }

    /// Runs `f` when the stream that this call results in has ended: with its last item, with an error, or because
    /// its reader went away ([`Code::Cancelled`]). Not run if no stream comes of it, which [`Next::run`] tells. Of a
    /// stream of arguments the end is the call's.
    pub fn when_stream_ends(&mut self, f: impl FnOnce(Ended) + Send + 'static) {
        self.0.ends.told.push(Box::new(f));
    }

    /// When it ends, if an interceptor made that sooner.
    fn cut(&self) -> Option<Instant> {
        self.0.context.expires.filter(|_| self.0.shortened)
    }
}

/// How a call ends that is dropped under its interceptors: its caller has left, or its time was over.
fn dropped(expires: Option<Instant>) -> Code {
    match expires {
        _ if std::thread::panicking() => Code::Internal,
        Some(at) if at <= crate::time::now() => Code::DeadlineExceeded,
        _ => Code::Cancelled,
    }
}

impl std::fmt::Debug for CallInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the metadata, which may hold what nobody should see.
        f.debug_struct("CallInfo").field("side", &self.side()).field("method", &self.method_name()).finish_non_exhaustive()
    }
}

/// Whom a stream's end is told, once there is a stream.
#[derive(Default)]
pub(crate) struct Ends {
    told: Vec<Box<dyn FnOnce(Ended) + Send>>,
    /// The stream has begun.
    begun: bool,
}

impl Ends {
    /// `None` if nobody wants to know.
    fn wanted(self) -> Option<Box<Ends>> {
        (!self.told.is_empty()).then(|| Box::new(self))
    }

    /// Those of two.
    pub(crate) fn both(one: Option<Box<Ends>>, two: Option<Box<Ends>>) -> Option<Box<Ends>> {
        match (one, two) {
            (Some(mut one), Some(mut two)) => {
                one.told.append(&mut two.told);
                Some(one)
            }
            (one, two) => one.or(two),
        }
    }

    /// The stream has begun: its end will be told, at the latest when this is dropped.
    pub(crate) fn begin(mut self: Box<Ends>) -> Box<Ends> {
        self.begun = true;
        self
    }

    /// The stream has ended so.
    pub(crate) fn tell(&mut self, ended: Ended) {
        for f in self.told.drain(..) {
            // A stream does not fail because somebody could not be told of its end.
            let _ = catch_unwind(AssertUnwindSafe(|| f(ended)));
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if self.begun {
            self.tell(Ended::Failed(Code::Cancelled, Certainty::MaybeExecuted));
        }
    }
}

/// The error of an interceptor that did neither what it must do nor what it may.
#[cold]
fn neither() -> RpcError {
    let why = "an interceptor ended the call without an error and without running it: it must do one of the two";
    RpcError::not_executed(Code::Internal, why)
}
