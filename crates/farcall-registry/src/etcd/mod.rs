//! etcd as a backend, in Dubbo's layout.
//!
//! `etcd://[user:password@]host[:2379],…[?root=dubbo&lease_ms=15000&…]`
//!
//! An instance is a key under a lease, which its provider renews. etcd's API is gRPC; the client is our own, over HTTP/2 by `h2` and
//! our own protobuf codec (`docs/decisions/registry-clients.md`).

mod client;
mod grpc;
mod lease;
mod messages;
mod published;
mod updates;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::{Code, RpcError, ServiceDescriptor};

use crate::dubbo;
use crate::dubbo::layout::{self, Layout, RulePlace};
use crate::dubbo::view::View;
use crate::entry::{Entry, ServiceKey};
use crate::etcd::client::Client;
use crate::etcd::grpc::{DELETE, PUT};
use crate::etcd::lease::Leases;
use crate::etcd::messages::{DeleteRequest, Done, PutRequest};
use crate::registry::{BoxFuture, Consumer, Listing, Published, Registry, Rule, ServiceSummary, Updates};
use crate::target::{Target, milliseconds};
use crate::url::RegistryUrl;

/// An etcd cluster, 3.4 or later.
///
/// ```no_run
/// # async fn example() -> Result<(), farcall_core::RpcError> {
/// use farcall_registry::etcd::Etcd;
/// let registry = Etcd::open(&"etcd://10.0.0.1,10.0.0.2,10.0.0.3?lease_ms=20000".parse()?)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Etcd(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    name: String,
    client: Arc<Client>,
    leases: Arc<Leases>,
    layout: Layout,
    settle: Duration,
}

impl Etcd {
    /// Of this URL. Nothing is connected before it is needed.
    ///
    /// | parameter | default | |
    /// |---|---|---|
    /// | `root` | `dubbo` | what all keys begin with, between slashes |
    /// | `lease_ms` | 15 000 | how long instances of ours outlive their last renewal, in whole seconds; it is renewed every third of it |
    /// | `timeout_ms` | 5 000 | how long one request may take |
    /// | `settle_ms` | 15 000 | for so long after a connection is made, lists are said to be incomplete: others may still come back |
    pub fn open(url: &RegistryUrl) -> Result<Etcd, RpcError> {
        url.only_params(&["root", "lease_ms", "timeout_ms", "settle_ms"])?;
        let target = Target::of(url, 2379)?;
        let ttl = milliseconds(url, "lease_ms", 15_000, 1000, 600_000)?;
        let patience = milliseconds(url, "timeout_ms", 5000, 100, 60_000)?;
        let settle = milliseconds(url, "settle_ms", 15_000, 0, 600_000)?;
        let layout = Layout::of(url)?;
        let name = target.name.clone();
        let client = Arc::new(Client::new(target, patience));
        let leases = Leases::new(client.clone(), ttl);
        Ok(Etcd(Arc::new(Inner { name, client, leases, layout, settle })))
    }
}

impl Inner {
    /// Puts a key under our lease; the lease it is under.
    async fn put_leased(&self, key: &str) -> Result<i64, RpcError> {
        for last in [false, true] {
            let lease = self.leases.get().await?;
            let request = PutRequest { key: key.as_bytes().to_vec(), value: b"farcall".to_vec(), lease };
            match self.client.call::<_, Done>(&PUT, &request).await {
                Ok(_) => return Ok(lease),
                // The lease ended and its renewal has not noticed yet.
                Err(e) if e.code() == Code::NotFound && !last => self.leases.is_gone(lease),
                Err(e) => return Err(as_unavailable(e)),
            }
        }
        Err(RpcError::new(Code::Unavailable, format!("{}: its leases end at once", self.name)))
    }

    async fn put(&self, key: String, value: &[u8]) -> Result<(), RpcError> {
        let request = PutRequest { key: key.into_bytes(), value: value.to_vec(), lease: 0 };
        self.client.call::<_, Done>(&PUT, &request).await.map(drop)
    }

    async fn delete(&self, key: String) -> Result<(), RpcError> {
        self.client.call::<_, Done>(&DELETE, &DeleteRequest { key: key.into_bytes() }).await.map(drop)
    }

    /// All rules about a service.
    async fn rules(&self, service: &ServiceKey) -> Result<Vec<Arc<Rule>>, RpcError> {
        let mut rules = Vec::new();
        for (kind, directory) in self.layout.url_rules(&service.name) {
            let keys = self.client.keys(&format!("{directory}/"), false).await?;
            rules.extend(keys.pairs.iter().filter_map(|(name, _)| layout::rule_of_node(service, kind, name)));
        }
        let begin = layout::document_prefix(service);
        let documents = self.client.keys(&format!("{}/{begin}", self.layout.documents()), true).await?;
        for (rest, value) in documents.pairs {
            let rule = String::from_utf8(value).ok().and_then(|text| layout::rule_of_document(service, &format!("{begin}{rest}"), text));
            rules.extend(rule.filter(|rule| !rule.body.is_empty()).map(Arc::new));
        }
        Ok(layout::in_order(rules))
    }

    async fn list(&self, service: &ServiceKey) -> Result<Listing, RpcError> {
        let keys = self.client.keys(&format!("{}/", self.layout.providers(&service.name)), false).await?;
        let mut view = View::new(service.clone());
        view.replace(keys.pairs.into_iter().map(|(name, _)| name));
        Ok(Listing {
            entries: view.entries(),
            suspect: Vec::new(),
            rules: self.rules(service).await?,
            completeness: layout::completeness(self.client.connected_since().await, self.settle),
            revision: keys.revision.unsigned_abs(),
            epoch: keys.epoch,
        })
    }

    async fn consumers(&self, service: &ServiceKey) -> Result<Vec<Consumer>, RpcError> {
        let keys = self.client.keys(&format!("{}/", self.layout.consumers(&service.name)), false).await?;
        Ok(layout::consumers_of_nodes(service, keys.pairs.iter().map(|(name, _)| name)))
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>, RpcError> {
        let keys = self.client.keys(&format!("{}/", self.layout.root()), false).await?;
        let mut nodes: BTreeMap<String, [Vec<String>; 2]> = BTreeMap::new();
        for (path, _) in &keys.pairs {
            let mut parts = path.splitn(3, '/');
            let (Some(service), Some(category), Some(node)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let which = match category {
                "providers" => 0,
                "consumers" => 1,
                _ => continue,
            };
            if let Some(name) = Layout::service_of(service) {
                nodes.entry(name).or_default()[which].push(node.to_owned());
            }
        }
        let mut summaries = BTreeMap::new();
        for (name, [providers, consumers]) in &nodes {
            layout::summarize(name, providers, consumers, &mut summaries);
        }
        Ok(summaries.into_values().collect())
    }

    async fn write_rule(&self, rule: &Rule) -> Result<(), RpcError> {
        match layout::place_of_rule(&self.layout, rule)? {
            RulePlace::Document { path } if rule.body.is_empty() => self.delete(path).await,
            RulePlace::Document { path } => self.put(path, rule.body.as_bytes()).await,
            RulePlace::Url { directory, node, instead_of } => {
                if let Some(node) = node {
                    self.put(format!("{directory}/{node}"), b"farcall").await?;
                }
                match instead_of {
                    Some(old) => self.delete(format!("{directory}/{old}")).await,
                    None => Ok(()),
                }
            }
        }
    }
}

/// What is not there now may be there at the next attempt.
fn as_unavailable(e: RpcError) -> RpcError {
    match e.code() {
        Code::NotFound => RpcError::new(Code::Unavailable, e.message()),
        _ => e,
    }
}

impl Registry for Etcd {
    fn describe(&self) -> String {
        self.0.name.clone()
    }

    fn key_of(&self, service: &ServiceDescriptor) -> ServiceKey {
        ServiceKey::foreign(service)
    }

    fn publish(&self, entry: Arc<Entry>) -> BoxFuture<'_, Result<Box<dyn Published>, RpcError>> {
        Box::pin(async move {
            let node = dubbo::node_name(&entry)?;
            let published = published::publish(self.0.clone(), &entry, &node).await?;
            Ok(Box::new(published) as Box<dyn Published>)
        })
    }

    fn list(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Listing, RpcError>> {
        let service = service.clone();
        Box::pin(async move { self.0.list(&service).await })
    }

    fn subscribe(&self, service: &ServiceKey, as_consumer: Option<Consumer>) -> BoxFuture<'_, Result<Box<dyn Updates>, RpcError>> {
        let service = service.clone();
        Box::pin(async move {
            let updates = updates::subscribe(self.0.clone(), service, as_consumer).await?;
            Ok(Box::new(updates) as Box<dyn Updates>)
        })
    }

    fn services(&self) -> BoxFuture<'_, Result<Vec<ServiceSummary>, RpcError>> {
        Box::pin(self.0.services())
    }

    fn consumers(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Vec<Consumer>, RpcError>> {
        let service = service.clone();
        Box::pin(async move { self.0.consumers(&service).await })
    }

    fn write_rule(&self, rule: Rule) -> BoxFuture<'_, Result<(), RpcError>> {
        Box::pin(async move { self.0.write_rule(&rule).await })
    }
}
