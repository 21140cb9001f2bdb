//! Listening, with errors that say what to do.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use farcall_core::{Address, Code, RpcError};
use tokio::net::{TcpListener, UnixListener};

use crate::accepted::{Accepted, Security};
use crate::io::Io;
use crate::memory::MemoryListener;

/// A bound address that accepts links.
pub struct Listener {
    kind: Kind,
    address: Address,
    /// Of TCP alone.
    security: Security,
}

enum Kind {
    Tcp(TcpListener),
    #[cfg(feature = "quic")]
    Quic(crate::quic::QuicListener),
    // In this order they are dropped: the file goes before the listener, so that nobody else can have
    // bound the path anew in between.
    Unix(#[expect(dead_code, reason = "kept for its Drop")] SocketFile, UnixListener),
    Memory(MemoryListener),
}

/// Removes its socket's file when dropped, unless another has taken its place.
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn bound(path: &Path) -> SocketFile {
        SocketFile { path: path.to_owned(), identity: identity(path) }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Binds `address`, which must not need TLS. On return the port is open; [`address`](Listener::address) tells
    /// which.
    pub async fn bind(address: &Address) -> Result<Listener, RpcError> {
        Listener::bind_with(address, &Security::default()).await
    }

    /// As [`bind`](Listener::bind), with what is demanded of those who come by TCP or QUIC. With TLS a `tcp://`
    /// address becomes a `tls://` one, so that whoever is told it connects rightly. `[::]` takes IPv4 as well,
    /// unless the system is set otherwise.
    pub async fn bind_with(address: &Address, security: &Security) -> Result<Listener, RpcError> {
        let failed = |e: Error| cannot_listen(address, &e).with_source(e);
        let plain = |kind, address: &Address| Listener { kind, address: address.clone(), security: Security::default() };
        match address {
            Address::Tls { .. } if !security.has_tls() => Err(needs_tls(address)),
            Address::Tcp { host, port } | Address::Tls { host, port } => {
                let listener = TcpListener::bind((host.as_str(), *port)).await.map_err(failed)?;
                let (host, port) = shown(listener.local_addr().map_err(failed)?);
                let address = if security.has_tls() { Address::Tls { host, port } } else { Address::Tcp { host, port } };
                Ok(Listener { kind: Kind::Tcp(listener), address, security: security.clone() })
            }
            Address::Quic { host, port } => bind_quic(address, host, *port, security).await,
            Address::Unix(path) => {
                let listener = bind_unix(path).await.map_err(failed)?;
                Ok(plain(Kind::Unix(SocketFile::bound(path), listener), address))
            }
            Address::Memory(name) => Ok(plain(Kind::Memory(MemoryListener::bind(name).map_err(failed)?), address)),
            other => Err(RpcError::not_sent(Code::Unimplemented, format!("{other} cannot be listened on"))),
        }
    }

    /// Where it listens, with the port that was picked.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next link. Nothing was read from it yet: to [open](Accepted::open) it may take the peer's time.
    pub async fn accept(&mut self) -> std::io::Result<Accepted> {
        match &mut self.kind {
            Kind::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::new(Io::Tcp(stream), Some(from.ip().to_canonical()), self.security.clone()))
            }
            #[cfg(feature = "quic")]
            Kind::Quic(listener) => listener.accept().await.map(Accepted::quic),
            Kind::Unix(_, listener) => listener.accept().await.map(|(stream, _)| Io::Unix(stream).into()),
            Kind::Memory(listener) => listener.accept().await.map(|pipe| Io::Memory(pipe).into()),
        }
    }
}

impl Listener {
    /// Takes no more links, and waits until the port can be had by others: at once, but for QUIC, whose
    /// connections share it until they have ended.
    pub async fn close(self) {
        #[cfg(feature = "quic")]
        if let Kind::Quic(listener) = self.kind {
            listener.close().await;
        }
    }
}

fn cannot_listen(address: &Address, e: &Error) -> RpcError {
    let why = match e.kind() {
        ErrorKind::AddrInUse => "another listener has it: stop that one or choose another (port 0 picks a free one)".to_owned(),
        ErrorKind::PermissionDenied => "this process may not listen there: choose a port above 1023 or a path it may write".to_owned(),
        ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        ErrorKind::NotFound => "the folder does not exist".to_owned(),
        _ => e.to_string(),
    };
    RpcError::not_sent(Code::Unavailable, format!("cannot listen on {address}: {why}"))
}

fn needs_tls(address: &Address) -> RpcError {
    let why = format!("cannot listen on {address} without a certificate: give the server .tls(…) (feature \"tls\")");
    RpcError::not_sent(Code::FailedPrecondition, why)
}

/// Host and port as an address has them; a link-local one keeps its zone.
fn shown(local: SocketAddr) -> (String, u16) {
    match local {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => (format!("{}%{}", v6.ip(), v6.scope_id()), v6.port()),
        other => (other.ip().to_string(), other.port()),
    }
}

#[cfg(feature = "quic")]
async fn bind_quic(address: &Address, host: &str, port: u16, security: &Security) -> Result<Listener, RpcError> {
    let failed = |e: Error| cannot_listen(address, &e).with_source(e);
    let tls = security.acceptor().ok_or_else(|| needs_tls(address))?;
    let mut last = Error::other("the name has no address");
    for to in crate::connect::resolve(address, host, port).await? {
        match crate::quic::QuicListener::bind(to, tls.clone()) {
            Ok(listener) => {
                let (host, port) = shown(listener.local_addr().map_err(failed)?);
                return Ok(Listener { kind: Kind::Quic(listener), address: Address::Quic { host, port }, security: Security::default() });
            }
            Err(e) => last = e,
        }
    }
    Err(failed(last))
}

#[cfg(not(feature = "quic"))]
async fn bind_quic(address: &Address, _: &str, _: u16, _: &Security) -> Result<Listener, RpcError> {
    Err(crate::connect::without(address, "quic"))
}

/// Binds a unix socket. A file left behind by a process that is gone is replaced; one that somebody
/// listens on, or that is not a socket, is not.
async fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            let refused = |e: &Error| e.kind() == ErrorKind::ConnectionRefused;
            if !is_socket || !tokio::net::UnixStream::connect(path).await.as_ref().is_err_and(refused) {
                return Err(e);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}
