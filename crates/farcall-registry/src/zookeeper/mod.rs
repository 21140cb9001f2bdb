//! ZooKeeper as a backend, in Dubbo's layout.
//!
//! `zookeeper://[user:password@]host[:2181],…[/chroot][?root=dubbo&session_ms=15000&…]`
//!
//! An instance is an ephemeral node: it goes with its provider's session, which outlives a broken connection by `session_ms`. The
//! protocol is spoken by a client of our own (`docs/decisions/registry-clients.md`): whatever becomes of a connection or a session,
//! lists are read anew and nobody has to start a new client.

mod client;
mod jute;
mod nodes;
mod published;
mod updates;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::{RpcError, ServiceDescriptor};

use crate::dubbo;
use crate::dubbo::layout::{self, Layout, MAX_RULES, RulePlace};
use crate::dubbo::view::View;
use crate::entry::{Entry, ServiceKey};
use crate::registry::{BoxFuture, Consumer, Listing, Published, Registry, Rule, ServiceSummary, Updates};
use crate::target::{Target, milliseconds};
use crate::url::RegistryUrl;
use crate::zookeeper::client::{Client, Settings, Shared, refused};
use crate::zookeeper::jute::{Malformed, Op, Reader, Refusal};
use crate::zookeeper::nodes::{Life, Nodes, malformed};

/// A ZooKeeper ensemble.
///
/// ```no_run
/// # async fn example() -> Result<(), farcall_core::RpcError> {
/// use farcall_registry::zookeeper::ZooKeeper;
/// let registry = ZooKeeper::open(&"zookeeper://10.0.0.1,10.0.0.2,10.0.0.3/shop?session_ms=20000".parse()?)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct ZooKeeper(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    name: String,
    client: Shared,
    layout: Layout,
    private: bool,
    settle: Duration,
}

impl ZooKeeper {
    /// Of this URL. Begins to connect, on this runtime or farcall's own, and does not wait for it.
    ///
    /// | parameter | default | |
    /// |---|---|---|
    /// | `root` | `dubbo` | the directory of the services, below the chroot |
    /// | `session_ms` | 15 000 | how long instances of ours outlive their connection; the server has bounds of its own |
    /// | `timeout_ms` | 5 000 | how long one request may take |
    /// | `settle_ms` | 15 000 | for so long after a connection is made, lists are said to be incomplete: others may still come back |
    ///
    /// With a user and password, new nodes are for who has these alone, as Dubbo's are.
    pub fn open(url: &RegistryUrl) -> Result<ZooKeeper, RpcError> {
        url.only_params(&["root", "session_ms", "timeout_ms", "settle_ms"])?;
        let target = Target::of(url, 2181)?;
        let session = milliseconds(url, "session_ms", 15_000, 1000, 600_000)?;
        let patience = milliseconds(url, "timeout_ms", 5000, 100, 60_000)?;
        let settle = milliseconds(url, "settle_ms", 15_000, 0, 600_000)?;
        let layout = Layout::of(url)?;
        let (name, private) = (target.name.clone(), target.user.is_some());
        let client = Arc::new(Client::start(Settings { target, session, patience }));
        Ok(ZooKeeper(Arc::new(Inner { name, client, layout, private, settle })))
    }
}

impl Inner {
    fn nodes(&self) -> Nodes<'_> {
        Nodes { client: &self.client, private: self.private }
    }

    /// Tells one history from another: when the directory of the services was made.
    async fn epoch(&self) -> Result<u64, RpcError> {
        let stat = self.nodes().exists(self.layout.root(), false).await?;
        Ok(stat.map_or(0, |stat| stat.created.unsigned_abs()))
    }

    /// All rules about a service.
    async fn rules(&self, service: &ServiceKey) -> Result<Vec<Arc<Rule>>, RpcError> {
        let mut rules = Vec::new();
        for (kind, directory) in self.layout.url_rules(&service.name) {
            let names = self.nodes().children(&directory, false).await?.names;
            rules.extend(names.iter().filter_map(|name| layout::rule_of_node(service, kind, name)));
        }
        let documents = self.layout.documents();
        let mut names = self.nodes().children(&documents, false).await?.names;
        names.retain(|name| layout::is_document_of(service, name));
        for name in names.iter().take(MAX_RULES) {
            let text = self.nodes().text(&format!("{documents}/{name}")).await?;
            let rule = text.and_then(|text| layout::rule_of_document(service, name, text));
            rules.extend(rule.filter(|rule| !rule.body.is_empty()).map(Arc::new));
        }
        Ok(layout::in_order(rules))
    }

    async fn list(&self, service: &ServiceKey) -> Result<Listing, RpcError> {
        let children = self.nodes().children(&self.layout.providers(&service.name), false).await?;
        let mut view = View::new(service.clone());
        view.replace(children.names);
        let since = self.client.connected_since();
        Ok(Listing {
            entries: view.entries(),
            suspect: Vec::new(),
            rules: self.rules(service).await?,
            completeness: layout::completeness(since, self.settle),
            revision: children.zxid.unsigned_abs(),
            epoch: self.epoch().await?,
        })
    }

    async fn consumers(&self, service: &ServiceKey) -> Result<Vec<Consumer>, RpcError> {
        let names = self.nodes().children(&self.layout.consumers(&service.name), false).await?.names;
        Ok(layout::consumers_of_nodes(service, names.iter()))
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>, RpcError> {
        let directories = self.nodes().children(self.layout.root(), false).await?.names;
        let names: Vec<String> = directories.iter().filter_map(|name| Layout::service_of(name)).collect();
        let mut summaries = BTreeMap::new();
        // Many under way at once: one after the other would take a round trip each.
        for some in names.chunks(64) {
            let paths = some.iter().flat_map(|name| [self.layout.providers(name), self.layout.consumers(name)]);
            let begun: Vec<_> = paths.map(|path| self.begin_children(path)).collect::<Result<_, _>>()?;
            let mut lists = Vec::new();
            for (path, begun) in begun {
                lists.push(self.finish_children(&path, begun).await?);
            }
            for (name, pair) in some.iter().zip(lists.chunks(2)) {
                if let [providers, consumers] = pair {
                    layout::summarize(name, providers, consumers, &mut summaries);
                }
            }
        }
        Ok(summaries.into_values().collect())
    }

    fn begin_children(&self, path: String) -> Result<(String, client::Begun), RpcError> {
        let begun = self.client.begin(Op::GetChildren2, |w| w.text(&path).bool(false))?;
        Ok((path, begun))
    }

    async fn finish_children(&self, path: &str, begun: client::Begun) -> Result<Vec<String>, RpcError> {
        match self.client.finish(begun).await?.result {
            Ok(body) => Reader(&body).texts().map_err(|Malformed| malformed(path)),
            Err(Refusal::NoNode) => Ok(Vec::new()),
            Err(refusal) => Err(refused(path, refusal)),
        }
    }

    async fn write_rule(&self, rule: &Rule) -> Result<(), RpcError> {
        match layout::place_of_rule(&self.layout, rule)? {
            RulePlace::Document { path } if rule.body.is_empty() => self.nodes().delete(&path).await.map(drop),
            RulePlace::Document { path } => self.put(&path, rule.body.as_bytes()).await,
            RulePlace::Url { directory, node, instead_of } => {
                if let Some(node) = node {
                    self.put(&format!("{directory}/{node}"), b"").await?;
                }
                if let Some(old) = instead_of {
                    self.nodes().delete(&format!("{directory}/{old}")).await?;
                }
                Ok(())
            }
        }
    }

    /// Makes a node with this data, or gives it to the one that is there.
    async fn put(&self, path: &str, data: &[u8]) -> Result<(), RpcError> {
        match self.nodes().create(path, data, Life::Persistent).await? {
            Ok(_) => Ok(()),
            Err(Refusal::NodeExists) => self.nodes().set(path, data).await.map(drop),
            Err(refusal) => Err(refused(path, refusal)),
        }
    }
}

impl Registry for ZooKeeper {
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
