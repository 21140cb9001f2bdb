//! Connecting, with errors that say what to do.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use farcall_core::{Address, Code, RpcError, Stage};
use tokio::net::{TcpStream, UnixStream};

use crate::io::Io;
use crate::memory;

/// Time for each address of a name that has several.
const PER_ADDRESS: Duration = Duration::from_secs(2);

/// Opens a link to `address`. The caller bounds the time.
pub async fn connect(address: &Address) -> Result<Io, RpcError> {
    match address {
        Address::Tcp { host, port } => {
            let addresses: Vec<_> = match tokio::net::lookup_host((host.as_str(), *port)).await {
                Ok(found) => found.collect(),
                Err(e) => return Err(unresolved(address, host, e)),
            };
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
                        return Ok(Io::Tcp(stream));
                    }
                    Err(e) => last = Some(e),
                }
            }
            Err(match last {
                Some(e) => refused(address, e),
                None => unresolved(address, host, Error::other("the name has no address")),
            })
        }
        Address::Unix(path) => UnixStream::connect(path).await.map(Io::Unix).map_err(|e| refused(address, e)),
        Address::Memory(name) => memory::connect(name).map(Io::Memory).map_err(|e| refused(address, e)),
        other => Err(RpcError::not_sent(Code::Unimplemented, format!("{other} cannot be connected to"))),
    }
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
