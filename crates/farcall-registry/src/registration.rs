//! `Server::builder().register("farcall://…")`: a server that makes itself known, and takes itself back before it goes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use farcall_core::{Address, Code, RpcError, ServiceDescriptor, Stage};
use farcall_rpc::{Announce, ServerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::advertise;
use crate::backends::{Backends, Opened};
use crate::directory::capped;
use crate::entry::{Entry, InstanceId, MethodPrints, ServiceKey};
use crate::guard::{GuardSettings, Keeping, Random, Task};
use crate::host;
use crate::named::named;
use crate::registry::{BoxFuture, Published, Registry, is_refusal};
use crate::watcher::{Event, Quiet, Watcher};

/// How long `listen` waits for the first acknowledgement unless it is set.
const WAIT: Duration = Duration::from_secs(2);
/// The weight of an instance that sets none.
const WEIGHT: u32 = 100;

/// Servers that make themselves known.
pub trait Register: Sized {
    /// Registers all services of the server once it answers, and withdraws them before it [drains](farcall_rpc::Server::drain):
    /// `.register("farcall://10.0.0.1:7400")`, or a [`Registration`] with more to say. Several times = at several places.
    ///
    /// The server starts also if no registry answers: it registers as soon as one does, and again whenever that may be lost. Only
    /// if all registries refuse it, `listen` fails.
    fn register(self, registration: impl Into<Registration>) -> Self;
}

impl Register for ServerBuilder {
    fn register(self, registration: impl Into<Registration>) -> Self {
        self.announce(registration.into())
    }
}

/// Where a server registers and what it says of itself.
///
/// ```
/// use farcall_registry::Registration;
/// let registration = Registration::at("farcall://10.0.0.1:7400").application("payment").label("zone", "b").weight(50);
/// ```
pub struct Registration {
    backends: Backends,
    application: Option<String>,
    namespace: Option<String>,
    said: watch::Sender<Said>,
    advertise: Vec<String>,
    guard: GuardSettings,
    wait: Duration,
    watcher: Arc<dyn Watcher>,
    status: watch::Sender<Vec<Status>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What a server says of itself that may change while it serves.
#[derive(Debug, Clone)]
struct Said {
    labels: BTreeMap<String, String>,
    weight: u32,
    enabled: bool,
    /// Of the last change, so that at all backends it is the same.
    incarnation: u64,
}

/// Changes what a server says of itself while it serves; see [`Registration::handle`]. Cheap to clone.
///
/// A change goes to all registries as a start of the instance that takes the place of the one before: consumers see no gap, and keep
/// their connections unless it is disabled or its weight becomes 0.
#[derive(Debug, Clone)]
pub struct RegistrationHandle(watch::Sender<Said>);

impl RegistrationHandle {
    /// Its share of the calls, relative to others'; 0 = none.
    pub fn set_weight(&self, weight: u32) {
        self.change(|said| said.weight = weight);
    }

    /// Whether it is to be called. Off, it stays registered: consumers see it and go elsewhere.
    pub fn set_enabled(&self, enabled: bool) {
        self.change(|said| said.enabled = enabled);
    }

    /// Sets a label, or takes it away.
    pub fn set_label<'a>(&self, name: impl Into<String>, value: impl Into<Option<&'a str>>) {
        let name = name.into();
        self.change(|said| match value.into() {
            Some(value) => drop(said.labels.insert(name, value.to_owned())),
            None => drop(said.labels.remove(&name)),
        });
    }

    fn change(&self, change: impl FnOnce(&mut Said)) {
        self.0.send_modify(|said| {
            change(said);
            said.incarnation = incarnation();
        });
    }
}

/// Where one service stands at one backend.
#[derive(Debug, Clone)]
pub struct Status {
    /// The backend.
    pub registry: String,
    /// The service.
    pub service: ServiceKey,
    /// The backend has acknowledged the entry, and nothing speaks against it since.
    pub held: bool,
    /// How often it was acknowledged.
    pub published: u64,
    /// Why it is not, as far as is known.
    pub error: Option<RpcError>,
}

impl<B: Into<Backends>> From<B> for Registration {
    fn from(backends: B) -> Registration {
        Registration::at(backends)
    }
}

impl Registration {
    /// At these registries; all of them are registered at.
    pub fn at(registries: impl Into<Backends>) -> Registration {
        Registration {
            backends: registries.into(),
            application: None,
            namespace: None,
            said: watch::Sender::new(Said { labels: BTreeMap::new(), weight: WEIGHT, enabled: true, incarnation: incarnation() }),
            advertise: Vec::new(),
            guard: GuardSettings::default(),
            wait: WAIT,
            watcher: Arc::new(Quiet),
            status: watch::Sender::default(),
            stop: watch::Sender::default(),
            tasks: Mutex::default(),
        }
    }

    /// The application that the server belongs to. Default: `$FARCALL_APPLICATION`, or the name of the program's file.
    pub fn application(mut self, name: impl Into<String>) -> Self {
        self.application = Some(name.into());
        self
    }

    /// The namespace to register in, for URLs that name none. Default: the registry's own.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = Some(name.into());
        self
    }

    /// A label: `zone`, `tag` and the like.
    pub fn label(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.said.send_modify(|said| drop(said.labels.insert(name.into(), value.into())));
        self
    }

    /// The share of the calls, relative to others'. Default 100; 0 = none.
    pub fn weight(self, weight: u32) -> Self {
        self.said.send_modify(|said| said.weight = weight);
        self
    }

    /// Whether the server is to be called as soon as it is registered. Default yes; no = it is known, and called once it or an operator
    /// says so.
    pub fn enabled(self, enabled: bool) -> Self {
        self.said.send_modify(|said| said.enabled = enabled);
        self
    }

    /// Changes labels, weight and whether it is called, later on:
    ///
    /// ```
    /// # use farcall_registry::Registration;
    /// let registration = Registration::at("farcall://10.0.0.1:7400").enabled(false);
    /// let handle = registration.handle();
    /// // Given to a server; when its caches are warm:
    /// handle.set_enabled(true);
    /// ```
    pub fn handle(&self) -> RegistrationHandle {
        RegistrationHandle(self.said.clone())
    }

    /// An address under which consumers reach the server, instead of those that it listens on; may be called for several. Port 0 is
    /// the port that it listens on. Default: `$FARCALL_ADVERTISE` (separated by commas), or what it listens on; of "all addresses" the
    /// one from which packets go to the registry.
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise.push(address.into());
        self
    }

    /// Other times and limits than the default ones.
    pub fn guard(mut self, settings: GuardSettings) -> Self {
        self.guard = settings;
        self
    }

    /// How long `listen` waits for the first acknowledgement; after that the server registers while it serves. Default 2 s.
    pub fn wait_for_first(mut self, time: Duration) -> Self {
        self.wait = time;
        self
    }

    /// Tells `watcher` what happens.
    pub fn watch(mut self, watcher: Arc<dyn Watcher>) -> Self {
        self.watcher = watcher;
        self
    }

    /// Tells, now and later, where each service stands at each backend; empty before the server listens.
    pub fn status(&self) -> watch::Receiver<Vec<Status>> {
        self.status.subscribe()
    }

    fn entries(&self, opened: &Opened, addresses: &[Address], services: &[&ServiceDescriptor]) -> Result<Vec<Entry>, RpcError> {
        let addresses = advertise::addresses(&self.advertise, addresses, &opened.hosts, self.watcher.as_ref())?;
        let said = self.said.borrow().clone();
        let entry = Entry {
            service: ServiceKey { name: String::new(), group: String::new(), version: String::new() },
            instance: instance(),
            incarnation: said.incarnation,
            application: self.application.clone().unwrap_or_else(host::application),
            addresses,
            labels: said.labels,
            weight: said.weight,
            enabled: said.enabled,
            host: host::this_host(),
            methods: Vec::new(),
            params: BTreeMap::new(),
        };
        let of = |service: &&ServiceDescriptor| Entry {
            service: ServiceKey::of(service),
            methods: MethodPrints::table(service),
            ..entry.clone()
        };
        Ok(services.iter().map(of).collect())
    }

    async fn start(&self, addresses: &[Address], services: &[&ServiceDescriptor]) -> Result<(), RpcError> {
        // It starts now, not when this was made.
        self.handle().change(|_| {});
        let said = self.said.subscribe();
        let opened = self.backends.open(self.namespace.as_deref())?;
        let entries = self.entries(&opened, addresses, services)?;
        let places: Vec<(Arc<dyn Registry>, Arc<Entry>)> = entries
            .into_iter()
            .map(Arc::new)
            .zip(services)
            .flat_map(|(entry, service)| opened.registries.iter().map(move |registry| (named(registry, service), Arc::clone(&entry))))
            .collect();
        let unknown = |(registry, entry): &(Arc<dyn Registry>, Arc<Entry>)| Status {
            registry: registry.describe(),
            service: entry.service.clone(),
            held: false,
            published: 0,
            error: None,
        };
        self.status.send_replace(places.iter().map(unknown).collect());
        let start = |(n, (registry, entry)): (usize, (Arc<dyn Registry>, Arc<Entry>))| {
            let (guard, watcher, status) = (self.guard.clone(), Arc::clone(&self.watcher), self.status.clone());
            let (said, start) = (said.clone(), Instant::now());
            let keeper = Keeper { registry, entry, said, guard, watcher, status, n, start };
            tokio::spawn(keeper.run(self.stop.subscribe()))
        };
        let tasks: Vec<_> = places.into_iter().enumerate().map(start).collect();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
        self.first().await
    }

    /// Waits until each service is acknowledged somewhere, for a while. An error if it is refused everywhere.
    async fn first(&self) -> Result<(), RpcError> {
        let mut status = self.status.subscribe();
        let settled = |all: &Vec<Status>| {
            let services = all.iter().map(|s| &s.service);
            services.clone().all(|service| all.iter().any(|s| s.service == *service && s.held)) || all.iter().all(Status::is_refused)
        };
        let all = match tokio::time::timeout(self.wait, status.wait_for(settled)).await {
            Ok(Ok(all)) => all.clone(),
            _ => return Ok(()),
        };
        let refused = all.iter().filter(|s| s.is_refused()).find_map(|s| s.error.clone());
        match refused {
            Some(error) if all.iter().all(Status::is_refused) => Err(error.with_stage(Stage::Resolve)),
            _ => Ok(()),
        }
    }
}

impl Status {
    /// Whether trying again will hardly help.
    fn is_refused(&self) -> bool {
        !self.held && self.error.as_ref().is_some_and(is_refusal)
    }
}

impl Announce for Registration {
    fn ready<'a>(&'a self, addresses: &'a [Address], services: &'a [&'a ServiceDescriptor]) -> BoxFuture<'a, Result<(), RpcError>> {
        Box::pin(self.start(addresses, services))
    }

    fn leaving(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.stop.send_replace(true);
            let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
            for task in tasks {
                let _ = task.await;
            }
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // A server that did not drain: its leases end by themselves.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
    }
}

/// This process, as an instance of all its services.
fn instance() -> InstanceId {
    let (mut random, mut id) = (Random::seeded(), [0; 16]);
    id[..8].copy_from_slice(&random.any().to_le_bytes());
    id[8..].copy_from_slice(&Random::seeded().any().to_le_bytes());
    InstanceId(id)
}

/// The time in microseconds since 1970, and more than any before.
fn incarnation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    let next = |last: u64| Some(now.max(last + 1));
    LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map_or(now, |last| now.max(last + 1))
}

/// Keeps one entry published at one backend.
struct Keeper {
    registry: Arc<dyn Registry>,
    entry: Arc<Entry>,
    said: watch::Receiver<Said>,
    guard: GuardSettings,
    watcher: Arc<dyn Watcher>,
    status: watch::Sender<Vec<Status>>,
    /// Its place in the status.
    n: usize,
    start: Instant,
}

impl Keeper {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut keeping = Keeping::new(self.guard.clone(), Random::seeded());
        let mut held: Option<Box<dyn Published>> = None;
        while !*stop.borrow_and_update() {
            if self.has_changed() {
                // What is held stays until the new one is there in its place.
                keeping.changed(self.start.elapsed());
            }
            match keeping.poll(self.start.elapsed()) {
                Some(Task::Publish) => {
                    let before = held.take();
                    held = self.publish(&mut keeping).await;
                    drop(before);
                }
                Some(Task::Check) => self.check(&mut keeping, held.as_mut()).await,
                None => self.wait(&mut keeping, &mut held, &mut stop).await,
            }
        }
        if let Some(held) = held {
            let withdrawn = capped(self.guard.call, self.registry.as_ref(), "to withdraw", held.withdraw()).await;
            self.show(false, withdrawn.err());
        }
    }

    /// Takes what the server says of itself by now into the entry; whether it is another.
    fn has_changed(&mut self) -> bool {
        let said = self.said.borrow_and_update();
        if said.incarnation == self.entry.incarnation {
            return false;
        }
        let Said { labels, weight, enabled, incarnation } = said.clone();
        self.entry = Arc::new(Entry { labels, weight, enabled, incarnation, ..Entry::clone(&self.entry) });
        true
    }

    async fn publish(&self, keeping: &mut Keeping) -> Option<Box<dyn Published>> {
        let publishing = self.registry.publish(Arc::clone(&self.entry));
        match capped(self.guard.call, self.registry.as_ref(), "to publish", publishing).await {
            Ok(published) => {
                keeping.published(self.start.elapsed());
                self.watcher.tell(&Event::Published { registry: self.registry.as_ref(), entry: &self.entry });
                self.show(true, None);
                Some(published)
            }
            Err(e) => {
                keeping.failed(self.start.elapsed());
                self.gone(e);
                None
            }
        }
    }

    async fn check(&self, keeping: &mut Keeping, held: Option<&mut Box<dyn Published>>) {
        let Some(held) = held else { return keeping.lost(self.start.elapsed()) };
        let there = capped(self.guard.call, self.registry.as_ref(), "to check", held.check()).await;
        keeping.checked(there.as_ref().ok().copied(), self.start.elapsed());
        if !keeping.is_held() {
            let missing = || RpcError::not_executed(Code::NotFound, "the registry does not have it any more");
            self.gone(there.err().unwrap_or_else(missing));
        }
    }

    /// Until there is something to do, the entry may be lost or changed, or it is time to go.
    async fn wait(&mut self, keeping: &mut Keeping, held: &mut Option<Box<dyn Published>>, stop: &mut watch::Receiver<bool>) {
        let wake = keeping.wake_at();
        let time = std::pin::pin!(async {
            match wake {
                Some(at) => tokio::time::sleep_until((self.start + at).into()).await,
                None => std::future::pending().await,
            }
            None
        });
        let losing = async |held: &mut Option<Box<dyn Published>>| match held {
            Some(held) => Some(held.lost().await),
            None => std::future::pending().await,
        };
        let stopped = std::pin::pin!(async {
            let _ = stop.changed().await;
            None
        });
        let mut said = self.said.clone();
        let changed = std::pin::pin!(async {
            // With its server's registration it will be stopped.
            if said.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            None
        });
        let lost = {
            let losing = std::pin::pin!(losing(held));
            first_of([time, losing, stopped, changed]).await
        };
        if let Some(error) = lost {
            // It would be lost again at once, for as long as it is there.
            *held = None;
            keeping.lost(self.start.elapsed());
            self.gone(error);
        }
    }

    fn gone(&self, error: RpcError) {
        self.watcher.tell(&Event::Unpublished { registry: self.registry.as_ref(), entry: &self.entry, error: &error });
        self.show(false, Some(error));
    }

    fn show(&self, held: bool, error: Option<RpcError>) {
        self.status.send_modify(|all| {
            if let Some(mine) = all.get_mut(self.n) {
                mine.published += u64::from(held);
                (mine.held, mine.error) = (held, error);
            }
        });
    }
}

async fn first_of<T, const N: usize>(mut futures: [Pin<&mut (dyn Future<Output = T> + Send)>; N]) -> T {
    std::future::poll_fn(|cx| {
        let ready = futures.iter_mut().find_map(|future| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
