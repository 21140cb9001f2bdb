//! Who calls, once it is proven.

use std::fmt;
use std::time::SystemTime;

/// A caller whose name is proven, and the roles it has. There is nothing secret in it.
///
/// ```
/// use farcall_rpc::Identity;
/// let shop = Identity::new("shop").role("teller").role("auditor");
/// assert!(shop.has_role("teller") && !shop.has_role("admin"));
/// assert_eq!(shop.name(), "shop");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    roles: Vec<String>,
    proof: Proof,
    expires: Option<SystemTime>,
}

/// How a caller has proven its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Proof {
    /// A bearer token of a table ([`Tokens`](crate::auth::Tokens)).
    Token,
    /// A signed token ([`SignedTokens`](crate::auth::SignedTokens)).
    SignedToken,
    /// A certificate ([`Certificates`](crate::auth::Certificates)).
    Certificate,
    /// The user of a process at the other end of a unix socket ([`UnixUsers`](crate::auth::UnixUsers)).
    UnixUser,
    /// What an authenticator of the program's own asked for.
    #[default]
    Other,
}

impl Identity {
    /// A caller of this name, without roles. What is remembered of a caller (rates, idempotency keys) goes by
    /// the name, however it was proven: do not give two callers one name.
    pub fn new(name: impl Into<String>) -> Identity {
        Identity { name: name.into(), roles: Vec::new(), proof: Proof::Other, expires: None }
    }

    /// With one more role.
    pub fn role(mut self, role: impl Into<String>) -> Identity {
        let role = role.into();
        if !self.has_role(&role) {
            self.roles.push(role);
        }
        self
    }

    /// Proven until then and no longer: connections of this caller take no calls after it.
    pub fn until(mut self, end: SystemTime) -> Identity {
        self.expires = Some(end);
        self
    }

    pub(super) fn proven_by(mut self, proof: Proof) -> Identity {
        self.proof = proof;
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All roles.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// Whether it has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// How the name was proven.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// When the proof ends, if it does.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name may come from a token or certificate that others wrote.
        write!(f, "{}", self.name.escape_debug())
    }
}
