//! What of the state goes to disk, and what is made of it after a start: entries that nobody has confirmed yet.

use std::time::Instant;

use farcall_core::{RpcError, compact};

use super::topic::{Record, TableIndex};
use super::{State, check, topic_key};
use crate::embedded::api::{Body, Moment, Name, Packed, Table};
use crate::embedded::packed::{Stored, unreadable};
use crate::entry::ServiceKey;
use farcall_core::data;

/// A service with its entries.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Saved {
    namespace: String,
    service: ServiceKey,
    tables: Vec<Table>,
    entries: Vec<Packed>,
}

impl State {
    /// All topics with entries, if anything changed since this was asked the last time.
    pub(crate) fn take_unsaved(&mut self) -> Option<Vec<Saved>> {
        if !std::mem::take(&mut self.unsaved) {
            return None;
        }
        let of = |t: &super::Topic| {
            let mut tables = TableIndex::default();
            let entries: Vec<Packed> = t.records().map(|record| tables.pack(record)).collect();
            Saved { namespace: t.key.namespace.to_string(), service: t.key.service.clone(), tables: tables.tables, entries }
        };
        Some(self.topics.values().map(of).filter(|saved| !saved.entries.is_empty()).collect())
    }

    /// It could not be saved.
    pub(crate) fn not_saved(&mut self) {
        self.unsaved = true;
    }

    /// Entries of before the start: served at once, as suspect, and to be confirmed within a lease.
    pub(crate) fn load(&mut self, now: Instant, saved: Saved) -> Result<(), RpcError> {
        check::name("namespace", &saved.namespace, &self.limits)?;
        check::service(&saved.service, &self.limits)?;
        let topic = self.topic_of(topic_key(&saved.namespace, &saved.service))?;
        for packed in saved.entries {
            let Some(table) = saved.tables.get(packed.table as usize) else {
                return Err(unreadable("an entry", format!("there is no method table {}", packed.table)));
            };
            let body: Body = compact::decode(&packed.body).map_err(|e| unreadable("an entry", e))?;
            let name = Name { instance: body.instance, incarnation: body.incarnation };
            let mut stored = Stored::from_bytes(name, packed.body, table.bytes.clone());
            if self.entries >= self.limits.entries || self.bytes + stored.cost() > self.limits.bytes {
                return Err(check::full("entries", self.limits.entries, "entries at this node"));
            }
            stored.table = self.tables.shared(stored.table);
            self.loose.insert((topic, name.instance), self.expiry.clock() + self.limits.lease);
            self.place(topic, Record { stored, session: None, suspect: true, peers: 0, since: Moment::default(), owner: None });
        }
        self.changed(now, topic);
        Ok(())
    }
}
