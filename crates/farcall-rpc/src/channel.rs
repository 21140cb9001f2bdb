//! A client's handle on a service: finds an endpoint, keeps a connection to it, makes a new one when
//! that is lost.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use farcall_core::error::display_duration;
use farcall_core::{Code, CodecId, Limits, RpcError, Stage};
use farcall_transport::Io;
use farcall_wire::{Answer, Body, Start};

use crate::call::{GRACE, to_ms};
use crate::connection::{Bound, Connection, Driver, Services, Started, establish};
use crate::context::Peer;
use crate::invoke::{Invoke, RawCall, RawReply};
use crate::method::{BoxFuture, LocalTarget};
use crate::observer::Observer;
use crate::resolver::{Resolver, StaticResolver};
use crate::runtime;

/// A client's way to one service: cheap to clone, shared by stubs. A lost connection is replaced at
/// the next call.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    target: Target,
    config: Config,
    services: Arc<Services>,
}

enum Target {
    Remote { resolver: Box<dyn Resolver>, state: Mutex<State> },
    Local(LocalTarget),
}

#[derive(Clone, Default)]
struct Config {
    limits: Limits,
    codec: CodecId,
    observers: Vec<Arc<dyn Observer>>,
}

enum State {
    Down,
    Connecting { attempt: u64, waiting: Vec<Waker> },
    Up { attempt: u64, connection: Arc<Connection> },
    Failed { attempt: u64, error: RpcError },
}

impl State {
    fn attempt(&self) -> u64 {
        match self {
            State::Down => 0,
            State::Connecting { attempt, .. } | State::Up { attempt, .. } | State::Failed { attempt, .. } => *attempt,
        }
    }
}

impl Channel {
    fn new(target: Target, config: Config) -> Channel {
        let services = Arc::new(Services { skeletons: Vec::new(), observers: Vec::new() });
        Channel(Arc::new(Inner { target, config, services }))
    }

    /// A channel to a provider in this process: its handlers are called without encoding anything.
    #[doc(hidden)]
    pub fn local(target: LocalTarget) -> Channel {
        Channel::new(Target::Local(target), Config::default())
    }

    /// A channel over a link that exists already: a child's standard streams, one end of a pipe. When
    /// the link ends, so does the channel.
    pub async fn over(link: Io, limits: Limits) -> Result<Channel, RpcError> {
        let address = link.peer();
        let handshake = establish(link, BytesMut::new(), &limits, &address).await?;
        let services = Arc::new(Services { skeletons: Vec::new(), observers: Vec::new() });
        let (connection, driver) = Driver::new(handshake, services, Arc::default(), address);
        tokio::spawn(driver.run());
        let state = Mutex::new(State::Up { attempt: 0, connection: Arc::new(connection) });
        let target = Target::Remote { resolver: Box::new(StaticResolver::new([])), state };
        Ok(Channel::new(target, Config { limits, ..Config::default() }))
    }

    /// The deadline of calls that set and inherit none.
    pub fn default_deadline(&self) -> Option<Duration> {
        self.0.config.limits.default_deadline
    }

    /// The codec of calls that choose none.
    #[inline]
    pub fn default_codec(&self) -> CodecId {
        self.0.config.codec
    }

    /// Who is at the other end; `None` while there is no connection.
    pub fn peer(&self) -> Option<Peer> {
        self.connection().map(|c| Peer::clone(&c.inner.peer))
    }

    pub(crate) fn observers(&self) -> &[Arc<dyn Observer>] {
        &self.0.config.observers
    }

    pub(crate) fn local_target(&self) -> Option<&LocalTarget> {
        match &self.0.target {
            Target::Local(target) => Some(target),
            Target::Remote { .. } => None,
        }
    }

    /// The connection, if there is one that takes calls.
    #[inline]
    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        match &*self.state()? {
            State::Up { connection, .. } if !connection.inner.is_closed() => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        match &self.0.target {
            Target::Remote { state, .. } => Some(state.lock().unwrap_or_else(PoisonError::into_inner)),
            Target::Local(_) => None,
        }
    }

    /// Waits for a connection; starts an attempt if none is under way. `place` remembers which one
    /// the caller waits for: when that one fails, the caller fails.
    pub(crate) fn poll_connection(&self, place: &mut Option<Place>, cx: &mut Context<'_>) -> Poll<Result<Arc<Connection>, RpcError>> {
        // Foreign code: cloned before the lock is taken, dropped after.
        let waker = cx.waker().clone();
        let Some(mut state) = self.state() else {
            return Poll::Ready(Err(RpcError::not_sent(Code::Internal, "a local channel has no connection")));
        };
        match &mut *state {
            State::Up { connection, .. } if !connection.inner.is_closed() => return Poll::Ready(Ok(Arc::clone(connection))),
            State::Failed { attempt, error } if place.is_some_and(|p| p.attempt == *attempt) => return Poll::Ready(Err(error.clone())),
            State::Connecting { attempt, waiting } => {
                let old = match place.filter(|p| p.attempt == *attempt).and_then(|p| waiting.get_mut(p.index)) {
                    Some(old) => Some(std::mem::replace(old, waker)),
                    None => {
                        *place = Some(Place { attempt: *attempt, index: waiting.len() });
                        waiting.push(waker);
                        None
                    }
                };
                drop(state);
                drop(old);
                return Poll::Pending;
            }
            _ => {}
        }
        let next = state.attempt() + 1;
        *place = Some(Place { attempt: next, index: 0 });
        *state = State::Connecting { attempt: next, waiting: vec![waker] };
        drop(state);
        let task = Attempt { channel: Arc::downgrade(&self.0), number: next };
        let this = self.clone();
        runtime::handle().spawn(async move {
            let connected = this.connect().await;
            drop(this);
            task.finish(connected);
        });
        Poll::Pending
    }

    /// Tries the endpoints in their order.
    async fn connect(&self) -> Result<Arc<Connection>, RpcError> {
        let Target::Remote { resolver, .. } = &self.0.target else {
            return Err(RpcError::not_sent(Code::Internal, "a local channel has no connection"));
        };
        let limits = &self.0.config.limits;
        let endpoints = match tokio::time::timeout(limits.handshake, resolver.resolve()).await {
            Ok(resolved) => resolved.map_err(|e| e.with_stage(Stage::Resolve))?,
            Err(_) => {
                let why = format!("{}: no endpoints within {} ms", resolver.describe(), limits.handshake.as_millis());
                return Err(RpcError::not_sent(Code::Unavailable, why).with_stage(Stage::Resolve));
            }
        };
        let mut last = None;
        for endpoint in &endpoints {
            let address = endpoint.address.to_string();
            let link = match tokio::time::timeout(limits.handshake, farcall_transport::connect(&endpoint.address)).await {
                Ok(link) => link,
                Err(_) => {
                    let why = format!("{address}: no connection within {} ms", limits.handshake.as_millis());
                    Err(RpcError::not_sent(Code::Unavailable, why).with_stage(Stage::Connect))
                }
            };
            match link {
                Ok(link) => match establish(link, BytesMut::new(), limits, &address).await {
                    Ok(handshake) => {
                        let (connection, driver) = Driver::new(handshake, Arc::clone(&self.0.services), Arc::default(), address);
                        tokio::spawn(driver.run());
                        return Ok(Arc::new(connection));
                    }
                    Err(e) => last = Some(e),
                },
                Err(e) => last = Some(e),
            }
        }
        let none =
            || RpcError::not_sent(Code::Unavailable, format!("{}: no provider is known", resolver.describe())).with_stage(Stage::Resolve);
        // Whatever the peer said, no call was sent.
        Err(last.unwrap_or_else(none).with_certainty(farcall_core::Certainty::NotSent))
    }

    /// Waits for a connection, but not longer than this.
    async fn connection_within(&self, time: Option<Duration>) -> Result<Arc<Connection>, RpcError> {
        let mut place = None;
        let connected = std::future::poll_fn(|cx| self.poll_connection(&mut place, cx));
        let Some(time) = time else { return connected.await };
        tokio::time::timeout(time, connected).await.unwrap_or_else(|_| {
            let why = format!("deadline {}: no connection to the provider yet", display_duration(time));
            Err(RpcError::not_sent(Code::DeadlineExceeded, why).with_stage(Stage::Connect))
        })
    }

    /// Waits until there is a connection.
    pub async fn ready(&self) -> Result<(), RpcError> {
        if self.local_target().is_some() {
            return Ok(());
        }
        let mut place = None;
        std::future::poll_fn(|cx| self.poll_connection(&mut place, cx)).await.map(drop)
    }
}

/// Where a caller waits for a connection: the attempt, and its place among those who wait for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    attempt: u64,
    index: usize,
}

/// An attempt to connect; if its task is dropped, those who wait are told.
struct Attempt {
    channel: std::sync::Weak<Inner>,
    number: u64,
}

impl Attempt {
    fn finish(self, connected: Result<Arc<Connection>, RpcError>) {
        self.set(match connected {
            Ok(connection) => State::Up { attempt: self.number, connection },
            Err(error) => State::Failed { attempt: self.number, error },
        });
    }

    fn set(&self, next: State) {
        let Some(channel) = self.channel.upgrade() else { return };
        let Target::Remote { state, .. } = &channel.target else { return };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*state, State::Connecting { attempt, .. } if *attempt == self.number) {
            return;
        }
        let before = std::mem::replace(&mut *state, next);
        drop(state);
        if let State::Connecting { waiting, .. } = before {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let error = RpcError::not_sent(Code::Unavailable, "the runtime was shut down while connecting");
        self.set(State::Failed { attempt: self.number, error });
    }
}

impl Invoke for Channel {
    fn invoke(&self, call: RawCall) -> BoxFuture<'_, Result<RawReply, RpcError>> {
        Box::pin(async move {
            let Some(method) = call.service.methods.get(call.method) else {
                return Err(RpcError::not_sent(Code::InvalidArgument, format!("{} has no method {}", call.service.name, call.method)));
            };
            let oneway = method.traits.oneway;
            let name = call.service.full_name(call.method);
            let since = Instant::now();
            let time = call.deadline.or(self.default_deadline());
            let connection = self.connection_within(time).await.map_err(|e| e.with_method(&name))?;
            let metadata = (!call.metadata.is_empty()).then(|| call.metadata.clone());
            let options = farcall_wire::CallOptions { metadata, trace: None, codec: call.codec }.encode();
            let left = || time.map(|time| to_ms(time.saturating_sub(since.elapsed())).max(1));
            let mut flight = Flight { connection, id: None };
            let mut room = None;
            let making = std::future::poll_fn(|cx| {
                if let Some(id) = flight.id {
                    let answer = flight.connection.poll(id, cx.waker());
                    return answer.map_or(Poll::Pending, |a| Poll::Ready(Ok(Some(a))));
                }
                let start = Start { row: 0, deadline: left(), options: &options, body: Body::Segment(call.args.clone()) };
                let (service, method) = (Bound::Raw(&call.service), call.method as u16);
                let started = match oneway {
                    true => flight.connection.start_oneway(service, method, start, cx.waker(), &mut room),
                    false => flight.connection.start(service, method, start, cx.waker(), &mut room).map(Some),
                };
                match started {
                    Ok(None) => Poll::Ready(Ok(None)),
                    Ok(Some(Started::Sent(id))) => {
                        flight.id = Some(id);
                        Poll::Pending
                    }
                    Ok(Some(Started::Full)) => Poll::Pending,
                    Ok(Some(Started::Closed)) => {
                        let why = "the connection ended before the call was sent";
                        Poll::Ready(Err(RpcError::not_sent(Code::Unavailable, why).with_stage(Stage::ClientQueue)))
                    }
                    Err(e) => Poll::Ready(Err(e)),
                }
            });
            // The driver ends a call that was sent; this is for one that finds no room.
            let patience = time.map_or(Duration::MAX, |time| time.saturating_sub(since.elapsed()).saturating_add(GRACE));
            let answer = tokio::time::timeout(patience, making).await.unwrap_or_else(|_| {
                let why = format!("deadline {}: the out-buffer to the provider stayed full", display_duration(time.unwrap_or_default()));
                Err(RpcError::new(Code::DeadlineExceeded, why).with_stage(Stage::ClientQueue))
            });
            let answer = answer.map_err(|e| if flight.id.is_none() { e.with_certainty(farcall_core::Certainty::NotSent) } else { e });
            if answer.is_ok() {
                flight.id = None;
            }
            match answer.map_err(|e| e.with_method(&name))? {
                None => Ok(RawReply::Ok(bytes::Bytes::new())),
                Some(Answer::Ok(body)) => Ok(RawReply::Ok(body)),
                Some(Answer::AppError(body)) => Ok(RawReply::AppError(body)),
                Some(Answer::Failed(e)) => Err(e.with_method(name)),
            }
        })
    }
}

/// Cancels its call when dropped.
struct Flight {
    connection: Arc<Connection>,
    id: Option<farcall_wire::CallId>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let _ = self.connection.cancel(id);
        }
    }
}

/// A client that is being connected: await it, or `wait()` for it without a runtime.
///
/// It fails if no endpoint can be reached now. Later losses are repaired at the next call.
#[must_use = "it does nothing until it is awaited or waited for"]
pub struct Connect<C> {
    resolver: Result<Box<dyn Resolver>, RpcError>,
    config: Config,
    client: PhantomData<fn() -> C>,
}

impl<C: From<Channel> + 'static> Connect<C> {
    /// To addresses given as text.
    #[doc(hidden)]
    pub fn to(addresses: &str) -> Connect<C> {
        let resolver = StaticResolver::parse(addresses).map(|r| Box::new(r) as Box<dyn Resolver>);
        Connect { resolver, config: Config::default(), client: PhantomData }
    }

    /// To what a resolver finds.
    #[doc(hidden)]
    pub fn with_resolver(resolver: impl Resolver) -> Connect<C> {
        Connect { resolver: Ok(Box::new(resolver)), config: Config::default(), client: PhantomData }
    }

    /// Other limits than the default ones.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// The deadline of calls that set and inherit none; `None` = they wait for ever. Default 10 s.
    pub fn default_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.config.limits.default_deadline = deadline.into();
        self
    }

    /// The codec of calls that choose none. Default [`CodecId::Compact`].
    pub fn default_codec(mut self, codec: CodecId) -> Self {
        self.config.codec = codec;
        self
    }

    /// Tells `observer` of every call's end.
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        self.config.observers.push(observer);
        self
    }

    /// Blocks until connected. For programs and threads without a runtime; inside of one it is an
    /// error.
    pub fn wait(self) -> Result<C, RpcError> {
        runtime::wait(self.into_future()).and_then(|connected| connected)
    }

    /// A client that connects at its first call.
    pub fn lazy(self) -> Result<C, RpcError> {
        let state = Mutex::new(State::Down);
        Ok(C::from(Channel::new(Target::Remote { resolver: self.resolver?, state }, self.config)))
    }
}

impl<C: From<Channel> + 'static> IntoFuture for Connect<C> {
    type Output = Result<C, RpcError>;
    type IntoFuture = BoxFuture<'static, Result<C, RpcError>>;

    fn into_future(self) -> Self::IntoFuture {
        let channel: Result<Channel, RpcError> = Connect { resolver: self.resolver, config: self.config, client: PhantomData }.lazy();
        Box::pin(connect(channel))
    }
}

async fn connect<C: From<Channel>>(channel: Result<Channel, RpcError>) -> Result<C, RpcError> {
    let channel = channel?;
    channel.ready().await?;
    Ok(C::from(channel))
}
