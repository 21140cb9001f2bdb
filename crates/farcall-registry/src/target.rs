//! What backends over TCP read from their URL: hosts with a default port, a user with a password, times.

use std::time::Duration;

use farcall_core::RpcError;

use crate::url::RegistryUrl;

/// Whom to connect to, and as whom.
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
#[derive(Clone)]
pub(crate) struct Target {
    /// Without secrets.
    pub(crate) name: String,
    /// User and password.
    pub(crate) user: Option<(String, String)>,
    /// `host:port`, IPv6 in brackets, in the order of the URL. At least one.
    pub(crate) places: Vec<String>,
}

#[cfg(any(feature = "zookeeper", feature = "etcd"))]
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({})", self.name)
    }
}

#[cfg(any(feature = "zookeeper", feature = "etcd"))]
impl Target {
    /// Of a URL; hosts without a port get `default_port`.
    pub(crate) fn of(url: &RegistryUrl, default_port: u16) -> Result<Target, RpcError> {
        let user = match (url.user.is_empty(), url.password.is_empty()) {
            (true, true) => None,
            (false, false) => Some((url.user.clone(), url.password.clone())),
            _ => return Err(url.refuse("a user goes with a password; write \"USER:PASSWORD@HOST\", with %40 for an @ in them")),
        };
        let places = url.hosts.iter().map(|host| place(url, host, default_port)).collect::<Result<_, _>>()?;
        Ok(Target { name: url.to_string(), user, places })
    }
}

#[cfg(any(feature = "zookeeper", feature = "etcd"))]
fn place(url: &RegistryUrl, text: &str, default_port: u16) -> Result<String, RpcError> {
    let wrong = || url.refuse(format!("host {text:?} does not read; write \"HOST:{default_port}\" or \"[::1]:{default_port}\""));
    // In brackets the colons are the address's.
    let (host, port) = match text.rfind(']') {
        Some(end) if text.starts_with('[') => text.split_at(end + 1),
        Some(_) => return Err(wrong()),
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse::<u16>().ok().filter(|&port| port != 0).ok_or_else(wrong)?,
        None if port.is_empty() => default_port,
        None => return Err(wrong()),
    };
    match host.is_empty() || host == "[]" {
        true => Err(wrong()),
        false => Ok(format!("{host}:{port}")),
    }
}

/// A parameter that is a number of milliseconds within bounds.
pub(crate) fn milliseconds(url: &RegistryUrl, name: &str, default: u64, least: u64, most: u64) -> Result<Duration, RpcError> {
    let ms = match url.param(name) {
        None => Some(default),
        Some(text) => text.parse().ok(),
    };
    let ms = ms.filter(|ms| (least..=most).contains(ms));
    ms.map(Duration::from_millis).ok_or_else(|| {
        url.refuse(format!("parameter {name} is a number of milliseconds from {least} to {most}; write \"{name}={default}\""))
    })
}

#[cfg(all(test, any(feature = "zookeeper", feature = "etcd")))]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Target, RpcError> {
        Target::of(&text.parse().unwrap(), 2181)
    }

    #[test]
    fn hosts_get_their_ports() {
        let target = read("zookeeper://u:s3cret@a,[::1]:99,[fe80::1],b:7/x").unwrap();
        assert_eq!(target.places, ["a:2181", "[::1]:99", "[fe80::1]:2181", "b:7"]);
        assert_eq!(target.user, Some(("u".into(), "s3cret".into())));
        assert!(!format!("{target:?}").contains("s3cret"));
    }

    #[test]
    fn a_wrong_host_says_what_to_write() {
        for (url, why) in [
            ("zookeeper://a:0", "write \"HOST:2181\""),
            ("zookeeper://a:x", "\"a:x\" does not read"),
            ("zookeeper://[::1", "does not read"),
            ("zookeeper://[::1]9", "does not read"),
            ("zookeeper://:1", "does not read"),
            ("zookeeper://s3cret@a", "a user goes with a password"),
        ] {
            let e = read(url).unwrap_err();
            assert!(e.message().contains(why) && !e.message().contains("s3cret"), "{url}: {e}");
        }
        let url: RegistryUrl = "zookeeper://a?session_ms=1".parse().unwrap();
        let e = milliseconds(&url, "session_ms", 15_000, 1000, 60_000).unwrap_err();
        assert!(e.message().contains("write \"session_ms=15000\""), "{e}");
        assert_eq!(milliseconds(&url, "other_ms", 5, 0, 9).unwrap(), Duration::from_millis(5));
    }
}
