//! A backend that calls a service otherwise than we do: a Java interface in Dubbo's layout. The names are changed on the way.

use std::sync::Arc;

use farcall_core::{RpcError, ServiceDescriptor};

use crate::entry::{Entry, EntryKey, ServiceKey};
use crate::registry::{BoxFuture, Consumer, Listing, Published, Registry, Rule, ServiceSummary, Update, Updates};

/// The backend, as one that calls this service what we call it.
pub(crate) fn named(registry: &Arc<dyn Registry>, service: &ServiceDescriptor) -> Arc<dyn Registry> {
    let names = Names { ours: ServiceKey::of(service), theirs: registry.key_of(service) };
    match names.ours == names.theirs {
        true => Arc::clone(registry),
        false => Arc::new(Named { registry: Arc::clone(registry), names }),
    }
}

#[derive(Clone)]
struct Names {
    ours: ServiceKey,
    theirs: ServiceKey,
}

impl Names {
    fn to_theirs(&self, key: &ServiceKey) -> ServiceKey {
        if *key == self.ours { self.theirs.clone() } else { key.clone() }
    }

    /// Also an entry of a group or version that was not named exactly.
    fn to_ours(&self, key: &mut ServiceKey) {
        if key.name == self.theirs.name {
            key.name.clone_from(&self.ours.name);
        }
    }

    fn entry(&self, entry: &mut Arc<Entry>) {
        self.to_ours(&mut Arc::make_mut(entry).service);
    }

    fn key(&self, key: &mut EntryKey) {
        self.to_ours(&mut key.service);
    }

    fn rules(&self, rules: &mut [Arc<Rule>]) {
        rules.iter_mut().for_each(|rule| self.to_ours(&mut Arc::make_mut(rule).service));
    }

    fn listing(&self, mut listing: Listing) -> Listing {
        listing.entries.iter_mut().for_each(|entry| self.entry(entry));
        listing.suspect.iter_mut().for_each(|key| self.key(key));
        self.rules(&mut listing.rules);
        listing
    }

    fn update(&self, update: Update) -> Update {
        match update {
            Update::All(listing) => Update::All(self.listing(listing)),
            Update::Put(mut entry) => {
                self.entry(&mut entry);
                Update::Put(entry)
            }
            Update::Suspect(mut key) => {
                self.key(&mut key);
                Update::Suspect(key)
            }
            Update::Gone(mut key, how) => {
                self.key(&mut key);
                Update::Gone(key, how)
            }
            Update::Rules(mut rules) => {
                self.rules(&mut rules);
                Update::Rules(rules)
            }
        }
    }
}

struct Named {
    registry: Arc<dyn Registry>,
    names: Names,
}

struct NamedUpdates {
    updates: Box<dyn Updates>,
    names: Names,
}

impl Updates for NamedUpdates {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RpcError>> {
        Box::pin(async { Ok(self.names.update(self.updates.next().await?)) })
    }
}

impl Registry for Named {
    fn describe(&self) -> String {
        self.registry.describe()
    }

    fn publish(&self, mut entry: Arc<Entry>) -> BoxFuture<'_, Result<Box<dyn Published>, RpcError>> {
        let service = self.names.to_theirs(&entry.service);
        Arc::make_mut(&mut entry).service = service;
        self.registry.publish(entry)
    }

    fn list(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Listing, RpcError>> {
        let service = self.names.to_theirs(service);
        Box::pin(async move { Ok(self.names.listing(self.registry.list(&service).await?)) })
    }

    fn subscribe(&self, service: &ServiceKey, as_consumer: Option<Consumer>) -> BoxFuture<'_, Result<Box<dyn Updates>, RpcError>> {
        let service = self.names.to_theirs(service);
        Box::pin(async move {
            let updates = self.registry.subscribe(&service, as_consumer).await?;
            Ok(Box::new(NamedUpdates { updates, names: self.names.clone() }) as Box<dyn Updates>)
        })
    }

    fn services(&self) -> BoxFuture<'_, Result<Vec<ServiceSummary>, RpcError>> {
        self.registry.services()
    }

    fn consumers(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Vec<Consumer>, RpcError>> {
        let service = self.names.to_theirs(service);
        Box::pin(async move { self.registry.consumers(&service).await })
    }

    fn write_rule(&self, mut rule: Rule) -> BoxFuture<'_, Result<(), RpcError>> {
        rule.service = self.names.to_theirs(&rule.service);
        self.registry.write_rule(rule)
    }
}
