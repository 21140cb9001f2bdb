//! The host that a request is for, and whether the server goes by that name.
//!
//! A page that a browser has loaded from `evil.example` may call `evil.example` at any time, and whoever owns that name may
//! let it stand for this server's address meanwhile (DNS rebinding). To the browser it is one origin, so CORS does not
//! come into it; but the request still says for which host it is.

use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::{StatusCode, Version};

use farcall_core::Code;

use crate::refusal::Refusal;

/// Hosts that requests may be for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    pub(crate) fn add(&mut self, host: &str) {
        self.0.push(host.to_ascii_lowercase());
    }

    fn has(&self, asked: &str) -> bool {
        let (name, port) = split(asked);
        self.0.iter().map(|known| split(known)).any(|known| known.0.eq_ignore_ascii_case(name) && (known.1.is_none() || known.1 == port))
    }
}

/// Name and port. The name of an IPv6 address has its brackets.
fn split(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // A colon of the address itself.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// The host that a request is for: what is in its target counts more than its header. HTTP/1.1 demands one header, and
/// no more (RFC 9112, 3.2).
pub(crate) fn asked(head: &Parts) -> Result<Option<&str>, Refusal> {
    let mut said = head.headers.get_all(HOST).iter();
    let (first, further) = (said.next(), said.next());
    if further.is_some() {
        return Err(Refusal::bad("`host` is there twice"));
    }
    if first.is_none() && head.version == Version::HTTP_11 {
        return Err(Refusal::bad("the header `host` is missing"));
    }
    let header = first.map(|host| host.to_str().map_err(|_| Refusal::bad("`host` is no text"))).transpose()?;
    Ok(head.uri.authority().map(|authority| authority.as_str()).or(header))
}

/// Refuses a request for a host that the server does not go by.
pub(crate) fn check(hosts: Option<&Hosts>, asked: Option<&str>) -> Result<(), Refusal> {
    match hosts {
        Some(hosts) if !asked.is_some_and(|asked| hosts.has(asked)) => {
            let why = format!("this server does not go by the name {:?}", asked.unwrap_or_default());
            Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, Code::PermissionDenied, why))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_with_its_port_or_with_any() {
        let mut hosts = Hosts::default();
        ["Shop.example", "127.0.0.1:7000", "[::1]", "[::2]:80"].iter().for_each(|host| hosts.add(host));
        for known in ["shop.example", "SHOP.example:8443", "127.0.0.1:7000", "[::1]", "[::1]:9", "[::2]:80"] {
            assert!(check(Some(&hosts), Some(known)).is_ok(), "{known}");
        }
        for other in [
            "evil.example",
            "shop.example.evil",
            "evil:shop.example",
            "127.0.0.1",
            "127.0.0.1:70",
            "[::2]",
            "",
            "shop.example.",
            "a@shop.example",
        ] {
            let refused = check(Some(&hosts), Some(other)).unwrap_err();
            assert_eq!(refused.status, 421, "{other}");
            assert!(!refused.error.message().contains("7000"), "others are not told of");
        }
        assert!(check(Some(&hosts), None).is_err() && check(None, None).is_ok() && check(None, Some("any")).is_ok());
    }
}
