//! A URL as Dubbo writes it: `protocol://user:password@host:port/path?key=value&…`.
//!
//! It is not the web's: values are written as they are (dubbo-go alone escapes them), keys may come twice or without a value, an
//! IPv6 host may stand without brackets. [`Url`] keeps all of it, so that what was parsed is printed again byte by byte.

use std::fmt;
use std::str::FromStr;

/// Longest URL that is read: more is refused before it is looked at.
pub const MAX_URL: usize = 64 * 1024;

/// A URL in Dubbo's sense.
///
/// ```
/// use farcall_registry::dubbo::Url;
/// let url: Url = "dubbo://10.0.0.1:20880/org.example.Pay?application=till&timestamp=1".parse().unwrap();
/// assert_eq!((url.host.as_str(), url.port), ("10.0.0.1", Some(20880)));
/// assert_eq!(url.param("application"), Some("till"));
/// assert_eq!(url.to_string(), "dubbo://10.0.0.1:20880/org.example.Pay?application=till&timestamp=1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Url {
    /// `dubbo`, `tri`, `rest`, `consumer`, `override` …, or `farcall`.
    pub protocol: String,
    /// What stands before the `@`, as it stands there.
    pub user: Option<String>,
    /// Name or IP address; an IPv6 address without brackets.
    pub host: String,
    /// Whether the host stood in brackets.
    pub brackets: bool,
    /// Port, if one is named.
    pub port: Option<u16>,
    /// What follows the first slash after the host; `None` without that slash.
    pub path: Option<String>,
    /// What follows the question mark, in order; `None` is a key without `=`. Values as they stand there.
    pub params: Option<Vec<(String, Option<String>)>>,
}

/// Why a text is not a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadUrl(pub(crate) String);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUrl {}

impl Url {
    /// The first value of a parameter, if it has one that is not empty.
    pub fn param(&self, key: &str) -> Option<&str> {
        let found = self.params.iter().flatten().find(|(k, _)| k == key)?;
        found.1.as_deref().filter(|value| !value.is_empty())
    }

    /// `host:port` as an address shows it.
    pub(crate) fn authority(&self) -> String {
        let port = self.port.unwrap_or(0);
        match self.host.contains(':') {
            true => format!("[{}]:{port}", self.host),
            false => format!("{}:{port}", self.host),
        }
    }

    /// The URL without its parameters.
    pub(crate) fn base(&self) -> String {
        Url { params: None, ..self.clone() }.to_string()
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Url, BadUrl> {
        let bad = |why: &str| BadUrl(format!("{why}: {:?}", text.chars().take(100).collect::<String>()));
        if text.len() > MAX_URL {
            return Err(bad("a URL of more than 64 KiB"));
        }
        let (before, query) = match text.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (text, None),
        };
        let (protocol, rest) = before.split_once("://").ok_or_else(|| bad("no \"protocol://\" at its start"))?;
        if protocol.is_empty() {
            return Err(bad("its protocol is empty"));
        }
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path.to_owned())),
            None => (rest, None),
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, authority),
        };
        let (host, brackets, port) = split_place(place).ok_or_else(|| bad("its host and port do not read"))?;
        let params = query.map(|query| query.split('&').map(split_param).collect());
        Ok(Url { protocol: protocol.to_owned(), user, host: host.to_owned(), brackets, port, path, params })
    }
}

/// Host, whether it is in brackets, port.
fn split_place(place: &str) -> Option<(&str, bool, Option<u16>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(number(port)?),
            None if after.is_empty() => None,
            None => return None,
        };
        return Some((host, true, port));
    }
    // Without brackets the last colon is the port's, unless a scope (`fe80::1%eth0`) follows it: as Dubbo has it.
    match place.rsplit_once(':') {
        Some((_, port)) if port.contains('%') => Some((place, false, None)),
        Some((host, port)) => Some((host, false, Some(number(port)?))),
        None => Some((place, false, None)),
    }
}

/// A port, written as it would be printed.
fn number(text: &str) -> Option<u16> {
    text.parse::<u16>().ok().filter(|port| port.to_string() == text)
}

fn split_param(pair: &str) -> (String, Option<String>) {
    match pair.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (pair.to_owned(), None),
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.protocol)?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.brackets {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if let Some(path) = &self.path {
            write!(f, "/{path}")?;
        }
        for (n, (key, value)) in self.params.iter().flatten().enumerate() {
            write!(f, "{}{key}", if n == 0 { '?' } else { '&' })?;
            if let Some(value) = value {
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_read_and_printed_again() {
        for text in [
            "dubbo://10.0.0.1:20880/a.B?x=1&y=&z&x=2&=v&&w=a=b",
            "tri://[2001:db8::1]:50051/a.B",
            "dubbo://2001:db8:0:0:0:0:0:1:20880/a.B?side=provider",
            "dubbo://fe80::1%eth0/a.B",
            "rest://user:pass@host/ctx/a.B?",
            "consumer://10.0.0.9/a.B?category=consumers",
            "override://0.0.0.0/a.B?weight=200",
            "empty://h",
            "empty://",
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, host, port) in [
            ("d://h:1/p", "h", Some(1)),
            ("d://[::1]:1/p", "::1", Some(1)),
            ("d://::1:80/p", "::1", Some(80)),
            ("d://fe80::1%eth0/p", "fe80::1%eth0", None),
            ("d://h/p:1", "h", None),
            ("d://u:p@h:9", "h", Some(9)),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (text, why) in [
            ("10.0.0.1:20880", "no \"protocol://\""),
            ("://h", "protocol is empty"),
            ("d://h:99999/p", "host and port"),
            ("d://h:080/p", "host and port"),
            ("d://[::1/p", "host and port"),
            ("d://[::1]x:1/p", "host and port"),
            ("", "no \"protocol://\""),
        ] {
            let e = text.parse::<Url>().unwrap_err();
            assert!(e.to_string().contains(why), "{text}: {e}");
        }
        let long = format!("d://h/{}", "x".repeat(MAX_URL));
        let e = long.parse::<Url>().unwrap_err().to_string();
        assert!(e.contains("64 KiB") && e.len() < 200, "{e}");
    }
}
