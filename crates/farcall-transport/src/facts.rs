//! What a link tells of its peer: the ground that identities stand on.

use std::net::IpAddr;

/// What a link itself tells of the other side, before the peer has said a word. An empty field means
/// that this kind of link does not tell.
///
/// ```
/// use farcall_transport::{Io, PeerFacts};
/// let (ours, _theirs) = tokio::io::duplex(16);
/// let facts: PeerFacts = Io::boxed(ours).facts();
/// assert_eq!(facts.address, "stream");
/// assert!(!facts.is_encrypted() && facts.unix.is_none());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerFacts {
    /// Where it comes from, as errors show it: `tcp://10.0.0.7:51234`, `unix:(process 77)`.
    pub address: String,
    /// The number of that host, for TCP, TLS and QUIC.
    pub ip: Option<IpAddr>,
    /// Which process it is, for unix sockets.
    pub unix: Option<UnixPeer>,
    /// What was agreed on, for TLS and QUIC. `None` = anybody on the way can read and change what is sent.
    pub tls: Option<TlsPeer>,
}

impl PeerFacts {
    /// Whether nobody on the way can read or change what is sent: the link is TLS or QUIC.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }
}

/// The process at the other end of a unix socket, as the system tells it: a peer cannot lie about these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct UnixPeer {
    /// Process number, where the system tells it. It may be another's by the time it is looked at.
    pub pid: Option<i32>,
    /// User that it runs as.
    pub uid: u32,
    /// Group that it runs as.
    pub gid: u32,
}

/// What TLS has proven and agreed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TlsPeer {
    /// Names that the peer has proven with its certificate (DNS names and URIs of the subject's alternative
    /// names), in the certificate's order. Empty if it has shown none.
    pub names: Vec<String>,
    /// The host name that the client asked for.
    pub sni: Option<String>,
    /// The protocol agreed on by ALPN: `farcall/1`, `h2`, `http/1.1`.
    pub alpn: Option<String>,
    /// `TLS 1.3`.
    pub version: &'static str,
}
