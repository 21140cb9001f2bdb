//! A subscription: events of the service's directories, and all read anew whenever events may have been missed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use farcall_core::{Code, RpcError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::dubbo::layout;
use crate::dubbo::view::View;
use crate::entry::ServiceKey;
use crate::registry::{BoxFuture, Completeness, Consumer, Gone, Listing, Rule, Update, Updates};
use crate::zookeeper::Inner;
use crate::zookeeper::client::{State, Watching};
use crate::zookeeper::jute::{Event, EventKind};
use crate::zookeeper::published::make_ephemeral;

/// Pause before what failed although there is a connection is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long an old server's changes are gathered before the list is read anew.
const GATHER: Duration = Duration::from_millis(20);

pub(super) struct ZkUpdates {
    inner: Arc<Inner>,
    view: View,
    service: ServiceKey,
    rules: Vec<Arc<Rule>>,
    state: watch::Receiver<State>,
    providers: Watching,
    /// Directories of rules.
    rule_watches: Vec<Watching>,
    consumer: Option<ConsumerNode>,
    ready: VecDeque<Update>,
    /// Nodes that their providers are taking away.
    withdrawn: BTreeSet<String>,
    /// Connection that events come on; `None`: all has to be read.
    told_on: Option<u64>,
    /// The server tells of each node (3.6 and later), not only that there was a change.
    deltas: bool,
    /// When what has changed has to be read.
    due: Due,
}

/// What has to be read, and when.
#[derive(Default)]
struct Due {
    all: Option<Instant>,
    nodes: Option<Instant>,
    rules: Option<Instant>,
    /// When the list that was incomplete is to be told again.
    settled: Option<Instant>,
}

impl Due {
    fn next(&self) -> Option<Instant> {
        [self.all, self.nodes, self.rules, self.settled].into_iter().flatten().min()
    }
}

/// Subscribes: done when the server has told what there is.
pub(super) async fn subscribe(inner: Arc<Inner>, service: ServiceKey, consumer: Option<Consumer>) -> Result<ZkUpdates, RpcError> {
    let client = &inner.client;
    let providers = client.watching(&inner.layout.providers(&service.name)).await?;
    let mut rule_watches = vec![client.watching(&inner.layout.documents()).await?];
    for (_, directory) in inner.layout.url_rules(&service.name) {
        rule_watches.push(client.watching(&directory).await?);
    }
    let state = inner.client.state();
    let consumer = consumer.map(|consumer| ConsumerNode {
        path: format!("{}/{}", inner.layout.consumers(&service.name), layout::consumer_node(&service, &consumer)),
        inner: inner.clone(),
    });
    let mut updates = ZkUpdates {
        inner,
        view: View::new(service.clone()),
        service,
        rules: Vec::new(),
        state,
        providers,
        rule_watches,
        consumer,
        ready: VecDeque::new(),
        withdrawn: BTreeSet::new(),
        told_on: None,
        deltas: false,
        due: Due::default(),
    };
    updates.read_all().await?;
    Ok(updates)
}

impl ZkUpdates {
    /// Asks to be told of changes, then reads what there is: what changes in between is told.
    async fn read_all(&mut self) -> Result<(), RpcError> {
        // The first answer tells that there is a connection; if it is still that one at the end, its watches hold.
        let epoch = self.inner.epoch().await?;
        let connection = self.state.borrow_and_update().connection;
        self.rewatch().await?;
        if let Some(consumer) = &self.consumer {
            consumer.make().await;
        }
        let rules = self.inner.rules(&self.service).await?;
        let children = self.inner.nodes().children(&self.providers_path(), !self.deltas).await?;
        // Nothing awaits from here on: all of it happens, or none.
        let since = self.inner.client.connected_since();
        let completeness = layout::completeness(since, self.inner.settle);
        self.due = Due::default();
        self.due.settled = (completeness == Completeness::Incomplete).then(|| since + self.inner.settle);
        self.view.replace(children.names);
        self.withdrawn.clear();
        self.rules = rules.clone();
        // On another connection by now: once more. Events of before are about what was read.
        self.told_on = (self.state.borrow().connection == connection).then_some(connection);
        self.ready.clear();
        self.ready.push_back(Update::All(Listing {
            entries: self.view.entries(),
            suspect: Vec::new(),
            rules,
            completeness,
            revision: children.zxid.unsigned_abs(),
            epoch,
        }));
        Ok(())
    }

    async fn rewatch(&mut self) -> Result<(), RpcError> {
        self.deltas = self.inner.nodes().watch_below(&self.providers_path()).await?;
        let documents = self.inner.layout.documents();
        let directories = self.inner.layout.url_rules(&self.service.name).map(|(_, directory)| directory);
        for path in directories.iter().chain([&documents]) {
            match self.deltas {
                true => drop(self.inner.nodes().watch_below(path).await?),
                false => drop(self.inner.nodes().children(path, true).await?),
            }
        }
        Ok(())
    }

    fn providers_path(&self) -> String {
        self.inner.layout.providers(&self.service.name)
    }

    /// What an event of the instances' directory means.
    fn on_event(&mut self, event: Event) {
        if !self.deltas {
            self.due.nodes.get_or_insert_with(|| Instant::now() + GATHER);
            return;
        }
        let directory = self.providers_path();
        // What becomes of the directory itself shows in its nodes.
        let Some(node) = event.path.strip_prefix(&directory).and_then(|rest| rest.strip_prefix('/')) else { return };
        let update = match event.kind {
            EventKind::Created => self.view.put(node),
            EventKind::DataChanged => {
                self.withdrawn.insert(node.to_owned());
                None
            }
            EventKind::Deleted => {
                let how = if self.withdrawn.remove(node) { Gone::Withdrawn } else { Gone::Unsaid };
                self.view.gone(node, how)
            }
            EventKind::ChildrenChanged | EventKind::None => None,
        };
        self.ready.extend(update);
    }

    /// Does what is due; on failure it stays due.
    async fn on_time(&mut self) -> Result<(), RpcError> {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.due.all) || is_due(self.due.settled) {
            return self.read_all().await;
        }
        if is_due(self.due.nodes) {
            let names = self.inner.nodes().children(&self.providers_path(), !self.deltas).await?.names;
            self.due.nodes = None;
            let changes = self.view.change(names);
            self.ready.extend(changes);
        }
        if is_due(self.due.rules) {
            if !self.deltas {
                self.rewatch().await?;
            }
            let rules = self.inner.rules(&self.service).await?;
            self.due.rules = None;
            if rules != self.rules {
                self.rules.clone_from(&rules);
                self.ready.push_back(Update::Rules(rules));
            }
        }
        Ok(())
    }

    /// May be dropped at any await: what is due stays due until it is done.
    async fn wait(&mut self) -> Result<Update, RpcError> {
        loop {
            let state = *self.state.borrow_and_update();
            if state.connected && self.told_on != Some(state.connection) && self.due.all.is_none() {
                self.due.all = Some(Instant::now());
            }
            if let Some(update) = self.ready.pop_front() {
                return Ok(update);
            }
            let due = self.due.next().filter(|_| state.connected);
            tokio::select! {
                changed = self.state.changed() => changed.map_err(|_| self.over("the client's runtime is gone"))?,
                event = self.providers.events.recv() => {
                    let event = event.ok_or_else(|| self.over("more events came than were read"))?;
                    self.on_event(event);
                }
                event = any_event(&mut self.rule_watches) => {
                    let event = event.ok_or_else(|| self.over("more events came than were read"))?;
                    if self.concerns_us(&event) {
                        self.due.rules.get_or_insert_with(|| Instant::now() + GATHER);
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => match self.on_time().await {
                    Ok(()) => {}
                    // Tried again while there is a connection, and when there is one again.
                    Err(e) if e.code() == Code::Unavailable => self.due.all = Some(Instant::now() + AGAIN),
                    Err(e) => return Err(e),
                },
            }
        }
    }

    /// Documents of all services stand in one directory.
    fn concerns_us(&self, event: &Event) -> bool {
        let documents = self.inner.layout.documents();
        match event.path.strip_prefix(&documents).and_then(|rest| rest.strip_prefix('/')) {
            Some(name) => layout::is_document_of(&self.service, name),
            None => true,
        }
    }

    fn over(&self, why: &str) -> RpcError {
        RpcError::new(Code::Unavailable, format!("{}: the subscription of {} is over: {why}", self.inner.name, self.service))
    }
}

/// The next event of any of them.
async fn any_event(watches: &mut [Watching]) -> Option<Event> {
    std::future::poll_fn(|cx| {
        for watching in watches.iter_mut() {
            if let std::task::Poll::Ready(event) = watching.events.poll_recv(cx) {
                return std::task::Poll::Ready(event);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

impl Updates for ZkUpdates {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RpcError>> {
        Box::pin(self.wait())
    }
}

/// The node that says who subscribes. Taken away when dropped.
struct ConsumerNode {
    inner: Arc<Inner>,
    path: String,
}

impl ConsumerNode {
    /// Nobody's calls depend on it: a failure is not the subscription's.
    async fn make(&self) {
        make_ephemeral(&self.inner, &self.path).await.ok();
    }
}

impl Drop for ConsumerNode {
    fn drop(&mut self) {
        let (inner, path) = (self.inner.clone(), std::mem::take(&mut self.path));
        // Without a runtime the session's end takes it away.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { inner.nodes().delete(&path).await.ok() });
        }
    }
}
