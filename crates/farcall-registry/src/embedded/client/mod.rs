//! The backend that speaks to nodes of our own registry: registers at all of them, reads from one and goes to another when it is lost.
//!
//! One agent per node (`agent.rs`) keeps a session there and brings the node to hold what is wanted; a subscription (`reader.rs`) is a
//! stream from one node. An entry counts as published as soon as one node has acknowledged it, and as lost when none holds it.

mod agent;
pub(super) mod mirror;
mod reader;
mod wanted;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use farcall_core::{Address, Code, Credentials, Limits, RpcError};
use tokio::sync::mpsc;

use self::agent::Event;
use self::mirror::Mirrors;
use self::wanted::{Slot, Wanted};
use super::api::RegistrarClient;
use crate::entry::{Entry, EntryKey, ServiceKey};
use crate::registry::{BoxFuture, Consumer, Listing, Published, Registry, Rule, ServiceSummary, Updates};
use crate::url::RegistryUrl;

/// The most nodes of one registry.
pub(super) const MOST_NODES: usize = 8;
/// For one call to one node, connecting included.
const PATIENCE: Duration = Duration::from_secs(2);
/// For an entry to be acknowledged by some node: shorter than a guard waits for a call, which would not know why.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(4);

/// Nodes of our own registry as a backend.
///
/// It must be used inside a tokio runtime. Dropped with all that came of it, it ends its sessions: entries go when their lease ends.
///
/// ```no_run
/// # async fn f() -> Result<(), farcall_rpc::RpcError> {
/// use farcall_registry::{Registry, embedded::Nodes};
/// let registry = Nodes::builder(["tcp://10.0.0.1:7400", "tcp://10.0.0.2:7400"]).build()?;
/// for service in registry.services().await? {
///     println!("{}: {} entries", service.service, service.entries);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Nodes(Arc<Handle>);

/// What a backend is made of; see [`Nodes::builder`].
#[must_use = "it does nothing until it is built"]
pub struct NodesBuilder {
    nodes: Vec<String>,
    namespace: String,
    who: Consumer,
    show: Show,
}

/// What is shown to nodes that ask who calls.
#[derive(Clone, Default)]
struct Show {
    credentials: Option<Credentials>,
    in_clear: bool,
}

impl NodesBuilder {
    /// What to show to nodes that ask who calls.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.show.credentials = Some(credentials);
        self
    }

    /// Shows it also over plain TCP to other machines, where everybody on the way can read it.
    pub fn credentials_in_clear(mut self) -> Self {
        self.show.in_clear = true;
        self
    }

    /// The namespace of all that is registered and read. Default none, which is one of its own.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Who registers, for people who look at the registry. Default: the process id.
    pub fn who(mut self, who: Consumer) -> Self {
        self.who = who;
        self
    }

    /// Checks the addresses; connects to nobody yet.
    pub fn build(self) -> Result<Nodes, RpcError> {
        let invalid = |why: String| RpcError::not_sent(Code::InvalidArgument, why);
        if self.nodes.is_empty() || self.nodes.len() > MOST_NODES {
            return Err(invalid(format!("a registry of {} nodes: it has 1 to {MOST_NODES}", self.nodes.len())));
        }
        let addresses = self.nodes.iter().map(|node| node.parse::<Address>()).collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = addresses.iter().enumerate().find(|(at, address)| addresses[..*at].contains(address)) {
            return Err(invalid(format!("the registry node {} is named twice", twice.1)));
        }
        let nodes: Vec<Node> = addresses.into_iter().map(|address| Node::new(address, self.show.clone())).collect::<Result<_, _>>()?;
        let shared = Shared {
            preferred: AtomicUsize::new(super::server::random() as usize % nodes.len()),
            nodes,
            namespace: self.namespace,
            who: self.who,
            wanted: Mutex::default(),
            mirrors: Mirrors::default(),
        };
        Ok(Nodes(Arc::new(Handle(Arc::new(shared)))))
    }
}

impl Nodes {
    /// Of these nodes, each an address such as `tcp://10.0.0.1:7400`: one to eight.
    pub fn builder<A: Into<String>>(nodes: impl IntoIterator<Item = A>) -> NodesBuilder {
        let who = Consumer { application: String::new(), host: format!("/{}", std::process::id()) };
        NodesBuilder { nodes: nodes.into_iter().map(Into::into).collect(), namespace: String::new(), who, show: Show::default() }
    }
}

/// The port of nodes whose URL names none.
pub const DEFAULT_PORT: u16 = 7400;

/// The backend of `farcall://:TOKEN@HOST:PORT,HOST:PORT?namespace=NAME&in_clear=true`.
pub(crate) fn open(url: &RegistryUrl) -> Result<Arc<dyn Registry>, RpcError> {
    url.only_params(&["namespace", "in_clear"])?;
    if !matches!(url.path.as_str(), "" | "/") {
        return Err(url.refuse(format!("nothing stands behind the hosts: is {:?} a namespace? write ?namespace=NAME", url.path)));
    }
    if !url.user.is_empty() {
        return Err(url.refuse("its nodes take no user names; a token is written farcall://:TOKEN@HOST:PORT"));
    }
    let nodes = url.hosts.iter().map(|host| address(host));
    let mut builder = Nodes::builder(nodes).namespace(url.param("namespace").unwrap_or_default());
    if !url.password.is_empty() {
        builder = builder.credentials(Credentials::bearer(url.password.as_str()));
    }
    match url.param("in_clear") {
        None | Some("false") => {}
        Some("true") => builder = builder.credentials_in_clear(),
        Some(other) => return Err(url.refuse(format!("in_clear={other}: write true or false"))),
    }
    Ok(Arc::new(builder.build().map_err(|e| url.refuse(e.message()))?))
}

/// The address of a host in a URL; one inside this process has its scheme.
fn address(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(name, _)| !name.contains(':') || name.ends_with(']'));
    match (host.starts_with("mem:"), has_port) {
        (true, _) => host.to_owned(),
        (false, true) => format!("tcp://{host}"),
        (false, false) => format!("tcp://{host}:{DEFAULT_PORT}"),
    }
}

/// `farcall://` and what stands behind `tcp://` of an address; as it is, if that is something else.
pub(super) fn url_of(address: &Address) -> String {
    let address = address.to_string();
    format!("farcall://{}", address.strip_prefix("tcp://").unwrap_or(&address))
}

/// Dropped with the last of what came of a backend: then its agents end.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        for node in &self.0.nodes {
            node.agent().take();
        }
    }
}

/// What agents, readers and the backend share.
struct Shared {
    nodes: Vec<Node>,
    namespace: String,
    who: Consumer,
    /// The node that reads go to.
    preferred: AtomicUsize,
    wanted: Mutex<Wanted>,
    mirrors: Mirrors,
}

/// The way to one node.
struct Node {
    address: Address,
    show: Show,
    client: Mutex<RegistrarClient>,
    /// The session that is open there.
    session: Mutex<Option<u64>>,
    agent: Mutex<Option<mpsc::Sender<Event>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can be left half-done.
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Node {
    fn new(address: Address, show: Show) -> Result<Node, RpcError> {
        let client = Mutex::new(Node::connect(&address, &show)?);
        Ok(Node { address, show, client, session: Mutex::default(), agent: Mutex::default() })
    }

    /// A client that connects at its first call.
    fn connect(address: &Address, show: &Show) -> Result<RegistrarClient, RpcError> {
        let limits = Limits {
            body: 512 << 20,
            held: 512 << 20,
            handshake: PATIENCE,
            heartbeat: Some(Duration::from_secs(3)),
            spin: Duration::ZERO,
            reconnect_cap: Duration::from_secs(1),
            ..Limits::default()
        };
        let mut connect = RegistrarClient::connect(address).limits(limits);
        if let Some(credentials) = &show.credentials {
            connect = connect.credentials(credentials.clone());
        }
        if show.in_clear {
            connect = connect.credentials_in_clear();
        }
        connect.lazy()
    }

    fn client(&self) -> RegistrarClient {
        lock(&self.client).clone()
    }

    /// Leaves the connection behind, which seems to be dead.
    fn renew_connection(&self) {
        if let Ok(client) = Node::connect(&self.address, &self.show) {
            *lock(&self.client) = client;
        }
    }

    fn agent(&self) -> MutexGuard<'_, Option<mpsc::Sender<Event>>> {
        lock(&self.agent)
    }
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        lock(&self.wanted)
    }

    /// The nodes, the preferred one first.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &Node)> {
        let (first, n) = (self.preferred.load(Ordering::Relaxed), self.nodes.len());
        (0..n).map(move |i| ((first + i) % n, &self.nodes[(first + i) % n]))
    }

    /// Asks one node after the other until one can be reached, which is preferred from then on.
    async fn ask<T, F>(&self, mut call: impl FnMut(RegistrarClient) -> F) -> Result<T, RpcError>
    where
        F: Future<Output = Result<T, RpcError>>,
    {
        let mut last = None;
        for (at, node) in self.in_turn() {
            match call(node.client()).await {
                Err(e) if matches!(e.code(), Code::Unavailable | Code::DeadlineExceeded) => last = Some(e),
                answer => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(self.unreachable(last))
    }

    /// Asks all nodes at once, for what each knows by itself. An error only if none answers.
    async fn ask_all<T, F>(&self, call: impl Fn(RegistrarClient) -> F) -> Result<Vec<T>, RpcError>
    where
        F: Future<Output = Result<T, RpcError>>,
    {
        let mut asked: Vec<_> = self.nodes.iter().map(|node| Box::pin(call(node.client()))).collect();
        let (mut answers, mut last) = (Vec::new(), None);
        // The calls are polled together by the first pass, so that their times run side by side.
        let mut ended: Vec<Option<Result<T, RpcError>>> = asked.iter().map(|_| None).collect();
        std::future::poll_fn(|cx| {
            for (call, end) in asked.iter_mut().zip(&mut ended).filter(|(_, end)| end.is_none()) {
                if let std::task::Poll::Ready(answer) = call.as_mut().poll(cx) {
                    *end = Some(answer);
                }
            }
            if ended.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        for end in ended.into_iter().flatten() {
            match end {
                Ok(answer) => answers.push(answer),
                Err(e) => last = Some(e),
            }
        }
        match answers.is_empty() {
            true => Err(self.unreachable(last)),
            false => Ok(answers),
        }
    }

    fn unreachable(&self, last: Option<RpcError>) -> RpcError {
        match last {
            Some(e) if !matches!(e.code(), Code::Unavailable | Code::DeadlineExceeded) => e,
            Some(e) => {
                let why = format!("no node of the registry {} can be reached; the last one: {}", self.describe(), e.message());
                RpcError::new(Code::Unavailable, why).with_certainty(e.certainty()).with_source(e)
            }
            None => RpcError::not_sent(Code::Unavailable, format!("no node of the registry {} can be reached", self.describe())),
        }
    }

    fn describe(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|n| url_of(&n.address).replacen("farcall://", "", 1)).collect();
        let namespace = if self.namespace.is_empty() { String::new() } else { format!("?namespace={}", self.namespace) };
        format!("farcall://{}{namespace}", hosts.join(","))
    }
}

impl Registry for Nodes {
    fn describe(&self) -> String {
        self.0.0.describe()
    }

    fn publish(&self, entry: Arc<Entry>) -> BoxFuture<'_, Result<Box<dyn Published>, RpcError>> {
        let handle = Arc::clone(&self.0);
        Box::pin(async move { wanted::publish(handle, entry).await.map(|held| Box::new(held) as Box<dyn Published>) })
    }

    fn list(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Listing, RpcError>> {
        let service = service.clone();
        Box::pin(async move { reader::list(&self.0.0, &service).await })
    }

    fn subscribe(&self, service: &ServiceKey, as_consumer: Option<Consumer>) -> BoxFuture<'_, Result<Box<dyn Updates>, RpcError>> {
        let (handle, service) = (Arc::clone(&self.0), service.clone());
        Box::pin(async move { reader::subscribe(handle, service, as_consumer).await.map(|reader| Box::new(reader) as Box<dyn Updates>) })
    }

    fn services(&self) -> BoxFuture<'_, Result<Vec<ServiceSummary>, RpcError>> {
        let shared = &self.0.0;
        Box::pin(async move {
            let of = |client: RegistrarClient| async move { client.services(shared.namespace.clone()).deadline(PATIENCE).await };
            Ok(merge_summaries(shared.ask_all(of).await?.into_iter().flatten()))
        })
    }

    fn consumers(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Vec<Consumer>, RpcError>> {
        let (shared, service) = (&self.0.0, service.clone());
        Box::pin(async move {
            // Each node knows those that read from it.
            let of = |client: RegistrarClient| {
                let service = service.clone();
                async move { client.consumers(shared.namespace.clone(), service).deadline(PATIENCE).await }
            };
            let mut all: Vec<Consumer> = shared.ask_all(of).await?.into_iter().flatten().collect();
            all.sort();
            all.dedup();
            Ok(all)
        })
    }

    fn write_rule(&self, rule: Rule) -> BoxFuture<'_, Result<(), RpcError>> {
        let shared = &self.0.0;
        Box::pin(async move {
            let of = |client: RegistrarClient| {
                let rule = rule.clone();
                async move { client.write_rule(shared.namespace.clone(), rule).deadline(PATIENCE).await }
            };
            // The node that takes it gives it to the others.
            shared.ask(of).await
        })
    }
}

/// Entries are at all nodes, and each consumer at one.
fn merge_summaries(all: impl Iterator<Item = ServiceSummary>) -> Vec<ServiceSummary> {
    let mut merged: std::collections::BTreeMap<ServiceKey, (u64, u64)> = Default::default();
    for summary in all {
        let (entries, consumers) = merged.entry(summary.service).or_default();
        *entries = summary.entries.max(*entries);
        *consumers += summary.consumers;
    }
    merged.into_iter().map(|(service, (entries, consumers))| ServiceSummary { service, entries, consumers }).collect()
}

/// The place of an entry among what is wanted.
fn slot(key: &EntryKey) -> Slot {
    (key.service.clone(), key.instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, shown: &str) {
        let opened = url.parse().and_then(|url| open(&url));
        assert_eq!(opened.map_or_else(|e| e.message().to_owned(), |r| r.describe()), shown);
    }

    #[test]
    fn urls_of_nodes() {
        check("farcall://a:1,b", "farcall://a:1,b:7400");
        check("farcall://[::1],[::1]:1?namespace=shop", "farcall://[::1]:7400,[::1]:1?namespace=shop");
        check("farcall://mem:x", "farcall://mem:x");
        check(
            "farcall://a:1/shop",
            "registry farcall://a:1/shop: nothing stands behind the hosts: is \"/shop\" a namespace? write ?namespace=NAME",
        );
        check("farcall://a,a:7400", "registry farcall://a,a:7400: the registry node tcp://a:7400 is named twice");
        check("farcall://a?ns=x", "registry farcall://a?ns=x: there is no parameter \"ns\"; there are: namespace, in_clear");
        check("farcall://ann:x@a", "registry farcall://a: its nodes take no user names; a token is written farcall://:TOKEN@HOST:PORT");
        check("farcall://a:99999", "registry farcall://a:99999: address \"tcp://a:99999\": port \"99999\" is not a number from 0 to 65535");
    }
}
