//! From a link that was accepted to one that can be used: TLS or not, by the first byte and by policy.

use std::io::Result;
use std::net::IpAddr;

use bytes::BytesMut;
use farcall_core::{Code, RpcError, Stage};
#[cfg(feature = "tls")]
use tokio::io::AsyncReadExt;

use crate::io::{Detached, Io};
#[cfg(feature = "tls")]
use crate::tls::{TlsAcceptor, TlsServer};

/// The first byte of a TLS connection: a handshake record. No protocol of text begins with it.
#[cfg(feature = "tls")]
const HANDSHAKE: u8 = 0x16;

/// What a listener demands of those who come. The default demands nothing: plaintext.
#[derive(Clone, Default)]
pub struct Security {
    #[cfg(feature = "tls")]
    tls: Option<std::sync::Arc<TlsAcceptor>>,
}

impl Security {
    /// TLS, for protocols of these names (ALPN, the preferred ones first). `on_failure` is told when a file that
    /// has changed cannot be used; what was read before is used on.
    #[cfg(feature = "tls")]
    pub fn tls(tls: TlsServer, alpn: &[&str], on_failure: impl Fn(&RpcError) + Send + Sync + 'static) -> Security {
        Security { tls: Some(std::sync::Arc::new(TlsAcceptor::new(tls, alpn, Box::new(on_failure)))) }
    }

    /// Whether there is TLS.
    pub fn has_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    #[cfg(feature = "quic")]
    pub(crate) fn acceptor(&self) -> Option<&std::sync::Arc<TlsAcceptor>> {
        self.tls.as_ref()
    }
}

/// A link that was accepted, before anything was read from it.
pub struct Accepted {
    raw: Raw,
    ip: Option<IpAddr>,
    security: Security,
}

enum Raw {
    Link(Detached),
    #[cfg(feature = "quic")]
    Quic(Box<crate::quic::Incoming>),
}

/// Why an accepted link came to nothing.
pub struct Unopened {
    /// Where it came from.
    pub address: String,
    /// Why.
    pub error: RpcError,
    /// To be kept until the peer has read why, if it can still be told.
    pub link: Option<Io>,
    /// The peer speaks plaintext where that is not allowed, and is to be told so in its own protocol.
    pub is_plaintext: bool,
}

impl Accepted {
    pub(crate) fn new(link: Io, ip: Option<IpAddr>, security: Security) -> Accepted {
        Accepted { raw: Raw::Link(link.into()), ip, security }
    }

    #[cfg(feature = "quic")]
    pub(crate) fn quic(incoming: crate::quic::Incoming) -> Accepted {
        Accepted { ip: Some(incoming.ip()), raw: Raw::Quic(Box::new(incoming)), security: Security::default() }
    }

    /// The number of the host that it comes from, if it comes from one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// Takes it from the runtime that it was accepted on, so that another can have it.
    pub fn detach(self) -> Result<Accepted> {
        let raw = match self.raw {
            Raw::Link(Detached::Whole(link)) => Raw::Link(link.detach()?),
            other => other,
        };
        Ok(Accepted { raw, ..self })
    }

    /// Turns it away before anything is read. A link that comes back is in plaintext and not told yet.
    pub fn refuse(self) -> Option<Io> {
        match self.raw {
            #[cfg(feature = "quic")]
            Raw::Quic(incoming) => {
                incoming.refuse();
                None
            }
            Raw::Link(_) if self.security.has_tls() => None,
            Raw::Link(link) => link.attach().ok(),
        }
    }

    /// Shakes hands if need be, on the runtime that this is called on. `first` gets what was read and belongs to
    /// the link's plaintext. The caller bounds the time.
    pub async fn open(self, first: &mut BytesMut) -> std::result::Result<Io, Unopened> {
        let _ = &first;
        match self.raw {
            Raw::Link(link) => {
                let link = link.attach().map_err(|e| Unopened::broken(String::new(), &e))?;
                #[cfg(feature = "tls")]
                if let Some(tls) = &self.security.tls {
                    return open_tls(link, tls, first).await;
                }
                Ok(link)
            }
            #[cfg(feature = "quic")]
            Raw::Quic(incoming) => match incoming.open().await {
                Ok(link) => Ok(Io::Quic(Box::new(link))),
                Err((address, why)) => Err(Unopened::new(address, Code::Unauthenticated, why, None)),
            },
        }
    }
}

impl From<Io> for Accepted {
    /// A link that is used as it is.
    fn from(link: Io) -> Accepted {
        Accepted::new(link, None, Security::default())
    }
}

impl Unopened {
    fn broken(address: String, e: &std::io::Error) -> Unopened {
        Unopened::new(address, Code::Unavailable, format!("the connection broke before it began: {e}"), None)
    }

    fn new(address: String, code: Code, why: String, link: Option<Io>) -> Unopened {
        let error = RpcError::not_executed(code, format!("{address}: {why}")).with_stage(Stage::Connect);
        Unopened { address, error, link, is_plaintext: false }
    }
}

#[cfg(feature = "tls")]
async fn open_tls(mut link: Io, tls: &TlsAcceptor, first: &mut BytesMut) -> std::result::Result<Io, Unopened> {
    let address = link.peer();
    match link.read_buf(first).await {
        // It came to see whether somebody listens.
        Ok(0) => return Ok(link),
        Ok(_) if first[0] == HANDSHAKE => {}
        Ok(_) if tls.accepts_plaintext() => return Ok(link),
        Ok(_) => {
            let why = "this port speaks TLS only, and what came is plaintext: use tls:// instead of tcp:// (https:// instead of http://)";
            let error = RpcError::not_executed(Code::FailedPrecondition, why).with_stage(Stage::Connect);
            return Err(Unopened { address, error, link: Some(link), is_plaintext: true });
        }
        Err(e) => return Err(Unopened::broken(address, &e)),
    }
    let accepted = tls.accept(link, std::mem::take(first)).await;
    accepted.map_err(|refused| Unopened::new(address, Code::Unauthenticated, refused.why, Some(refused.link)))
}
