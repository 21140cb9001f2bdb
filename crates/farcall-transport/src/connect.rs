//! Connecting, with errors that say what to do.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use farcall_core::{Address, Code, RpcError, Stage};
use tokio::net::{TcpStream, UnixStream};

use crate::io::Io;
use crate::memory;
#[cfg(feature = "tls")]
use crate::tls::TlsClient;

/// Time for each address of a name that has several.
const PER_ADDRESS: Duration = Duration::from_secs(2);

/// Opens a link to `address`, which must not need TLS. The caller bounds the time.
pub async fn connect(address: &Address) -> Result<Io, RpcError> {
    Connector::default().connect(address).await
}

/// Opens links, with what they need beside an address. The default one trusts nobody: it opens links that are
/// not encrypted.
#[derive(Debug, Clone, Default)]
pub struct Connector {
    #[cfg(feature = "tls")]
    tls: Option<TlsClient>,
}

impl Connector {
    /// With what to trust, for `tls://` and `quic://` addresses.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, tls: TlsClient) -> Connector {
        self.tls = Some(tls);
        self
    }

    /// Opens a link to `address`. The caller bounds the time. To a `tls://` address nothing is sent in
    /// plaintext, whatever answers.
    pub async fn connect(&self, address: &Address) -> Result<Io, RpcError> {
        match address {
            Address::Tcp { host, port } => dial(address, host, *port).await.map(Io::Tcp),
            Address::Tls { host, port } => self.connect_tls(address, host, *port).await,
            Address::Quic { host, port } => self.connect_quic(address, host, *port).await,
            Address::Unix(path) => UnixStream::connect(path).await.map(Io::Unix).map_err(|e| refused(address, e)),
            Address::Memory(name) => memory::connect(name).map(Io::Memory).map_err(|e| refused(address, e)),
            other => Err(RpcError::not_sent(Code::Unimplemented, format!("{other} cannot be connected to"))),
        }
    }

    #[cfg(feature = "tls")]
    async fn connect_tls(&self, address: &Address, host: &str, port: u16) -> Result<Io, RpcError> {
        let tls = self.trusting(address)?;
        let link = dial(address, host, port).await?;
        tls.connect(address, host, Io::Tcp(link)).await
    }

    #[cfg(feature = "tls")]
    fn trusting(&self, address: &Address) -> Result<&TlsClient, RpcError> {
        self.tls.as_ref().ok_or_else(|| {
            let why = format!(
                "{address}: nobody is trusted to prove its name: give the client .tls(TlsClient::builder().ca(…).build()?), or --ca"
            );
            RpcError::not_sent(Code::FailedPrecondition, why).with_stage(Stage::Connect)
        })
    }

    #[cfg(not(feature = "tls"))]
    async fn connect_tls(&self, address: &Address, _: &str, _: u16) -> Result<Io, RpcError> {
        Err(without(address, "tls"))
    }

    #[cfg(feature = "quic")]
    async fn connect_quic(&self, address: &Address, host: &str, port: u16) -> Result<Io, RpcError> {
        let tls = self.trusting(address)?;
        let mut last = None;
        for socket in resolve(address, host, port).await? {
            match crate::quic::connect(address, host, socket, tls).await {
                Ok(link) => return Ok(Io::Quic(Box::new(link))),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| unresolved(address, host, Error::other(NO_ADDRESS))))
    }

    #[cfg(not(feature = "quic"))]
    async fn connect_quic(&self, address: &Address, _: &str, _: u16) -> Result<Io, RpcError> {
        Err(without(address, "quic"))
    }
}

const NO_ADDRESS: &str = "the name has no address";

/// Something that this build was made without.
#[cfg(not(all(feature = "tls", feature = "quic")))]
pub(crate) fn without(address: &Address, feature: &str) -> RpcError {
    let why = format!("{address}: this build is without {feature}: enable farcall's feature \"{feature}\"");
    RpcError::not_sent(Code::Unimplemented, why).with_stage(Stage::Connect)
}

pub(crate) async fn resolve(address: &Address, host: &str, port: u16) -> Result<Vec<SocketAddr>, RpcError> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(e) => Err(unresolved(address, host, e)),
    }
}

async fn dial(address: &Address, host: &str, port: u16) -> Result<TcpStream, RpcError> {
    let addresses = resolve(address, host, port).await?;
    let several = addresses.len() > 1;
    let mut last = None;
    for socket in addresses {
        let connecting = TcpStream::connect(socket);
        // One that swallows everything must not keep the next from being tried.
        let connected = match several {
            true => tokio::time::timeout(PER_ADDRESS, connecting).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())),
            false => connecting.await,
        };
        match connected {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|e| refused(address, e))?;
                return Ok(stream);
            }
            Err(e) => last = Some(e),
        }
    }
    Err(match last {
        Some(e) => refused(address, e),
        None => unresolved(address, host, Error::other(NO_ADDRESS)),
    })
}

fn unresolved(address: &Address, host: &str, e: Error) -> RpcError {
    RpcError::not_sent(Code::Unavailable, format!("{address}: the host name {host:?} cannot be resolved ({e}): check its spelling"))
        .with_stage(Stage::Resolve)
        .with_source(e)
}

fn refused(address: &Address, e: Error) -> RpcError {
    let why = match e.kind() {
        ErrorKind::ConnectionRefused => "nobody listens there: is the provider running, is the address right?".to_owned(),
        ErrorKind::NotFound => "there is no such socket: is the provider running, is the path right?".to_owned(),
        ErrorKind::PermissionDenied => "this process may not use it: check the owner and mode of the socket".to_owned(),
        ErrorKind::TimedOut => "no answer from the network: is the host up, does a firewall stand between?".to_owned(),
        _ => format!("cannot connect: {e}"),
    };
    RpcError::not_sent(Code::Unavailable, format!("{address}: {why}")).with_stage(Stage::Connect).with_source(e)
}
