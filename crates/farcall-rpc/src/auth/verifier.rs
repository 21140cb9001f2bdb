//! The program's own way to check a token.

use std::future::Future;

use farcall_core::{RpcError, Secret};

use super::{Authenticator, Identity, Shown, at_once};
use crate::method::BoxFuture;

/// An async function that says whose a bearer token is: it asks an identity provider, checks a JWT. It may take
/// up to the limit `verify`; if it takes longer the caller is refused as `Unavailable`.
///
/// ```
/// use farcall_rpc::auth::Verifier;
/// use farcall_rpc::{Code, Identity, RpcError, Secret};
///
/// async fn ask_sso(token: Secret) -> Result<Identity, RpcError> {
///     match token.expose() {
///         b"well known" => Ok(Identity::new("shop").role("teller")),
///         _ => Err(RpcError::new(Code::Unauthenticated, "the single sign-on does not know this token")),
///     }
/// }
/// let verifier = Verifier::bearer(ask_sso);
/// ```
pub struct Verifier<F>(F);

impl<F, Fut> Verifier<F>
where
    F: Fn(Secret) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Identity, RpcError>> + Send + 'static,
{
    /// Judges every bearer token: no authenticator behind it sees one.
    pub fn bearer(verify: F) -> Verifier<F> {
        Verifier(verify)
    }
}

impl<F, Fut> Authenticator for Verifier<F>
where
    F: Fn(Secret) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Identity, RpcError>> + Send + 'static,
{
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Option<Identity>, RpcError>> {
        let Some(token) = shown.bearer() else { return at_once(Ok(None)) };
        let verifying = (self.0)(token.clone());
        Box::pin(async move { verifying.await.map(Some) })
    }

    fn asks_for(&self) -> String {
        "a bearer token".into()
    }
}
