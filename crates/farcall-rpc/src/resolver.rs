//! Where the endpoints of a service come from.

use farcall_core::{Address, Endpoint, RpcError};

use crate::method::BoxFuture;

/// Endpoints in: a fixed list, a registry, DNS. A [`Channel`](crate::Channel) asks each time it has
/// to connect.
pub trait Resolver: Send + Sync + 'static {
    /// The endpoints known now, best first. Empty means that there are none, not that they are
    /// unknown: that is an error.
    fn resolve(&self) -> BoxFuture<'_, Result<Vec<Endpoint>, RpcError>>;

    /// What it resolves, for errors: `tcp://127.0.0.1:7400`.
    fn describe(&self) -> String;
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
