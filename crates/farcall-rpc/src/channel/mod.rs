//! A client's handle on a service: finds an endpoint, keeps a connection to it, makes a new one when
//! that is lost.

mod connect;
mod credentials;
mod pace;
mod pool;
mod random;
mod raw;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use farcall_core::error::display_duration;
use farcall_core::{Code, CodecId, Credentials, Endpoint, Limits, RpcError, Stage};
use farcall_transport::{Connector, Io};

pub use self::connect::Connect;
use self::credentials::Source;
pub(crate) use self::pool::{Place, Wish};
use self::pool::{Pool, Start};
use crate::connection::{Connection, Driver, Greeting, Services, establish};
use crate::context::Peer;
use crate::intercept::{self, Chain, Interceptor};
use crate::method::LocalTarget;
use crate::observer::Observer;
use crate::resolver::{Fate, Resolver};
use crate::runtime;

/// An endpoint behind which there are others has only this part of the time: one that swallows everything must not use up the time
/// of a call that another could serve.
const NOT_THE_LAST: u32 = 5;

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
    Remote(Remote),
    Local(LocalTarget),
}

struct Remote {
    /// `None` over a link that existed already: there is no way to another.
    resolver: Option<Arc<dyn Resolver>>,
    pool: Mutex<Pool>,
}

impl Remote {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Config {
    limits: Limits,
    codec: CodecId,
    observers: Vec<Arc<dyn Observer>>,
    /// The most connections it has at a time.
    connections: usize,
    /// Where what it shows to prove who it is comes from.
    credentials: Option<Arc<dyn Source>>,
    /// They may go where others can listen.
    in_clear: bool,
    connector: Connector,
    /// What stands around its calls, and around their attempts.
    calls: Option<Chain>,
    attempts: Option<Chain>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            limits: Limits::default(),
            codec: CodecId::default(),
            observers: Vec::new(),
            connections: 1,
            credentials: None,
            in_clear: false,
            connector: Connector::default(),
            calls: None,
            attempts: None,
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to = match &self.0.target {
            Target::Local(_) => "a provider of this process".to_owned(),
            Target::Remote(_) => self.peer().map_or_else(|| "nobody just now".to_owned(), |peer| peer.address),
        };
        f.debug_tuple("Channel").field(&to).finish()
    }
}

impl Channel {
    fn remote(resolver: Option<Arc<dyn Resolver>>, config: Config) -> Channel {
        let pool = Mutex::new(Pool::new(config.connections, &config.limits));
        let channel = Channel::new(Target::Remote(Remote { resolver: resolver.clone(), pool }), config);
        if let Some(resolver) = resolver {
            let weak = Arc::downgrade(&channel.0);
            resolver.on_change(Box::new(move || weak.upgrade().map(|inner| Channel(inner).leave()).is_some()));
        }
        channel
    }

    /// Leaves the connections that the resolver does not keep. Calls that run on them hold them until they have ended.
    fn leave(&self) {
        let Target::Remote(remote) = &self.0.target else { return };
        let Some(resolver) = &remote.resolver else { return };
        // The resolver is foreign code, and so is what runs when a connection is dropped: not under the lock.
        let up = remote.pool().endpoints();
        let left: Vec<Arc<Endpoint>> = up.into_iter().filter(|endpoint| !resolver.keeps(endpoint)).collect();
        if !left.is_empty() {
            let _dropped = remote.pool().take_out(&left);
        }
    }

    fn new(target: Target, config: Config) -> Channel {
        let services = Arc::new(Services::empty());
        Channel(Arc::new(Inner { target, config, services }))
    }

    /// A channel to a provider in this process: its handlers are called without encoding anything.
    #[doc(hidden)]
    pub fn local(target: LocalTarget) -> Channel {
        Channel::new(Target::Local(target), Config::default())
    }

    /// A channel over a link that exists already: a child's standard streams, one end of a pipe. When
    /// the link ends, so does the channel.
    ///
    /// ```no_run
    /// use std::process::{Command, Stdio};
    /// use farcall_rpc::{Channel, Io, Limits};
    /// use tokio::net::unix::pipe;
    ///
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut child = Command::new("ssh").args(["till", "payment", "--stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    /// let to = pipe::Sender::from_owned_fd(child.stdin.take().ok_or("piped")?.into())?;
    /// let from = pipe::Receiver::from_owned_fd(child.stdout.take().ok_or("piped")?.into())?;
    /// let channel = Channel::over(Io::boxed(tokio::io::join(from, to)), Limits::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn over(link: Io, limits: Limits) -> Result<Channel, RpcError> {
        Channel::over_as(link, limits, None).await
    }

    /// As [`over`](Channel::over), to a server that asks who calls. Whether nobody can listen on the link is the
    /// caller's to know.
    pub async fn over_as(link: Io, limits: Limits, credentials: impl Into<Option<Credentials>>) -> Result<Channel, RpcError> {
        let address = link.peer();
        let greeting = Greeting { credentials: credentials.into(), ..Greeting::default() };
        let handshake = establish(link, BytesMut::new(), &limits, &address, greeting).await?;
        let services = Arc::new(Services::empty());
        let (connection, driver) = Driver::new(handshake, services, Arc::default(), address);
        tokio::spawn(driver.run());
        let channel = Channel::remote(None, Config { limits, ..Config::default() });
        if let Target::Remote(remote) = &channel.0.target {
            remote.pool().connected(Arc::new(connection), None, crate::time::now());
        }
        Ok(channel)
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

    /// Whether it is the same channel.
    pub(crate) fn is(&self, other: &Channel) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether its calls may go over different connections.
    pub(crate) fn has_several(&self) -> bool {
        self.0.config.connections > 1
    }

    pub(crate) fn observers(&self) -> &[Arc<dyn Observer>] {
        &self.0.config.observers
    }

    /// What stands around its calls.
    #[inline]
    pub(crate) fn around_calls(&self) -> Option<&Chain> {
        self.0.config.calls.as_ref()
    }

    /// What stands around attempts.
    #[inline]
    pub(crate) fn around_attempts(&self) -> Option<&Chain> {
        self.0.config.attempts.as_ref()
    }

    /// A channel to the same provider of this process, with an [interceptor](crate::intercept) around each call. For
    /// other channels interceptors are given where they are connected
    /// ([`Connect::intercept`]); here that is an error.
    ///
    /// ```ignore
    /// let channel = PaymentClient::local(Till).channel().clone().intercept_local(Traced::new())?;
    /// let payment = PaymentClient::from(channel);
    /// ```
    pub fn intercept_local(self, interceptor: impl Interceptor) -> Result<Channel, RpcError> {
        let Some(target) = self.local_target().cloned() else {
            let why = "this channel leads to another process: give it interceptors where it is connected, by `.intercept(…)`";
            return Err(RpcError::not_sent(Code::FailedPrecondition, why));
        };
        let calls = Some(intercept::with(self.around_calls(), interceptor));
        Ok(Channel::new(Target::Local(target), Config { calls, ..Config::default() }))
    }

    pub(crate) fn local_target(&self) -> Option<&LocalTarget> {
        match &self.0.target {
            Target::Local(target) => Some(target),
            Target::Remote(_) => None,
        }
    }

    /// A connection that takes calls, if there is one.
    #[inline]
    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        let Target::Remote(remote) = &self.0.target else { return None };
        let pool = remote.pool();
        if let Some(only) = pool.only() {
            return (!only.inner.is_closed()).then(|| Arc::clone(only));
        }
        drop(pool);
        self.one_of_several(remote)
    }

    #[cold]
    fn one_of_several(&self, remote: &Remote) -> Option<Arc<Connection>> {
        // To be dropped after the lock.
        let _lost;
        let mut pool = remote.pool();
        let now = crate::time::now();
        _lost = pool.take_lost(now);
        let (connection, more) = pool.pick(None, now)?;
        drop(pool);
        self.attempt(more);
        Some(connection)
    }

    /// Waits for a connection; starts an attempt if none is under way. `place` remembers which one
    /// the caller waits for: when that one fails, the caller fails.
    pub(crate) fn poll_connection(
        &self,
        wish: Wish,
        place: &mut Option<Place>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Arc<Connection>, RpcError>> {
        // Foreign code: cloned before the lock is taken, dropped after.
        let mut waker = cx.waker().clone();
        let Target::Remote(remote) = &self.0.target else {
            return Poll::Ready(Err(RpcError::not_sent(Code::Internal, "a local channel has no connection")));
        };
        let _lost;
        let now = crate::time::now();
        let mut pool = remote.pool();
        _lost = pool.take_lost(now);
        if let Some((connection, more)) = pool.pick(wish.but, now) {
            drop(pool);
            self.attempt(more);
            return Poll::Ready(Ok(connection));
        }
        if remote.resolver.is_none() {
            let why = "the link that this channel was made over has ended, and there is no address to make another";
            return Poll::Ready(Err(RpcError::not_sent(Code::Unavailable, why).with_stage(Stage::Connect)));
        }
        let start = pool.enter(place, &mut waker, wish.within, now)?;
        drop(pool);
        self.attempt(start);
        Poll::Pending
    }

    /// Makes an attempt in a task of its own, if there is one to be made.
    fn attempt(&self, start: Option<Start>) {
        let Some(Start { attempt, pause }) = start else { return };
        let attempt = Attempt { channel: Arc::downgrade(&self.0), number: attempt };
        runtime::handle().spawn(async move {
            // To sleep no time at all takes up to a millisecond.
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            // Nobody can want a connection any more.
            let Some(channel) = attempt.channel.upgrade().map(Channel) else { return };
            let connected = channel.connect().await;
            attempt.finish(&channel, connected);
        });
    }

    /// Makes a connection to one endpoint and starts its driver.
    async fn connect_to(
        &self,
        endpoint: &Endpoint,
        resolver: &Arc<dyn Resolver>,
        credentials: Option<Credentials>,
        time: Duration,
    ) -> Result<Arc<Connection>, RpcError> {
        let limits = &self.0.config.limits;
        let address = endpoint.address.to_string();
        let since = crate::time::now();
        let link = tokio::time::timeout(time, self.0.config.connector.connect(&endpoint.address)).await.unwrap_or_else(|_| {
            let why = format!("{address}: no connection within {} ms", time.as_millis());
            Err(RpcError::not_sent(Code::Unavailable, why).with_stage(Stage::Connect))
        })?;
        let link = self.trusted(link, &address)?;
        let within = (time < limits.handshake).then(|| time.saturating_sub(crate::time::since(since)));
        let greeting = Greeting { credentials, within, ..Greeting::default() };
        let handshake = establish(link, BytesMut::new(), limits, &address, greeting).await?;
        let (connection, driver) = Driver::new(handshake, Arc::clone(&self.0.services), Arc::default(), address);
        resolver.tell(endpoint, Fate::Connected);
        let (endpoint, resolver) = (endpoint.clone(), Arc::clone(resolver));
        tokio::spawn(async move {
            if driver.run().await {
                resolver.tell(&endpoint, Fate::Lost);
            }
        });
        Ok(Arc::new(connection))
    }

    /// Tries the endpoints in their order.
    async fn connect(&self) -> Result<(Arc<Connection>, Arc<Endpoint>), RpcError> {
        let Target::Remote(Remote { resolver: Some(resolver), .. }) = &self.0.target else {
            return Err(RpcError::not_sent(Code::Internal, "this channel has nowhere to connect to"));
        };
        let limits = &self.0.config.limits;
        let endpoints = match tokio::time::timeout(limits.handshake, resolver.resolve()).await {
            Ok(resolved) => resolved.map_err(|e| e.with_stage(Stage::Resolve))?,
            Err(_) => {
                let why = format!("{}: no endpoints within {} ms", resolver.describe(), limits.handshake.as_millis());
                return Err(RpcError::not_sent(Code::Unavailable, why).with_stage(Stage::Resolve));
            }
        };
        let credentials = self.credentials().await?;
        let last = match self.first_of(&endpoints, resolver, credentials.as_ref()).await {
            Ok(connected) => return Ok(connected),
            Err(last) => last,
        };
        let others = tokio::time::timeout(limits.handshake, resolver.others(&endpoints)).await.unwrap_or_default();
        let last = match self.first_of(&others, resolver, credentials.as_ref()).await {
            Ok(connected) => return Ok(connected),
            Err(later) => later.or(last),
        };
        let none =
            || RpcError::not_sent(Code::Unavailable, format!("{}: no provider is known", resolver.describe())).with_stage(Stage::Resolve);
        // Whatever the peer said, no call was sent.
        Err(last.unwrap_or_else(none).with_certainty(farcall_core::Certainty::NotSent))
    }

    /// A connection to the first of them that can be reached, or why the last one cannot.
    async fn first_of(
        &self,
        endpoints: &[Endpoint],
        resolver: &Arc<dyn Resolver>,
        credentials: Option<&Credentials>,
    ) -> Result<(Arc<Connection>, Arc<Endpoint>), Option<RpcError>> {
        let limits = &self.0.config.limits;
        let mut last = None;
        for (n, endpoint) in endpoints.iter().enumerate() {
            let time = if n + 1 < endpoints.len() { limits.handshake / NOT_THE_LAST } else { limits.handshake };
            match self.connect_to(endpoint, resolver, credentials.cloned(), time).await {
                Ok(connection) => return Ok((connection, Arc::new(endpoint.clone()))),
                Err(e) => {
                    resolver.tell(endpoint, Fate::Failed(&e));
                    last = Some(e);
                }
            }
        }
        Err(last)
    }

    /// What is shown to the next server, as fresh as its source gives it.
    async fn credentials(&self) -> Result<Option<Credentials>, RpcError> {
        let Some(source) = &self.0.config.credentials else { return Ok(None) };
        let time = self.0.config.limits.handshake;
        let fresh = tokio::time::timeout(time, source.fresh()).await.unwrap_or_else(|_| {
            let why = format!("the source of credentials gave none within {} ms", time.as_millis());
            Err(RpcError::not_sent(Code::Unavailable, why))
        });
        fresh.map(Some).map_err(|e| e.with_stage(Stage::Connect))
    }

    /// Refuses to show credentials where others can listen.
    fn trusted(&self, link: Io, address: &str) -> Result<Io, RpcError> {
        let config = &self.0.config;
        let facts = link.facts();
        let open = !facts.is_encrypted() && facts.ip.is_some_and(|ip| !ip.is_loopback());
        if config.credentials.is_none() || config.in_clear || !open {
            return Ok(link);
        }
        let why = format!(
            "{address}: the credentials would be readable to everybody on the way, because this link is neither TLS nor on this machine: \
             use TLS, or allow it by `.credentials_in_clear()`, --token-in-clear"
        );
        Err(RpcError::not_sent(Code::FailedPrecondition, why).with_stage(Stage::Connect))
    }

    /// Waits for a connection, but not longer than this.
    pub(crate) async fn connection_within(&self, time: Option<Duration>) -> Result<Arc<Connection>, RpcError> {
        let (mut place, since) = (None, crate::time::now());
        let connected = std::future::poll_fn(|cx| {
            let within = time.map(|time| time.saturating_sub(crate::time::since(since)));
            self.poll_connection(Wish { within, but: None }, &mut place, cx)
        });
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
        self.connection_within(None).await.map(drop)
    }
}

/// An attempt to connect; if its task is dropped, those who wait are told.
struct Attempt {
    channel: Weak<Inner>,
    number: u64,
}

impl Attempt {
    fn finish(self, channel: &Channel, connected: Result<(Arc<Connection>, Arc<Endpoint>), RpcError>) {
        let Target::Remote(remote) = &channel.0.target else { return };
        let now = crate::time::now();
        let waiting = remote.pool().ended(self.number, |pool| match connected {
            Ok((connection, endpoint)) => pool.connected(connection, Some(endpoint), now),
            Err(error) => pool.failed(error, now),
        });
        // It may have been withdrawn while it was connected to.
        channel.leave();
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(channel) = self.channel.upgrade() else { return };
        let Target::Remote(remote) = &channel.target else { return };
        let error = RpcError::not_sent(Code::Unavailable, "the runtime was shut down while connecting");
        let waiting = remote.pool().ended(self.number, |pool| pool.given_up(error));
        waiting.into_iter().for_each(Waker::wake);
    }
}
