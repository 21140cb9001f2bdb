//! Who is told when a server is ready and when it is to go: a registration.

use farcall_core::{Address, RpcError, ServiceDescriptor};

use crate::method::BoxFuture;

/// What a server does before its first and after its last call: to make itself known, and to be forgotten.
///
/// The order of a server's life is: it listens and answers, it is announced; it is withdrawn, callers are told to go elsewhere, what
/// runs ends.
pub trait Announce: Send + Sync + 'static {
    /// The server listens on these addresses, answers calls of these services and is ready for them. An error ends it again, and is
    /// what [`listen`](crate::ServerBuilder::listen) returns; of a server that [became](crate::ServerBuilder::unready) ready later it
    /// is not.
    fn ready<'a>(&'a self, addresses: &'a [Address], services: &'a [&'a ServiceDescriptor]) -> BoxFuture<'a, Result<(), RpcError>>;

    /// It is about to go. The server answers until this returns, and then until its callers have left; but it waits no longer than
    /// 2 s for the one and 1 s for the other, and no longer than a quarter and an eighth of the drain's patience.
    fn leaving(&self) -> BoxFuture<'_, ()>;
}
