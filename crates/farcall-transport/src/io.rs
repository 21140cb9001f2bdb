//! One type for every kind of link.

use std::cell::RefCell;
use std::io::{IoSlice, Read, Result};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::facts::{PeerFacts, UnixPeer};

/// Anything that carries bytes both ways.
pub trait ByteLink: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteLink for T {}

/// A connected link.
#[non_exhaustive]
pub enum Io {
    /// TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// A pipe inside this process.
    Memory(DuplexStream),
    /// TLS over another link.
    #[cfg(feature = "tls")]
    Tls(Box<crate::tls::TlsLink>),
    /// QUIC.
    #[cfg(feature = "quic")]
    Quic(Box<crate::quic::QuicLink>),
    /// Anything else.
    Boxed(Box<dyn ByteLink>),
}

impl Io {
    /// Wraps any byte link: a child's standard streams, a test's own.
    pub fn boxed(link: impl ByteLink + 'static) -> Io {
        Io::Boxed(Box::new(link))
    }

    /// Reads what is there right now, without waiting and without asking the runtime, which learns of
    /// it later. Returns the number of bytes appended, at most 64 KiB; 0 if there are none, at the end,
    /// after an error and for links that cannot do it: reading as ever tells which.
    pub fn read_now(&mut self, buf: &mut BytesMut) -> usize {
        match self {
            #[cfg(unix)]
            Io::Tcp(s) => read_socket(&SockRef::from(&*s), buf),
            #[cfg(unix)]
            Io::Unix(s) => read_socket(&SockRef::from(&*s), buf),
            #[cfg(feature = "tls")]
            Io::Tls(s) => s.read_now(buf),
            _ => 0,
        }
    }

    /// Lets the system take only about so many bytes that it cannot send yet. Otherwise a slow reader makes it queue megabytes,
    /// and it says that there is room again when a third of them have been taken: until then, somebody who reads slowly looks
    /// like somebody who does not read. Only for TCP (with TLS, too), on systems that can do it.
    pub fn limit_unsent(&self, bytes: u32) {
        match self {
            #[cfg(any(target_os = "android", target_os = "linux"))]
            // It is a matter of degree: where it cannot be had, things are as they were.
            Io::Tcp(s) => drop(SockRef::from(s).set_tcp_notsent_lowat(bytes)),
            #[cfg(feature = "tls")]
            Io::Tls(s) => s.limit_unsent(bytes),
            _ => {}
        }
    }

    /// The other side's address as errors show it.
    pub fn peer(&self) -> String {
        self.facts().address
    }

    /// What the link tells of its peer.
    pub fn facts(&self) -> PeerFacts {
        match self {
            Io::Tcp(s) => of_tcp(s),
            Io::Unix(s) => of_unix(s),
            #[cfg(feature = "tls")]
            Io::Tls(s) => s.facts().clone(),
            #[cfg(feature = "quic")]
            Io::Quic(s) => s.facts().clone(),
            Io::Memory(_) => PeerFacts { address: "mem".into(), ..PeerFacts::default() },
            Io::Boxed(_) => PeerFacts { address: "stream".into(), ..PeerFacts::default() },
        }
    }
}

fn of_tcp(stream: &TcpStream) -> PeerFacts {
    match stream.peer_addr() {
        Ok(address) => {
            // An IPv4 host on a port of both families is shown as what it is.
            let address = match address.ip().to_canonical() {
                ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
                IpAddr::V6(_) => address,
            };
            PeerFacts { address: format!("tcp://{address}"), ip: Some(address.ip()), ..PeerFacts::default() }
        }
        // It is gone already.
        Err(_) => PeerFacts { address: "tcp".into(), ..PeerFacts::default() },
    }
}

fn of_unix(stream: &UnixStream) -> PeerFacts {
    let unix = stream.peer_cred().ok().map(|c| UnixPeer { pid: c.pid(), uid: c.uid(), gid: c.gid() });
    let address = match unix.and_then(|u| u.pid) {
        Some(pid) => format!("unix:(process {pid})"),
        None => "unix".into(),
    };
    PeerFacts { address, unix, ..PeerFacts::default() }
}

/// Bytes read at a time by [`Io::read_now`], from a buffer that all connections of a thread share.
const READ_NOW: usize = 16 << 10;

thread_local! {
    static CHUNK: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_NOW].into());
}

#[cfg(unix)]
fn read_socket(socket: &SockRef<'_>, buf: &mut BytesMut) -> usize {
    CHUNK.with_borrow_mut(|chunk| {
        let mut total = 0;
        while total < 4 * READ_NOW
            && let Ok(n @ 1..) = (&**socket).read(chunk)
        {
            buf.extend_from_slice(&chunk[..n]);
            total += n;
            if n < chunk.len() {
                break;
            }
        }
        total
    })
}

impl Io {
    /// Takes the link from the runtime that it was made on, so that another can have it.
    pub fn detach(self) -> Result<Detached> {
        Ok(match self {
            Io::Tcp(s) => Detached::Tcp(s.into_std()?),
            Io::Unix(s) => Detached::Unix(s.into_std()?),
            // It has nothing to do with a runtime, or nothing that is known of here.
            other => Detached::Whole(other),
        })
    }
}

/// A link on its way from one runtime to another.
pub enum Detached {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A unix socket.
    Unix(std::os::unix::net::UnixStream),
    /// One that stays as it is.
    Whole(Io),
}

impl Detached {
    /// Gives the link to the runtime that this is called on.
    pub fn attach(self) -> Result<Io> {
        Ok(match self {
            Detached::Tcp(s) => Io::Tcp(TcpStream::from_std(s)?),
            Detached::Unix(s) => Io::Unix(UnixStream::from_std(s)?),
            Detached::Whole(link) => link,
        })
    }
}

impl From<Io> for Detached {
    fn from(link: Io) -> Detached {
        Detached::Whole(link)
    }
}

macro_rules! each {
    ($self:ident, $s:ident => $call:expr) => {
        match $self.get_mut() {
            Io::Tcp($s) => $call,
            Io::Unix($s) => $call,
            Io::Memory($s) => $call,
            #[cfg(feature = "tls")]
            Io::Tls($s) => $call,
            #[cfg(feature = "quic")]
            Io::Quic($s) => $call,
            Io::Boxed($s) => $call,
        }
    };
}

impl AsyncRead for Io {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        each!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        each!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        each!(self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}
