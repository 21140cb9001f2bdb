//! `PaymentClient::discover("farcall://…")`: a client whose providers are found by the name of its service.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::{CodecId, Limits, RpcError};
use farcall_rpc::{Connect, Observer, Stub};

use crate::backends::Backends;
use crate::cache::Cache;
use crate::directory::{Directory, DirectorySettings};
use crate::discovered::Discovered;
use crate::entry::ServiceKey;
use crate::guard::GuardSettings;
use crate::host;
use crate::named::named;
use crate::order::Place;
use crate::registry::{BoxFuture, Consumer};
use crate::watcher::{Quiet, Watcher};

/// How long a first list is waited for unless it is set.
const WAIT: Duration = Duration::from_secs(3);

/// Clients that find their providers by the name of their service. All generated clients do.
pub trait Discover: Stub {
    /// Looks for providers at registries: `"farcall://10.0.0.1:7400"`, or several URLs separated by commas, whose lists are united.
    ///
    /// ```no_run
    /// # async fn run<PaymentClient: farcall_registry::Discover>() -> Result<(), farcall_rpc::RpcError> {
    /// let payment = PaymentClient::discover("farcall://10.0.0.1:7400,10.0.0.2:7400").application("shop").await?;
    /// # Ok(())
    /// # }
    /// ```
    fn discover(registries: impl Into<Backends>) -> Discovering<Self> {
        Discovering::new(registries.into())
    }
}

impl<C: Stub> Discover for C {}

type Tune<C> = Box<dyn FnOnce(Connect<C>) -> Connect<C> + Send>;

/// A client that is being found providers for: await it, or `wait()` for it without a runtime.
///
/// It fails if no provider can be reached now: none is registered, or no registry answers and there is no cached list. Later on, what
/// the registries say is followed, and when they say nothing the list stays as it is.
#[must_use = "it does nothing until it is awaited or waited for"]
pub struct Discovering<C> {
    backends: Backends,
    application: Option<String>,
    namespace: Option<String>,
    zone: Option<String>,
    cache: Option<Option<PathBuf>>,
    guard: GuardSettings,
    wait: Duration,
    watcher: Arc<dyn Watcher>,
    tune: Vec<Tune<C>>,
    client: PhantomData<fn() -> C>,
}

impl<C: Stub> Discovering<C> {
    fn new(backends: Backends) -> Discovering<C> {
        Discovering {
            backends,
            application: None,
            namespace: None,
            zone: None,
            cache: None,
            guard: GuardSettings::default(),
            wait: WAIT,
            watcher: Arc::new(Quiet),
            tune: Vec::new(),
            client: PhantomData,
        }
    }

    /// The application that this program is, for registries that record consumers and for the cache file. Default:
    /// `$FARCALL_APPLICATION`, or the name of the program's file.
    pub fn application(mut self, name: impl Into<String>) -> Self {
        self.application = Some(name.into());
        self
    }

    /// The namespace to look in, for URLs that name none. Default: the registry's own.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = Some(name.into());
        self
    }

    /// The zone of this program: instances whose label `zone` says the same are preferred.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// The folder of the cache file. Default: [`Cache::default_folder`].
    pub fn cache_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(Some(folder.into()));
        self
    }

    /// Keeps no cache file: a program that starts while no registry answers finds nobody.
    pub fn without_cache(mut self) -> Self {
        self.cache = Some(None);
        self
    }

    /// Other times and limits than the default ones.
    pub fn guard(mut self, settings: GuardSettings) -> Self {
        self.guard = settings;
        self
    }

    /// How often the list is compared with the registries'. Default 30 s: see [`GuardSettings::pull`].
    pub fn pull_every(mut self, time: Duration) -> Self {
        self.guard.pull = time;
        self
    }

    /// How long the first list is waited for, if there is none in the cache file. Default 3 s.
    pub fn wait_for_first(mut self, time: Duration) -> Self {
        self.wait = time;
        self
    }

    /// Tells `watcher` what happens.
    pub fn watch(mut self, watcher: Arc<dyn Watcher>) -> Self {
        self.watcher = watcher;
        self
    }

    /// As [`Connect::limits`].
    pub fn limits(self, limits: Limits) -> Self {
        self.connect(|c| c.limits(limits))
    }

    /// As [`Connect::default_deadline`].
    pub fn default_deadline(self, deadline: impl Into<Option<Duration>>) -> Self {
        let deadline = deadline.into();
        self.connect(move |c| c.default_deadline(deadline))
    }

    /// As [`Connect::connections`]. Each connection goes to an instance of its own draw.
    pub fn connections(self, connections: usize) -> Self {
        self.connect(move |c| c.connections(connections))
    }

    /// As [`Connect::default_codec`].
    pub fn default_codec(self, codec: CodecId) -> Self {
        self.connect(move |c| c.default_codec(codec))
    }

    /// As [`Connect::observe`].
    pub fn observe(self, observer: Arc<dyn Observer>) -> Self {
        self.connect(|c| c.observe(observer))
    }

    /// Whatever else can be set of a client that connects.
    pub fn connect(mut self, tune: impl FnOnce(Connect<C>) -> Connect<C> + Send + 'static) -> Self {
        self.tune.push(Box::new(tune));
        self
    }

    /// Blocks until found. For programs and threads without a runtime; inside of one it is an error.
    pub fn wait(self) -> Result<C, RpcError> {
        self.connecting()?.0.wait()
    }

    /// A client that looks from now on and connects at its first call.
    pub fn lazy(self) -> Result<C, RpcError> {
        self.connecting()?.0.lazy()
    }

    /// As awaited, with the directory that the client finds its providers in.
    pub async fn with_directory(self) -> Result<(C, Directory), RpcError> {
        let (connect, directory) = self.connecting()?;
        Ok((connect.await?, directory))
    }

    fn connecting(self) -> Result<(Connect<C>, Directory), RpcError> {
        let opened = self.backends.open(self.namespace.as_deref())?;
        let service = ServiceKey::of(C::descriptor());
        let application = self.application.unwrap_or_else(host::application);
        let folder = self.cache.unwrap_or_else(Cache::default_folder);
        let registries = opened.registries.iter().map(|r| r.describe()).collect::<Vec<_>>().join(",");
        let namespace = self.namespace.as_deref().unwrap_or_default();
        let cache = folder.map(|folder| Cache::open(&folder, &application, namespace, &registries, &service));
        let consumer = Consumer { application, host: format!("{}/{}", host::host_name(), std::process::id()) };
        let directory = Directory::open(DirectorySettings {
            service,
            registries: opened.registries.iter().map(|registry| named(registry, C::descriptor())).collect(),
            consumer: Some(consumer),
            guard: self.guard,
            cache,
            watcher: Arc::clone(&self.watcher),
        });
        let place = Place { host: host::this_host(), zone: self.zone };
        let discovered = Discovered::new(directory.clone(), C::descriptor(), place, self.wait, self.watcher);
        let begin = discovered.beginning();
        let connect = self.tune.into_iter().fold(Connect::with_resolver(discovered), |connect, tune| tune(connect));
        begin(Box::new(connect.alike()));
        Ok((connect, directory))
    }
}

impl<C: Stub> IntoFuture for Discovering<C> {
    type Output = Result<C, RpcError>;
    type IntoFuture = BoxFuture<'static, Result<C, RpcError>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async { self.connecting()?.0.await })
    }
}
