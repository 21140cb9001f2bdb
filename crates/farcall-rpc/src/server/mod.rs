//! Listens, tells protocols apart by their first bytes, and runs a driver per connection.

mod admission;
mod announced;
mod signals;
mod threads;
mod trust;

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use farcall_core::{Address, Code, Limits, RpcError};
#[cfg(feature = "tls")]
use farcall_transport::TlsServer;
use farcall_transport::{Accepted, Io, Listener, Security, Unopened};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

pub(crate) use self::admission::Place;
use self::admission::{HalfOpen, Hosts, Seat, Stay};
use self::announced::Announced;
pub use self::signals::StopSignals;
use self::threads::Threads;
use crate::admission::Admission;
use crate::announce::Announce;
use crate::auth::Authenticator;
use crate::connection::{LINGER, Services, last_words};
use crate::health::{Checks, HealthServer, Readiness};
use crate::intercept::{self, Chain, Interceptor};
use crate::keys::Record;
use crate::meta::{DescribeServer, Meta};
use crate::method::BoxFuture;
use crate::observer::Observer;
use crate::protocol::{Farcall, Protocol, Sniff};
use crate::runtime;
use crate::skeleton::Skeleton;

/// Most bytes that are read to tell protocols apart.
const SNIFF: usize = 24;
/// Pause after a failed accept, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Links that are told at a time why they are turned away; further ones are just closed.
const TURNED_AWAY: usize = 64;

/// The most time of a drain for withdrawing what announced the server; then half as much for callers to leave.
const LEAVE: Duration = Duration::from_secs(2);

/// How often it is looked whether all callers have left.
const LOOK: Duration = Duration::from_millis(5);

/// What a server is made of; see [`Server::builder`].
#[derive(Default)]
pub struct ServerBuilder {
    skeletons: Vec<Arc<dyn Skeleton>>,
    protocols: Vec<Arc<dyn Protocol>>,
    observers: Vec<Arc<dyn Observer>>,
    also: Vec<String>,
    announced: Vec<Box<dyn Announce>>,
    limits: Limits,
    threads: Option<usize>,
    unready: bool,
    authenticators: Vec<Arc<dyn Authenticator>>,
    anonymous: bool,
    describe: Vec<String>,
    #[cfg(feature = "tls")]
    tls: Option<TlsServer>,
    chain: Option<Chain>,
}

impl ServerBuilder {
    /// Serves a service: `.serve(PaymentServer::new(Till))`. May be called once per service.
    pub fn serve(mut self, skeleton: impl Skeleton) -> Self {
        self.skeletons.push(Arc::new(skeleton));
        self
    }

    /// Speaks another protocol on the same port.
    pub fn protocol(mut self, protocol: impl Protocol) -> Self {
        self.protocols.push(Arc::new(protocol));
        self
    }

    /// Tells `observer` of every call's end.
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Tells `announce` when the server is ready and when it is to go: at once, or when it [becomes](ServerBuilder::unready) so.
    pub fn announce(mut self, announce: impl Announce) -> Self {
        self.announced.push(Box::new(announce));
        self
    }

    /// Other limits than the default ones.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Runs connections and their handlers on `count` threads of the server's own, each with a runtime
    /// for itself; connections are dealt out in turn and stay. With many busy connections this saves what
    /// moving them between cores costs; but a handler that computes holds up all connections of its
    /// thread, and a thread with nothing to do does not help out. What handlers
    /// [spawn](crate::spawn) runs on their thread and ends with the server. Default: all run on the
    /// runtime that the server is started on.
    pub fn threads(mut self, count: usize) -> Self {
        self.threads = Some(count);
        self
    }

    /// Speaks TLS on its TCP addresses, and nothing else unless it
    /// [accepts plaintext](farcall_transport::TlsServerBuilder::accept_plaintext); `quic://` addresses need it, too.
    /// Unix sockets and memory stay as they are. Keep a clone to [`reload`](TlsServer::reload) certificates.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &TlsServer) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// Asks callers who they are, in every protocol. May be called several times: the first that knows a caller
    /// counts. Callers that prove nothing are refused, unless [anonymous ones are allowed](Self::allow_anonymous).
    ///
    /// ```ignore
    /// Server::builder()
    ///     .serve(PaymentServer::new(Till))
    ///     .authenticate(Tokens::new().token(secret, Identity::new("shop").role("teller")))
    ///     .authenticate(UnixUsers::new().user(0, Identity::new("root").role("admin")))
    /// ```
    pub fn authenticate(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticators.push(Arc::new(authenticator));
        self
    }

    /// Lets callers in that show nothing. They have no identity and no roles, and may call what asks for none.
    /// What is shown must be right all the same. Needed to listen beyond this machine without asking who calls.
    pub fn allow_anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    /// Puts an [interceptor](crate::intercept) around every handler, of every protocol: an async function
    /// `(CallInfo, Next) -> Result<Ended, RpcError>`, or a ready-made one. The first that is given is the outermost.
    /// Who calls and whether he may is known before any of them is asked; calls that were refused then, and replies
    /// that are sent again to calls with a key, do not come by.
    ///
    /// ```ignore
    /// Server::builder()
    ///     .intercept(AccessLog::to(std::io::stderr()))
    ///     .intercept(RateLimit::per_caller(100.0, 200))
    ///     .serve(PaymentServer::new(Till))
    /// ```
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.chain = Some(intercept::with(self.chain.as_ref(), interceptor));
        self
    }

    /// Tells what is served here (`farcall describe`, `schema`, `call`) only to callers of this role, or of another
    /// that is given so. Whatever this says, nobody is told of methods that he may not call.
    pub fn describe_to(mut self, role: impl Into<String>) -> Self {
        self.describe.push(role.into());
        self
    }

    /// Starts as not ready, until [`Readiness::set`] says otherwise: a server that must warm up first. It listens and
    /// answers all the same; `farcall.Health` and `/readyz` say so, and it is registered nowhere before it is ready. Default: ready
    /// once it listens.
    pub fn unready(mut self) -> Self {
        self.unready = true;
        self
    }

    /// Listens on a further address.
    pub fn also(mut self, address: impl Into<String>) -> Self {
        self.also.push(address.into());
        self
    }

    /// Binds and starts serving: await it, or `wait()` for it without a runtime. When it returns the
    /// port is open and calls are answered; `tcp://127.0.0.1:0` picks a free port, which
    /// [`Server::address`] tells.
    pub fn listen(mut self, address: impl Into<String>) -> Listen {
        self.also.insert(0, address.into());
        Listen(self)
    }
}

/// A server about to listen.
#[must_use = "it does nothing until it is awaited or waited for"]
pub struct Listen(ServerBuilder);

impl Listen {
    /// Blocks until bound. For programs without a runtime; inside of one it is an error.
    pub fn wait(self) -> Result<Server, RpcError> {
        runtime::wait(self.into_future()).and_then(|bound| bound)
    }
}

impl IntoFuture for Listen {
    type Output = Result<Server, RpcError>;
    type IntoFuture = BoxFuture<'static, Result<Server, RpcError>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(start(self.0))
    }
}

async fn start(mut builder: ServerBuilder) -> Result<Server, RpcError> {
    let readiness = Readiness::new(builder.skeletons.iter().map(|s| s.descriptor()), !builder.unready);
    builder.skeletons.push(Arc::new(HealthServer::new(Checks(readiness.clone()))));
    let meta = Meta::describing(builder.skeletons.iter().map(|s| s.descriptor()));
    builder.skeletons.push(Arc::new(DescribeServer::new(meta)));
    check_names(&builder.skeletons)?;
    if builder.threads == Some(0) {
        return Err(RpcError::not_sent(Code::InvalidArgument, "threads(0): a server with threads of its own needs one at least"));
    }
    let security = security(&builder);
    let mut listeners = Vec::new();
    for address in &builder.also {
        listeners.push(Listener::bind_with(&address.parse()?, &security).await?);
    }
    let announced = std::mem::take(&mut builder.announced);
    let asks = !builder.authenticators.is_empty();
    trust::check_roles(&builder.skeletons, &builder.describe, asks)?;
    let open = listeners.iter().map(Listener::address).find(|address| !address.is_local());
    if let Some(address) = open.filter(|_| !asks && !builder.anonymous && !trust::takes_known_clients_only(&builder)) {
        return Err(trust::open_to_all(address));
    }
    let in_clear = listeners.iter().map(Listener::address).find(|address| trust::is_in_clear(address, &builder));
    if let Some(address) = in_clear {
        let warning = trust::in_clear(address);
        builder.observers.iter().for_each(|o| o.warned(&warning));
        #[cfg(feature = "tracing")]
        tracing::warn!(target: "farcall", "{warning}");
    }
    let chain = builder.chain.take();
    let ServerBuilder { authenticators, anonymous, describe, skeletons, observers, limits, .. } = &mut builder;
    let (authenticators, describe) = (std::mem::take(authenticators), std::mem::take(describe));
    let admission = Admission::new(authenticators, *anonymous, describe, limits, observers.clone());
    let admission = admission.guarding(skeletons.iter().map(|s| s.descriptor()));
    let (skeletons, observers, keys) = (builder.skeletons, builder.observers, Record::new(&builder.limits));
    let services = Arc::new(Services { skeletons, observers, admission, chain, keys, readings: Arc::default() });
    let stop = watch::Sender::new(Stop::No);
    let live = watch::Sender::new(0);
    let farcall = Farcall::new(Arc::clone(&services), builder.limits.clone(), readiness.clone(), stop.subscribe());
    builder.protocols.insert(0, Arc::new(farcall.clone()));
    let until = || over(stop.subscribe(), live.subscribe(), farcall.clone());
    let threads = Threads::start(builder.threads.unwrap_or_default(), until).await?;
    let core = Arc::new(Core {
        farcall,
        protocols: builder.protocols,
        room: Arc::new(Semaphore::new(builder.limits.connections.min(Semaphore::MAX_PERMITS))),
        hosts: Arc::new(Hosts::new(builder.limits.connections_per_host)),
        turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
        half_open: Arc::new(HalfOpen::new(builder.limits.half_open)),
        handshake: builder.limits.handshake,
        threads,
        readiness,
        stop,
        live,
    });
    let addresses: Vec<Address> = listeners.iter().map(|l| l.address().clone()).collect();
    for listener in listeners {
        // Counted among what lives, so that the port is free when a drain returns.
        let alive = Alive::new(&core);
        tokio::spawn(async move {
            accept(&alive.0, listener).await;
            drop(alive);
        });
    }
    let announced = Announced::start(announced, &addresses, &services, &core.readiness).await?;
    Ok(Server { core, addresses, announced })
}

/// What is demanded of those who come, and which protocols they may ask for.
fn security(builder: &ServerBuilder) -> Security {
    #[cfg(feature = "tls")]
    if let Some(tls) = &builder.tls {
        let others = builder.protocols.iter().flat_map(|p| p.alpn());
        let alpn: Vec<&str> = crate::protocol::ALPN.iter().chain(others).copied().collect();
        let observers = builder.observers.clone();
        return Security::tls(tls.clone(), &alpn, move |e| observers.iter().for_each(|o| o.not_reloaded(e)));
    }
    let _ = builder;
    Security::default()
}

fn check_names(skeletons: &[Arc<dyn Skeleton>]) -> Result<(), RpcError> {
    for (i, skeleton) in skeletons.iter().enumerate() {
        let d = skeleton.descriptor();
        let same = |other: &Arc<dyn Skeleton>| {
            let o = other.descriptor();
            o.name == d.name && o.group == d.group && o.version == d.version
        };
        if skeletons[..i].iter().any(same) {
            let why = format!("the service {} is served twice with the same group and version: remove one, or tell them apart", d.name);
            return Err(RpcError::not_sent(Code::AlreadyExists, why));
        }
    }
    Ok(())
}

/// Until a server is gone, with all that ran for it.
async fn over(mut stop: watch::Receiver<Stop>, mut live: watch::Receiver<usize>, farcall: Farcall) {
    let _ = stop.wait_for(|stop| *stop == Stop::Now).await;
    let _ = live.wait_for(|n| *n == 0).await;
    farcall.no_handlers().await;
}

/// A running server. Dropping it stops it at once; [`drain`](Server::drain) lets running calls end.
pub struct Server {
    core: Arc<Core>,
    addresses: Vec<Address>,
    announced: Announced,
}

impl Server {
    /// A server with nothing to serve yet.
    ///
    /// ```ignore
    /// let server = Server::builder().serve(PaymentServer::new(Till)).listen("tcp://127.0.0.1:0").await?;
    /// println!("listening on {}", server.address());
    /// ```
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Where it listens; the first address if there are several.
    pub fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// All addresses it listens on.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether it is ready for calls, as those are told who ask; and where to say so.
    pub fn readiness(&self) -> Readiness {
        self.core.readiness.clone()
    }

    /// Serves a link that exists already: a child's standard streams, one end of a pipe. Returns at
    /// once; await what it returns to know when the link has ended. It runs on the caller's runtime, also if the server has [threads](ServerBuilder::threads). What the
    /// server demands of its ports (TLS, so many links of a host) it does not demand of this one.
    ///
    /// ```no_run
    /// use std::os::fd::AsFd;
    /// use farcall_rpc::{Io, Server};
    /// use tokio::net::unix::pipe;
    ///
    /// // A child that is called over its own standard streams: the other half of the example of `Channel::over`. It listens nowhere
    /// // else, so on a name in memory, and it must not print: what is to be read by people goes to stderr.
    /// # async fn start(skeleton: impl farcall_rpc::Skeleton) -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder().serve(skeleton).listen("mem:child").await?;
    /// let stdin = pipe::Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    /// let stdout = pipe::Sender::from_owned_fd(std::io::stdout().as_fd().try_clone_to_owned()?)?;
    /// server.serve_link(Io::boxed(tokio::io::join(stdin, stdout))).await; // until its parent has gone
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve_link(&self, link: Io) -> ServedLink {
        ServedLink(self.core.spawn(&runtime::handle(), link.into(), None))
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.core.farcall.count()
    }

    /// Withdraws what announced it, and waits until its callers have left: for the one no longer than this, for the other half of it.
    async fn leave(&self, patience: Duration) {
        self.announced.withdraw(patience).await;
        // Whoever found us by what is withdrawn now hears of it and leaves; calls that come meanwhile are answered.
        let since = tokio::time::Instant::now();
        while !self.announced.is_empty() && self.connections() > 0 && since.elapsed() < patience / 2 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends gracefully: what [announced](ServerBuilder::announce) it is told to withdraw, no new connections are taken, callers are
    /// told to go elsewhere, running handlers may end within `patience`, also those whose callers are gone. When it returns the port
    /// is free. An error says how many connections were cut off after that time.
    pub async fn drain(self, patience: Duration) -> Result<(), RpcError> {
        self.core.readiness.drain();
        self.leave(LEAVE.min(patience / 4)).await;
        let core = &self.core;
        core.stop.send_replace(Stop::Drain);
        core.farcall.drain();
        let mut live = core.live.subscribe();
        let ended = async {
            let _ = live.wait_for(|n| *n == 0).await;
            core.farcall.no_handlers().await;
        };
        if tokio::time::timeout(patience, ended).await.is_ok() {
            return Ok(());
        }
        Err(core.cut_off(Code::DeadlineExceeded, format!("{} ms", patience.as_millis())))
    }

    /// Serves until the process is asked to end by SIGTERM or SIGINT (Ctrl-C), then
    /// [drains](Server::drain). A second signal cuts the drain short, which is an error like `patience`
    /// that runs out. A signal that comes before this is called still kills the process: see
    /// [`StopSignals`].
    pub async fn drain_on_signal(self, patience: Duration) -> Result<(), RpcError> {
        self.drain_on(StopSignals::new()?, patience).await
    }

    /// As [`drain_on_signal`](Server::drain_on_signal), with signals that are caught already.
    pub async fn drain_on(self, mut signals: StopSignals, patience: Duration) -> Result<(), RpcError> {
        signals.next().await;
        let core = Arc::clone(&self.core);
        let (mut drained, mut again) = (pin!(self.drain(patience)), pin!(signals.next()));
        poll_fn(|cx| match drained.as_mut().poll(cx) {
            Poll::Pending => again.as_mut().poll(cx).map(|signal| Err(core.cut_off(Code::Cancelled, format!("a second signal, {signal}")))),
            drained => drained,
        })
        .await
    }

    /// Serves until `signal` is done.
    pub async fn until(&self, signal: impl Future) {
        signal.await;
    }
}

/// A link that is [served](Server::serve_link). It is ready when the link has ended, however it did; dropped, the link goes on.
pub struct ServedLink(JoinHandle<()>);

impl Future for ServedLink {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl std::fmt::Debug for ServedLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedLink").field("ended", &self.0.is_finished()).finish()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses()).field("connections", &self.connections()).finish()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.core.stop.send_replace(Stop::Now);
        self.core.farcall.abort();
    }
}

struct Core {
    /// Also the first of the protocols.
    farcall: Farcall,
    protocols: Vec<Arc<dyn Protocol>>,
    room: Arc<Semaphore>,
    hosts: Arc<Hosts>,
    turned_away: Arc<Semaphore>,
    half_open: Arc<HalfOpen>,
    handshake: Duration,
    threads: Threads,
    readiness: Readiness,
    stop: watch::Sender<Stop>,
    /// Links and listeners whose task has not ended.
    live: watch::Sender<usize>,
}

impl Core {
    /// Serves a link that was accepted, on the thread whose turn it is.
    fn deal(self: &Arc<Core>, link: Accepted, permit: Option<Permit>) {
        let Some(thread) = self.threads.next() else {
            self.spawn(&runtime::handle(), link, permit);
            return;
        };
        if let Ok(link) = link.detach() {
            self.spawn(thread, link, permit);
        }
    }

    /// Serves a link in a task of its own.
    fn spawn(self: &Arc<Core>, on: &Handle, link: Accepted, permit: Option<Permit>) -> JoinHandle<()> {
        let alive = Alive::new(self);
        // Here and not in its task: those who come first are to be those who go first.
        let entered = self.half_open.enter(link.ip());
        on.spawn(async move {
            serve_link(&alive.0, link, entered).await;
            drop((alive, permit));
        })
    }

    /// Closes a link of a host that has too many, and tells it why unless many are told already.
    fn turn_away(self: &Arc<Core>, accepted: Accepted, permit: OwnedSemaphorePermit) {
        let host = accepted.ip().map(|ip| ip.to_string()).unwrap_or_default();
        let why = "this host has too many connections here (limit `connections_per_host`): share one, it carries any number of calls";
        let error = RpcError::not_executed(Code::ResourceExhausted, why);
        self.farcall.refused(&host, &error);
        let (Some(link), Ok(turn)) = (accepted.refuse(), Arc::clone(&self.turned_away).try_acquire_owned()) else { return };
        let alive = Alive::new(self);
        tokio::spawn(async move {
            refuse(&alive.0, link, BytesMut::new(), &error).await;
            drop((alive, permit, turn));
        });
    }

    /// The error of a drain that did not come to its end.
    fn cut_off(&self, code: Code, after: String) -> RpcError {
        let (links, handlers) = (*self.live.borrow(), self.farcall.handlers());
        let why = format!("{links} connections were still open after {after} and were cut off; {handlers} handlers had not ended");
        RpcError::new(code, why)
    }
}

/// Accepts until told to stop; then the listener closes.
async fn accept(core: &Arc<Core>, mut listener: Listener) {
    let mut stop = core.stop.subscribe();
    loop {
        let next = async {
            let permit = Arc::clone(&core.room).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let Some((accepted, permit)) = unless_stopped(&mut stop, Stop::Drain, next).await else { break };
        let (Ok(link), Ok(room)) = (accepted, permit) else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        match link.ip().map(|ip| core.hosts.enter(ip)) {
            Some(None) => core.turn_away(link, room),
            seat => core.deal(link, Some(Permit { _room: room, _seat: seat.flatten() })),
        }
    }
    let _ = unless_stopped(&mut stop, Stop::Now, listener.close()).await;
}

/// What a link takes up of the server, for as long as this exists.
struct Permit {
    _room: OwnedSemaphorePermit,
    _seat: Option<Seat>,
}

/// How far a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    No,
    /// Nothing new.
    Drain,
    /// Nothing at all.
    Now,
}

/// The output of `future`, or `None` as soon as the server is told to stop so far.
pub(crate) async fn unless_stopped<F: Future>(stop: &mut watch::Receiver<Stop>, so_far: Stop, future: F) -> Option<F::Output> {
    let mut stopped = pin!(stop.wait_for(|stop| *stop >= so_far));
    let mut future = pin!(future);
    poll_fn(|cx| match stopped.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Counts a task of the server for as long as it exists.
struct Alive(Arc<Core>);

impl Alive {
    fn new(core: &Arc<Core>) -> Alive {
        core.live.send_modify(|n| *n += 1);
        Alive(Arc::clone(core))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.live.send_modify(|n| *n -= 1);
    }
}

/// Finds out which protocol a link speaks and serves it to its end.
async fn serve_link(core: &Arc<Core>, accepted: Accepted, (place, mut stay): (Place, Stay)) {
    // Boxed, so that the connection's task does not keep room for its beginning.
    let beginning = stay.unless_pushed_out(Box::pin(begin(core, accepted))).await;
    let Some((link, first, protocol)) = beginning.flatten() else { return };
    let dispatch = core.farcall.dispatch(&link, protocol.name(), place);
    let serving = stay.unless_pushed_out(protocol.serve(link, first, dispatch));
    let _ = unless_stopped(&mut core.stop.subscribe(), Stop::Now, serving).await;
}

/// Opens a link and finds out which protocol it speaks. One that comes to nothing is told why.
async fn begin(core: &Arc<Core>, accepted: Accepted) -> Option<(Io, BytesMut, Arc<dyn Protocol>)> {
    let mut stop = core.stop.subscribe();
    match unless_stopped(&mut stop, Stop::Drain, open_and_sniff(core, accepted)).await?? {
        Opened::Known(link, first, protocol) => Some((link, first, protocol)),
        // It came to see whether somebody listens, or has not said a word.
        Opened::Unknown(_, first) if first.is_empty() => None,
        Opened::Unknown(link, first) => {
            let names: Vec<&str> = core.protocols.iter().map(|p| p.name()).collect();
            let what = if first[0] == TLS_HANDSHAKE { "TLS, which it does not have: use tcp://" } else { "something else" };
            let error =
                RpcError::not_executed(Code::Unimplemented, format!("this port speaks {}; what you sent is {what}", names.join(", ")));
            let words = core.protocols.iter().find_map(|p| p.answer_unknown(&error)).unwrap_or_else(|| in_text(&error));
            last_words(link, &words).await;
            None
        }
        Opened::Refused(refused, first) => {
            let Unopened { address, error, link, is_plaintext } = refused;
            core.farcall.refused(&address, &error);
            match link? {
                link if is_plaintext => refuse(core, link, first, &error).await,
                // It was told by TLS.
                link => last_words(link, b"").await,
            }
            None
        }
    }
}

/// The first byte of TLS: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What became of a link's first bytes.
enum Opened {
    Known(Io, BytesMut, Arc<dyn Protocol>),
    Unknown(Io, BytesMut),
    Refused(Unopened, BytesMut),
}

/// Both within the handshake's time; `None` if even the first of them took longer.
async fn open_and_sniff(core: &Core, accepted: Accepted) -> Option<Opened> {
    let began = Instant::now();
    let mut first = BytesMut::with_capacity(64);
    let mut link = match tokio::time::timeout(core.handshake, accepted.open(&mut first)).await.ok()? {
        Ok(link) => link,
        Err(refused) => return Some(Opened::Refused(refused, first)),
    };
    let left = core.handshake.saturating_sub(began.elapsed());
    let sniffed = tokio::time::timeout(left, sniff(&core.protocols, &mut link, &mut first)).await;
    Some(match sniffed.ok().flatten() {
        Some(protocol) => Opened::Known(link, first, protocol),
        None => Opened::Unknown(link, first),
    })
}

/// Tells a peer that it is not served, in its own protocol if that is known soon.
async fn refuse(core: &Core, mut link: Io, mut first: BytesMut, error: &RpcError) {
    let sniffed = tokio::time::timeout(LINGER, sniff(&core.protocols, &mut link, &mut first)).await;
    let words = match sniffed.ok().flatten() {
        Some(protocol) => protocol.refusal(&first, error),
        None => in_text(error),
    };
    last_words(link, &words).await;
}

/// An error for somebody of whom nothing is known.
pub(crate) fn in_text(error: &RpcError) -> Vec<u8> {
    format!("{}\r\n", error.message()).into_bytes()
}

/// Reads as many bytes as it takes for one protocol to know its own; `None` if none does.
async fn sniff(protocols: &[Arc<dyn Protocol>], link: &mut Io, first: &mut BytesMut) -> Option<Arc<dyn Protocol>> {
    loop {
        let mut undecided = false;
        for protocol in protocols {
            match protocol.sniff(first) {
                Sniff::Yes => return Some(Arc::clone(protocol)),
                Sniff::More => undecided = true,
                Sniff::No => {}
            }
        }
        if !undecided || first.len() >= SNIFF || link.read_buf(first).await.ok()? == 0 {
            return None;
        }
    }
}
