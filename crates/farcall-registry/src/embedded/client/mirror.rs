//! What a reader knows of a service at one node, kept by the node's pushes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};

use farcall_core::{Code, RpcError, compact};

use crate::embedded::api::{Known, Name, Push};
use crate::embedded::packed::{hash, unpack, unreadable};
use crate::entry::{Entry, EntryKey, InstanceId, MethodPrints, ServiceKey};
use crate::registry::{Completeness, Gone, Listing, Rule, Update};

/// Services whose mirrors are kept after their last reader, so that the next one at the same node gets only what changed.
const KEPT: usize = 256;

/// See the module's text.
#[derive(Debug, Default, Clone)]
pub(crate) struct Mirror {
    epoch: u64,
    revision: u64,
    digest: u64,
    complete: bool,
    entries: HashMap<InstanceId, Seen>,
    rules: Vec<Arc<Rule>>,
    rules_digest: u64,
}

#[derive(Debug, Clone)]
struct Seen {
    entry: Arc<Entry>,
    hash: u64,
    suspect: bool,
}

impl Mirror {
    /// Where it stands.
    pub(crate) fn known(&self) -> Known {
        Known { epoch: self.epoch, revision: self.revision, digest: self.digest }
    }

    pub(crate) fn listing(&self) -> Listing {
        Listing {
            entries: self.entries.values().map(|seen| Arc::clone(&seen.entry)).collect(),
            suspect: self.entries.values().filter(|seen| seen.suspect).map(|seen| seen.entry.key()).collect(),
            rules: self.rules.clone(),
            completeness: if self.complete { Completeness::Complete } else { Completeness::Incomplete },
            revision: self.revision,
            epoch: self.epoch,
        }
    }

    /// Takes a push in; gives what it tells. An error means that something is missing: all of it is to be asked for again.
    pub(crate) fn apply(&mut self, service: &ServiceKey, push: Push) -> Result<Vec<Update>, RpcError> {
        let same_content = push.digest == self.digest && push.put.is_empty() && push.gone.is_empty() && push.suspect.is_empty();
        if push.whole {
            self.entries.clear();
            (self.rules, self.rules_digest) = (Vec::new(), 0);
        } else if !same_content && (push.epoch != self.epoch || push.from > self.revision) {
            return Err(out_of_step("changes are missing"));
        }
        let news = push.complete != self.complete || push.epoch != self.epoch || push.whole;
        (self.epoch, self.revision, self.complete) = (push.epoch, push.to, push.complete);
        let (count, digest) = (push.count as usize, push.digest);
        let mut updates = self.take(service, push)?;
        self.digest = self.entries.values().fold(self.rules_digest, |all, seen| all ^ seen.hash);
        if self.digest != digest || self.entries.len() != count {
            return Err(out_of_step("what came of the changes is not what the node has"));
        }
        if news {
            // A listing does not say why something is not in it any more.
            updates.retain(|update| matches!(update, Update::Gone(..)));
            updates.push(Update::All(self.listing()));
        }
        Ok(updates)
    }

    fn take(&mut self, service: &ServiceKey, push: Push) -> Result<Vec<Update>, RpcError> {
        let mut updates = Vec::new();
        let mut tables: BTreeMap<u32, Vec<MethodPrints>> = BTreeMap::new();
        for packed in &push.put {
            let Some(table) = push.tables.get(packed.table as usize) else {
                return Err(unreadable("an entry", format!("there is no method table {}", packed.table)));
            };
            if let std::collections::btree_map::Entry::Vacant(place) = tables.entry(packed.table) {
                place.insert(compact::decode(&table.bytes).map_err(|e| unreadable("a method table", e))?);
            }
            let (entry, hash) = unpack(service, packed, &table.bytes, &tables[&packed.table])?;
            let entry = Arc::new(entry);
            updates.push(Update::Put(Arc::clone(&entry)));
            updates.extend(packed.suspect.then(|| Update::Suspect(entry.key())));
            self.entries.insert(entry.instance, Seen { entry, hash, suspect: packed.suspect });
        }
        for name in push.suspect {
            if let Some(seen) = self.entries.get_mut(&name.instance).filter(|seen| seen.entry.incarnation == name.incarnation) {
                seen.suspect = true;
                updates.push(Update::Suspect(key(service, name)));
            }
        }
        for leaver in push.gone {
            if self.entries.get(&leaver.name.instance).is_some_and(|seen| seen.entry.incarnation <= leaver.name.incarnation) {
                self.entries.remove(&leaver.name.instance);
            }
            let why = if leaver.withdrawn { Gone::Withdrawn } else { Gone::Expired };
            updates.push(Update::Gone(key(service, leaver.name), why));
        }
        if let Some(rules) = push.rules {
            self.rules_digest = 0;
            for rule in &rules {
                self.rules_digest ^= hash(&compact::encode(rule).map_err(|e| unreadable("a rule", e))?, &[]);
            }
            self.rules = rules.into_iter().map(Arc::new).collect();
            updates.push(Update::Rules(self.rules.clone()));
        }
        Ok(updates)
    }
}

fn key(service: &ServiceKey, name: Name) -> EntryKey {
    EntryKey { service: service.clone(), instance: name.instance, incarnation: name.incarnation }
}

fn out_of_step(why: &str) -> RpcError {
    RpcError::new(Code::DataLoss, format!("a registry node and its reader are out of step ({why}): subscribe again"))
}

/// The mirrors of a backend's readers.
#[derive(Debug, Default)]
pub(super) struct Mirrors(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Of readers that are there.
    live: HashMap<ServiceKey, Weak<Mutex<Mirror>>>,
    /// Of readers that went.
    left: HashMap<ServiceKey, Mirror>,
}

impl Mirrors {
    /// What is known of a service, by any reader.
    pub(super) fn get(&self, service: &ServiceKey) -> Option<Mirror> {
        let known = super::lock(&self.0);
        let live = known.live.get(service).and_then(Weak::upgrade).map(|mirror| super::lock(&mirror).clone());
        live.or_else(|| known.left.get(service).cloned())
    }

    /// A new reader begins with what is known.
    pub(super) fn begin(&self, service: &ServiceKey, mirror: Mirror) -> Arc<Mutex<Mirror>> {
        let mut known = super::lock(&self.0);
        let mirror = Arc::new(Mutex::new(mirror));
        known.left.remove(service);
        known.live.retain(|_, mirror| mirror.strong_count() > 0);
        known.live.insert(service.clone(), Arc::downgrade(&mirror));
        mirror
    }

    /// A reader ends; what it knew may serve the next.
    pub(super) fn end(&self, service: &ServiceKey, mirror: &Arc<Mutex<Mirror>>) {
        let mut known = super::lock(&self.0);
        let own = known.live.get(service).is_some_and(|live| std::ptr::eq(live.as_ptr(), Arc::as_ptr(mirror)));
        if own {
            known.live.remove(service);
        }
        if own && known.left.len() < KEPT {
            let mirror = super::lock(mirror).clone();
            known.left.insert(service.clone(), mirror);
        }
    }
}
