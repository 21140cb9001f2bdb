//! What a user names as registries: URLs, or backends that are open already.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use farcall_core::{Code, RpcError, Stage};

use crate::memory::Memory;
use crate::registry::Registry;
use crate::url::{RegistryUrl, open, parse_list};

/// Where to register or to look: `"farcall://a:7400,b:7400"`, several URLs separated by commas, or backends that are open already.
///
/// Backends opened once and given to several clients and servers share their connections.
#[derive(Clone)]
pub struct Backends(Given);

#[derive(Clone)]
enum Given {
    Urls(String),
    Open(Vec<Arc<dyn Registry>>),
}

/// Backends and what is known of where they are.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) registries: Vec<Arc<dyn Registry>>,
    /// `host:port`, as written.
    pub(crate) hosts: Vec<String>,
}

impl Backends {
    /// Opens what is given by URL; nothing is connected yet. `namespace`, if there is one, goes to the backends of all URLs that do not
    /// name one themselves.
    pub(crate) fn open(&self, namespace: Option<&str>) -> Result<Opened, RpcError> {
        let mut urls = match &self.0 {
            Given::Open(registries) if registries.is_empty() => return Err(none()),
            Given::Open(registries) => return Ok(Opened { registries: registries.clone(), hosts: Vec::new() }),
            Given::Urls(text) => parse_list(text)?,
        };
        for url in &mut urls {
            if let Some(namespace) = namespace {
                url.params.entry("namespace".to_owned()).or_insert_with(|| namespace.to_owned());
            }
        }
        let registries = urls.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Opened { registries, hosts: urls.into_iter().flat_map(|url: RegistryUrl| url.hosts).collect() })
    }
}

fn none() -> RpcError {
    RpcError::not_sent(Code::InvalidArgument, "no registry is given").with_stage(Stage::Resolve)
}

impl From<&str> for Backends {
    fn from(urls: &str) -> Backends {
        Backends(Given::Urls(urls.to_owned()))
    }
}

impl From<String> for Backends {
    fn from(urls: String) -> Backends {
        Backends(Given::Urls(urls))
    }
}

impl From<&String> for Backends {
    fn from(urls: &String) -> Backends {
        Backends(Given::Urls(urls.clone()))
    }
}

impl From<Arc<dyn Registry>> for Backends {
    fn from(registry: Arc<dyn Registry>) -> Backends {
        Backends(Given::Open(vec![registry]))
    }
}

impl From<Vec<Arc<dyn Registry>>> for Backends {
    fn from(registries: Vec<Arc<dyn Registry>>) -> Backends {
        Backends(Given::Open(registries))
    }
}

impl From<&Memory> for Backends {
    fn from(memory: &Memory) -> Backends {
        Backends(Given::Open(vec![Arc::new(memory.clone())]))
    }
}

/// The socket addresses of hosts as written, as far as they can be found. Asks the system's resolver, which may block.
pub(crate) fn sockets(hosts: &[String]) -> Vec<SocketAddr> {
    let of = |host: &String| host.to_socket_addrs().into_iter().flatten().collect::<Vec<_>>();
    hosts.iter().flat_map(of).collect()
}
