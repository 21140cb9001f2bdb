//! A directory as the resolver of a channel: which instance it connects to, what it leaves, what it is told.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farcall_core::{Code, Endpoint, RpcError, ServiceDescriptor, Stage};
use farcall_rpc::{Fate, Resolver};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::directory::{Directory, is_refused};
use crate::fit::{Asking, Fit, Fits};
use crate::guard::{Instance, Random, Reach};
use crate::order::{self, Place};
use crate::registry::BoxFuture;
use crate::watcher::{Event, Watcher};

/// How long a connection attempt waits to hear whether instances with another method table fit, if there is no other.
const JUDGING: Duration = Duration::from_secs(3);
/// How long an attempt waits for the registries if it knows no more than the cache file: it is tried first where they take longer.
const HEARING: Duration = Duration::from_millis(100);
/// The most instances that an error names.
const MOST_NAMED: usize = 8;

/// See the module's text.
pub(crate) struct Discovered(Arc<Shared>);

struct Shared {
    directory: Directory,
    fits: Fits,
    place: Place,
    random: Mutex<Random>,
    wait: Duration,
    /// A provider was reached once: the list is not older than everybody in it.
    met: AtomicBool,
    watcher: Arc<dyn Watcher>,
    /// Grows with every table that was asked for.
    judged: watch::Sender<u64>,
    again: Mutex<Vec<Box<dyn Fn() -> bool + Send + Sync>>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Drop for Discovered {
    fn drop(&mut self) {
        if let Some(task) = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Discovered {
    pub(crate) fn new(
        directory: Directory,
        service: &'static ServiceDescriptor,
        place: Place,
        wait: Duration,
        watcher: Arc<dyn Watcher>,
    ) -> Discovered {
        let shared = Arc::new(Shared {
            directory,
            fits: Fits::of(service),
            place,
            random: Mutex::new(Random::seeded()),
            wait,
            met: AtomicBool::new(false),
            watcher,
            judged: watch::Sender::new(0),
            again: Mutex::default(),
            task: Mutex::default(),
        });
        Discovered(shared)
    }

    /// What starts it, once it is known how to connect to instances that are to be asked.
    pub(crate) fn beginning(&self) -> impl FnOnce(Asking) + use<> {
        let shared = Arc::clone(&self.0);
        move |asking| {
            shared.fits.ask_over(asking);
            let task = farcall_rpc::runtime_handle().spawn(follow(Arc::clone(&shared)));
            *shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        }
    }
}

/// Acts on every change: asks for tables that are not known, lets channels look again.
async fn follow(shared: Arc<Shared>) {
    let (mut seen, mut judged) = (shared.directory.watch(), shared.judged.subscribe());
    loop {
        shared.ask_for_tables();
        shared.look_again();
        let changed = std::pin::pin!(async { seen.changed().await.is_ok() });
        let answered = std::pin::pin!(async { judged.changed().await.is_ok() });
        if !either(changed, answered).await {
            return;
        }
    }
}

async fn either<T>(mut a: impl Future<Output = T> + Unpin, mut b: impl Future<Output = T> + Unpin) -> T {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut a).poll(cx) {
        std::task::Poll::Pending => std::pin::Pin::new(&mut b).poll(cx),
        ready => ready,
    })
    .await
}

impl Shared {
    fn ask_for_tables(self: &Arc<Shared>) {
        for instance in self.directory.instances().iter().filter(|i| i.entry.is_callable()) {
            if self.fits.is_to_be_asked(&instance.entry) {
                let (shared, entry) = (Arc::clone(self), Arc::clone(&instance.entry));
                tokio::spawn(async move {
                    shared.fits.ask(&entry).await;
                    if let (Fit::Not(why) | Fit::Partly(why), _) = shared.fits.fit(&entry) {
                        shared.watcher.tell(&Event::Misfit { entry: &entry, why: &why });
                    }
                    shared.judged.send_modify(|n| *n += 1);
                });
            }
        }
    }

    fn look_again(&self) {
        let mut again = std::mem::take(&mut *self.again.lock().unwrap_or_else(PoisonError::into_inner));
        again.retain(|again| again());
        self.again.lock().unwrap_or_else(PoisonError::into_inner).append(&mut again);
    }

    async fn resolve(self: Arc<Shared>) -> Result<Vec<Endpoint>, RpcError> {
        self.directory.first(self.wait).await?;
        let mut seen = self.directory.watch();
        let _ = tokio::time::timeout(HEARING, seen.wait_for(|seen| seen.answered)).await;
        let mut judged = self.judged.subscribe();
        let (found, open) = self.look(false);
        if found.is_ok() || !open {
            return found;
        }
        // All have other tables: what can be said of them is worth waiting for, and if it is nothing they are tried.
        let known = async { while self.look(false).1 && judged.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(JUDGING, known).await;
        self.look(true).0
    }

    /// What the registries know beyond what was tried. As long as nobody was reached, they are waited for until they have told all there
    /// is: a cache file may be older than everybody in it. Later on, callers should rather hear soon that nobody answers.
    async fn others(self: Arc<Shared>, tried: &[Endpoint]) -> Vec<Endpoint> {
        let others = || {
            let mut found = self.look(true).0.unwrap_or_default();
            found.retain(|endpoint| !tried.contains(endpoint));
            found
        };
        if self.met.load(Relaxed) {
            return others();
        }
        let mut seen = self.directory.watch();
        let done = seen.wait_for(|seen| seen.known || self.directory.is_unheard() || !others().is_empty());
        let _ = tokio::time::timeout(self.wait, done).await;
        others()
    }

    /// Whether an instance that is not doubted understands all calls.
    fn has_whole(&self) -> bool {
        let instances = self.directory.instances();
        let mut sure = instances.iter().filter(|i| !i.suspect && i.entry.is_callable() && order::is_reachable(&i.entry, &self.place));
        sure.any(|i| matches!(self.fits.fit(&i.entry), (Fit::Same | Fit::Fits, false)))
    }

    /// The endpoints, the best first, `all` those included of which is not known whether they fit though it will be soon; and whether
    /// there are such.
    fn look(&self, all: bool) -> (Result<Vec<Endpoint>, RpcError>, bool) {
        let instances = self.directory.instances();
        let callable = instances.iter().filter(|i| i.entry.is_callable() && order::is_reachable(&i.entry, &self.place));
        let judged: Vec<(&Instance, Fit, bool)> = callable
            .map(|instance| {
                let (fit, open) = self.fits.fit(&instance.entry);
                (instance, fit, open)
            })
            .collect();
        let open = judged.iter().any(|(_, _, open)| *open);
        let sure = judged.iter().any(|(_, fit, open)| !open && fit.rank() < Fit::Partly("".into()).rank());
        let fitting =
            judged.iter().filter(|(_, fit, open)| !matches!(fit, Fit::Not(_)) && (sure || all || !*open)).map(|(i, fit, _)| (*i, fit));
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = order::endpoints(fitting, &self.place, &mut random);
        match endpoints.is_empty() {
            false => (Ok(endpoints), open),
            true if judged.is_empty() => (Err(self.nobody(&instances)), false),
            true => (Err(self.nobody_fits(&judged)), open),
        }
    }

    fn nobody(&self, instances: &[Instance]) -> RpcError {
        let off = instances.iter().filter(|i| !i.entry.is_callable()).count();
        let why = match (instances.len(), off) {
            (0, _) => "no provider is registered: is one running, with the same registry, namespace, group and version?".to_owned(),
            (n, off) if n == off => format!("{n} providers are registered, and all are disabled or have weight 0"),
            (n, _) => format!("none of the {n} providers that are registered has an address that this program reaches from here"),
        };
        RpcError::not_sent(Code::Unavailable, format!("{}: {why}", self.directory.named())).with_stage(Stage::Resolve)
    }

    fn nobody_fits(&self, judged: &[(&Instance, Fit, bool)]) -> RpcError {
        let named = judged.iter().take(MOST_NAMED).map(|(instance, fit, _)| {
            let address = instance.entry.addresses.first().map_or("?", |a| a.address.as_str());
            match fit {
                Fit::Not(why) | Fit::Partly(why) => format!("{address}: {why}"),
                _ => format!("{address}: it has another method table, and has not said yet what it serves"),
            }
        });
        let mut named: Vec<String> = named.collect();
        if judged.len() > MOST_NAMED {
            named.push(format!("and {} more", judged.len() - MOST_NAMED));
        }
        let why = format!("{}: no provider understands this program: {}", self.directory.named(), named.join(" | "));
        RpcError::not_sent(Code::FailedPrecondition, why).with_stage(Stage::Resolve)
    }
}

impl Resolver for Discovered {
    fn resolve(&self) -> BoxFuture<'_, Result<Vec<Endpoint>, RpcError>> {
        Box::pin(Arc::clone(&self.0).resolve())
    }

    fn others<'a>(&'a self, tried: &'a [Endpoint]) -> BoxFuture<'a, Vec<Endpoint>> {
        Box::pin(Arc::clone(&self.0).others(tried))
    }

    fn describe(&self) -> String {
        self.0.directory.named()
    }

    fn tell(&self, endpoint: &Endpoint, fate: Fate<'_>) {
        let Some((instance, incarnation)) = order::instance_of(endpoint) else { return };
        let reach = match fate {
            Fate::Connected => {
                self.0.met.store(true, Relaxed);
                Reach::Answered
            }
            // A local path that does not work says nothing of the instance: its other address is next.
            Fate::Failed(_) if matches!(endpoint.address, farcall_core::Address::Unix(_)) && self.has_tcp(instance) => return,
            Fate::Failed(e) if is_refused(e) => Reach::Refused,
            Fate::Failed(_) | Fate::Lost => Reach::Silent,
        };
        self.0.directory.reached(instance, incarnation, reach);
    }

    fn keeps(&self, endpoint: &Endpoint) -> bool {
        let Some((instance, _)) = order::instance_of(endpoint) else { return true };
        let instances = self.0.directory.instances();
        let found = instances.iter().find(|i| i.entry.instance == instance);
        found.is_some_and(|i| {
            i.entry.is_callable()
                && match self.0.fits.fit(&i.entry).0 {
                    Fit::Same | Fit::Fits => true,
                    // Better than nothing, until there is one that understands the rest.
                    Fit::Partly(_) => !self.0.has_whole(),
                    Fit::Not(_) => false,
                }
        })
    }

    fn on_change(&self, again: Box<dyn Fn() -> bool + Send + Sync>) {
        self.0.again.lock().unwrap_or_else(PoisonError::into_inner).push(again);
    }
}

impl Discovered {
    fn has_tcp(&self, instance: crate::InstanceId) -> bool {
        let instances = self.0.directory.instances();
        let found = instances.iter().find(|i| i.entry.instance == instance);
        found.is_some_and(|i| order::addresses(&i.entry).any(|a| !matches!(a, farcall_core::Address::Unix(_))))
    }
}
