//! The instances of a service as their nodes' names say, and what changes when these do.

use std::collections::BTreeMap;
use std::sync::Arc;

use farcall_core::{Code, RpcError};

use crate::dubbo::entry_of_node;
use crate::entry::{Entry, EntryKey, ServiceKey};
use crate::registry::{Gone, Update};

/// Most nodes of one service that are read; what is beyond is passed over.
pub(crate) const MAX_NODES: usize = 100_000;

/// The nodes of a service that stand for instances of it.
#[derive(Debug)]
pub(crate) struct View {
    wanted: ServiceKey,
    nodes: BTreeMap<String, Arc<Entry>>,
}

impl View {
    /// Of this service, without nodes.
    pub(crate) fn new(wanted: ServiceKey) -> View {
        View { wanted, nodes: BTreeMap::new() }
    }

    /// All there is.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.nodes.values().cloned().collect()
    }

    /// These are the nodes now, whatever was before.
    pub(crate) fn replace(&mut self, names: impl IntoIterator<Item = String>) {
        let mut old = std::mem::take(&mut self.nodes);
        for name in names.into_iter().take(MAX_NODES) {
            if let Some(entry) = old.remove(&name).or_else(|| self.read(&name)) {
                self.nodes.insert(name, entry);
            }
        }
    }

    /// These are the nodes now: what changed since.
    pub(crate) fn change(&mut self, names: Vec<String>) -> Vec<Update> {
        let old: Vec<String> = self.nodes.keys().cloned().collect();
        let now: std::collections::BTreeSet<&String> = names.iter().collect();
        let gone: Vec<&String> = old.iter().filter(|name| !now.contains(name)).collect();
        // First what came: an instance whose node has another name now is never away.
        let mut updates: Vec<Update> = names.iter().filter_map(|name| self.put(name)).collect();
        updates.extend(gone.into_iter().filter_map(|name| self.gone(name, Gone::Unsaid)));
        updates
    }

    /// A node came.
    pub(crate) fn put(&mut self, name: &str) -> Option<Update> {
        if self.nodes.contains_key(name) || self.nodes.len() >= MAX_NODES {
            return None;
        }
        let entry = self.read(name)?;
        self.nodes.insert(name.to_owned(), entry.clone());
        Some(Update::Put(entry))
    }

    /// A node went.
    pub(crate) fn gone(&mut self, name: &str, how: Gone) -> Option<Update> {
        let key = self.nodes.remove(name)?.key();
        match self.twin(&key) {
            // The same instance stands there under another name, with other labels: that is what it is now.
            Some(twin) => Some(Update::Put(twin)),
            None => Some(Update::Gone(key, how)),
        }
    }

    fn twin(&self, key: &EntryKey) -> Option<Arc<Entry>> {
        self.nodes.values().find(|entry| entry.instance == key.instance && entry.key() == *key).cloned()
    }

    /// What does not read, or is another group's or version's, is not ours to show.
    fn read(&self, name: &str) -> Option<Arc<Entry>> {
        let entry = entry_of_node(name).ok()?;
        self.wanted.covers(&entry.service).then(|| Arc::new(entry))
    }
}

/// Of the nodes of a service, those that the node of an entry takes the place of: of the same instance, the same or earlier starts.
/// Fails if there is one of a later start.
pub(crate) fn earlier(names: impl IntoIterator<Item = String>, entry: &Entry, node: &str) -> Result<Vec<String>, RpcError> {
    let mut old = Vec::new();
    for name in names.into_iter().filter(|name| name != node) {
        let Ok(other) = entry_of_node(&name) else { continue };
        if other.instance != entry.instance || other.service != entry.service {
            continue;
        }
        if other.incarnation > entry.incarnation {
            let (later, this) = (other.incarnation, entry.incarnation);
            let text = format!("{}: a later start of instance {} is registered ({later}, this is {this})", entry.service, entry.instance);
            return Err(RpcError::not_executed(Code::FailedPrecondition, text));
        }
        old.push(name);
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dubbo::node_name;
    use crate::entry::InstanceId;

    fn entry(instance: u8, zone: &str) -> Entry {
        let node = format!(
            "farcall%3A%2F%2F10.0.0.1%3A{instance}%2Fa.B%3Finterface%3Da.B%26farcall.incarnation%3D1%26farcall.instance%3D{}",
            "A".repeat(22)
        );
        let mut entry = entry_of_node(&node).unwrap();
        entry.instance = InstanceId([instance; 16]);
        entry.labels.insert("zone".into(), zone.into());
        entry
    }

    fn node(instance: u8, zone: &str) -> String {
        node_name(&entry(instance, zone)).unwrap()
    }

    fn view() -> View {
        View::new(ServiceKey { name: "a.B".into(), group: String::new(), version: String::new() })
    }

    #[test]
    fn changes_are_told_and_junk_is_not() {
        let mut view = view();
        view.replace([node(1, "a"), "junk".into()]);
        let updates = view.change(vec!["%zz".into(), node(2, "a"), node(1, "a")]);
        assert!(matches!(&updates[..], [Update::Put(e)] if e.instance == InstanceId([2; 16])), "{updates:?}");
        let updates = view.change(vec![node(2, "a")]);
        assert!(matches!(&updates[..], [Update::Gone(key, Gone::Unsaid)] if key.instance == InstanceId([1; 16])), "{updates:?}");
        assert_eq!(view.entries().len(), 1);
    }

    #[test]
    fn an_instance_that_changed_is_never_away() {
        let mut view = view();
        view.replace([node(1, "a")]);
        let updates = view.change(vec![node(1, "b")]);
        let zones: Vec<_> = updates.iter().map(|u| matches!(u, Update::Put(e) if e.labels["zone"] == "b")).collect();
        assert_eq!(zones, [true, true], "{updates:?}");
    }

    #[test]
    fn other_groups_are_not_shown() {
        let mut view = View::new(ServiceKey { name: "a.B".into(), group: "eu".into(), version: "*".into() });
        assert!(view.put(&node(1, "a")).is_none());
        let mut grouped = entry(1, "a");
        (grouped.service.group, grouped.service.version) = ("eu".into(), "7".into());
        assert!(view.put(&node_name(&grouped).unwrap()).is_some());
    }
}
