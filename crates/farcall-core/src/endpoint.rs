//! Where a provider is: `tcp://host:port`, `tls://host:port`, `quic://host:port`, `unix:/path`, `mem:name`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Code, RpcError, Stage};

/// An address that something can listen on or connect to.
///
/// ```
/// use farcall_core::Address;
/// let a: Address = "tcp://127.0.0.1:7400".parse().unwrap();
/// assert_eq!(a.to_string(), "tcp://127.0.0.1:7400");
/// let e = "127.0.0.1:7400".parse::<Address>().unwrap_err();
/// assert!(e.message().contains("tcp://127.0.0.1:7400"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// TCP. The host is a name or an IP address (IPv6 in brackets); port 0 listens on a free one.
    Tcp {
        /// Name or IP address, without brackets.
        host: String,
        /// Port number.
        port: u16,
    },
    /// TLS over TCP: the provider proves its name, and nobody on the way can read or change what is sent.
    /// A client never speaks plaintext to such an address. Host and port as for TCP; the host is the name
    /// that the provider's certificate must be for.
    Tls {
        /// Name or IP address, without brackets.
        host: String,
        /// Port number.
        port: u16,
    },
    /// QUIC over UDP; encrypted and proven as TLS is.
    Quic {
        /// Name or IP address, without brackets.
        host: String,
        /// Port number of UDP.
        port: u16,
    },
    /// A unix socket by path.
    Unix(PathBuf),
    /// A name inside this process.
    Memory(String),
}

impl Address {
    /// Whether only its own machine reaches it: a unix socket, a name in memory, a loopback address or `localhost`. Other names are not
    /// looked up: they count as reached by all.
    ///
    /// ```
    /// use farcall_core::Address;
    /// let is_local = |text: &str| text.parse::<Address>().unwrap().is_local();
    /// assert!(is_local("tcp://127.0.0.1:7400") && is_local("unix:/run/till.sock"));
    /// assert!(!is_local("tcp://0.0.0.0:7400"));
    /// ```
    pub fn is_local(&self) -> bool {
        match self {
            Address::Tcp { host, .. } | Address::Tls { host, .. } | Address::Quic { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
            Address::Unix(_) | Address::Memory(_) => true,
        }
    }
}

type OfHostAndPort = fn(String, u16) -> Address;

/// The schemes with a host and a port.
const HOST_AND_PORT: [(&str, OfHostAndPort); 3] = [
    ("tcp", |host, port| Address::Tcp { host, port }),
    ("tls", |host, port| Address::Tls { host, port }),
    ("quic", |host, port| Address::Quic { host, port }),
];

/// Parses what stands behind the scheme; an error says what to write.
fn host_and_port(scheme: &str, rest: &str) -> Result<(String, u16), String> {
    let Some((host, port)) = rest.rsplit_once(':') else {
        return Err(format!("the port is missing; write \"{scheme}://{rest}:PORT\""));
    };
    let Ok(port) = port.parse::<u16>() else {
        return Err(format!("port {port:?} is not a number from 0 to 65535"));
    };
    let host = match (host.strip_prefix('['), host.contains(':')) {
        (Some(v6), _) => match v6.strip_suffix(']') {
            Some(v6) => v6,
            None => return Err(format!("the bracket is not closed; write \"{scheme}://[::1]:PORT\"")),
        },
        (None, true) => return Err(format!("put an IPv6 address in brackets: \"{scheme}://[{host}]:{port}\"")),
        (None, false) => host,
    };
    if host.is_empty() {
        return Err(format!("the host is missing; write \"{scheme}://127.0.0.1:{port}\""));
    }
    match host.contains(['[', ']']) {
        true => Err(format!("brackets stand around an IPv6 address and nowhere else: \"{scheme}://[::1]:{port}\"")),
        false => Ok((host.to_owned(), port)),
    }
}

impl FromStr for Address {
    type Err = RpcError;

    fn from_str(text: &str) -> Result<Address, RpcError> {
        let bad =
            |why: String| Err(RpcError::not_sent(Code::InvalidArgument, format!("address {text:?}: {why}")).with_stage(Stage::Resolve));
        for (scheme, make) in HOST_AND_PORT {
            if let Some(rest) = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) {
                return host_and_port(scheme, rest).map_or_else(bad, |(host, port)| Ok(make(host, port)));
            }
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return match path.is_empty() {
                true => bad("the path is missing; write \"unix:/run/app.sock\"".into()),
                false => Ok(Address::Unix(path.into())),
            };
        }
        if let Some(name) = text.strip_prefix("mem:") {
            return match name.is_empty() {
                true => bad("the name is missing; write \"mem:NAME\"".into()),
                false => Ok(Address::Memory(name.to_owned())),
            };
        }
        let known = "known are tcp://HOST:PORT, tls://HOST:PORT, quic://HOST:PORT, unix:/PATH and mem:NAME";
        match text.split_once("://") {
            Some((scheme, _)) => bad(format!("scheme {scheme:?} is not known; {known}")),
            None if text.contains(':') && !text.starts_with('/') => {
                bad(format!("the scheme is missing; did you mean \"tcp://{text}\"? {known}"))
            }
            None => bad(format!("the scheme is missing; {known}")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } => write_host_and_port(f, "tcp", host, *port),
            Address::Tls { host, port } => write_host_and_port(f, "tls", host, *port),
            Address::Quic { host, port } => write_host_and_port(f, "quic", host, *port),
            Address::Unix(path) => {
                // A path's own two slashes must not be taken for those of `unix://`.
                let slashes = if path.to_string_lossy().starts_with("//") { "//" } else { "" };
                write!(f, "unix:{slashes}{}", path.display())
            }
            Address::Memory(name) => write!(f, "mem:{name}"),
        }
    }
}

fn write_host_and_port(f: &mut fmt::Formatter<'_>, scheme: &str, host: &str, port: u16) -> fmt::Result {
    match host.contains(':') {
        true => write!(f, "{scheme}://[{host}]:{port}"),
        false => write!(f, "{scheme}://{host}:{port}"),
    }
}

/// An instance of a provider: its address and the labels that routers look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Zone, tag and the like, by name.
    pub labels: Vec<(String, String)>,
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Endpoint {
        Endpoint { address, labels: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in [
            "tcp://localhost:80",
            "tcp://[::1]:7400",
            "tcp://[fe80::1%eth0]:7400",
            "tcp://[::]:0",
            "tcp://0.0.0.0:0",
            "tls://shop.example:7400",
            "tls://[::1]:7400",
            "quic://shop.example:7400",
            "quic://[fe80::1%2]:7400",
            "unix:/run/a b.sock",
            "unix:////two/slashes",
            "mem:till",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///run/x".parse::<Address>().unwrap(), Address::Unix("/run/x".into()));
    }

    #[test]
    fn which_addresses_other_machines_reach() {
        for (address, local) in [
            ("tcp://127.0.0.1:7400", true),
            ("tls://localhost:7400", true),
            ("quic://[::1]:7400", true),
            ("tcp://[::ffff:127.0.0.1]:7400", true),
            ("unix:/run/x", true),
            ("mem:x", true),
            ("tcp://0.0.0.0:7400", false),
            ("tcp://[::]:7400", false),
            ("tls://10.0.0.1:7400", false),
            ("quic://node-1:7400", false),
        ] {
            assert_eq!(address.parse::<Address>().unwrap().is_local(), local, "{address}");
        }
    }

    #[test]
    fn a_wrong_address_says_what_to_write() {
        for (text, advice) in [
            ("localhost:80", "did you mean \"tcp://localhost:80\"?"),
            ("tcp://localhost", "write \"tcp://localhost:PORT\""),
            ("tcp://:80", "the host is missing"),
            ("tcp://h:99999", "0 to 65535"),
            ("tcp://::1:80", "in brackets"),
            ("tcp://[[]:80", "brackets stand around an IPv6 address"),
            ("tcp://[::1:80", "not closed"),
            ("tls://h", "write \"tls://h:PORT\""),
            ("quic://::1:80", "\"quic://[::1]:80\""),
            ("http://h:80", "scheme \"http\" is not known"),
            ("unix:", "the path is missing"),
            ("mem:", "the name is missing"),
            ("/run/x.sock", "the scheme is missing"),
        ] {
            let e = text.parse::<Address>().unwrap_err();
            assert!(e.message().contains(advice), "{text}: {e}");
            assert_eq!(e.certainty(), crate::Certainty::NotSent);
        }
    }
}
