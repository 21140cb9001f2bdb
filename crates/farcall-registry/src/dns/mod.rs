//! DNS as a backend: the addresses of a name, as Kubernetes has them for a headless service; or its SRV records.
//!
//! `dns://pay.shop.svc:9000`, `dns+srv://_farcall._tcp.pay.shop.svc`, `[?server=10.0.0.2:53&refresh_ms=30000&zone=a]`
//!
//! A name that does not exist, or has no addresses, is an empty list; a server that fails or does not answer is no list at all. Asked
//! again when the records' time is over. Read-only, and it knows neither services nor versions: the name stands for whichever service
//! is asked for.

mod resolver;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farcall_core::{Code, RpcError};
use tokio::time::sleep;

use crate::derived;
use crate::dns::resolver::{Found, Resolver};
use crate::dns::wire::{Data, Kind};
use crate::entry::{Entry, EntryKey, ServiceKey};
use crate::registry::{BoxFuture, Completeness, Consumer, Gone, Listing, Published, Registry, Rule, ServiceSummary, Update, Updates};
use crate::target::milliseconds;
use crate::url::RegistryUrl;

/// Records' time is not believed to be shorter: a server that says 0 would be asked without end.
const LEAST_TTL: Duration = Duration::from_secs(1);
/// Most instances of a name.
const MAX_INSTANCES: usize = 4096;
/// Most targets of SRV records whose addresses have to be asked for.
const MAX_TARGETS: usize = 64;

/// A name in DNS.
///
/// ```
/// use farcall_registry::dns::Dns;
/// assert!(Dns::open(&"dns://pay.shop.svc:9000".parse().unwrap()).is_ok());
/// let e = Dns::open(&"dns://pay.shop.svc".parse().unwrap()).unwrap_err();
/// assert!(e.message().contains("write \"dns://NAME:PORT\""), "{e}");
/// ```
#[derive(Debug, Clone)]
pub struct Dns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: String,
    name: String,
    /// `None`: SRV records say it.
    port: Option<u16>,
    labels: BTreeMap<String, String>,
    resolver: Resolver,
    /// The longest time between two questions.
    refresh: Duration,
    revision: AtomicU64,
}

/// What was found: all instances, those to be used last, and when to look again.
#[derive(Debug, Default, PartialEq)]
struct Look {
    entries: Vec<Arc<Entry>>,
    suspect: Vec<EntryKey>,
    again: Duration,
}

impl Dns {
    /// Of this URL.
    ///
    /// | parameter | default | |
    /// |---|---|---|
    /// | `server` | `/etc/resolv.conf` | whom to ask, `IP:PORT`; names are then not completed by search domains |
    /// | `refresh_ms` | 30 000 | look again after so long at the latest, whatever time records have |
    /// | `zone` | none | a label for all instances |
    pub fn open(url: &RegistryUrl) -> Result<Dns, RpcError> {
        url.only_params(&["server", "refresh_ms", "zone", "namespace"])?;
        let srv = url.scheme == "dns+srv";
        let example = if srv { "dns+srv://_SERVICE._tcp.NAME" } else { "dns://NAME:PORT" };
        let [host] = &url.hosts[..] else { return Err(url.refuse(format!("one name is looked up; write \"{example}\""))) };
        let (name, port) = match host.split_once(':') {
            Some((name, port)) if !srv => (name, port.parse::<u16>().ok().filter(|&port| port != 0)),
            None if srv => (host.as_str(), None),
            _ => (host.as_str(), None),
        };
        if name.contains([':', '[', '/']) || !url.path.trim_matches('/').is_empty() || srv == port.is_some() {
            return Err(url.refuse(format!("write \"{example}\"")));
        }
        if wire::question(0, name, Kind::A).is_none() {
            return Err(url.refuse(format!("{name:?} is not a name; write \"{example}\"")));
        }
        let resolver = match url.param("server") {
            None => Resolver::of_system(),
            Some(server) => Resolver::only(server_of(url, server)?),
        };
        let labels = url.param("zone").map(|zone| ("zone".to_owned(), zone.to_owned())).into_iter().collect();
        let refresh = milliseconds(url, "refresh_ms", 30_000, 100, 3_600_000)?;
        let name = name.to_owned();
        Ok(Dns(Arc::new(Inner { url: url.to_string(), name, port, labels, resolver, refresh, revision: AtomicU64::new(0) })))
    }
}

fn server_of(url: &RegistryUrl, text: &str) -> Result<SocketAddr, RpcError> {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    text.parse().or(alone).map_err(|_| url.refuse(format!("server {text:?} is not an IP address; write \"server=10.0.0.2:53\"")))
}

impl Inner {
    async fn look(&self, service: &ServiceKey) -> Result<Look, RpcError> {
        let named = |e: RpcError| RpcError::new(e.code(), format!("{}: {}", self.url, e.message()));
        let mut look = match self.port {
            Some(port) => {
                let found = self.resolver.look(&self.name, &[Kind::A, Kind::Aaaa]).await.map_err(named)?;
                self.by_address(service, port, &found)
            }
            None => self.by_service(service).await.map_err(named)?,
        };
        look.again = look.again.clamp(LEAST_TTL.min(self.refresh), self.refresh);
        Ok(look)
    }

    fn entry(&self, service: &ServiceKey, ip: IpAddr, port: u16) -> Entry {
        let mut entry = crate::Entry::at(service, format!("tcp://{}", SocketAddr::new(ip, port)));
        entry.labels.clone_from(&self.labels);
        entry
    }

    fn by_address(&self, service: &ServiceKey, port: u16, found: &Found) -> Look {
        let mut ips: Vec<IpAddr> = addresses(found, None);
        ips.sort();
        ips.dedup();
        let entries = ips.into_iter().take(MAX_INSTANCES).map(|ip| Arc::new(self.entry(service, ip, port))).collect();
        Look { entries, suspect: Vec::new(), again: Duration::from_secs(found.ttl.into()) }
    }

    /// Those of the lowest priority are used, the others last, as RFC 2782 has it.
    async fn by_service(&self, service: &ServiceKey) -> Result<Look, RpcError> {
        let found = self.resolver.look(&self.name, &[Kind::Srv]).await?;
        let mut ttl = found.ttl;
        let mut instances: BTreeMap<EntryKey, (u16, Entry)> = BTreeMap::new();
        let mut asked = 0;
        for record in &found.records {
            let Data::Service { priority, weight, port, target } = &record.data else { continue };
            // A target of "." is "decidedly not here".
            if target.is_empty() || instances.len() >= MAX_INSTANCES {
                continue;
            }
            let mut ips = addresses(&found, Some(target));
            if ips.is_empty() && asked < MAX_TARGETS {
                asked += 1;
                let more = self.resolver.look(&format!("{target}."), &[Kind::A, Kind::Aaaa]).await?;
                ttl = ttl.min(more.ttl);
                ips = addresses(&more, None);
            }
            for ip in ips {
                let mut entry = self.entry(service, ip, *port);
                // 0 is "hardly any" there, and "none" here.
                entry.weight = u32::from(*weight).max(1);
                instances.insert(entry.key(), (*priority, entry));
            }
        }
        let best = instances.values().map(|(priority, _)| *priority).min();
        let suspect = instances.iter().filter(|(_, (priority, _))| Some(*priority) != best).map(|(key, _)| key.clone()).collect();
        let entries = instances.into_values().map(|(_, entry)| Arc::new(entry)).collect();
        Ok(Look { entries, suspect, again: Duration::from_secs(ttl.into()) })
    }

    fn listing(&self, look: &Look) -> Listing {
        Listing {
            entries: look.entries.clone(),
            suspect: look.suspect.clone(),
            rules: Vec::new(),
            completeness: Completeness::Complete,
            revision: self.revision.load(Ordering::Relaxed),
            epoch: 1,
        }
    }

    fn cannot<T: Send + 'static>(&self, what: &str) -> BoxFuture<'_, Result<T, RpcError>> {
        let e = RpcError::not_executed(Code::Unimplemented, format!("{}: {what}", self.url));
        Box::pin(std::future::ready(Err(e)))
    }
}

/// The addresses in an answer, of one name or of all.
fn addresses(found: &Found, of: Option<&str>) -> Vec<IpAddr> {
    let wanted = found.records.iter().filter(|record| of.is_none_or(|name| record.name == name));
    wanted.filter_map(|record| if let Data::Address(ip) = record.data { Some(ip) } else { None }).collect()
}

struct DnsUpdates {
    inner: Arc<Inner>,
    service: ServiceKey,
    last: Look,
    ready: VecDeque<Update>,
}

impl DnsUpdates {
    async fn wait(&mut self) -> Result<Update, RpcError> {
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Ok(update);
            }
            sleep(self.last.again).await;
            let look = self.inner.look(&self.service).await?;
            if (&look.entries, &look.suspect) != (&self.last.entries, &self.last.suspect) {
                self.inner.revision.fetch_add(1, Ordering::Relaxed);
                match look.suspect == self.last.suspect {
                    // DNS does not say why.
                    true => self.ready.extend(derived::changes(&self.last.entries, &look.entries, Gone::Unsaid)),
                    false => self.ready.push_back(Update::All(self.inner.listing(&look))),
                }
            }
            self.last = look;
        }
    }
}

impl Updates for DnsUpdates {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RpcError>> {
        Box::pin(self.wait())
    }
}

impl Registry for Dns {
    fn describe(&self) -> String {
        self.0.url.clone()
    }

    fn publish(&self, entry: Arc<Entry>) -> BoxFuture<'_, Result<Box<dyn Published>, RpcError>> {
        self.0.cannot(&format!("{} is not registered: DNS is only read; let its operator add the record", entry.service))
    }

    fn list(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Listing, RpcError>> {
        let service = service.clone();
        Box::pin(async move { Ok(self.0.listing(&self.0.look(&service).await?)) })
    }

    fn subscribe(&self, service: &ServiceKey, _: Option<Consumer>) -> BoxFuture<'_, Result<Box<dyn Updates>, RpcError>> {
        let service = service.clone();
        Box::pin(async move {
            let last = self.0.look(&service).await?;
            let ready = VecDeque::from([Update::All(self.0.listing(&last))]);
            Ok(Box::new(DnsUpdates { inner: self.0.clone(), service, last, ready }) as Box<dyn Updates>)
        })
    }

    fn services(&self) -> BoxFuture<'_, Result<Vec<ServiceSummary>, RpcError>> {
        self.0.cannot("DNS does not know which services there are")
    }

    fn consumers(&self, _: &ServiceKey) -> BoxFuture<'_, Result<Vec<Consumer>, RpcError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn write_rule(&self, rule: Rule) -> BoxFuture<'_, Result<(), RpcError>> {
        self.0.cannot(&format!("DNS has no place for the rule {:?} of {}", rule.kind, rule.service))
    }
}

#[cfg(test)]
mod tests;
