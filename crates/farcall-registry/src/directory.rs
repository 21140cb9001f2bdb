//! The live set of one service, kept by a task of its own: drives the consumer's side of the guard.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use farcall_core::{Address, Code, RpcError, Stage};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::cache::Cache;
use crate::entry::{Entry, InstanceId, ServiceKey};
use crate::guard::{Action, GuardSettings, Instance, List, Random, Reach};
use crate::overrides::Override;
use crate::registry::{Consumer, Listing, Registry, Update};
use crate::watcher::{Event, Watcher};

/// Updates of all backends that wait to be merged; when it is full, backends wait.
const UPDATES: usize = 256;

/// What a directory is made of.
pub struct DirectorySettings {
    /// The service.
    pub service: ServiceKey,
    /// The backends, one at least.
    pub registries: Vec<Arc<dyn Registry>>,
    /// Who subscribes, for backends that record it.
    pub consumer: Option<Consumer>,
    /// Times and limits.
    pub guard: GuardSettings,
    /// Where the list outlives the process; none = nowhere.
    pub cache: Option<Cache>,
    /// Whom to tell what happens.
    pub watcher: Arc<dyn Watcher>,
}

/// The instances of one service, as far as they are known now: an outage of the registries leaves it as it is.
///
/// Cheap to clone; the last clone to be dropped ends its task.
#[derive(Clone)]
pub struct Directory(Arc<Shared>);

struct Shared {
    describe: String,
    service: ServiceKey,
    /// What was wrong with the cache file.
    uncached: Option<String>,
    state: Mutex<State>,
    /// The version of what is seen, told to those who wait for it.
    seen: watch::Sender<Seen>,
    reaches: mpsc::UnboundedSender<(InstanceId, u64, Reach)>,
    task: AbortHandle,
}

#[derive(Default)]
struct State {
    instances: Arc<[Instance]>,
    errors: Vec<Option<RpcError>>,
}

/// How much is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Grows with every change.
    pub version: u64,
    /// A backend has told all there is: an empty list means that there is nothing.
    pub known: bool,
    /// A backend has told something, or all have failed: what is known is not the cache file's word alone, or will not be more soon.
    pub answered: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    /// Starts to look. Nothing is waited for; the cache file, if there is one, is read at once.
    pub fn open(settings: DirectorySettings) -> Directory {
        let describe = settings.registries.iter().map(|r| r.describe()).collect::<Vec<_>>().join(",");
        let (reaches, told) = mpsc::unbounded_channel();
        let sources = settings.registries.len();
        let (service, watcher) = (settings.service.clone(), Arc::clone(&settings.watcher));
        let mut list = List::new(service.clone(), sources, settings.guard.clone(), Random::seeded());
        let mut uncached = None;
        if let Some(cache) = &settings.cache {
            let loaded = cache.load(&service, watcher.as_ref());
            list.restore(loaded.entries, &loaded.tombstones, Duration::ZERO);
            uncached = loaded.trouble;
        }
        let instances: Arc<[Instance]> = list.instances().cloned().collect();
        let seen = watch::Sender::new(Seen::default());
        let state = Mutex::new(State { instances, errors: vec![None; sources] });
        let (begin, begun) = tokio::sync::oneshot::channel();
        let task = farcall_rpc::runtime_handle().spawn(async move {
            if let Ok(shared) = begun.await {
                Looking::new(settings, list, shared, told).run().await;
            }
        });
        let shared = Arc::new(Shared { describe, service, uncached, state, seen, reaches, task: task.abort_handle() });
        let _ = begin.send(Arc::downgrade(&shared));
        Directory(shared)
    }

    /// The service.
    pub fn service(&self) -> &ServiceKey {
        &self.0.service
    }

    /// The backends' URLs, for errors and people.
    pub fn describe(&self) -> &str {
        &self.0.describe
    }

    /// The instances known now, in order of their names, those that are not to be called included.
    pub fn instances(&self) -> Arc<[Instance]> {
        Arc::clone(&self.0.state().instances)
    }

    /// How much is known now.
    pub fn seen(&self) -> Seen {
        *self.0.seen.borrow()
    }

    /// Tells of every change.
    pub fn watch(&self) -> watch::Receiver<Seen> {
        self.0.seen.subscribe()
    }

    /// Whether no backend answers now.
    pub(crate) fn is_unheard(&self) -> bool {
        self.0.state().errors.iter().all(Option::is_some)
    }

    /// The last error of each backend that does not answer now.
    pub fn errors(&self) -> Vec<RpcError> {
        self.0.state().errors.iter().flatten().cloned().collect()
    }

    /// Waits until there is an instance, or it is known that there is none, or `time` is over. An error says which backends do not
    /// answer and why; an empty list is none.
    pub async fn first(&self, time: Duration) -> Result<(), RpcError> {
        let mut seen = self.watch();
        let done = |seen: &Seen| seen.known || !self.instances().is_empty();
        match tokio::time::timeout(time, seen.wait_for(done)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.unknown()),
        }
    }

    /// The error of a list that is not known.
    pub fn unknown(&self) -> RpcError {
        let errors: Vec<String> = self.errors().iter().map(|e| e.message().to_owned()).collect();
        let why = match errors.is_empty() {
            true if self.seen().answered => "none is registered so far, and the registry does not see all yet".to_owned(),
            true => "no answer yet".to_owned(),
            false => errors.join("; "),
        };
        let code = self.errors().first().map_or(Code::Unavailable, RpcError::code);
        let cached = self
            .0
            .uncached
            .as_deref()
            .map_or_else(|| "there is no cached list".to_owned(), |trouble| format!("there is no cached list ({trouble})"));
        let why = format!("{}: which providers there are is not known, and {cached}: {why}", self.named());
        RpcError::not_sent(code, why).with_stage(Stage::Resolve)
    }

    /// `Payment at farcall://10.0.0.1:7400`
    pub fn named(&self) -> String {
        format!("{} at {}", self.0.service, self.0.describe)
    }

    /// Tells how an attempt to connect to an instance ended, or that a connection to it was lost.
    pub fn reached(&self, instance: InstanceId, incarnation: u64, reach: Reach) {
        // Its reader is gone only when the directory is.
        let _ = self.0.reaches.send((instance, incarnation, reach));
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("of", &self.named()).field("seen", &self.seen()).finish_non_exhaustive()
    }
}

/// Something that the task is told.
enum News {
    Updated(usize, u64, Update),
    Ended(usize, u64, RpcError),
    Pulled(usize, Result<Listing, RpcError>),
    Probed(InstanceId, u64, Reach),
}

/// The task of a directory.
struct Looking {
    settings: DirectorySettings,
    list: List,
    start: Instant,
    shared: std::sync::Weak<Shared>,
    told: mpsc::UnboundedReceiver<(InstanceId, u64, Reach)>,
    news: mpsc::Receiver<News>,
    tell: mpsc::Sender<News>,
    /// Of each backend the number and the task of its subscription: what an earlier one still says is not listened to.
    subscriptions: Vec<(u64, Option<AbortHandle>)>,
    tasks: JoinSet<()>,
    errors: Vec<Option<RpcError>>,
    shown: Option<Seen>,
}

impl Looking {
    fn new(
        settings: DirectorySettings,
        list: List,
        shared: std::sync::Weak<Shared>,
        told: mpsc::UnboundedReceiver<(InstanceId, u64, Reach)>,
    ) -> Looking {
        let (tell, news) = mpsc::channel(UPDATES);
        let sources = settings.registries.len();
        Looking {
            settings,
            list,
            start: Instant::now(),
            shared,
            told,
            news,
            tell,
            subscriptions: vec![(0, None); sources],
            tasks: JoinSet::new(),
            errors: vec![None; sources],
            shown: None,
        }
    }

    async fn run(mut self) {
        loop {
            let now = self.start.elapsed();
            while let Some(action) = self.list.poll(now) {
                self.act(action);
            }
            self.show();
            let wake = self.list.wake_at().map(|at| self.start + at);
            match self.next(wake).await {
                Next::Told((instance, incarnation, reach)) => self.reached(instance, incarnation, reach),
                Next::News(news) => self.hear(news),
                Next::Time => {}
                Next::Over => return,
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    /// Whatever comes first.
    async fn next(&mut self, wake: Option<Instant>) -> Next {
        let mut timer = std::pin::pin!(async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        });
        std::future::poll_fn(|cx| {
            use std::task::Poll;
            if let Poll::Ready(told) = self.told.poll_recv(cx) {
                return Poll::Ready(told.map_or(Next::Over, Next::Told));
            }
            if let Poll::Ready(news) = self.news.poll_recv(cx) {
                return Poll::Ready(news.map_or(Next::Over, Next::News));
            }
            timer.as_mut().poll(cx).map(|()| Next::Time)
        })
        .await
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Subscribe(n) => self.subscribe(n),
            Action::Pull(n) => self.pull(n),
            Action::Probe(entry) => self.probe(entry),
        }
    }

    fn subscribe(&mut self, n: usize) {
        let Some((number, earlier)) = self.subscriptions.get_mut(n) else { return };
        *number += 1;
        let (registry, tell, number) = (Arc::clone(&self.settings.registries[n]), self.tell.clone(), *number);
        let (service, consumer, cap) = (self.settings.service.clone(), self.settings.consumer.clone(), self.settings.guard.call);
        let task = self.tasks.spawn(async move {
            let error = follow(registry.as_ref(), &service, consumer, cap, |update| {
                let tell = &tell;
                async move { tell.send(News::Updated(n, number, update)).await.is_ok() }
            });
            let error = error.await;
            let _ = tell.send(News::Ended(n, number, error)).await;
        });
        if let Some(earlier) = earlier.replace(task) {
            earlier.abort();
        }
    }

    fn pull(&mut self, n: usize) {
        let (registry, tell, service) = (Arc::clone(&self.settings.registries[n]), self.tell.clone(), self.settings.service.clone());
        let cap = self.settings.guard.call;
        self.tasks.spawn(async move {
            let listing = capped(cap, registry.as_ref(), "to list", registry.list(&service)).await;
            let _ = tell.send(News::Pulled(n, listing)).await;
        });
    }

    fn probe(&mut self, entry: Arc<Entry>) {
        let (tell, cap) = (self.tell.clone(), self.settings.guard.call);
        self.tasks.spawn(async move {
            let reach = probe(&entry, cap).await;
            let _ = tell.send(News::Probed(entry.instance, entry.incarnation, reach)).await;
        });
    }

    fn hear(&mut self, news: News) {
        let now = self.start.elapsed();
        match news {
            News::Updated(n, number, update) if self.is_current(n, number) => {
                self.settings.watcher.tell(&Event::Updated { registry: self.settings.registries[n].as_ref(), update: &update });
                self.list.update(n, update, now);
                self.errors[n] = None;
            }
            News::Ended(n, number, error) if self.is_current(n, number) => {
                let registry = self.settings.registries[n].as_ref();
                self.settings.watcher.tell(&Event::Unheard { registry, service: &self.settings.service, error: &error });
                self.list.ended(n, now);
                self.errors[n] = Some(error);
            }
            News::Updated(..) | News::Ended(..) => {}
            News::Pulled(n, listing) => {
                let differed = self.list.differed();
                self.list.pulled(n, listing.ok(), now);
                if self.list.differed() > differed {
                    let registry = self.settings.registries[n].as_ref();
                    self.settings.watcher.tell(&Event::Differed { registry, service: &self.settings.service });
                }
            }
            News::Probed(instance, incarnation, reach) => {
                self.reached(instance, incarnation, reach);
                self.list.probed(instance, now);
            }
        }
    }

    fn reached(&mut self, instance: InstanceId, incarnation: u64, reach: Reach) {
        self.list.reached(instance, incarnation, reach, self.start.elapsed());
    }

    fn is_current(&self, n: usize, number: u64) -> bool {
        self.subscriptions.get(n).is_some_and(|(current, _)| *current == number)
    }

    /// Shows what has changed to those who look, and keeps it in the cache file.
    fn show(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let answered = self.list.is_heard() || self.errors.iter().all(Option::is_some);
        let seen = Seen { version: self.list.version(), known: self.list.is_known(), answered };
        let same = self.shown.is_some_and(|shown| shown.version == seen.version);
        {
            let mut state = shared.state();
            state.errors.clone_from(&self.errors);
            if !same {
                let rules = self.list.all_rules();
                let as_ruled = |i: &Instance| Instance { entry: Override::apply(&rules, &i.entry), ..i.clone() };
                state.instances = self.list.instances().map(as_ruled).collect();
            }
        }
        if self.shown != Some(seen) {
            self.shown = Some(seen);
            shared.seen.send_replace(seen);
            if !same {
                let directory = Directory(shared);
                self.settings.watcher.tell(&Event::Changed { directory: &directory });
                self.save(&directory.instances());
            }
        }
    }

    /// As rules have them: a program that starts while no registry answers knows no rules.
    fn save(&mut self, instances: &[Instance]) {
        if let Some(cache) = &self.settings.cache {
            let entries = instances.iter().map(|instance| Arc::clone(&instance.entry)).collect();
            cache.save(&self.settings.service, entries, self.list.tombstones().collect(), &self.settings.watcher);
        }
    }
}

enum Next {
    Told((InstanceId, u64, Reach)),
    News(News),
    Time,
    Over,
}

/// Subscribes and passes on what is told, to the end of it.
async fn follow<F: Future<Output = bool>>(
    registry: &dyn Registry,
    service: &ServiceKey,
    consumer: Option<Consumer>,
    cap: Duration,
    pass_on: impl Fn(Update) -> F,
) -> RpcError {
    let mut updates = match capped(cap, registry, "to subscribe", registry.subscribe(service, consumer)).await {
        Ok(updates) => updates,
        Err(e) => return e,
    };
    // What is true now must come soon; what changes comes when it comes.
    let mut next = capped(cap, registry, "to tell what there is", updates.next()).await;
    loop {
        match next {
            Ok(update) => {
                if !pass_on(update).await {
                    return RpcError::not_sent(Code::Cancelled, "nobody listens any more");
                }
            }
            Err(e) => return e,
        }
        next = updates.next().await;
    }
}

/// A call of a backend that ends in time, whatever the backend does.
pub(crate) async fn capped<T>(
    cap: Duration,
    registry: &dyn Registry,
    what: &str,
    call: impl Future<Output = Result<T, RpcError>>,
) -> Result<T, RpcError> {
    tokio::time::timeout(cap, call).await.unwrap_or_else(|_| {
        let why = format!("registry {}: it took longer than {} ms {what}", registry.describe(), cap.as_millis());
        Err(RpcError::not_sent(Code::Unavailable, why).with_stage(Stage::Resolve))
    })
}

/// Whether something listens at one of an instance's addresses.
async fn probe(entry: &Entry, cap: Duration) -> Reach {
    let mut reach = Reach::Refused;
    let addresses: Vec<Address> = crate::order::addresses(entry).collect();
    for address in addresses {
        match tokio::time::timeout(cap, knock(address)).await {
            Ok(Ok(())) => return Reach::Answered,
            Ok(Err(e)) if is_refused(&e) => {}
            _ => reach = Reach::Silent,
        }
    }
    reach
}

/// Of what is encrypted only the port is looked at: that needs no trust, and says as much.
async fn knock(address: Address) -> Result<(), RpcError> {
    match address {
        Address::Tls { host, port } => farcall_transport::connect(&Address::Tcp { host, port }).await.map(drop),
        Address::Quic { host, port } => {
            let silent = |e: std::io::Error| RpcError::not_sent(Code::Unavailable, e.to_string()).with_source(e);
            is_open(&host, port).await.map_err(silent)
        }
        address => farcall_transport::connect(&address).await.map(drop),
    }
}

/// A host says of a closed port that it is closed; one that says nothing within moments may be open.
async fn is_open(host: &str, port: u16) -> std::io::Result<()> {
    const MOMENT: Duration = Duration::from_millis(300);
    let there = tokio::net::lookup_host((host, port)).await?.next().ok_or(std::io::ErrorKind::NotConnected)?;
    let any: std::net::SocketAddr = if there.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = tokio::net::UdpSocket::bind(any).await?;
    socket.connect(there).await?;
    socket.send(&[0]).await?;
    match tokio::time::timeout(MOMENT, socket.recv(&mut [0; 1])).await {
        Ok(Err(e)) => Err(e),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// Whether the other host said that nobody listens there.
pub(crate) fn is_refused(e: &RpcError) -> bool {
    use std::error::Error as _;
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    let io = e.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| matches!(io.kind(), ConnectionRefused | NotFound))
}
