//! What a peer is told: where to serve, where to connect, what to send.
use crate::delay::Delay;
use crate::order::Order;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use std::fmt::{self, Display};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// No peer here needs larger messages, and all accept this one with their default limits.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;

/// What a call carries there and back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Payload {
    /// `add(a: u32, b: u64) -> u64`
    Tiny,
    /// As `Tiny`; one handler in a hundred does this before it answers.
    Slow(Delay),
    /// The [`Order`] as argument and result.
    Order,
    /// A block of so many bytes.
    Bytes(usize),
}

impl Payload {
    /// Size of the opaque block that a peer without a codec carries in this payload's place.
    pub(crate) fn opaque_len(self) -> usize {
        match self {
            Payload::Tiny | Payload::Slow(_) => size_of::<u32>() + size_of::<u64>(),
            Payload::Order => Order::sample().compact_len(),
            Payload::Bytes(len) => len,
        }
    }

    /// The opaque block itself.
    pub(crate) fn opaque(self) -> Bytes {
        vec![b'x'; self.opaque_len()].into()
    }

    /// What the handler of the call number `nth` does before it answers.
    #[inline]
    pub(crate) fn delay_of_call(self, nth: usize) -> Option<Delay> {
        match self {
            Payload::Slow(delay) => delay.of_call(nth),
            _ => None,
        }
    }
}

impl FromStr for Payload {
    type Err = String;

    fn from_str(text: &str) -> Result<Payload, String> {
        let (digits, unit) = match text.strip_suffix('k') {
            Some(digits) => (digits, 1024),
            None => (text, 1),
        };
        match text {
            "tiny" => Ok(Payload::Tiny),
            "order" => Ok(Payload::Order),
            "slow-wait" => Ok(Payload::Slow(Delay::Wait)),
            "slow-work" => Ok(Payload::Slow(Delay::Work)),
            _ => match digits.parse::<usize>().ok().and_then(|n| n.checked_mul(unit)) {
                Some(len) if len <= MAX_PAYLOAD => Ok(Payload::Bytes(len)),
                Some(_) => Err(format!("payload {text} is larger than {}k", MAX_PAYLOAD / 1024)),
                None => Err(format!("payload {text:?} is none of tiny, order, slow-wait, slow-work, a byte count (64, 64k)")),
            },
        }
    }
}

impl Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Tiny => f.write_str("tiny"),
            Payload::Order => f.write_str("order"),
            Payload::Slow(Delay::Wait) => f.write_str("slow-wait"),
            Payload::Slow(Delay::Work) => f.write_str("slow-work"),
            Payload::Bytes(len) if *len > 0 && len % 1024 == 0 => write!(f, "{}k", len / 1024),
            Payload::Bytes(len) => write!(f, "{len}"),
        }
    }
}

/// What bytes travel through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Transport {
    Tcp,
    Unix,
    /// TLS over TCP.
    Tls,
    /// QUIC over UDP.
    Quic,
}

impl Transport {
    /// Whether certificates are needed.
    #[cfg(feature = "secure")]
    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::Quic)
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Transport, String> {
        match text {
            "tcp" => Ok(Transport::Tcp),
            "unix" => Ok(Transport::Unix),
            "tls" | "quic" if cfg!(not(feature = "secure")) => Err("not in this build: it needs the feature secure".into()),
            "tls" => Ok(Transport::Tls),
            "quic" => Ok(Transport::Quic),
            _ => Err("none of tcp, unix, tls, quic".into()),
        }
    }
}

impl Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Unix => "unix",
            Transport::Tls => "tls",
            Transport::Quic => "quic",
        })
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Addr {
    /// `host:port`; port 0 takes a free one.
    Tcp(String),
    /// `unix:/path`
    Unix(PathBuf),
    /// `tls://host:port` or `quic://host:port`, as farcall writes it.
    Secure(String),
}

impl FromStr for Addr {
    type Err = String;

    fn from_str(text: &str) -> Result<Addr, String> {
        if text.starts_with("tls://") || text.starts_with("quic://") {
            return Ok(Addr::Secure(text.into()));
        }
        match text.strip_prefix("unix:") {
            Some("") => Err("there is no path behind unix:".into()),
            Some(path) => Ok(Addr::Unix(path.into())),
            None if text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) => {
                Ok(Addr::Tcp(text.into()))
            }
            None => Err("neither host:port nor unix:/path".into()),
        }
    }
}

impl Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(host_and_port) => f.write_str(host_and_port),
            Addr::Secure(address) => f.write_str(address),
            Addr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Addr {
    /// For peers that speak TCP only; `run` does not ask them for anything else.
    fn tcp(&self) -> Result<&str> {
        match self {
            Addr::Tcp(host_and_port) => Ok(host_and_port),
            Addr::Unix(_) | Addr::Secure(_) => bail!("this peer speaks TCP only"),
        }
    }
}

/// For [`Peer::serve`](crate::peers::Peer::serve).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerConfig {
    pub(crate) addr: Addr,
}

impl ServerConfig {
    /// Binds a TCP `addr` and announces it.
    pub(crate) async fn listen(&self) -> Result<TcpListener> {
        let listener = TcpListener::bind(self.addr.tcp()?).await.with_context(|| format!("cannot listen on {}", self.addr))?;
        self.announce(listener.local_addr()?)?;
        Ok(listener)
    }

    /// Binds a unix socket and announces it.
    pub(crate) fn listen_unix(&self, path: &Path) -> Result<UnixListener> {
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", self.addr))?;
        self.announce(&self.addr)?;
        Ok(listener)
    }

    /// Tells whoever started this process where clients connect. A peer that binds by itself calls this as soon as
    /// it accepts connections.
    pub(crate) fn announce(&self, addr: impl Display) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{addr}")?;
        Ok(stdout.flush()?)
    }
}

/// For [`Peer::connect`](crate::peers::Peer::connect).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClientConfig {
    /// What the server announced.
    pub(crate) addr: Addr,
    pub(crate) payload: Payload,
    /// Calls in flight over each connection: buffers with a limit must hold so many.
    pub(crate) inflight: usize,
    pub(crate) connections: usize,
}

impl ClientConfig {
    /// A TCP connection to the server, `TCP_NODELAY` set.
    pub(crate) async fn dial(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.addr.tcp()?).await.with_context(|| format!("cannot connect to {}", self.addr))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A unix socket connected to the server.
    pub(crate) async fn dial_unix(&self, path: &Path) -> Result<UnixStream> {
        UnixStream::connect(path).await.with_context(|| format!("cannot connect to {}", self.addr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_print_as_they_are_written() {
        for (text, payload) in [
            ("tiny", Payload::Tiny),
            ("order", Payload::Order),
            ("slow-wait", Payload::Slow(Delay::Wait)),
            ("slow-work", Payload::Slow(Delay::Work)),
            ("64", Payload::Bytes(64)),
            ("64k", Payload::Bytes(65_536)),
            ("0", Payload::Bytes(0)),
        ] {
            assert_eq!(text.parse(), Ok(payload));
            assert_eq!(payload.to_string(), text);
        }
    }

    #[test]
    fn addresses_print_as_they_are_written() {
        for (text, addr) in [
            ("127.0.0.1:0", Addr::Tcp("127.0.0.1:0".into())),
            ("unix:/tmp/s", Addr::Unix("/tmp/s".into())),
            ("tls://localhost:0", Addr::Secure("tls://localhost:0".into())),
        ] {
            assert_eq!(text.parse(), Ok(addr.clone()));
            assert_eq!(addr.to_string(), text);
        }
        for text in ["", "unix:", "localhost", ":80", "host:99999", "/tmp/s"] {
            text.parse::<Addr>().unwrap_err();
        }
    }

    #[test]
    fn other_payloads_are_refused() {
        for text in ["", "k", "huge", "-1", "1m", "2048k", "99999999999999999999k"] {
            text.parse::<Payload>().unwrap_err();
        }
    }
}
