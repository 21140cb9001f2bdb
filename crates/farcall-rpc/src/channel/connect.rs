//! A client on its way: which addresses, which limits, who observes.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::limits::MAX_CONNECTIONS;
use farcall_core::{Code, CodecId, Credentials, Limits, RpcError};
#[cfg(feature = "tls")]
use farcall_transport::TlsClient;

use super::credentials::{Asked, Fixed};
use super::{Channel, Config};
use crate::intercept::{self, Interceptor};
use crate::method::BoxFuture;
use crate::observer::Observer;
use crate::resolver::{Resolver, StaticResolver};
use crate::runtime;

/// A client that is being connected: await it, or `wait()` for it without a runtime.
///
/// It fails if no endpoint can be reached now. Later losses are repaired at the next call: at once after
/// a good connection, after a pause with jitter (`reconnect_base`, `reconnect_cap` of [`Limits`]) while
/// attempts fail.
#[must_use = "it does nothing until it is awaited or waited for"]
pub struct Connect<C> {
    resolver: Result<Arc<dyn Resolver>, RpcError>,
    config: Config,
    client: PhantomData<fn() -> C>,
}

impl<C: From<Channel> + 'static> Connect<C> {
    /// To addresses given as text.
    #[doc(hidden)]
    pub fn to(addresses: &str) -> Connect<C> {
        let resolver = StaticResolver::parse(addresses).map(|r| Arc::new(r) as Arc<dyn Resolver>);
        Connect { resolver, config: Config::default(), client: PhantomData }
    }

    /// To what a resolver finds.
    #[doc(hidden)]
    pub fn with_resolver(resolver: impl Resolver) -> Connect<C> {
        Connect { resolver: Ok(Arc::new(resolver)), config: Config::default(), client: PhantomData }
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

    /// Keeps up to this many connections and gives each call to the one with the fewest in flight. One
    /// more is made when a call finds all of them busy. Default 1, which carries everything and costs
    /// least: several help when the provider runs on [several threads](crate::ServerBuilder::threads),
    /// or when handlers compute, because those of one connection run one after the other. Calls on
    /// several connections do not keep their order.
    pub fn connections(mut self, connections: usize) -> Self {
        self.config.connections = connections;
        self
    }

    /// The codec of calls that choose none. Default [`CodecId::Compact`].
    pub fn default_codec(mut self, codec: CodecId) -> Self {
        self.config.codec = codec;
        self
    }

    /// Whom to believe at `tls://` and `quic://` addresses, and what to prove oneself with.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &TlsClient) -> Self {
        self.config.connector = self.config.connector.with_tls(tls.clone());
        self
    }

    /// Shows these credentials to every server it connects to. They are sent once per connection, over links that
    /// others cannot listen on: TLS, or within this machine.
    ///
    /// ```no_run
    /// # use farcall_rpc::{Channel, Connect, Credentials};
    /// # async fn connect<C: From<Channel> + 'static>(connect: Connect<C>) -> Result<C, farcall_rpc::RpcError> {
    /// let token = std::fs::read_to_string("/run/secrets/bank").unwrap_or_default();
    /// let client = connect.credentials(Credentials::bearer(token.trim())).await?;
    /// # Ok(client)
    /// # }
    /// ```
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.config.credentials = Some(Arc::new(Fixed(credentials)));
        self
    }

    /// Asks `source` for credentials each time it connects, within the limit `handshake`: for tokens that expire.
    /// A server ends a connection gracefully when the token expires that it was made with; the next call connects
    /// anew.
    pub fn credentials_from<F, Fut>(mut self, source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, RpcError>> + Send + 'static,
    {
        self.config.credentials = Some(Arc::new(Asked(source)));
        self
    }

    /// Shows credentials also over plain TCP to other machines, where everybody on the way can read them. For
    /// networks that are protected otherwise.
    pub fn credentials_in_clear(mut self) -> Self {
        self.config.in_clear = true;
        self
    }

    /// Puts an [interceptor](crate::intercept) around every call: an async function
    /// `(CallInfo, Next) -> Result<Ended, RpcError>`, or a ready-made one. The first that is given is the outermost.
    /// A call with a hedge is one call.
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.config.calls = Some(intercept::with(self.config.calls.as_ref(), interceptor));
        self
    }

    /// Puts an interceptor around every attempt: inside of those around calls, once its connection is known, whose
    /// peer it sees. A call with a hedge has up to two attempts.
    pub fn intercept_attempts(mut self, interceptor: impl Interceptor) -> Self {
        self.config.attempts = Some(intercept::with(self.config.attempts.as_ref(), interceptor));
        self
    }

    /// Tells `observer` of every call's end.
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        self.config.observers.push(observer);
        self
    }

    /// A client of another service that connects elsewhere as this one would: what it shows, whom it believes, which limits. What
    /// stands around calls, and who observes them, is this one's own.
    #[doc(hidden)]
    pub fn alike<D: From<Channel> + 'static>(&self) -> impl Fn(StaticResolver) -> Connect<D> + Send + Sync + use<C, D> {
        let (limits, credentials) = (self.config.limits.clone(), self.config.credentials.clone());
        let (in_clear, connector) = (self.config.in_clear, self.config.connector.clone());
        move |resolver| {
            let (limits, credentials, connector) = (limits.clone(), credentials.clone(), connector.clone());
            let config = Config { limits, credentials, in_clear, connector, ..Config::default() };
            Connect { resolver: Ok(Arc::new(resolver)), config, client: PhantomData }
        }
    }

    /// Blocks until connected. For programs and threads without a runtime; inside of one it is an
    /// error.
    pub fn wait(self) -> Result<C, RpcError> {
        runtime::wait(self.into_future()).and_then(|connected| connected)
    }

    /// A client that connects at its first call.
    pub fn lazy(self) -> Result<C, RpcError> {
        let connections = self.config.connections;
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            let why = format!("connections({connections}): a channel has 1 to {MAX_CONNECTIONS} connections");
            return Err(RpcError::not_sent(Code::InvalidArgument, why));
        }
        Ok(C::from(Channel::remote(Some(self.resolver?), self.config)))
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
