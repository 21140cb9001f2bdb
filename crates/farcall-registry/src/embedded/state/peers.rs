//! What nodes tell each other: each what it holds by its own sessions. What only another holds is copied, and lives as long as that
//! one holds it; what was taken away is remembered for a while, so that nobody brings it back.
//!
//! Only what a node holds itself counts as held: were copies to count, two nodes would keep each other's for ever.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farcall_core::{RpcError, compact};

use super::topic::{Record, TableIndex};
use super::{InstanceId, State, TopicKey, check, topic_key};
use crate::embedded::api::{Grave, Held, HeldEntry, Holding, Holdings, Moment, Name};
use crate::embedded::packed::{Stored, unreadable};
use crate::entry::{EntryKey, ServiceKey};
use crate::registry::Gone;

/// What is known of another node.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// By the lease clock; none = out of sight.
    seen: Option<Duration>,
    /// Of all that it holds, when all of that was copied.
    digest: u64,
    /// Of what it holds of each topic, as it was copied.
    topics: HashMap<TopicKey, u64>,
    /// Its history, and the last of its graves that is known.
    grave: (u64, u64),
}

/// Entries that were taken away.
#[derive(Debug, Default)]
pub(super) struct Graves {
    at: HashMap<(TopicKey, InstanceId), (u64, Moment)>,
    /// In their order: number, which, until when by the lease clock.
    order: VecDeque<(u64, TopicKey, Name, Moment, Duration)>,
    last: u64,
}

impl Graves {
    /// Whether this entry, registered then, was taken away since.
    fn covers(&self, topic: &TopicKey, name: Name, since: Moment) -> bool {
        let grave = self.at.get(&(topic.clone(), name.instance));
        grave.is_some_and(|(incarnation, at)| *incarnation >= name.incarnation && *at > since)
    }

    /// An entry is registered again.
    pub(super) fn open(&mut self, topic: &TopicKey, name: Name) {
        if !self.at.is_empty() {
            self.at.remove(&(topic.clone(), name.instance));
        }
    }
}

impl State {
    /// Remembers that an entry was taken away. Alone, there is nobody who could bring it back.
    pub(super) fn bury(&mut self, topic: &TopicKey, name: Name, at: Moment) {
        if self.peers.is_empty() {
            return;
        }
        let until = self.expiry.clock() + self.limits.tombstone_time;
        self.graves.last += 1;
        self.graves.at.insert((topic.clone(), name.instance), (name.incarnation, at));
        self.graves.order.push_back((self.graves.last, topic.clone(), name, at, until));
        let clock = self.expiry.clock();
        while self.graves.order.len() > self.limits.tombstones || self.graves.order.front().is_some_and(|(.., until)| *until <= clock) {
            let Some((_, topic, name, at, _)) = self.graves.order.pop_front() else { return };
            let place = (topic, name.instance);
            if self.graves.at.get(&place).is_some_and(|(_, last)| *last == at) {
                self.graves.at.remove(&place);
            }
        }
    }

    /// What this node holds, for another that knows this much.
    pub(crate) fn holdings(&mut self, now: Instant, known: u64, grave: u64) -> Holdings {
        let mut topics = Vec::new();
        for t in self.topics.values() {
            let held = t.records().filter(|r| r.session.is_some());
            let (count, digest) = held.fold((0, 0), |(n, all), r| (n + 1, all ^ r.stored.hash));
            if count > 0 {
                topics.push(Holding { namespace: t.key.namespace.to_string(), service: t.key.service.clone(), digest });
            }
        }
        let digest = topics.iter().fold(0, |all, holding| all ^ holding_hash(holding));
        if digest == known {
            topics.clear();
        }
        let new = self.graves.order.iter().filter(|(number, ..)| *number > grave);
        let graves = new.map(|(_, topic, name, at, _)| Grave {
            namespace: topic.namespace.to_string(),
            key: EntryKey { service: topic.service.clone(), instance: name.instance, incarnation: name.incarnation },
            at: *at,
        });
        Holdings {
            epoch: self.epoch,
            complete: self.expiry.sees_normally(),
            graves: graves.collect(),
            grave: self.graves.last,
            now: self.moment(now),
            digest,
            topics,
            rules: self.rules_digest(),
        }
    }

    /// What this node holds of a service: [`Held`], encoded.
    pub(crate) fn held(&self, namespace: &str, service: &ServiceKey) -> Result<Bytes, RpcError> {
        let topic = self.numbers.get(&topic_key(namespace, service)).and_then(|number| self.topics.get(number));
        let mut tables = TableIndex::default();
        let records = topic.into_iter().flat_map(|t| t.records()).filter(|r| r.session.is_some());
        let entries = records.map(|r| HeldEntry { name: r.stored.name, since: r.since, packed: tables.pack(r) }).collect();
        let held = Held { entries, tables: tables.tables };
        compact::encode(&held).map(Bytes::from).map_err(|e| unreadable("what is held", e))
    }

    /// What to ask another node: the digest and the grave that are known of it.
    pub(crate) fn peer_known(&self, peer: usize) -> (u64, u64) {
        self.peers.get(peer).filter(|p| p.seen.is_some()).map_or((0, 0), |p| (p.digest, p.grave.1))
    }

    /// What another node holds. Gives the topics to ask it about, and whether its rules differ.
    pub(crate) fn peer_said(&mut self, now: Instant, peer: usize, said: &Holdings) -> (Vec<Holding>, bool) {
        self.advance(now);
        self.saw(said.now);
        for grave in &said.graves {
            self.dig(now, grave);
        }
        let (clock, rules) = (self.expiry.clock(), self.rules_digest());
        let Some(p) = self.peers.get_mut(peer) else { return (Vec::new(), false) };
        p.seen = Some(clock);
        // After another start its graves have other numbers: all of them are asked for next time.
        p.grave = (said.epoch, if p.grave.0 == said.epoch || said.grave == 0 { said.grave } else { 0 });
        if said.digest == p.digest {
            return (Vec::new(), said.rules != rules);
        }
        let new = said.topics.iter().filter(|h| p.topics.get(&topic_key(&h.namespace, &h.service)) != Some(&h.digest));
        let ask = new.cloned().collect();
        if said.complete {
            let held: HashSet<TopicKey> = said.topics.iter().map(|h| topic_key(&h.namespace, &h.service)).collect();
            let left: Vec<TopicKey> = p.topics.keys().filter(|topic| !held.contains(topic)).cloned().collect();
            for topic in left {
                self.peer_left(now, peer, &topic, &HashSet::new());
            }
        }
        (ask, said.rules != rules)
    }

    /// Everything that another node said is copied. If it does not see all, what it does not hold was not taken to be gone: it is asked
    /// for all of it again.
    pub(crate) fn peer_copied(&mut self, peer: usize, said: &Holdings) {
        if let Some(p) = self.peers.get_mut(peer)
            && said.complete
        {
            p.digest = said.digest;
        }
    }

    /// What another node holds of a service.
    pub(crate) fn peer_holds(&mut self, now: Instant, peer: usize, of: &Holding, held: Held, complete: bool) -> Result<(), RpcError> {
        self.advance(now);
        check::name("namespace", &of.namespace, &self.limits)?;
        check::service(&of.service, &self.limits)?;
        let key = topic_key(&of.namespace, &of.service);
        let topic = self.topic_of(key.clone())?;
        let mut names = HashSet::new();
        for entry in held.entries {
            let Some(table) = held.tables.get(entry.packed.table as usize) else {
                return Err(unreadable("an entry", format!("there is no method table {}", entry.packed.table)));
            };
            names.insert(entry.name.instance);
            let mut stored = Stored::from_bytes(entry.name, entry.packed.body, table.bytes.clone());
            check::size(&stored, &self.limits)?;
            stored.table = self.tables.shared(stored.table);
            self.copy(now, peer, topic, stored, entry.since)?;
        }
        if let Some(p) = self.peers.get_mut(peer) {
            // As in `peer_copied`.
            p.topics.insert(key.clone(), if complete { of.digest } else { 0 });
        }
        if complete {
            self.peer_left(now, peer, &key, &names);
        }
        self.forget_if_empty(topic);
        Ok(())
    }

    /// An entry that another node holds.
    fn copy(&mut self, now: Instant, peer: usize, topic: u64, stored: Stored, since: Moment) -> Result<(), RpcError> {
        let bit = 1 << peer;
        let name = stored.name;
        let Some(t) = self.topics.get_mut(&topic) else { return Ok(()) };
        if self.graves.covers(&t.key, name, since) {
            return Ok(());
        }
        let key = t.key.clone();
        let holder = match t.record_mut(name.instance) {
            Some(known) if known.stored.hash == stored.hash => {
                known.peers |= bit;
                let confirmed = known.session.is_none() && known.suspect;
                self.loose.remove(&(topic, name.instance));
                if confirmed {
                    self.revision += 1;
                    t.doubt(name.instance, false, self.revision);
                    self.changed(now, topic);
                }
                return Ok(());
            }
            Some(known) if (known.stored.name.incarnation, known.since) > (name.incarnation, since) => return Ok(()),
            Some(known) => known.session.map(|session| (session, known.stored.name)),
            None if self.entries >= self.limits.entries => return Err(check::full("entries", self.limits.entries, "entries at this node")),
            None if self.bytes + stored.cost() > self.limits.bytes => {
                return Err(check::full("bytes", self.limits.bytes, "bytes of entries at this node"));
            }
            None => None,
        };
        if let Some((session, replaced)) = holder {
            self.leave(session, topic, name.instance);
            self.tell_lost(session, topic, replaced, true);
        }
        self.loose.remove(&(topic, name.instance));
        self.place(topic, Record { stored, session: None, suspect: false, peers: bit, since, owner: None });
        debug_assert_eq!(self.topics.get(&topic).map(|t| &t.key), Some(&key));
        self.changed(now, topic);
        Ok(())
    }

    /// Another node no longer holds entries of a topic but these.
    fn peer_left(&mut self, now: Instant, peer: usize, key: &TopicKey, still: &HashSet<InstanceId>) {
        let bit = 1 << peer;
        if still.is_empty()
            && let Some(p) = self.peers.get_mut(peer)
        {
            p.topics.remove(key);
        }
        let Some(&topic) = self.numbers.get(key) else { return };
        let Some(t) = self.topics.get_mut(&topic) else { return };
        let left = t.records().filter(|r| r.peers & bit != 0 && !still.contains(&r.stored.name.instance));
        let left: Vec<InstanceId> = left.map(|r| r.stored.name.instance).collect();
        for instance in left {
            self.unhold(now, topic, instance, bit);
        }
    }

    /// Another node does not hold an entry any more. If nobody does, it goes like one whose lease is over.
    fn unhold(&mut self, now: Instant, topic: u64, instance: InstanceId, bit: u8) {
        let Some(record) = self.topics.get_mut(&topic).and_then(|t| t.record_mut(instance)) else { return };
        record.peers &= !bit;
        if record.peers == 0 && record.session.is_none() {
            self.loose.insert((topic, instance), self.expiry.clock());
            self.revision += 1;
            if let Some(t) = self.topics.get_mut(&topic) {
                t.doubt(instance, true, self.revision);
            }
            self.changed(now, topic);
        }
    }

    /// Takes away what another node took away.
    fn dig(&mut self, now: Instant, grave: &Grave) {
        self.saw(grave.at);
        let key = topic_key(&grave.namespace, &grave.key.service);
        let name = Name { instance: grave.key.instance, incarnation: grave.key.incarnation };
        if self.graves.at.get(&(key.clone(), name.instance)).is_some_and(|(_, at)| *at >= grave.at) {
            return;
        }
        let topic = self.numbers.get(&key).copied();
        let known = topic.and_then(|topic| self.topics.get(&topic)?.record(name.instance));
        match known {
            // Registered again since, or another start: that one is not in this grave.
            Some(record) if record.stored.name.incarnation > name.incarnation || record.since > grave.at => return,
            Some(_) => {
                if let Some(topic) = topic {
                    self.remove(now, topic, name.instance, Gone::Withdrawn);
                }
            }
            None => {}
        }
        self.bury(&key, name, grave.at);
    }

    /// Nodes that were not heard of for a lease hold nothing any more.
    pub(super) fn lose_sight_of_peers(&mut self, now: Instant) {
        let (clock, lease) = (self.expiry.clock(), self.limits.lease);
        for peer in 0..self.peers.len() {
            let Some(p) = self.peers.get_mut(peer).filter(|p| p.seen.is_some_and(|seen| seen + lease <= clock)) else { continue };
            let topics: Vec<TopicKey> = p.topics.keys().cloned().collect();
            *p = Peer { grave: p.grave, ..Peer::default() };
            for topic in topics {
                self.peer_left(now, peer, &topic, &HashSet::new());
            }
        }
    }
}

/// Of a topic that is held, so that all of them have one.
fn holding_hash(holding: &Holding) -> u64 {
    compact::encode(holding).map_or(0, |bytes| crate::embedded::packed::hash(&bytes, &[]))
}
