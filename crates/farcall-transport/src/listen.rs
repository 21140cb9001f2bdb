//! Listening, with errors that say what to do.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use farcall_core::{Address, Code, RpcError};
use tokio::net::{TcpListener, UnixListener};

use crate::io::Io;
use crate::memory::MemoryListener;

/// A bound address that accepts links.
pub struct Listener {
    kind: Kind,
    address: Address,
}

enum Kind {
    Tcp(TcpListener),
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
    /// Binds `address`. On return the port is open; [`address`](Listener::address) tells which.
    pub async fn bind(address: &Address) -> Result<Listener, RpcError> {
        let failed = |e: Error| {
            let why = match e.kind() {
                ErrorKind::AddrInUse => "another listener has it: stop that one or choose another (port 0 picks a free one)".to_owned(),
                ErrorKind::PermissionDenied => {
                    "this process may not listen there: choose a port above 1023 or a path it may write".to_owned()
                }
                ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
                ErrorKind::NotFound => "the folder does not exist".to_owned(),
                _ => e.to_string(),
            };
            RpcError::not_sent(Code::Unavailable, format!("cannot listen on {address}: {why}")).with_source(e)
        };
        match address {
            Address::Tcp { host, port } => {
                let listener = TcpListener::bind((host.as_str(), *port)).await.map_err(failed)?;
                let local = listener.local_addr().map_err(failed)?;
                let address = Address::Tcp { host: local.ip().to_string(), port: local.port() };
                Ok(Listener { kind: Kind::Tcp(listener), address })
            }
            Address::Unix(path) => {
                let listener = bind_unix(path).await.map_err(failed)?;
                Ok(Listener { kind: Kind::Unix(SocketFile::bound(path), listener), address: address.clone() })
            }
            Address::Memory(name) => {
                let listener = MemoryListener::bind(name).map_err(failed)?;
                Ok(Listener { kind: Kind::Memory(listener), address: address.clone() })
            }
            other => Err(RpcError::not_sent(Code::Unimplemented, format!("{other} cannot be listened on"))),
        }
    }

    /// Where it listens, with the port that was picked.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next link.
    pub async fn accept(&mut self) -> std::io::Result<Io> {
        match &mut self.kind {
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Io::Tcp(stream))
            }
            Kind::Unix(_, listener) => listener.accept().await.map(|(stream, _)| Io::Unix(stream)),
            Kind::Memory(listener) => listener.accept().await.map(Io::Memory),
        }
    }
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
