//! The rules of a node, as a value: events and the time in, effects out. No socket, no task, no clock.
//!
//! It knows *topics* (a service in a namespace, `topic.rs`), *sessions* (a provider's connection and its lease) and who reads what. A
//! session's entries live as long as it is renewed; `expiry.rs` says when they may go. What readers get is encoded once per change and
//! kept in the topic's log, where each of them has its place.

mod check;
mod disk;
mod expiry;
mod peers;
mod rules;
#[cfg(test)]
mod simulation;
mod tables;
#[cfg(test)]
mod tests;
mod topic;

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farcall_core::{Code, RpcError};

pub(crate) use self::disk::Saved;
use self::expiry::Expiry;
use self::peers::{Graves, Peer};
use self::tables::Tables;
pub(crate) use self::topic::Stamp;
use self::topic::{Record, Topic};
use super::api::{Hello, Interest, Known, Moment, Name, Notice, Opened, Outcome, RuleVersion};
use super::limits::RegistryLimits;
use super::packed::Stored;
use crate::entry::{Entry, EntryKey, InstanceId, ServiceKey};
use crate::registry::{Consumer, Gone, ServiceSummary};

/// A service in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicKey {
    pub(crate) namespace: Arc<str>,
    pub(crate) service: ServiceKey,
}

/// What a call to the state leaves for its driver to do.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Topics whose readers have something to read, by number.
    pub(crate) woken: Vec<u64>,
    /// What sessions are to be told.
    pub(crate) notices: Vec<(u64, Notice)>,
}

/// A provider's connection, and what it registered.
#[derive(Debug)]
struct Session {
    namespace: Arc<str>,
    /// Who opened it, if that is known.
    owner: Option<Arc<str>>,
    /// Whose limits it counts for: its owner's, or its host's.
    caller: Arc<str>,
    /// By the lease clock.
    renewed: Duration,
    connected: bool,
    /// Its entries are suspect.
    suspect: bool,
    entries: HashMap<u64, HashSet<InstanceId>>,
    count: usize,
}

/// How much a caller has, in all its sessions.
#[derive(Debug, Default)]
struct Share {
    entries: usize,
    /// How many of them are of each topic.
    topics: HashMap<u64, usize>,
}

/// A node's memory. See the module's text.
pub(crate) struct State {
    limits: RegistryLimits,
    epoch: u64,
    /// Of the last change to anything.
    revision: u64,
    topics: HashMap<u64, Topic>,
    numbers: HashMap<TopicKey, u64>,
    next_topic: u64,
    sessions: HashMap<u64, Session>,
    /// Of callers that have something.
    callers: HashMap<Arc<str>, Share>,
    /// Entries that no session holds, and when their lease ends, by the lease clock.
    loose: HashMap<(u64, InstanceId), Duration>,
    readers: usize,
    /// How many of them are whose; who has none is forgotten.
    readers_of: HashMap<Arc<str>, usize>,
    next_reader: u64,
    entries: usize,
    bytes: usize,
    tables: Tables,
    expiry: Expiry,
    /// Topics with changes that wait, by when they may be told.
    due: BTreeSet<(Instant, u64)>,
    /// Sessions opened in the second that began then.
    opening: (Instant, u32),
    effects: Effects,
    /// The wall clock at some moment: the only use of one, and only for [`Moment`]s.
    wall: (Instant, u64),
    moment: Moment,
    peers: Vec<Peer>,
    graves: Graves,
    /// Versions of rules that lost without their writers knowing.
    conflicts: VecDeque<RuleVersion>,
    /// Something changed since the last snapshot.
    unsaved: bool,
}

impl State {
    /// An empty one. `epoch` is another for each start of a node; `seed` is for random order; `wall_ms` is the time since 1970;
    /// `peers` is how many other nodes there are.
    pub(crate) fn new(limits: RegistryLimits, epoch: u64, seed: u64, now: Instant, wall_ms: u64, peers: usize) -> State {
        State {
            expiry: Expiry::new(&limits, seed, now),
            limits,
            epoch,
            revision: 0,
            topics: HashMap::new(),
            numbers: HashMap::new(),
            next_topic: 0,
            sessions: HashMap::new(),
            callers: HashMap::new(),
            loose: HashMap::new(),
            readers: 0,
            readers_of: HashMap::new(),
            next_reader: 0,
            entries: 0,
            bytes: 0,
            tables: Tables::default(),
            due: BTreeSet::new(),
            opening: (now, 0),
            effects: Effects::default(),
            wall: (now, wall_ms),
            moment: Moment { ms: 0, count: 0, node: epoch },
            peers: (0..peers).map(|_| Peer::default()).collect(),
            graves: Graves::default(),
            conflicts: VecDeque::new(),
            unsaved: false,
        }
    }

    /// A moment after all that this node has seen.
    fn moment(&mut self, now: Instant) -> Moment {
        let ms = self.wall.1 + millis(now.saturating_duration_since(self.wall.0)) as u64;
        match ms > self.moment.ms {
            true => (self.moment.ms, self.moment.count) = (ms, 0),
            false => self.moment.count += 1,
        }
        self.moment
    }

    /// What there is to do since the last time.
    pub(crate) fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    // Sessions.

    /// Opens a session under `id`, and takes over what of its own entries is here already. Whoever has no name counts as his host.
    pub(crate) fn open(&mut self, now: Instant, id: u64, owner: Option<Arc<str>>, host: &str, hello: &Hello) -> Result<Opened, RpcError> {
        self.advance(now);
        check::name("namespace", &hello.namespace, &self.limits)?;
        check::consumer(&hello.who, &self.limits)?;
        if self.sessions.len() >= self.limits.sessions {
            return Err(check::full("sessions", self.limits.sessions, "sessions at this node"));
        }
        let session = Session {
            namespace: Arc::from(hello.namespace.as_str()),
            // A name is no address: those have a scheme.
            caller: owner.clone().unwrap_or_else(|| Arc::from(host)),
            owner,
            renewed: self.expiry.clock(),
            connected: true,
            suspect: false,
            entries: HashMap::new(),
            count: 0,
        };
        self.sessions.insert(id, session);
        let own = hello.own.iter().enumerate().take(self.limits.session_entries);
        let missing = own.filter(|(_, own)| !self.take_over(now, id, &own.key, own.hash)).map(|(at, _)| at as u32).collect();
        Ok(Opened {
            session: id,
            lease_ms: millis(self.limits.lease),
            renew_ms: millis(self.limits.lease / 3),
            missing,
            spread_ms: self.spread(now),
        })
    }

    /// Moves an entry that is here to a session, if it is the same.
    fn take_over(&mut self, now: Instant, session: u64, key: &EntryKey, hash: u64) -> bool {
        let Some(topic) = self.find(session, &key.service) else { return false };
        let Some(record) = self.topics.get(&topic).and_then(|t| t.record(key.instance)) else { return false };
        let same = record.stored.name.incarnation == key.incarnation && record.stored.hash == hash;
        let stored = record.stored.clone();
        if !same || self.room(session, topic, &stored).is_err() || self.room_in_session(session, topic, key.instance).is_err() {
            return false;
        }
        self.put(now, session, topic, stored);
        true
    }

    /// Sessions that come all at once are told to take their time.
    fn spread(&mut self, now: Instant) -> u32 {
        /// So many a second are no crowd.
        const CALM: u32 = 200;
        match now.saturating_duration_since(self.opening.0) < Duration::from_secs(1) {
            true => self.opening.1 += 1,
            false => self.opening = (now, 1),
        }
        // A session that waits is not renewed meanwhile.
        self.opening.1.saturating_sub(CALM).min(millis(self.limits.spread.min(self.limits.lease / 5)))
    }

    /// Keeps a session's entries.
    pub(crate) fn renew(&mut self, now: Instant, session: u64) -> Result<(), RpcError> {
        self.advance(now);
        let clock = self.expiry.clock();
        let at = self.session_mut(session)?;
        at.renewed = clock;
        if std::mem::take(&mut at.suspect) {
            self.doubt(now, session, false);
        }
        Ok(())
    }

    /// A session's connection broke: its entries are suspect at once, and go when its lease ends.
    pub(crate) fn lost(&mut self, now: Instant, session: u64) {
        self.advance(now);
        let Some(at) = self.sessions.get_mut(&session) else { return };
        at.connected = false;
        match at.count {
            0 => drop(self.sessions.remove(&session)),
            _ if !std::mem::replace(&mut at.suspect, true) => self.doubt(now, session, true),
            _ => {}
        }
    }

    /// Marks all entries of a session as suspect, or as not.
    fn doubt(&mut self, now: Instant, session: u64, suspect: bool) {
        let Some(at) = self.sessions.get(&session) else { return };
        let all: Vec<(u64, Vec<InstanceId>)> = at.entries.iter().map(|(topic, of)| (*topic, of.iter().copied().collect())).collect();
        for (topic, instances) in all {
            for instance in instances {
                self.revision += 1;
                if let Some(t) = self.topics.get_mut(&topic) {
                    t.doubt(instance, suspect, self.revision);
                }
            }
            self.changed(now, topic);
        }
    }

    /// The namespace of a session.
    pub(crate) fn namespace(&mut self, session: u64) -> Result<Arc<str>, RpcError> {
        self.session_mut(session).map(|s| Arc::clone(&s.namespace))
    }

    fn session_mut(&mut self, session: u64) -> Result<&mut Session, RpcError> {
        let unknown = || RpcError::not_executed(Code::NotFound, "this registry node does not know the session: open another");
        self.sessions.get_mut(&session).filter(|s| s.connected).ok_or_else(unknown)
    }

    // Entries.

    /// Registers an entry for a session. It takes the place of the instance's entry with the same or a smaller incarnation.
    pub(crate) fn register(&mut self, now: Instant, session: u64, entry: &Entry) -> Result<(), RpcError> {
        self.advance(now);
        self.session_mut(session)?;
        check::entry(entry, &self.limits)?;
        let mut stored = Stored::of(entry)?;
        check::size(&stored, &self.limits)?;
        let topic = self.topic(session, &entry.service)?;
        let room = self.room(session, topic, &stored).and_then(|()| self.room_in_session(session, topic, entry.instance));
        if let Err(e) = room {
            self.forget_if_empty(topic);
            return Err(e);
        }
        stored.table = self.tables.shared(stored.table);
        self.put(now, session, topic, stored);
        Ok(())
    }

    fn room(&self, session: u64, topic: u64, stored: &Stored) -> Result<(), RpcError> {
        let Some(t) = self.topics.get(&topic) else { return Ok(()) };
        let owner = self.sessions.get(&session).and_then(|s| s.owner.as_ref());
        match t.record(stored.name.instance) {
            Some(known) if known.stored.name.incarnation > stored.name.incarnation => {
                let why = format!(
                    "a later start of this instance is registered (incarnation {}, this one is {}): it is not to be replaced by an earlier one",
                    known.stored.name.incarnation, stored.name.incarnation
                );
                Err(RpcError::not_executed(Code::FailedPrecondition, why))
            }
            Some(known) if known.owner.is_some() && known.owner.as_ref() != owner => {
                let why = "another caller registered this instance: only he may replace it";
                Err(RpcError::not_executed(Code::PermissionDenied, why))
            }
            Some(known) if known.stored == *stored => Ok(()),
            _ if self.entries >= self.limits.entries => Err(check::full("entries", self.limits.entries, "entries at this node")),
            _ if self.bytes + stored.cost() > self.limits.bytes => {
                Err(check::full("bytes", self.limits.bytes, "bytes of entries at this node"))
            }
            _ => Ok(()),
        }
    }

    fn room_in_session(&self, session: u64, topic: u64, instance: InstanceId) -> Result<(), RpcError> {
        let Some(s) = self.sessions.get(&session) else { return Ok(()) };
        let share = self.callers.get(&s.caller);
        let (entries, services) = share.map_or((0, 0), |share| (share.entries, share.topics.len()));
        let has_service = share.is_some_and(|share| share.topics.contains_key(&topic));
        match s.entries.get(&topic) {
            Some(of) if of.contains(&instance) => Ok(()),
            _ if entries >= self.limits.caller_entries => {
                Err(check::full("caller_entries", self.limits.caller_entries, "entries of one caller"))
            }
            _ if services >= self.limits.caller_services && !has_service => {
                Err(check::full("caller_services", self.limits.caller_services, "services of one caller"))
            }
            _ if s.count >= self.limits.session_entries => {
                Err(check::full("session_entries", self.limits.session_entries, "entries in one session"))
            }
            None if s.entries.len() >= self.limits.session_services => {
                Err(check::full("session_services", self.limits.session_services, "services in one session"))
            }
            _ => Ok(()),
        }
    }

    /// Puts an entry, which there is room for, into a topic as a session's.
    fn put(&mut self, now: Instant, session: u64, topic: u64, stored: Stored) {
        let name = stored.name;
        let known = self.topics.get(&topic).and_then(|t| t.record(name.instance));
        let (peers, holder) = known.map_or((0, None), |r| (if r.stored.hash == stored.hash { r.peers } else { 0 }, r.session));
        if let Some(known) = known
            && let Some(other) = holder.filter(|other| *other != session)
        {
            let replaced = known.stored.name;
            self.leave(other, topic, name.instance);
            self.tell_lost(other, topic, replaced, true);
        }
        let owner = self.sessions.get(&session).and_then(|s| s.owner.clone());
        let since = self.moment(now);
        self.loose.remove(&(topic, name.instance));
        self.place(topic, Record { stored, session: Some(session), suspect: false, peers, since, owner });
        if let Some(s) = self.sessions.get_mut(&session)
            && s.entries.entry(topic).or_default().insert(name.instance)
        {
            s.count += 1;
            let share = self.callers.entry(Arc::clone(&s.caller)).or_default();
            share.entries += 1;
            *share.topics.entry(topic).or_default() += 1;
        }
        self.changed(now, topic);
    }

    /// A record takes its place, and that of the one of its instance.
    fn place(&mut self, topic: u64, record: Record) {
        let Some(t) = self.topics.get_mut(&topic) else { return };
        self.bytes += record.stored.cost();
        match t.record(record.stored.name.instance) {
            Some(before) => self.bytes -= before.stored.cost(),
            None => self.entries += 1,
        }
        self.graves.open(&t.key, record.stored.name);
        self.revision += 1;
        self.unsaved = true;
        t.put(record, self.revision);
    }

    /// Takes entries away; if they `linger`, they go when their lease ends.
    pub(crate) fn withdraw(&mut self, now: Instant, session: u64, key: &EntryKey, linger: bool) -> Result<(), RpcError> {
        self.advance(now);
        self.session_mut(session)?;
        let Some(topic) = self.find(session, &key.service) else { return Ok(()) };
        let known = self.topics.get(&topic).and_then(|t| t.record(key.instance));
        // Of another start, or already another session's: nothing of this one is here.
        let owner = self.sessions.get(&session).and_then(|s| s.owner.as_ref());
        let foreign = |r: &Record| r.session.is_some_and(|s| s != session) || (r.owner.is_some() && r.owner.as_ref() != owner);
        if known.is_none_or(|r| r.stored.name.incarnation != key.incarnation || foreign(r)) {
            return Ok(());
        }
        self.leave(session, topic, key.instance);
        if linger {
            self.loose.insert((topic, key.instance), self.expiry.clock() + self.limits.lease);
            if let Some(t) = self.topics.get_mut(&topic) {
                t.loosen(key.instance);
            }
            return Ok(());
        }
        self.remove(now, topic, key.instance, Gone::Withdrawn);
        Ok(())
    }

    /// Whether a session holds an entry.
    pub(crate) fn holds(&mut self, session: u64, key: &EntryKey) -> Result<bool, RpcError> {
        self.session_mut(session)?;
        let known = self.find(session, &key.service).and_then(|topic| self.topics.get(&topic)?.record(key.instance));
        Ok(known.is_some_and(|r| r.session == Some(session) && r.stored.name.incarnation == key.incarnation))
    }

    /// A record goes.
    fn remove(&mut self, now: Instant, topic: u64, instance: InstanceId, why: Gone) {
        let Some(t) = self.topics.get_mut(&topic) else { return };
        self.revision += 1;
        let Some(record) = t.remove(instance, why, self.revision) else { return };
        self.loose.remove(&(topic, instance));
        self.entries -= 1;
        self.bytes -= record.stored.cost();
        self.unsaved = true;
        if why == Gone::Withdrawn {
            let (key, at) = (t.key.clone(), self.moment(now));
            self.bury(&key, record.stored.name, at);
        }
        if let Some(session) = record.session {
            self.leave(session, topic, instance);
            self.tell_lost(session, topic, record.stored.name, false);
        }
        self.changed(now, topic);
    }

    /// An entry is no longer a session's.
    fn leave(&mut self, session: u64, topic: u64, instance: InstanceId) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let Some(of) = s.entries.get_mut(&topic) else { return };
        let was_there = of.remove(&instance);
        if of.is_empty() {
            s.entries.remove(&topic);
        }
        if was_there {
            s.count -= 1;
            give_back(&mut self.callers, &s.caller, topic);
        }
        if s.count == 0 && !s.connected {
            self.sessions.remove(&session);
        }
    }

    fn tell_lost(&mut self, session: u64, topic: u64, name: Name, taken: bool) {
        let Some(t) = self.topics.get(&topic) else { return };
        if self.sessions.get(&session).is_some_and(|s| s.connected) {
            let key = EntryKey { service: t.key.service.clone(), instance: name.instance, incarnation: name.incarnation };
            self.effects.notices.push((session, Notice::Lost { key, taken }));
        }
    }

    // Topics.

    fn find(&self, session: u64, service: &ServiceKey) -> Option<u64> {
        let namespace = self.sessions.get(&session)?.namespace.clone();
        self.numbers.get(&TopicKey { namespace, service: service.clone() }).copied()
    }

    fn topic(&mut self, session: u64, service: &ServiceKey) -> Result<u64, RpcError> {
        let namespace = self.session_mut(session)?.namespace.clone();
        self.topic_of(TopicKey { namespace, service: service.clone() })
    }

    /// The number of a topic, which is made if there is none.
    fn topic_of(&mut self, key: TopicKey) -> Result<u64, RpcError> {
        let full = self.topics.len() >= self.limits.services;
        match self.numbers.entry(key) {
            MapEntry::Occupied(known) => Ok(*known.get()),
            MapEntry::Vacant(_) if full => Err(check::full("services", self.limits.services, "services at this node")),
            MapEntry::Vacant(place) => {
                self.next_topic += 1;
                self.topics.insert(self.next_topic, Topic::new(place.key().clone(), self.revision));
                Ok(*place.insert(self.next_topic))
            }
        }
    }

    /// A topic without entries, readers and rules is none.
    fn forget_if_empty(&mut self, topic: u64) {
        if let Some(t) = self.topics.get(&topic)
            && t.is_idle()
        {
            self.numbers.remove(&t.key);
            self.topics.remove(&topic);
        }
    }

    /// A topic has changed: its readers are told at once, or when they may be again.
    fn changed(&mut self, now: Instant, topic: u64) {
        let Some(t) = self.topics.get_mut(&topic) else { return };
        if !t.has_readers() {
            t.forget_changes();
            return self.forget_if_empty(topic);
        }
        let due = t.due(now, &self.limits);
        if due > now {
            self.due.insert((due, topic));
            return;
        }
        self.tell(now, topic);
    }

    fn tell(&mut self, now: Instant, topic: u64) {
        let stamp = self.stamp();
        if let Some(t) = self.topics.get_mut(&topic)
            && t.flush(now, stamp, &self.limits)
        {
            self.effects.woken.push(topic);
        }
    }

    /// What every push bears.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, complete: self.expiry.sees_normally() }
    }

    // Readers.

    /// All of a service, or that nothing has changed.
    pub(crate) fn list(&mut self, interest: &Interest) -> Result<Bytes, RpcError> {
        check::name("namespace", &interest.namespace, &self.limits)?;
        let (stamp, revision) = (self.stamp(), self.revision);
        let key = topic_key(&interest.namespace, &interest.service);
        match self.numbers.get(&key).and_then(|number| self.topics.get_mut(number)) {
            Some(topic) => topic.listing(stamp, interest.known),
            None => Topic::new(key, revision).listing(stamp, interest.known),
        }
    }

    /// A caller's new reader of a topic; gives the numbers of both.
    pub(crate) fn subscribe(&mut self, caller: &Arc<str>, interest: &Interest, consumer: Option<Consumer>) -> Result<(u64, u64), RpcError> {
        check::name("namespace", &interest.namespace, &self.limits)?;
        check::service(&interest.service, &self.limits)?;
        if let Some(consumer) = &consumer {
            check::consumer(consumer, &self.limits)?;
        }
        if self.readers >= self.limits.subscriptions {
            return Err(check::full("subscriptions", self.limits.subscriptions, "subscriptions at this node"));
        }
        if self.readers_of.get(caller).is_some_and(|readers| *readers >= self.limits.caller_subscriptions) {
            return Err(check::full("caller_subscriptions", self.limits.caller_subscriptions, "subscriptions of one caller"));
        }
        let topic = self.topic_of(topic_key(&interest.namespace, &interest.service))?;
        self.next_reader += 1;
        self.readers += 1;
        *self.readers_of.entry(Arc::clone(caller)).or_default() += 1;
        if let Some(t) = self.topics.get_mut(&topic) {
            t.add_reader(self.next_reader, consumer);
        }
        Ok((topic, self.next_reader))
    }

    /// A caller's reader went.
    pub(crate) fn unsubscribe(&mut self, caller: &Arc<str>, topic: u64, reader: u64) {
        if self.topics.get_mut(&topic).is_some_and(|t| t.remove_reader(reader)) {
            self.readers -= 1;
            if let MapEntry::Occupied(mut of) = self.readers_of.entry(Arc::clone(caller)) {
                *of.get_mut() -= 1;
                if *of.get() == 0 {
                    of.remove();
                }
            }
            self.forget_if_empty(topic);
        }
    }

    /// What a reader reads next, and where it stands then. Nothing = it has all there is.
    pub(crate) fn read(&mut self, topic: u64, at: Option<Known>, first: bool) -> Result<Option<(Bytes, Known)>, RpcError> {
        let stamp = self.stamp();
        match self.topics.get_mut(&topic) {
            Some(t) => t.read(stamp, at, first),
            None => Ok(None),
        }
    }

    /// The services of a namespace.
    pub(crate) fn services(&self, namespace: &str) -> Vec<ServiceSummary> {
        let here = self.topics.values().filter(|t| *t.key.namespace == *namespace);
        here.map(Topic::summary).collect()
    }

    /// Who reads a service.
    pub(crate) fn consumers(&self, namespace: &str, service: &ServiceKey) -> Vec<Consumer> {
        let number = self.numbers.get(&topic_key(namespace, service));
        number.and_then(|n| self.topics.get(n)).map(Topic::consumers).unwrap_or_default()
    }
}

/// A caller has one entry less. Names are without number: who has nothing is forgotten.
fn give_back(callers: &mut HashMap<Arc<str>, Share>, caller: &Arc<str>, topic: u64) {
    let Some(share) = callers.get_mut(caller) else { return };
    share.entries -= 1;
    if let MapEntry::Occupied(mut of) = share.topics.entry(topic) {
        *of.get_mut() -= 1;
        if *of.get() == 0 {
            of.remove();
        }
    }
    if share.entries == 0 {
        callers.remove(caller);
    }
}

fn topic_key(namespace: &str, service: &ServiceKey) -> TopicKey {
    TopicKey { namespace: Arc::from(namespace), service: service.clone() }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// As a call tells it.
pub(crate) fn outcome(done: Result<(), RpcError>) -> Outcome {
    match done {
        Ok(()) => Outcome::Done,
        Err(e) => Outcome::Refused { code: e.code() as u8, why: e.message().to_owned() },
    }
}
