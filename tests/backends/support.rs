//! What the tests of registries share: entries, a consumer that remembers what it is told, patience.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farcall_registry::{
    Advertised, Completeness, Consumer, Entry, EntryKey, Gone, InstanceId, MethodPrints, Published, Registry, Rule, ServiceKey, Update,
    Updates,
};

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Runs a test on a runtime of its own.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = runtime();
    let result = runtime.block_on(async { tokio::time::timeout(4 * PATIENCE, test).await });
    runtime.shutdown_background();
    result.expect("the test took too long")
}

/// A runtime.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Waits for what comes in time if all works.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for: {what}"))
}

/// Tries until it succeeds, as a guard does.
pub(crate) async fn eventually<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let start = std::time::Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(e) => assert!(start.elapsed() < PATIENCE, "waited too long for: {what}: {e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A service that no other test uses.
pub(crate) fn service(name: &str) -> ServiceKey {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    ServiceKey { name: format!("org.example.{name}{number}"), group: "blue".into(), version: "1.0".into() }
}

/// An instance of it.
pub(crate) fn entry(service: &ServiceKey, instance: u8) -> Entry {
    let at = |protocol: &str, port: u16| Advertised { protocol: protocol.into(), address: format!("tcp://10.0.0.{instance}:{port}") };
    Entry {
        service: service.clone(),
        instance: InstanceId([instance; 16]),
        incarnation: 1_700_000_000_000_000,
        application: "shop & co".into(),
        addresses: vec![at("farcall", 9000), at("http", 9001)],
        labels: BTreeMap::from([("zone".into(), "a/1".into())]),
        weight: 200,
        enabled: true,
        host: None,
        methods: vec![MethodPrints { name: "pay".into(), args: [1; 16], result: [2; 16], error: [3; 16], bits: 0 }],
        params: BTreeMap::from([("owner".into(), "me".into())]),
    }
}

/// Publishes, trying until it succeeds.
pub(crate) async fn publish(registry: &Arc<dyn Registry>, entry: &Entry) -> Box<dyn Published> {
    let entry = Arc::new(entry.clone());
    eventually("an acknowledgement", || registry.publish(entry.clone())).await
}

/// Who the tests' consumers say they are.
pub(crate) fn consumer() -> Consumer {
    Consumer { application: "tests".into(), host: "10.0.0.99/4711".into() }
}

/// A subscription and what it has told so far.
pub(crate) struct Seen {
    registry: Arc<dyn Registry>,
    service: ServiceKey,
    updates: Box<dyn Updates>,
    pub(crate) entries: BTreeMap<EntryKey, Arc<Entry>>,
    pub(crate) rules: Vec<Arc<Rule>>,
    /// Of the last full list.
    pub(crate) completeness: Completeness,
    pub(crate) epoch: u64,
    /// Full lists so far.
    pub(crate) lists: u32,
    /// What went, and how.
    pub(crate) gone: Vec<(EntryKey, Gone)>,
    /// The least entries there were at any time since [`Seen::watch_least`].
    pub(crate) least: usize,
}

impl Seen {
    /// Subscribes, trying until it succeeds, and takes the first list.
    pub(crate) async fn new(registry: &Arc<dyn Registry>, service: &ServiceKey) -> Seen {
        let updates = eventually("a subscription", || registry.subscribe(service, Some(consumer()))).await;
        let mut seen = Seen {
            registry: registry.clone(),
            service: service.clone(),
            updates,
            entries: BTreeMap::new(),
            rules: Vec::new(),
            completeness: Completeness::Incomplete,
            epoch: 0,
            lists: 0,
            gone: Vec::new(),
            least: usize::MAX,
        };
        seen.until("the first list", |seen| seen.lists == 1).await;
        seen
    }

    pub(crate) fn take(&mut self, update: Update) {
        match update {
            Update::All(listing) => {
                self.lists += 1;
                self.entries = listing.entries.iter().map(|e| (e.key(), e.clone())).collect();
                (self.rules, self.completeness, self.epoch) = (listing.rules, listing.completeness, listing.epoch);
            }
            Update::Put(entry) => drop(self.entries.insert(entry.key(), entry)),
            Update::Suspect(_) => {}
            Update::Gone(key, how) => {
                self.entries.remove(&key);
                self.gone.push((key, how));
            }
            Update::Rules(rules) => self.rules = rules,
        }
        self.least = self.least.min(self.entries.len());
    }

    /// From now on, the least number of entries counts.
    pub(crate) fn watch_least(&mut self) {
        self.least = self.entries.len();
    }

    /// Takes updates until it is so.
    pub(crate) async fn until(&mut self, what: &str, mut done: impl FnMut(&Seen) -> bool) {
        let start = std::time::Instant::now();
        while !done(self) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let next = tokio::time::timeout(left, self.updates.next()).await;
            match next.unwrap_or_else(|_| panic!("waited too long for: {what}; there are {:?}", self.entries.keys())) {
                Ok(update) => self.take(update),
                // It may end, and the guard subscribes again.
                Err(_) => {
                    let again = || self.registry.subscribe(&self.service, Some(consumer()));
                    self.updates = eventually("a subscription", again).await;
                }
            }
        }
    }

    /// Takes what comes within this time.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(update) = tokio::time::timeout_at(end, self.updates.next()).await {
            self.take(update.expect("the subscription goes on"));
        }
    }

    /// Until exactly these instances are there.
    pub(crate) async fn instances(&mut self, wanted: &[u8]) {
        let wanted: Vec<InstanceId> = wanted.iter().map(|&n| InstanceId([n; 16])).collect();
        self.until(&format!("{wanted:?}"), |seen| seen.entries.keys().map(|key| key.instance).collect::<Vec<_>>() == wanted).await;
    }
}
