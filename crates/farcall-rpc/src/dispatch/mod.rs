//! The way into a server's services for other protocols than farcall's own.
//!
//! A [`Protocol`](crate::Protocol) reads requests off its link in whatever form and makes a [`ForeignCall`] of each;
//! [`Dispatch`] runs it on the skeletons that farcall's own calls run on, within the same limits, with the same
//! context, keys and observers, and gives the reply back as bytes of the codec asked for. What a protocol does not
//! see: handlers, runners, the record of keys.

mod items;
mod running;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use farcall_core::{Code, CodecId, Limits, Metadata, RpcError, ServiceDescriptor, Stage, Trace, limits};
use tokio::sync::watch;

use crate::admission::Admission;
use crate::connection::{Running, Services};
use crate::context::Peer;
use crate::health::Readiness;
use crate::server::{Place, Stop};
pub use items::{ForeignItem, ForeignItems};
use running::Run;

/// What one link of a [`Protocol`](crate::Protocol) calls a server's services through. Clones are the same link.
#[derive(Clone)]
pub struct Dispatch(Arc<Link>);

/// What a server has for all its links.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) services: Arc<Services>,
    pub(crate) limits: Limits,
    pub(crate) running: Arc<Running>,
    pub(crate) readiness: Readiness,
    pub(crate) stop: watch::Receiver<Stop>,
}

struct Link {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    /// Bytes of arguments of its calls that have not ended.
    held: AtomicUsize,
    /// Streams that are open.
    streams: AtomicUsize,
    /// Until it is let in.
    place: Mutex<Option<Place>>,
}

/// A method of a server: its service's place in [`Dispatch::services`], and its place in the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// Place of the service.
    pub service: usize,
    /// Row of the method.
    pub method: usize,
}

/// A call that came through another protocol.
#[derive(Debug)]
pub struct ForeignCall {
    /// What is called.
    pub target: Target,
    /// The codec of the arguments, and of the reply.
    pub codec: CodecId,
    /// The arguments in that codec.
    pub args: Bytes,
    /// What holds their bytes against the link's limit `held`, from [`Dispatch::hold`]; until the call has ended.
    pub held: Option<Held>,
    /// Who calls. The link's own peer unless the protocol knows better.
    pub peer: Option<Arc<Peer>>,
    /// Text pairs beside the arguments.
    pub metadata: Option<Metadata>,
    /// The caller's trace.
    pub trace: Option<Trace>,
    /// When the caller gives up. `None` = never.
    pub expires: Option<Instant>,
    /// Idempotency key: 1 to 64 bytes.
    pub key: Option<Box<[u8]>>,
    /// The largest result that the caller takes. The server's limit `body` if that is less.
    pub max_reply: usize,
}

impl ForeignCall {
    /// A call with nothing beside its arguments, and without a deadline.
    pub fn new(target: Target, codec: CodecId, args: Bytes) -> ForeignCall {
        ForeignCall {
            target,
            codec,
            args,
            held: None,
            peer: None,
            metadata: None,
            trace: None,
            expires: None,
            key: None,
            max_reply: usize::MAX,
        }
    }
}

/// How a call ended. Bytes are in the codec of the call.
#[derive(Debug)]
pub enum ForeignReply {
    /// With a result.
    Result(Bytes),
    /// With the application's own error.
    AppError(Bytes),
    /// With a system error.
    Failed(RpcError),
    /// With a stream, which begins.
    Stream(ForeignItems),
    /// It is one-way, and runs.
    Started,
}

impl Dispatch {
    pub(crate) fn new(shared: Arc<Shared>, peer: Peer, place: Place) -> Dispatch {
        let place = Mutex::new(Some(place));
        Dispatch(Arc::new(Link { shared, peer: Arc::new(peer), held: AtomicUsize::new(0), streams: AtomicUsize::new(0), place }))
    }

    /// Says that the peer is whom the server wants to serve, so that the link is not half open any more and does not have to
    /// give way to others. A call that is admitted says so by itself; this is for a protocol that finds it out before
    /// there is a call.
    pub fn let_in(&self) {
        self.0.let_in();
    }

    /// All services of the server, the built-in ones included. Places in it do not change.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &ServiceDescriptor> {
        self.0.shared.services.skeletons.iter().map(|s| s.descriptor())
    }

    /// The server's limits.
    pub fn limits(&self) -> &Limits {
        &self.0.shared.limits
    }

    /// Who is at the other end of the link.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.0.peer
    }

    /// Who comes in and what they may call. What a protocol shows of a caller (a header) it gives to
    /// [`Admission::authenticate`] before anything else, and the [`Peer`] that it makes of it to its calls; whether
    /// that caller may make them is looked at here.
    pub fn admission(&self) -> &Admission {
        &self.0.shared.services.admission
    }

    /// Whether the server says that it is ready for calls.
    pub fn readiness(&self) -> &Readiness {
        &self.0.shared.readiness
    }

    /// Whether the server takes no new calls any more.
    pub fn is_draining(&self) -> bool {
        *self.0.shared.stop.borrow() >= Stop::Drain
    }

    /// Until the server begins to drain: the link should end what runs, take nothing new and close.
    pub async fn drain(&self) {
        let _ = self.0.shared.stop.clone().wait_for(|stop| *stop >= Stop::Drain).await;
    }

    /// Tells the server's observers that the link was refused before its first call.
    pub fn refused(&self, error: &RpcError) {
        self.0.shared.services.observers.iter().for_each(|o| o.refused(&self.0.peer.address, error));
    }

    /// Begins to hold bytes of arguments that are being read. They count against the limit `held` of the link until
    /// what is returned is dropped.
    pub fn hold(&self) -> Held {
        Held { link: Arc::clone(&self.0), bytes: 0 }
    }

    /// Makes a call; it begins when what is returned is polled first. If that is dropped before it is ready, the
    /// caller is gone: the handler is dropped with it where the method allows that (it is idempotent, marked `cancel`,
    /// or has a stream), else it runs to its end.
    ///
    /// A [one-way](farcall_core::MethodTraits::oneway) method is ready once its handler has begun. Streams of
    /// arguments cannot be sent this way: such a method is `Unimplemented`.
    pub fn call(&self, call: ForeignCall) -> ForeignCalling {
        ForeignCalling(Some(Calling::New(Box::new(call), Arc::clone(&self.0))))
    }
}

impl Link {
    /// Why a call is not started, if so.
    fn refusal(&self, call: &ForeignCall, peer: &Peer) -> Option<RpcError> {
        let Shared { services, limits, running, .. } = &*self.shared;
        let descriptor = services.skeletons.get(call.target.service).map(|s| s.descriptor());
        let Some(method) = descriptor.and_then(|d| d.methods.get(call.target.method)) else {
            return Some(RpcError::not_executed(Code::Unimplemented, format!("the server has no {:?}", call.target)));
        };
        if let Some(refused) = descriptor.and_then(|d| services.admission.admit(d, call.target.method, peer.identity.as_deref()).err()) {
            return Some(refused);
        }
        if method.traits.args_stream {
            let why = "the method takes a stream, which this protocol cannot send: call it over farcall's own";
            return Some(RpcError::not_executed(Code::Unimplemented, why));
        }
        if let Some(refused) = call.metadata.as_ref().and_then(|m| m.validate(limits.metadata).err()) {
            return Some(refused);
        }
        if let Some(refused) = refused_key(call, method.traits.oneway) {
            return Some(refused);
        }
        if call.expires.is_some_and(|at| at <= crate::time::now()) {
            return Some(too_late());
        }
        self.let_in();
        (running.handlers() >= limits.server_in_flight).then(|| crate::connection::crowded(limits.server_in_flight))
    }

    fn let_in(&self) {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(place);
    }

    /// Counts a stream for as long as what is returned exists.
    fn open_stream(self: &Arc<Link>) -> Result<OpenStream, RpcError> {
        let limit = self.shared.limits.streams;
        if self.streams.fetch_add(1, Ordering::Relaxed) >= limit {
            self.streams.fetch_sub(1, Ordering::Relaxed);
            let why = format!("{limit} calls with streams are open on this connection, the limit `streams`");
            return Err(RpcError::not_executed(Code::ResourceExhausted, why));
        }
        Ok(OpenStream(Arc::clone(self)))
    }
}

fn refused_key(call: &ForeignCall, oneway: bool) -> Option<RpcError> {
    let key = call.key.as_ref()?;
    let why = match key.len() {
        0 => "an idempotency key must not be empty".to_owned(),
        len if len > limits::KEY => format!("an idempotency key of {len} bytes: the most is {}", limits::KEY),
        _ if oneway => "a one-way call has no reply to be kept: it takes no idempotency key".to_owned(),
        _ => return None,
    };
    Some(RpcError::not_executed(Code::InvalidArgument, why))
}

#[cold]
fn too_late() -> RpcError {
    RpcError::not_executed(Code::DeadlineExceeded, "the deadline passed before the handler was started").with_stage(Stage::ServerQueue)
}

struct OpenStream(Arc<Link>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of arguments that count against a link's limit `held`: see [`Dispatch::hold`].
pub struct Held {
    link: Arc<Link>,
    bytes: usize,
}

impl Held {
    /// Holds so many more. An error once the link would hold more than its limit.
    pub fn grow(&mut self, bytes: usize) -> Result<(), RpcError> {
        let limits = &self.link.shared.limits;
        let most = limits.held.max(limits.body);
        let before = self.link.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before.saturating_add(bytes) <= most {
            return Ok(());
        }
        let why = format!(
            "the arguments of this connection's unfinished calls, and replies not taken, would be more than {most} bytes, the limit `held`"
        );
        Err(RpcError::not_executed(Code::ResourceExhausted, why).with_stage(Stage::ServerQueue))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.link.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({})", self.bytes)
    }
}

/// A call under way: see [`Dispatch::call`].
#[must_use = "it does nothing until it is polled"]
pub struct ForeignCalling(Option<Calling>);

enum Calling {
    New(Box<ForeignCall>, Arc<Link>),
    Runs(Box<Run>),
}

impl Future for ForeignCalling {
    type Output = ForeignReply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ForeignReply> {
        loop {
            match &mut self.0 {
                Some(Calling::New(..)) => {
                    let Some(Calling::New(call, link)) = self.0.take() else { continue };
                    match Run::start(*call, link) {
                        Ok(run) => self.0 = Some(Calling::Runs(Box::new(run))),
                        Err(error) => return Poll::Ready(ForeignReply::Failed(error)),
                    }
                }
                Some(Calling::Runs(run)) => {
                    let reply = std::task::ready!(run.poll(cx));
                    self.0 = None;
                    return Poll::Ready(reply);
                }
                None => return Poll::Pending,
            }
        }
    }
}
