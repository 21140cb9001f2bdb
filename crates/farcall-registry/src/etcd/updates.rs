//! A subscription: watches from the revision of a list on, and a new list whenever they end.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use farcall_core::{Code, RpcError};
use tokio::time::{Instant, sleep_until};

use crate::dubbo::layout;
use crate::dubbo::view::View;
use crate::entry::ServiceKey;
use crate::etcd::Inner;
use crate::etcd::client::after;
use crate::etcd::grpc::{DELETE, Stream, WATCH};
use crate::etcd::messages::{DeleteRequest, Done, Event, WatchCreate, WatchRequest, WatchResponse};
use crate::registry::{BoxFuture, Completeness, Consumer, Gone, Listing, Rule, Update, Updates};

/// What a key holds while its provider takes it away: so that consumers know that it did not just expire.
pub(super) const WITHDRAWN: &[u8] = b"withdrawn";

/// First and longest window of the pause before a new watch.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long changes of rules are gathered before they are read.
const GATHER: Duration = Duration::from_millis(20);
/// The number of the watch of instances; rules have greater ones.
const PROVIDERS: i64 = 1;

pub(super) struct EtcdUpdates {
    inner: Arc<Inner>,
    service: ServiceKey,
    view: View,
    rules: Vec<Arc<Rule>>,
    consumer: Option<ConsumerKey>,
    ready: VecDeque<Update>,
    withdrawn: BTreeSet<String>,
    /// Ended: all has to be read anew.
    watch: Option<Stream>,
    failures: u32,
    /// When to read all, and the rules.
    all: Option<Instant>,
    rules_at: Option<Instant>,
}

/// Subscribes: done when the cluster has told what there is.
pub(super) async fn subscribe(inner: Arc<Inner>, service: ServiceKey, consumer: Option<Consumer>) -> Result<EtcdUpdates, RpcError> {
    let consumer = consumer.map(|consumer| ConsumerKey {
        key: format!("{}/{}", inner.layout.consumers(&service.name), layout::consumer_node(&service, &consumer)),
        inner: inner.clone(),
    });
    let mut updates = EtcdUpdates {
        inner,
        view: View::new(service.clone()),
        service,
        rules: Vec::new(),
        consumer,
        ready: VecDeque::new(),
        withdrawn: BTreeSet::new(),
        watch: None,
        failures: 0,
        all: None,
        rules_at: None,
    };
    updates.read_all().await?;
    Ok(updates)
}

impl EtcdUpdates {
    /// Reads what there is, then watches from that moment on.
    async fn read_all(&mut self) -> Result<(), RpcError> {
        if let Some(consumer) = &self.consumer {
            consumer.put().await;
        }
        let keys = self.inner.client.keys(&self.providers(), false).await?;
        let rules = self.inner.rules(&self.service).await?;
        let (mut watch, live) = self.inner.client.stream(&WATCH).await?;
        for (n, prefix) in self.watched().into_iter().enumerate() {
            let (range_end, key) = (after(&prefix), prefix.into_bytes());
            let create = WatchCreate { key, range_end, start_revision: keys.revision + 1, watch_id: PROVIDERS + n as i64 };
            watch.send(&WatchRequest { create: Some(create) }, false)?;
        }
        // Nothing awaits from here on: all of it happens, or none.
        let settled = live.since + self.inner.settle;
        let completeness = layout::completeness(live.since, self.inner.settle);
        self.all = (completeness == Completeness::Incomplete).then_some(settled);
        self.view.replace(keys.pairs.into_iter().map(|(name, _)| name));
        self.withdrawn.clear();
        self.rules.clone_from(&rules);
        self.rules_at = None;
        self.ready.clear();
        self.watch = Some(watch);
        self.ready.push_back(Update::All(Listing {
            entries: self.view.entries(),
            suspect: Vec::new(),
            rules,
            completeness,
            revision: keys.revision.unsigned_abs(),
            epoch: keys.epoch,
        }));
        Ok(())
    }

    fn providers(&self) -> String {
        format!("{}/", self.inner.layout.providers(&self.service.name))
    }

    /// Prefixes, the instances' first.
    fn watched(&self) -> Vec<String> {
        let rules = self.inner.layout.url_rules(&self.service.name).map(|(_, directory)| format!("{directory}/"));
        let documents = format!("{}/{}", self.inner.layout.documents(), layout::document_prefix(&self.service));
        [self.providers()].into_iter().chain(rules).chain([documents]).collect()
    }

    /// What the watch says; an error ends it.
    fn on_response(&mut self, response: Option<WatchResponse>) -> Result<(), RpcError> {
        let over = |why: &str| RpcError::new(Code::Unavailable, format!("{}: a watch ended: {why}", self.inner.name));
        let response = response.ok_or_else(|| over("the server closed it"))?;
        // Compaction is told so, and not as an error.
        if response.canceled || response.compact_revision != 0 {
            return Err(over(&format!("{} (compacted at {})", response.cancel_reason, response.compact_revision)));
        }
        if response.created {
            self.failures = 0;
        }
        if response.watch_id != PROVIDERS {
            if !response.events.is_empty() {
                self.rules_at.get_or_insert_with(|| Instant::now() + GATHER);
            }
            return Ok(());
        }
        let prefix = self.providers();
        for event in response.events {
            let update = self.on_event(&prefix, event);
            self.ready.extend(update);
        }
        Ok(())
    }

    fn on_event(&mut self, prefix: &str, event: Event) -> Option<Update> {
        let kv = event.kv?;
        let key = String::from_utf8(kv.key).ok()?;
        let name = key.strip_prefix(prefix)?;
        match event.kind {
            0 if kv.value == WITHDRAWN => {
                self.withdrawn.insert(name.to_owned());
                None
            }
            0 => {
                self.withdrawn.remove(name);
                self.view.put(name)
            }
            // A lease that ended, or somebody's hand.
            _ => {
                let how = if self.withdrawn.remove(name) { Gone::Withdrawn } else { Gone::Unsaid };
                self.view.gone(name, how)
            }
        }
    }

    async fn on_time(&mut self) -> Result<(), RpcError> {
        let now = Instant::now();
        if self.all.is_some_and(|at| at <= now) {
            return self.read_all().await;
        }
        if self.rules_at.is_some_and(|at| at <= now) {
            let rules = self.inner.rules(&self.service).await?;
            self.rules_at = None;
            if rules != self.rules {
                self.rules.clone_from(&rules);
                self.ready.push_back(Update::Rules(rules));
            }
        }
        Ok(())
    }

    /// The watch is over: all is read anew, after a pause if that was not the first time.
    fn again(&mut self) {
        self.watch = None;
        self.all = Some(Instant::now() + crate::random::pause(self.failures, PAUSES.0, PAUSES.1));
        self.failures = self.failures.saturating_add(1);
    }

    /// May be dropped at any await.
    async fn wait(&mut self) -> Result<Update, RpcError> {
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Ok(update);
            }
            if self.watch.is_none() && self.all.is_none() {
                self.again();
            }
            let due = [self.all, self.rules_at].into_iter().flatten().min();
            let response = tokio::select! {
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
                response = next_response(&mut self.watch) => Some(response),
            };
            let done = match response {
                Some(response) => response.and_then(|response| self.on_response(response)),
                None => self.on_time().await,
            };
            match done {
                Ok(()) => {}
                Err(e) if refused(e.code()) => return Err(e),
                Err(_) => self.again(),
            }
        }
    }
}

/// Whether trying again is of no use.
fn refused(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented)
}

async fn next_response(watch: &mut Option<Stream>) -> Result<Option<WatchResponse>, RpcError> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

impl Updates for EtcdUpdates {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RpcError>> {
        Box::pin(self.wait())
    }
}

/// The key that says who subscribes. Taken away when dropped.
struct ConsumerKey {
    inner: Arc<Inner>,
    key: String,
}

impl ConsumerKey {
    /// Nobody's calls depend on it: a failure is not the subscription's.
    async fn put(&self) {
        self.inner.put_leased(&self.key).await.ok();
    }
}

impl Drop for ConsumerKey {
    fn drop(&mut self) {
        let (inner, key) = (self.inner.clone(), std::mem::take(&mut self.key).into_bytes());
        // Without a runtime the lease's end takes it away.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { inner.client.call::<_, Done>(&DELETE, &DeleteRequest { key }).await.ok() });
        }
    }
}
