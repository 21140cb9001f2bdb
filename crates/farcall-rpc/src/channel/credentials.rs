//! Where a client's credentials come from: they are asked for anew each time it connects.

use std::future::Future;

use farcall_core::{Credentials, RpcError};

use crate::method::BoxFuture;

/// A source of credentials.
pub(super) trait Source: Send + Sync {
    fn fresh(&self) -> BoxFuture<'_, Result<Credentials, RpcError>>;
}

/// Always the same.
pub(super) struct Fixed(pub(super) Credentials);

impl Source for Fixed {
    fn fresh(&self) -> BoxFuture<'_, Result<Credentials, RpcError>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// What a function gives.
pub(super) struct Asked<F>(pub(super) F);

impl<F, Fut> Source for Asked<F>
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<Credentials, RpcError>> + Send + 'static,
{
    fn fresh(&self) -> BoxFuture<'_, Result<Credentials, RpcError>> {
        Box::pin((self.0)())
    }
}
