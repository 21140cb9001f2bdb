//! Where the endpoints of a service come from.

use farcall_core::{Address, Endpoint, RpcError};

use crate::method::BoxFuture;

/// Endpoints in: a fixed list, a registry, DNS. A [`Channel`](crate::Channel) asks each time it has
/// to connect.
pub trait Resolver: Send + Sync + 'static {
    /// The endpoints known now, best first. Empty means that there are none, not that they are
    /// unknown: that is an error.
    fn resolve(&self) -> BoxFuture<'_, Result<Vec<Endpoint>, RpcError>>;

    /// Others than those, all of which were tried in vain: asked once per attempt. Where the list may have been old there may be some
    /// soon, which are worth waiting for. Default: none.
    fn others<'a>(&'a self, tried: &'a [Endpoint]) -> BoxFuture<'a, Vec<Endpoint>> {
        let _ = tried;
        Box::pin(std::future::ready(Vec::new()))
    }

    /// What it resolves, for errors: `tcp://127.0.0.1:7400`.
    fn describe(&self) -> String;

    /// What became of an endpoint that it named, as soon as that is known. Called on the task of an attempt or a connection, so it
    /// must be quick.
    fn tell(&self, endpoint: &Endpoint, fate: Fate<'_>) {
        let _ = (endpoint, fate);
    }

    /// Whether a connection to an endpoint that it named may take further calls. One that may not is left: calls that run on it end
    /// there, later ones find another.
    fn keeps(&self, endpoint: &Endpoint) -> bool {
        let _ = endpoint;
        true
    }

    /// Told once, when a channel begins to use it: `again` is to be called whenever [`keeps`](Resolver::keeps) may have changed its
    /// mind. It says false when the channel is gone and need not be called any more.
    fn on_change(&self, again: Box<dyn Fn() -> bool + Send + Sync>) {
        let _ = again;
    }
}

/// What became of an endpoint.
#[derive(Debug, Clone, Copy)]
pub enum Fate<'a> {
    /// There is a connection.
    Connected,
    /// There is none, and why: [`source`](std::error::Error::source) is the system's error where it is one.
    Failed(&'a RpcError),
    /// The connection ended, and neither side had said that it would.
    Lost,
}

/// Addresses given directly.
#[derive(Debug, Clone)]
pub struct StaticResolver(Vec<Endpoint>);

impl StaticResolver {
    /// These addresses, the first preferred.
    pub fn new(addresses: impl IntoIterator<Item = Address>) -> StaticResolver {
        StaticResolver(addresses.into_iter().map(Endpoint::from).collect())
    }

    /// Addresses as text, separated by commas: `tcp://10.0.0.1:7000,tcp://10.0.0.2:7000`.
    pub fn parse(text: &str) -> Result<StaticResolver, RpcError> {
        let addresses = text.split(',').map(|a| a.trim().parse::<Address>()).collect::<Result<Vec<_>, _>>()?;
        Ok(StaticResolver::new(addresses))
    }
}

impl Resolver for StaticResolver {
    fn resolve(&self) -> BoxFuture<'_, Result<Vec<Endpoint>, RpcError>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }

    fn describe(&self) -> String {
        self.0.iter().map(|e| e.address.to_string()).collect::<Vec<_>>().join(",")
    }
}
