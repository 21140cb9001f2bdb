//! Callers that their link proves: by a certificate, or as a process of this machine.

use std::collections::HashMap;

use farcall_core::RpcError;

use super::{Authenticator, Identity, Proof, Shown, at_once};
use crate::method::BoxFuture;

type MapNames = Box<dyn Fn(&[String]) -> Option<Identity> + Send + Sync>;

/// Callers by the names in their certificates, which TLS has verified.
///
/// ```
/// use farcall_rpc::Identity;
/// use farcall_rpc::auth::Certificates;
/// let by_table = Certificates::new().name("spiffe://example.org/shop", Identity::new("shop").role("teller"));
/// let by_rule = Certificates::map(|names| {
///     let name = names.iter().find_map(|n| n.strip_prefix("spiffe://example.org/"))?;
///     Some(Identity::new(name))
/// });
/// ```
pub struct Certificates {
    names: HashMap<String, Identity>,
    map: Option<MapNames>,
}

impl Certificates {
    /// An empty table. A certificate with a name that is not in it proves nothing.
    pub fn new() -> Certificates {
        Certificates { names: HashMap::new(), map: None }
    }

    /// By a rule of the program's own: all names of a certificate in, in its order; `None` = not known.
    pub fn map(map: impl Fn(&[String]) -> Option<Identity> + Send + Sync + 'static) -> Certificates {
        Certificates { names: HashMap::new(), map: Some(Box::new(map)) }
    }

    /// With this name, compared byte by byte.
    pub fn name(mut self, name: impl Into<String>, identity: Identity) -> Certificates {
        self.names.insert(name.into(), identity);
        self
    }

    fn find(&self, names: &[String]) -> Option<Identity> {
        let listed = names.iter().find_map(|name| self.names.get(name)).cloned();
        listed.or_else(|| self.map.as_ref().filter(|_| !names.is_empty())?(names))
    }
}

impl Default for Certificates {
    fn default() -> Certificates {
        Certificates::new()
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("names", &self.names).field("map", &self.map.is_some()).finish()
    }
}

impl Authenticator for Certificates {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Option<Identity>, RpcError>> {
        let names = shown.facts.tls.as_ref().map_or(&[][..], |tls| &tls.names);
        at_once(Ok(self.find(names).map(|identity| identity.proven_by(Proof::Certificate))))
    }

    fn asks_for(&self) -> String {
        "a client certificate".into()
    }
}

/// Processes of this machine by the user they run as, over unix sockets; the system vouches for it.
///
/// ```
/// use farcall_rpc::Identity;
/// use farcall_rpc::auth::UnixUsers;
/// let users = UnixUsers::new().user(0, Identity::new("root").role("admin")).user(1000, Identity::new("ops"));
/// ```
#[derive(Debug, Default)]
pub struct UnixUsers(HashMap<u32, Identity>);

impl UnixUsers {
    /// Nobody.
    pub fn new() -> UnixUsers {
        UnixUsers::default()
    }

    /// With the user of this number (`id -u`).
    pub fn user(mut self, uid: u32, identity: Identity) -> UnixUsers {
        self.0.insert(uid, identity.proven_by(Proof::UnixUser));
        self
    }
}

impl Authenticator for UnixUsers {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Option<Identity>, RpcError>> {
        at_once(Ok(shown.facts.unix.and_then(|peer| self.0.get(&peer.uid)).cloned()))
    }

    fn asks_for(&self) -> String {
        "a unix socket, as a user that it knows".into()
    }
}
