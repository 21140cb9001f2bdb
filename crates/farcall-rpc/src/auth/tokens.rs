//! Bearer tokens in a table.

use farcall_core::{RpcError, Secret};

use super::{Authenticator, Identity, Proof, Shown, at_once};
use crate::method::BoxFuture;

/// Bearer tokens and whose they are. It keeps their hashes only, and takes as long for a token that is nearly
/// right as for one that is not at all. A token does not expire: for that there are
/// [`SignedTokens`](super::SignedTokens).
///
/// Make tokens of random bytes (`openssl rand -hex 32`): what a person could think of can be guessed, because
/// nothing here counts wrong attempts.
///
/// ```
/// use farcall_rpc::Identity;
/// use farcall_rpc::auth::Tokens;
/// let tokens = Tokens::new().token("9f2c…", Identity::new("shop").role("teller"));
/// assert!(!format!("{tokens:?}").contains("9f2c"));
/// ```
#[derive(Default)]
pub struct Tokens(Vec<(blake3::Hash, Identity)>);

impl Tokens {
    /// An empty table, which refuses every bearer token.
    pub fn new() -> Tokens {
        Tokens::default()
    }

    /// With this token. Several may belong to one caller, so that the old one still serves while a new one is
    /// being rolled out.
    pub fn token(mut self, token: impl Into<Secret>, identity: Identity) -> Tokens {
        self.0.push((blake3::hash(token.into().expose()), identity.proven_by(Proof::Token)));
        self
    }

    fn find(&self, token: &Secret) -> Option<&Identity> {
        let shown = blake3::hash(token.expose());
        // All of them, and `Hash` compares in constant time.
        self.0.iter().fold(None, |found, (hash, identity)| if *hash == shown { Some(identity) } else { found })
    }
}

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Option<Identity>, RpcError>> {
        let Some(token) = shown.bearer() else { return at_once(Ok(None)) };
        // Another authenticator may know it.
        at_once(Ok(self.find(token).cloned()))
    }

    fn asks_for(&self) -> String {
        "a bearer token".into()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(_, identity)| identity)).finish()
    }
}
