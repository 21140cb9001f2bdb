//! Who calls: what a caller shows, and who says whether it proves anything.
//!
//! A server asks its [`Authenticator`]s in their order, once per farcall connection and before its own hello
//! (a door to another protocol: once per request); the first that knows the caller gives its [`Identity`].
//! `docs/guide/security.md` says what each kind protects from and what not.

mod facts;
mod identity;
mod signed;
mod tokens;
mod verifier;

use std::sync::Arc;

use farcall_core::{Code, Credentials, RpcError};
use farcall_transport::PeerFacts;

pub use self::facts::{Certificates, UnixUsers};
pub use self::identity::{Identity, Proof};
pub use self::signed::{SignedTokens, TokenKey};
pub use self::tokens::Tokens;
pub use self::verifier::Verifier;
use crate::method::BoxFuture;

/// What there is to judge a caller by.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Shown<'a> {
    /// What the link tells of it.
    pub facts: &'a PeerFacts,
    /// What it shows itself, if anything.
    pub credentials: Option<&'a Credentials>,
}

impl<'a> Shown<'a> {
    /// For authenticators' own tests.
    pub fn new(facts: &'a PeerFacts, credentials: Option<&'a Credentials>) -> Shown<'a> {
        Shown { facts, credentials }
    }

    /// The bearer token, if one is shown.
    pub fn bearer(&self) -> Option<&'a farcall_core::Secret> {
        self.credentials.filter(|c| c.scheme() == "bearer").map(Credentials::secret)
    }
}

/// Says who a caller is. Given to [`ServerBuilder::authenticate`](crate::ServerBuilder::authenticate).
pub trait Authenticator: Send + Sync + 'static {
    /// Judges what is shown. `Ok(None)`: it has nothing to say about it, the next one is asked. An error ends the
    /// matter: with [`Code::Unauthenticated`] the caller is told its text (without the secret, should that be in
    /// it); any other code is told as [`Code::Unavailable`] without the text, which only observers see.
    ///
    /// It may take its time, up to the limit `verify`; `verifying` of them run at a time.
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Option<Identity>, RpcError>>;

    /// What it asks of a caller, for the caller's error: `a bearer token`.
    fn asks_for(&self) -> String;
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Option<Identity>, RpcError>> {
        (**self).authenticate(shown)
    }
    fn asks_for(&self) -> String {
        (**self).asks_for()
    }
}

/// A decision that needs no waiting.
fn at_once<'a>(decision: Result<Option<Identity>, RpcError>) -> BoxFuture<'a, Result<Option<Identity>, RpcError>> {
    Box::pin(std::future::ready(decision))
}

/// What is shown is not good enough; `why` goes to the caller.
fn unproven(why: impl Into<String>) -> RpcError {
    RpcError::not_executed(Code::Unauthenticated, why)
}
