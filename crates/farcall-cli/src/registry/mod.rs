//! `farcall registry`, `farcall ls` and `farcall watch`: a registry to run, to look into, and to steer.

pub(crate) mod args;
mod ls;
mod node;
mod operate;
mod show;
mod watch;

pub(crate) use ls::run as ls;
pub(crate) use node::run as node;
pub(crate) use operate::run as operate;
pub(crate) use watch::run as watch;

use std::sync::Arc;

use farcall_registry::{Registry, ServiceKey, parse_list};

use crate::failure::Failure;

/// The one backend behind a URL. Several at once are the guard's; these commands look at one.
fn open(at: &args::At) -> Result<Arc<dyn Registry>, Failure> {
    let usage = |e: farcall::RpcError| Failure::Usage(e.message().to_owned());
    let mut urls = parse_list(&at.registry).map_err(usage)?;
    let [url] = &mut urls[..] else {
        return Err(Failure::Usage(format!("--registry {:?} are {} registries: look at one after the other", at.registry, urls.len())));
    };
    // Of all registries only our own take tokens.
    if url.scheme == "farcall" {
        if let Some(token) = at.shown.token().filter(|_| url.password.is_empty()) {
            url.password = String::from_utf8_lossy(token.expose()).into_owned();
        }
        if at.shown.in_clear {
            url.params.insert("in_clear".to_owned(), "true".to_owned());
        }
    }
    farcall_registry::open(url).map_err(usage)
}

/// As people write a service: `group/name:version`.
fn service_key(text: &str) -> ServiceKey {
    let (group, rest) = text.split_once('/').unwrap_or(("", text));
    let (name, version) = rest.split_once(':').unwrap_or((rest, ""));
    ServiceKey { name: name.to_owned(), group: group.to_owned(), version: version.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_as_it_is_shown() {
        for text in ["pay", "blue/pay", "pay:2.0", "blue/pay:2.0"] {
            assert_eq!(service_key(text).to_string(), text);
        }
    }
}
