//! `farcall registry`, `farcall ls` and `farcall watch`: a registry to run, and to look into.

pub(crate) mod args;
mod ls;
mod node;
mod show;
mod watch;

pub(crate) use ls::run as ls;
pub(crate) use node::run as node;
pub(crate) use watch::run as watch;

use std::sync::Arc;

use farcall_registry::{Registry, ServiceKey, parse_list};

use crate::failure::Failure;

/// The one backend behind a URL. Several at once are the guard's; these commands look at one.
fn open(url: &str) -> Result<Arc<dyn Registry>, Failure> {
    let usage = |e: farcall::RpcError| Failure::Usage(e.message().to_owned());
    let urls = parse_list(url).map_err(usage)?;
    match urls.as_slice() {
        [one] => farcall_registry::open(one).map_err(usage),
        _ => Err(Failure::Usage(format!("--registry {url:?} are {} registries: look at one after the other", urls.len()))),
    }
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
