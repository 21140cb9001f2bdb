//! Nodes, providers and consumers in one struct, driven at random from a seed: nodes crash, are wiped and come back, links are cut,
//! providers die, withdraw and are started again, everybody stalls. `FARCALL_SEED=n` runs one seed again.
//!
//! What must hold at any time: a node lets nothing expire that was renewed there within a lease, nor before its warm-up is over; what a
//! reader makes of the pushes is what the node has (the mirror is the real one, and checks digests); the state's counts are right.
//! What must hold once the faults are over: all nodes list exactly who lives, say that they see all, and have the same rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use farcall_core::compact;
use farcall_sim::{Rng, replaying, run_seeds};

use super::{Saved, State};
use crate::embedded::api::{Hello, Interest, Known, Moment, Own, Push, RuleVersion};
use crate::embedded::client::mirror::Mirror;
use crate::embedded::limits::RegistryLimits;
use crate::embedded::packed::Stored;
use crate::entry::{Advertised, Entry, InstanceId, ServiceKey};
use crate::registry::{Completeness, Consumer, Gone, Rule, Update};

const LEASE: Duration = Duration::from_millis(3000);
const MS: Duration = Duration::from_millis(1);
const NODES: usize = 3;
const PROVIDERS: usize = 9;
const CONSUMERS: usize = 4;

/// What was seen in all seeds: a simulation in which nothing happens proves nothing.
#[derive(Debug, Default)]
struct Seen {
    expired: AtomicUsize,
    withdrawn: AtomicUsize,
    suspect: AtomicUsize,
    deltas: AtomicUsize,
    resumed: AtomicUsize,
    protected: AtomicUsize,
    copied: AtomicUsize,
    loaded: AtomicUsize,
    conflicts: AtomicUsize,
}

fn saw(what: &AtomicUsize) {
    what.fetch_add(1, Ordering::Relaxed);
}

fn service(n: usize) -> ServiceKey {
    ServiceKey { name: format!("service-{}", n % 3), group: String::new(), version: String::new() }
}

#[derive(Default)]
struct Provider {
    alive: bool,
    withdrawn: bool,
    incarnation: u64,
    weight: u32,
    /// At each node: the session and when it was last renewed.
    sessions: [Option<(u64, Instant)>; NODES],
}

impl Provider {
    fn entry(&self, n: usize) -> Entry {
        Entry {
            service: service(n),
            instance: InstanceId([n as u8; 16]),
            incarnation: self.incarnation,
            application: String::new(),
            addresses: vec![Advertised { protocol: "farcall".into(), address: format!("tcp://h:{n}") }],
            labels: BTreeMap::new(),
            weight: self.weight,
            enabled: true,
            host: None,
            methods: Vec::new(),
            params: BTreeMap::new(),
        }
    }
}

struct Reader {
    node: usize,
    topic: u64,
    reader: u64,
    at: Option<Known>,
    first: bool,
    /// Of which life of the node.
    life: u64,
}

struct Node {
    state: Option<State>,
    life: u64,
    begun: Instant,
    disk: Vec<Saved>,
    rules: Vec<RuleVersion>,
    /// When each provider's entry was last renewed or registered here, in this life.
    heard: [Option<Instant>; PROVIDERS],
}

struct World<'a> {
    rng: Rng,
    begun: Instant,
    now: Instant,
    nodes: Vec<Node>,
    providers: Vec<Provider>,
    readers: Vec<Option<Reader>>,
    mirrors: Vec<Mirror>,
    /// Links that are cut: provider to node, node to node.
    cut: BTreeSet<(usize, usize)>,
    apart: BTreeSet<(usize, usize)>,
    next_session: u64,
    calm: bool,
    seen: &'a Seen,
}

impl<'a> World<'a> {
    fn new(seed: u64, seen: &'a Seen) -> World<'a> {
        let now = Instant::now();
        let nodes = 1 + (seed % NODES as u64) as usize;
        let node = |_| Node { state: None, life: 0, begun: now, disk: Vec::new(), rules: Vec::new(), heard: [None; PROVIDERS] };
        let mut world = World {
            rng: Rng(seed),
            begun: now,
            now,
            nodes: (0..nodes).map(node).collect(),
            providers: (0..PROVIDERS).map(|_| Provider::default()).collect(),
            readers: (0..CONSUMERS).map(|_| None).collect(),
            mirrors: vec![Mirror::default(); CONSUMERS],
            cut: BTreeSet::new(),
            apart: BTreeSet::new(),
            next_session: 1,
            calm: false,
            seen,
        };
        (0..nodes).for_each(|n| world.start(n, false));
        world
    }

    fn limits() -> RegistryLimits {
        RegistryLimits { lease: LEASE, log: 4, protection: LEASE * 2, ..RegistryLimits::default() }
    }

    fn start(&mut self, n: usize, wiped: bool) {
        let peers = self.nodes.len() - 1;
        // Clocks differ by seconds.
        let wall = 1_000_000 + (self.now - self.begun).as_millis() as u64 + self.rng.below(5000) as u64;
        let mut state = State::new(World::limits(), self.rng.any(), self.rng.any(), self.now, wall, peers);
        let node = &mut self.nodes[n];
        if wiped {
            (node.disk, node.rules) = (Vec::new(), Vec::new());
        }
        for version in node.rules.clone() {
            state.merge_rule(self.now, version).unwrap();
        }
        for saved in node.disk.clone() {
            state.load(self.now, saved).unwrap();
            saw(&self.seen.loaded);
        }
        (node.state, node.begun, node.life) = (Some(state), self.now, node.life + 1);
        node.heard = [None; PROVIDERS];
    }

    fn stop(&mut self, n: usize) {
        self.nodes[n].state = None;
        self.providers.iter_mut().for_each(|p| p.sessions[n] = None);
    }

    /// One step of everybody.
    fn step(&mut self) {
        let ms = match self.calm {
            true => 300,
            false if self.rng.one_in(200) => 20_000,
            false => 5 + self.rng.below(200),
        };
        self.now += ms as u32 * MS;
        if !self.calm {
            self.fault();
        }
        for n in 0..self.nodes.len() {
            for p in 0..PROVIDERS {
                self.provide(p, n);
            }
            self.tick(n);
            if self.rng.one_in(5) {
                self.sync(n);
            }
            if self.rng.one_in(10) {
                self.save(n);
            }
        }
        for c in 0..CONSUMERS {
            self.consume(c);
        }
    }

    /// What a node lets go then it may let go.
    fn tick(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(state) = &mut node.state else { return };
        let before = names(state);
        state.tick(self.now);
        state.effects();
        check_counts(state);
        let after = names(state);
        for name in before.difference(&after) {
            assert!(self.now - node.begun >= LEASE, "it expired in the warm-up");
            let (p, incarnation) = (name.0.0[0] as usize, name.1);
            if let Some(heard) = node.heard[p].filter(|_| self.providers[p].incarnation == incarnation) {
                assert!(self.now - heard >= LEASE, "node {n} was told of provider {p} {:?} ago", self.now - heard);
            }
        }
    }

    fn fault(&mut self) {
        let (n, p) = (self.rng.below(self.nodes.len()), self.rng.below(PROVIDERS));
        match self.rng.below(60) {
            0 => self.stop(n),
            1 | 2 if self.nodes[n].state.is_none() => {
                let wiped = self.rng.one_in(3);
                self.start(n, wiped);
            }
            3..=8 => self.begin(p),
            9 | 10 => self.end(p),
            11 | 12 => self.withdraw(p),
            13 => self.cut.extend([(p, n)]),
            14 | 15 => self.cut.retain(|cut| *cut != (p, n)),
            16 => {
                let other = self.rng.below(self.nodes.len());
                self.apart.insert((n.min(other), n.max(other)));
            }
            17 | 18 => self.apart.clear(),
            19 => {
                let c = self.rng.below(CONSUMERS);
                self.unsubscribe(c);
            }
            20 => {
                // Two operators at once.
                self.write_rule(n, p);
                self.write_rule(self.nodes.len() - 1 - n, p);
            }
            21 => {
                // All at once: a switch that fails.
                self.cut.extend((0..PROVIDERS).map(|p| (p, n)));
            }
            22 => self.cut.clear(),
            23 => self.providers[p].weight = self.rng.below(3) as u32,
            _ => {}
        }
    }

    fn begin(&mut self, p: usize) {
        let incarnation = self.providers[p].incarnation;
        if !self.providers[p].alive {
            self.providers[p] = Provider { alive: true, incarnation: incarnation + 1, weight: 100, ..Provider::default() };
        }
        self.providers[p].withdrawn = false;
    }

    /// Killed: its connections break, as far as the nodes can see that.
    fn end(&mut self, p: usize) {
        self.providers[p].alive = false;
        for n in 0..self.nodes.len() {
            let Some((session, _)) = self.providers[p].sessions[n].take() else { continue };
            if let Some(state) = self.nodes[n].state.as_mut().filter(|_| !self.cut.contains(&(p, n))) {
                state.lost(self.now, session);
            }
        }
    }

    fn withdraw(&mut self, p: usize) {
        let provider = &mut self.providers[p];
        if !provider.alive || provider.withdrawn {
            return;
        }
        provider.withdrawn = true;
        let key = provider.entry(p).key();
        for n in 0..self.nodes.len() {
            let (Some((session, _)), Some(state)) = (self.providers[p].sessions[n], &mut self.nodes[n].state) else { continue };
            if !self.cut.contains(&(p, n)) {
                let _ = state.withdraw(self.now, session, &key, false);
            }
        }
    }

    /// A provider's agent at a node.
    fn provide(&mut self, p: usize, n: usize) {
        let provider = &self.providers[p];
        let Some(state) = self.nodes[n].state.as_mut().filter(|_| provider.alive && !self.cut.contains(&(p, n))) else { return };
        let entry = provider.entry(p);
        let renewed = match provider.sessions[n] {
            Some((session, _)) => state.renew(self.now, session).map(|()| session),
            None => {
                if !self.rng.one_in(3) {
                    return;
                }
                let own =
                    if provider.withdrawn { Vec::new() } else { vec![Own { key: entry.key(), hash: Stored::of(&entry).unwrap().hash }] };
                self.next_session += 1;
                let who = Consumer { application: String::new(), host: String::new() };
                let opened = state.open(self.now, self.next_session, None, "host", &Hello { namespace: String::new(), who, own });
                if opened.as_ref().is_ok_and(|opened| opened.missing.is_empty() && !provider.withdrawn) {
                    self.nodes[n].heard[p] = Some(self.now);
                }
                opened.map(|opened| opened.session)
            }
        };
        let Ok(session) = renewed else {
            self.providers[p].sessions[n] = None;
            return;
        };
        self.providers[p].sessions[n] = Some((session, self.now));
        let Some(state) = self.nodes[n].state.as_mut() else { return };
        let holds = state.holds(session, &entry.key()).unwrap();
        match self.providers[p].withdrawn {
            // A node that was not reached then.
            true if holds => state.withdraw(self.now, session, &entry.key(), false).unwrap(),
            true => {}
            false => {
                // What it holds may have changed: another weight.
                if !holds || self.rng.one_in(20) {
                    state.register(self.now, session, &entry).unwrap();
                }
                self.nodes[n].heard[p] = Some(self.now);
            }
        }
    }

    /// Node n asks the others.
    fn sync(&mut self, n: usize) {
        let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != n).collect();
        for (peer, other) in others.into_iter().enumerate() {
            if self.apart.contains(&(n.min(other), n.max(other))) {
                continue;
            }
            let Ok([Node { state: Some(own), rules, .. }, Node { state: Some(asked), .. }]) = self.nodes.get_disjoint_mut([n, other])
            else {
                continue;
            };
            let (known, grave) = own.peer_known(peer);
            let said = asked.holdings(self.now, known, grave);
            let (ask, other_rules) = own.peer_said(self.now, peer, &said);
            for of in ask {
                let held = compact::decode(&asked.held(&of.namespace, &of.service).unwrap()).unwrap();
                own.peer_holds(self.now, peer, &of, held, said.complete).unwrap();
                saw(&self.seen.copied);
            }
            own.peer_copied(peer, &said);
            if other_rules {
                asked.all_rules().into_iter().for_each(|version| own.merge_rule(self.now, version).unwrap());
                *rules = own.all_rules();
            }
        }
    }

    fn save(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if let Some(saved) = node.state.as_mut().and_then(State::take_unsaved) {
            node.disk = saved;
        }
    }

    fn write_rule(&mut self, n: usize, of: usize) {
        let body = if self.rng.one_in(4) { String::new() } else { self.rng.below(1000).to_string() };
        let rule = Rule { service: service(of), kind: "k".into(), name: "n".into(), body };
        if let Some(state) = &mut self.nodes[n].state {
            state.write_rule(self.now, "", rule, "").unwrap();
            self.nodes[n].rules = state.all_rules();
        }
    }

    fn consume(&mut self, c: usize) {
        let gone = self.readers[c].as_ref().is_some_and(|r| self.nodes[r.node].state.is_none() || self.nodes[r.node].life != r.life);
        if gone {
            self.readers[c] = None;
        }
        if self.readers[c].is_none() {
            self.subscribe(c);
        }
        let Some(mut reader) = self.readers[c].take() else { return };
        while let Some(state) = &mut self.nodes[reader.node].state
            && let Some((bytes, at)) = state.read(reader.topic, reader.at, reader.first).unwrap()
        {
            let push: Push = compact::decode(&bytes).unwrap();
            if !push.whole {
                saw(&self.seen.deltas);
            }
            if reader.first && !push.whole && push.epoch == at.epoch {
                saw(&self.seen.resumed);
            }
            let updates = self.mirrors[c].apply(&service(c), push).unwrap();
            (reader.at, reader.first) = (Some(at), false);
            updates.iter().for_each(|update| self.count(reader.node, update));
        }
        self.readers[c] = Some(reader);
    }

    fn unsubscribe(&mut self, c: usize) {
        let Some(reader) = self.readers[c].take() else { return };
        let node = &mut self.nodes[reader.node];
        if let Some(state) = node.state.as_mut().filter(|_| node.life == reader.life) {
            state.unsubscribe(&Arc::from("c"), reader.topic, reader.reader);
        }
    }

    fn subscribe(&mut self, c: usize) {
        let n = self.rng.below(self.nodes.len());
        let Some(state) = &mut self.nodes[n].state else { return };
        let known = Some(self.mirrors[c].known());
        let interest = Interest { namespace: String::new(), service: service(c), known };
        let (topic, reader) = state.subscribe(&Arc::from("c"), &interest, None).unwrap();
        self.readers[c] = Some(Reader { node: n, topic, reader, at: known, first: true, life: self.nodes[n].life });
    }

    /// Counts what nodes say.
    fn count(&self, n: usize, update: &Update) {
        let node = &self.nodes[n];
        match update {
            Update::Gone(_, Gone::Withdrawn) => saw(&self.seen.withdrawn),
            Update::Suspect(_) => saw(&self.seen.suspect),
            Update::Gone(..) => saw(&self.seen.expired),
            Update::All(listing) if listing.completeness == Completeness::Incomplete && self.now - node.begun > LEASE * 2 => {
                saw(&self.seen.protected);
            }
            _ => {}
        }
    }

    /// No more faults: everybody comes back, and after a while all is as it should be.
    fn settle(&mut self) {
        self.calm = true;
        self.cut.clear();
        self.apart.clear();
        for n in 0..self.nodes.len() {
            if self.nodes[n].state.is_none() {
                self.start(n, false);
            }
        }
        let end = self.now + LEASE * 30;
        while self.now < end {
            self.step();
        }
        let lives = |(n, p): (usize, &Provider)| (p.alive && !p.withdrawn).then(|| p.entry(n));
        let living: Vec<Entry> = self.providers.iter().enumerate().filter_map(lives).collect();
        let alive = |s: usize| living.iter().filter(|e| e.service == service(s)).cloned().collect::<Vec<Entry>>();
        let mut rules: Option<BTreeSet<(Moment, String)>> = None;
        for n in 0..self.nodes.len() {
            let node = self.nodes[n].state.as_mut().unwrap();
            for s in 0..3 {
                let interest = Interest { namespace: String::new(), service: service(s), known: None };
                let push: Push = compact::decode(&node.list(&interest).unwrap()).unwrap();
                let mut mirror = Mirror::default();
                mirror.apply(&service(s), push).unwrap();
                let mut listing = mirror.listing();
                listing.entries.sort_by_key(|e| e.instance);
                assert_eq!(listing.entries.iter().map(Arc::as_ref).collect::<Vec<_>>(), alive(s).iter().collect::<Vec<_>>(), "node {n}");
                assert_eq!((listing.suspect.len(), listing.completeness), (0, Completeness::Complete), "node {n}");
                self.seen.conflicts.fetch_add(node.rules("", &service(s)).1.len(), Ordering::Relaxed);
            }
            let here = node.all_rules().into_iter().map(|v| (v.at, v.rule.body)).collect();
            assert_eq!(rules.get_or_insert_with(|| BTreeSet::clone(&here)), &here, "node {n}");
        }
        for c in 0..CONSUMERS {
            self.consume(c);
            assert_eq!(self.mirrors[c].listing().entries.len(), alive(c).len(), "consumer {c}");
        }
    }
}

fn names(state: &State) -> BTreeSet<(InstanceId, u64)> {
    state.topics.values().flat_map(|t| t.records()).map(|r| (r.stored.name.instance, r.stored.name.incarnation)).collect()
}

/// The sums that the limits go by are what they are sums of.
fn check_counts(state: &State) {
    let records = || state.topics.iter().flat_map(|(number, t)| t.records().map(move |r| (*number, r)));
    assert_eq!(state.entries, records().count());
    assert_eq!(state.bytes, records().map(|(_, r)| r.stored.cost()).sum::<usize>());
    for (id, session) in &state.sessions {
        assert_eq!(session.count, session.entries.values().map(|of| of.len()).sum::<usize>());
        for (topic, of) in &session.entries {
            assert!(of.iter().all(|i| state.topics[topic].record(*i).is_some_and(|r| r.session == Some(*id))), "a session's entry");
        }
    }
    let shares: usize = state.callers.values().map(|share| share.entries).sum();
    assert_eq!(shares, state.sessions.values().map(|s| s.count).sum::<usize>(), "what callers have is what their sessions have");
    assert!(state.callers.values().all(|share| share.entries > 0 && share.topics.values().sum::<usize>() == share.entries));
    for (topic, record) in records() {
        let place = (topic, record.stored.name.instance);
        match record.session {
            Some(session) => assert!(state.sessions[&session].entries[&topic].contains(&place.1) && !state.loose.contains_key(&place)),
            None => assert!(record.peers != 0 || state.loose.contains_key(&place), "an entry that nothing would ever let go"),
        }
    }
    assert!(state.loose.keys().all(|(topic, i)| state.topics.get(topic).is_some_and(|t| t.record(*i).is_some())));
}

#[test]
fn nodes_providers_and_consumers_under_faults() {
    let seen = Seen::default();
    run_seeds(0..40, |seed| {
        let mut world = World::new(seed, &seen);
        (0..500).for_each(|_| world.step());
        world.settle();
    });
    if !replaying() {
        let all = format!("{seen:?}");
        assert!(!all.contains(": 0"), "something that was to be tried was not: {all}");
    }
}
