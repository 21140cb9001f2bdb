//! Which backend: `farcall://a:7400,b:7400`, `zookeeper://…`, `static:…`, and several of them at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use farcall_core::{Code, RpcError, Stage};

use crate::registry::Registry;

/// The schemes of registries, whether they are built in or not: what begins with one of them begins a new URL in a list.
const SCHEMES: &[&str] = &["farcall", "zookeeper", "etcd", "dns", "dns+srv", "static", "nacos", "consul"];
/// The most backends that are used at once.
pub const MOST_BACKENDS: usize = 8;
/// The longest URL, in bytes, or list of them.
pub const LONGEST_URL: usize = 4096;

/// A registry's URL in its parts: `scheme://user:password@host:port,host:port/path?name=value&name=value`.
///
/// Its `Display` and `Debug` leave the secrets out.
///
/// ```
/// use farcall_registry::RegistryUrl;
/// let url: RegistryUrl = "farcall://:s3cret@10.0.0.1:7400,10.0.0.2:7400?namespace=shop".parse().unwrap();
/// assert_eq!(url.hosts, ["10.0.0.1:7400", "10.0.0.2:7400"]);
/// assert_eq!(url.param("namespace"), Some("shop"));
/// assert_eq!(url.to_string(), "farcall://10.0.0.1:7400,10.0.0.2:7400?namespace=shop");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryUrl {
    /// Which kind of backend.
    pub scheme: String,
    /// User name; empty if none.
    pub user: String,
    /// Password or token; empty if none.
    pub password: String,
    /// `host:port`, in the order given, as they are written. For `static:` empty.
    pub hosts: Vec<String>,
    /// Behind the hosts, with its slash; for `static:` all that stands behind the colon, up to `?`.
    pub path: String,
    /// What stands behind `?`, decoded.
    pub params: BTreeMap<String, String>,
}

impl RegistryUrl {
    /// A parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    /// An error about this URL, without its secrets.
    pub fn refuse(&self, why: impl fmt::Display) -> RpcError {
        invalid(format!("registry {self}: {why}"))
    }

    /// Refuses parameters that nobody reads: most are slips of the finger.
    pub fn only_params(&self, known: &[&str]) -> Result<(), RpcError> {
        match self.params.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) if known.is_empty() => Err(self.refuse(format!("it takes no parameters, but {name:?} is given"))),
            Some(name) => Err(self.refuse(format!("there is no parameter {name:?}; there are: {}", known.join(", ")))),
        }
    }
}

impl std::str::FromStr for RegistryUrl {
    type Err = RpcError;

    fn from_str(text: &str) -> Result<RegistryUrl, RpcError> {
        let text = text.trim();
        if text.len() > LONGEST_URL {
            return Err(invalid(format!("a registry URL of {} bytes: the most is {LONGEST_URL}", text.len())));
        }
        // Not shown before the secrets are known.
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(invalid(format!("registry {text:?}: the scheme is missing; write \"farcall://HOST:PORT\"")));
        };
        if !rest.starts_with("//") && !SCHEMES.contains(&scheme) {
            let shown = text.rsplit_once('@').map_or(text, |(_, hosts)| hosts);
            return Err(invalid(format!("registry {shown:?}: the scheme is missing; did you mean \"farcall://{shown}\"?")));
        }
        let bad = |why: &str| invalid(format!("registry {scheme}: {why}"));
        let (rest, params) = rest.split_once('?').unwrap_or((rest, ""));
        let params = parse_params(params).map_err(|why| bad(&why))?;
        let mut url = RegistryUrl {
            scheme: scheme.to_owned(),
            user: String::new(),
            password: String::new(),
            hosts: Vec::new(),
            path: rest.to_owned(),
            params,
        };
        if scheme == "static" {
            return Ok(url);
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(bad(&format!("write \"{scheme}://HOST:PORT\"")));
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let hosts = match authority.rsplit_once('@') {
            Some((secrets, hosts)) => {
                let (user, password) = secrets.split_once(':').unwrap_or((secrets, ""));
                url.user = decode(user).map_err(|why| bad(&why))?;
                url.password = decode(password).map_err(|why| bad(&why))?;
                hosts
            }
            None => authority,
        };
        url.path = path.to_owned();
        url.hosts = hosts.split(',').map(|host| host.trim().to_owned()).collect();
        match url.hosts.iter().any(String::is_empty) {
            true => Err(url.refuse("a host is missing")),
            false => Ok(url),
        }
    }
}

/// Without secrets.
impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        if self.scheme != "static" {
            write!(f, "//{}", self.hosts.join(","))?;
        }
        f.write_str(&self.path)?;
        let shown = self.params.iter().filter(|(name, _)| !is_secret(name));
        for (n, (name, value)) in shown.enumerate() {
            write!(f, "{}{name}={value}", if n == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryUrl({self})")
    }
}

fn is_secret(param: &str) -> bool {
    ["token", "password", "secret"].iter().any(|word| param.contains(word))
}

fn invalid(why: String) -> RpcError {
    RpcError::not_sent(Code::InvalidArgument, why).with_stage(Stage::Resolve)
}

fn parse_params(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut params = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("the parameter {pair:?} has no value: write {pair}=VALUE"))?;
        if params.insert(decode(name)?, decode(value)?).is_some() {
            return Err(format!("the parameter {name:?} is given twice"));
        }
    }
    Ok(params)
}

/// Percent signs and two hexadecimal digits become the byte they stand for.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|d| std::str::from_utf8(d).ok()).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|d| u8::from_str_radix(d, 16).ok()).ok_or("a percent sign without two hexadecimal digits")?;
        bytes.push(byte);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| "what is percent-encoded is not UTF-8".to_owned())
}

/// Parts a list of URLs at its commas, but not at those inside of one: `farcall://a:7400,b:7400,etcd://c:2379` are two.
pub fn parse_list(text: &str) -> Result<Vec<RegistryUrl>, RpcError> {
    let mut urls: Vec<String> = Vec::new();
    for part in text.trim().split(',') {
        match urls.last_mut() {
            Some(last) if !begins_url(part, last) => {
                last.push(',');
                last.push_str(part);
            }
            _ => urls.push(part.to_owned()),
        }
    }
    if urls.len() > MOST_BACKENDS {
        return Err(invalid(format!("{} registries at once: the most is {MOST_BACKENDS}", urls.len())));
    }
    urls.iter().map(|url| url.parse()).collect()
}

/// Whether a part of a list begins a URL. In a list of addresses, `tcp://…` does not; elsewhere any scheme does, known or not.
fn begins_url(part: &str, last: &str) -> bool {
    let Some((scheme, rest)) = part.trim().split_once(':') else { return false };
    SCHEMES.contains(&scheme) && (rest.starts_with("//") || scheme == "static")
        || rest.starts_with("//") && !last.trim().starts_with("static:")
}

/// Opens one backend. Nothing is connected yet; a URL that cannot work is refused by name.
pub fn open(url: &RegistryUrl) -> Result<Arc<dyn Registry>, RpcError> {
    match url.scheme.as_str() {
        "farcall" => crate::embedded::open(url),
        "dns" | "dns+srv" => Ok(Arc::new(crate::dns::Dns::open(url)?)),
        "static" => Ok(Arc::new(crate::fixed::Static::open(url)?)),
        #[cfg(feature = "zookeeper")]
        "zookeeper" => Ok(Arc::new(crate::zookeeper::ZooKeeper::open(url)?)),
        #[cfg(not(feature = "zookeeper"))]
        "zookeeper" => Err(without(url)),
        #[cfg(feature = "etcd")]
        "etcd" => Ok(Arc::new(crate::etcd::Etcd::open(url)?)),
        #[cfg(not(feature = "etcd"))]
        "etcd" => Err(without(url)),
        // An address of a provider, most likely.
        "tcp" | "tls" | "quic" | "unix" | "mem" => Err(url.refuse(format!(
            "{} is the address of a server, not a registry: write \"farcall://HOST:PORT\" for a registry there, or \"static:{url}\" for that \
             server alone",
            url.scheme
        ))),
        other => Err(url.refuse(format!("there is no kind of registry {other:?}; there are: {}", KNOWN.join(", ")))),
    }
}

/// A kind of backend that this program could have.
#[cfg(not(all(feature = "zookeeper", feature = "etcd")))]
fn without(url: &RegistryUrl) -> RpcError {
    url.refuse(format!("this program is built without it: add the feature {:?} of the crate farcall", url.scheme))
}

/// The kinds of backends there are.
const KNOWN: &[&str] = &["farcall", "zookeeper", "etcd", "dns", "dns+srv", "static"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_in_its_parts_and_without_secrets() {
        let url: RegistryUrl = "zookeeper://ann:p%40ss@a:2181,[::1]:2182/shop/x?session_ms=9000&token=abc".parse().unwrap();
        assert_eq!((url.user.as_str(), url.password.as_str(), url.path.as_str()), ("ann", "p@ss", "/shop/x"));
        assert_eq!(url.hosts, ["a:2181", "[::1]:2182"]);
        let shown = "zookeeper://a:2181,[::1]:2182/shop/x?session_ms=9000";
        assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), format!("RegistryUrl({shown})")));
        let url: RegistryUrl = "static:tcp://a:1,unix:/run/x?zone=b".parse().unwrap();
        assert_eq!((url.path.as_str(), url.param("zone"), url.hosts.len()), ("tcp://a:1,unix:/run/x", Some("b"), 0));
    }

    #[test]
    fn a_list_is_parted_between_urls_only() {
        let check = |text: &str, urls: &[&str]| {
            assert_eq!(parse_list(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(), urls);
        };
        check("farcall://a:1,b:2,c:3", &["farcall://a:1,b:2,c:3"]);
        check("farcall://a:1,b:2,etcd://c:3", &["farcall://a:1,b:2", "etcd://c:3"]);
        check("static:tcp://a:1,tcp://b:2,farcall://c:3", &["static:tcp://a:1,tcp://b:2", "farcall://c:3"]);
        check("farcall://a:1,static:unix:/x,mem:y", &["farcall://a:1", "static:unix:/x,mem:y"]);
        check("farcall://a:1,odd://b:2", &["farcall://a:1", "odd://b:2"]);
    }

    #[test]
    fn a_wrong_url_says_what_to_write() {
        let check = |text: &str, advice: &str| {
            let opened = parse_list(text).and_then(|urls| urls.iter().map(open).collect::<Result<Vec<_>, _>>());
            let e = opened.err().unwrap_or_else(|| panic!("{text} is opened"));
            assert!(e.message().contains(advice), "{text}: {e}");
            assert_eq!(e.code(), Code::InvalidArgument);
        };
        check("localhost", "the scheme is missing; write \"farcall://HOST:PORT\"");
        check("localhost:7400", "did you mean \"farcall://localhost:7400\"?");
        check("farcall:a:1", "write \"farcall://HOST:PORT\"");
        check("farcall://", "a host is missing");
        check("farcall://a:1,,b:2", "a host is missing");
        check("farcall://a%zz@b:1", "two hexadecimal digits");
        check("farcall://a:1?x", "the parameter \"x\" has no value: write x=VALUE");
        check("farcall://a:1?x=1&x=2", "given twice");
        check("tcp://a:1", "write \"farcall://HOST:PORT\" for a registry there, or \"static:tcp://a:1\" for that server alone");
        check("consul://a:1", "there is no kind of registry \"consul\"");
        check(&"farcall://a:1,".repeat(9), "the most is 8");
        check(&format!("farcall://{}", "a".repeat(5000)), "the most is 4096");
        let secret: RegistryUrl = "odd://:s3cret@a:1".parse().unwrap();
        assert!(!open(&secret).err().unwrap().to_string().contains("s3cret"));
    }

    #[test]
    fn parameters_nobody_reads_are_refused() {
        let url: RegistryUrl = "farcall://a:1?namspace=x".parse().unwrap();
        let e = url.only_params(&["namespace"]).unwrap_err();
        assert!(e.message().contains("no parameter \"namspace\"; there are: namespace"), "{e}");
        assert!(url.only_params(&["namspace"]).is_ok());
    }
}
