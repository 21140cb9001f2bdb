//! A registry inside the process, for tests and for programs whose services are all in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farcall_core::{Code, RpcError};
use tokio::sync::mpsc;

use crate::entry::{Entry, EntryKey, InstanceId, ServiceKey};
use crate::registry::{BoxFuture, Completeness, Consumer, Gone, Listing, Published, Registry, Rule, ServiceSummary, Update, Updates};

/// Changes that a subscriber may be behind; one that is further behind is told all there is.
const BEHIND: usize = 1024;

/// See the module's text. Clones are the same registry.
///
/// An entry whose publication is dropped expires at once.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    services: BTreeMap<ServiceKey, Service>,
    revision: u64,
    publications: u64,
}

#[derive(Default)]
struct Service {
    /// With the number of its publication.
    entries: BTreeMap<InstanceId, (u64, Arc<Entry>)>,
    rules: Vec<Arc<Rule>>,
    subscribers: Vec<(Option<Consumer>, mpsc::Sender<Update>)>,
}

impl Service {
    fn listing(&self, revision: u64) -> Listing {
        Listing {
            entries: self.entries.values().map(|(_, entry)| Arc::clone(entry)).collect(),
            suspect: Vec::new(),
            rules: self.rules.clone(),
            completeness: Completeness::Complete,
            revision,
            epoch: 1,
        }
    }

    fn tell(&mut self, update: &Update) {
        // One that is too far behind loses its subscription, and subscribes again.
        self.subscribers.retain(|(_, subscriber)| subscriber.try_send(update.clone()).is_ok());
    }
}

impl Memory {
    /// An empty one.
    pub fn new() -> Memory {
        Memory::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a service and tells its subscribers.
    fn change(&self, service: &ServiceKey, change: impl FnOnce(&mut Service, u64) -> Option<Update>) {
        let mut state = self.lock();
        let publication = state.publications;
        let known = state.services.entry(service.clone()).or_default();
        if let Some(update) = change(known, publication) {
            known.tell(&update);
            state.revision += 1;
        }
    }

    fn remove(&self, key: &EntryKey, publication: u64, why: Gone) {
        self.change(&key.service, |service, _| {
            service.entries.get(&key.instance).filter(|(number, _)| *number == publication)?;
            service.entries.remove(&key.instance);
            Some(Update::Gone(key.clone(), why))
        });
    }
}

impl Registry for Memory {
    fn describe(&self) -> String {
        "a registry in this process".to_owned()
    }

    fn publish(&self, entry: Arc<Entry>) -> BoxFuture<'_, Result<Box<dyn Published>, RpcError>> {
        Box::pin(async move {
            let key = entry.key();
            self.lock().publications += 1;
            let mut publication =
                Err(RpcError::not_executed(Code::AlreadyExists, format!("{} has a later incarnation here", key.instance)));
            self.change(&key.service, |service, number| {
                if service.entries.get(&key.instance).is_some_and(|(_, there)| there.incarnation > key.incarnation) {
                    return None;
                }
                publication = Ok(number);
                service.entries.insert(key.instance, (number, Arc::clone(&entry)));
                Some(Update::Put(Arc::clone(&entry)))
            });
            let held = Held { registry: self.clone(), key, publication: publication? };
            Ok(Box::new(held) as Box<dyn Published>)
        })
    }

    fn list(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Listing, RpcError>> {
        let state = self.lock();
        let listing = state.services.get(service).map_or_else(|| Service::default().listing(state.revision), |s| s.listing(state.revision));
        Box::pin(std::future::ready(Ok(listing)))
    }

    fn subscribe(&self, service: &ServiceKey, as_consumer: Option<Consumer>) -> BoxFuture<'_, Result<Box<dyn Updates>, RpcError>> {
        let (tell, told) = mpsc::channel(BEHIND);
        let mut state = self.lock();
        let revision = state.revision;
        let known = state.services.entry(service.clone()).or_default();
        let _ = tell.try_send(Update::All(known.listing(revision)));
        known.subscribers.push((as_consumer, tell));
        Box::pin(std::future::ready(Ok(Box::new(Told(told)) as Box<dyn Updates>)))
    }

    fn services(&self) -> BoxFuture<'_, Result<Vec<ServiceSummary>, RpcError>> {
        let state = self.lock();
        let summary = |(key, service): (&ServiceKey, &Service)| ServiceSummary {
            service: key.clone(),
            entries: service.entries.len() as u64,
            consumers: service.subscribers.iter().filter(|(c, tell)| c.is_some() && !tell.is_closed()).count() as u64,
        };
        Box::pin(std::future::ready(Ok(state.services.iter().map(summary).collect())))
    }

    fn consumers(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Vec<Consumer>, RpcError>> {
        let state = self.lock();
        let all = state.services.get(service).into_iter().flat_map(|s| &s.subscribers);
        let consumers = all.filter(|(_, tell)| !tell.is_closed()).filter_map(|(consumer, _)| consumer.clone()).collect();
        Box::pin(std::future::ready(Ok(consumers)))
    }

    fn write_rule(&self, rule: Rule) -> BoxFuture<'_, Result<(), RpcError>> {
        self.change(&rule.service.clone(), |service, _| {
            service.rules.retain(|known| (&known.kind, &known.name) != (&rule.kind, &rule.name));
            if !rule.body.is_empty() {
                service.rules.push(Arc::new(rule));
            }
            Some(Update::Rules(service.rules.clone()))
        });
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Told(mpsc::Receiver<Update>);

impl Updates for Told {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RpcError>> {
        Box::pin(async {
            self.0.recv().await.ok_or_else(|| RpcError::not_executed(Code::Unavailable, "the subscriber was too far behind"))
        })
    }
}

struct Held {
    registry: Memory,
    key: EntryKey,
    publication: u64,
}

impl Published for Held {
    fn lost(&mut self) -> BoxFuture<'_, RpcError> {
        Box::pin(std::future::pending())
    }

    fn check(&mut self) -> BoxFuture<'_, Result<bool, RpcError>> {
        let state = self.registry.lock();
        let there = state.services.get(&self.key.service).and_then(|s| s.entries.get(&self.key.instance));
        let is_ours = there.is_some_and(|(publication, _)| *publication == self.publication);
        Box::pin(std::future::ready(Ok(is_ours)))
    }

    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), RpcError>> {
        self.registry.remove(&self.key, self.publication, Gone::Withdrawn);
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.registry.remove(&self.key, self.publication, Gone::Expired);
    }
}
