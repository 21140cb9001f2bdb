//! The consumer's side: the instances of one service, merged from all backends. Empty is not unknown.
//!
//! An entry leaves only by (a) a withdrawal, at once, even to zero; (b) the end of its lease at a backend that sees normally, if no
//! other backend lists it; (c) being listed by nobody any more **and** refusing connections, or being out of sight for a long time
//! while others are there. A backend's silence, restart, wipe or hang drops nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::random::Random;
use super::settings::{GuardSettings, MOST_PROBES, MOST_TOMBSTONES};
use super::source::{Ask, Seen, Source};
use crate::entry::{Entry, EntryKey, InstanceId, ServiceKey};
use crate::registry::{Completeness, Gone, Listing, Rule, Update};

/// A pause between probes doubles so many times at most.
const PROBE_DOUBLINGS: u32 = 5;

/// An instance as the list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its entry.
    pub entry: Arc<Entry>,
    /// A backend lists it. Not so if it comes from the cache file, or was listed once and nobody said that it is gone.
    pub listed: bool,
    /// To be used last: a backend doubts it, no backend lists it any more, or it could not be connected to.
    pub suspect: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Subscribe to this backend, which ends an earlier subscription.
    Subscribe(usize),
    /// List at this backend.
    Pull(usize),
    /// Try to connect.
    Probe(Arc<Entry>),
}

/// How an attempt to connect, or a connection, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It answered.
    Answered,
    /// Nobody listens there.
    Refused,
    /// It could not be reached, or the connection was lost.
    Silent,
}

/// That an instance was withdrawn, up to this incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone {
    /// Which one.
    pub instance: InstanceId,
    /// This incarnation and all before it.
    pub incarnation: u64,
}

/// A withdrawal, who told of it, and how long it outweighs what others say.
#[derive(Debug, Clone, Copy)]
struct Grave {
    incarnation: u64,
    /// The backend and its epoch; none if it is known from the cache file.
    told_by: Option<(usize, u64)>,
    until: Duration,
}

/// An entry that nobody lists.
#[derive(Debug, Clone)]
struct Kept {
    entry: Arc<Entry>,
    /// Since a backend left it out; none if no backend was heard of yet.
    since: Option<Duration>,
}

/// That an instance was not reached.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    incarnation: u64,
    /// It could be connected to when it was tried last.
    answered: bool,
    probes: u32,
    probe_at: Duration,
    probing: bool,
}

/// See the module's text. Moments are counted from any start.
#[derive(Debug)]
pub struct List {
    service: ServiceKey,
    sources: Vec<Source>,
    kept: BTreeMap<InstanceId, Kept>,
    doubts: BTreeMap<InstanceId, Doubt>,
    graves: BTreeMap<InstanceId, Grave>,
    /// Instances in the order of their burial.
    burials: VecDeque<InstanceId>,
    merged: BTreeMap<InstanceId, Instance>,
    probing: usize,
    version: u64,
    /// Entries that were passed over since the start: another service, no address, too many.
    passed_over: u64,
    /// Pulls that found what no push had told.
    differed: u64,
    settings: GuardSettings,
    random: Random,
}

impl List {
    /// Of a service at so many backends, with nothing known yet.
    pub fn new(service: ServiceKey, sources: usize, settings: GuardSettings, random: Random) -> List {
        List {
            service,
            sources: (0..sources).map(|_| Source::default()).collect(),
            kept: BTreeMap::new(),
            doubts: BTreeMap::new(),
            graves: BTreeMap::new(),
            burials: VecDeque::new(),
            merged: BTreeMap::new(),
            probing: 0,
            version: 0,
            passed_over: 0,
            differed: 0,
            settings,
            random,
        }
    }

    /// Takes over what a cache file has: entries that no backend confirms yet, and withdrawals.
    pub fn restore(&mut self, entries: Vec<Arc<Entry>>, tombstones: &[Tombstone], now: Duration) {
        for tomb in tombstones {
            self.bury(tomb.instance, tomb.incarnation, None, now);
        }
        for entry in entries {
            let instance = entry.instance;
            if self.is_sound(&entry) && !self.is_buried(&entry, now) && self.merged.len() < self.settings.entries {
                self.keep(entry, None);
                self.settle(instance, now);
            }
        }
    }

    /// What is to be done now, one thing at a time until there is none.
    pub fn poll(&mut self, now: Duration) -> Option<Action> {
        for (n, source) in self.sources.iter_mut().enumerate() {
            match source.poll(now) {
                Some(Ask::Subscribe) => return Some(Action::Subscribe(n)),
                Some(Ask::Pull) => return Some(Action::Pull(n)),
                None => {}
            }
        }
        self.graves.retain(|_, grave| now < grave.until);
        self.forget_old(now);
        self.probe(now).map(Action::Probe)
    }

    /// When there will be something to do, if nothing comes before.
    pub fn wake_at(&self) -> Option<Duration> {
        let asks = self.sources.iter().filter_map(Source::wake_at);
        let probes = self.doubts.values().filter(|d| !d.probing && self.probing < MOST_PROBES).map(|d| d.probe_at);
        let ends = self.kept.values().filter_map(|kept| kept.since).map(|since| since + self.settings.suspect);
        // What stays beyond its end because it is all there is, is looked at again with the next thing that happens.
        let ends = ends.filter(|_| self.has_sure());
        asks.chain(probes).chain(ends).min()
    }

    /// What a subscription tells.
    pub fn update(&mut self, source: usize, update: Update, now: Duration) {
        let Some(from) = self.sources.get_mut(source) else { return };
        from.heard += 1;
        match update {
            Update::All(listing) => self.all(source, listing, now),
            Update::Put(entry) => self.put(source, entry, now),
            Update::Suspect(key) => self.suspect(source, &key, now),
            Update::Gone(key, Gone::Withdrawn) => self.withdrawn(source, &key, now),
            Update::Gone(key, why) => self.left(source, &key, why, now),
            Update::Rules(rules) => self.rules(source, rules),
        }
    }

    /// The subscription has ended, or could not be made.
    pub fn ended(&mut self, source: usize, now: Duration) {
        if let Some(from) = self.sources.get_mut(source) {
            from.ended(now, &self.settings, &mut self.random);
        }
    }

    /// The answer to a pull; `None` if it failed.
    pub fn pulled(&mut self, source: usize, listing: Option<Listing>, now: Duration) {
        let Some(from) = self.sources.get_mut(source) else { return };
        if !from.pulled(now, &self.settings, &mut self.random) {
            return;
        }
        let same = listing.as_ref().map(|listing| self.is_as_listed(source, listing, now));
        self.differed += u64::from(same == Some(false));
        if self.sources[source].judged(same == Some(true)) {
            self.ended(source, now);
        }
        if let Some(listing) = listing.filter(|_| same == Some(false)) {
            self.all(source, listing, now);
        }
    }

    /// How an attempt to connect to an instance ended, or that its connection was lost.
    pub fn reached(&mut self, instance: InstanceId, incarnation: u64, reach: Reach, now: Duration) {
        let Some(known) = self.merged.get(&instance).filter(|i| i.entry.incarnation == incarnation) else { return };
        let unlisted = !known.listed && self.kept.get(&instance).is_some_and(|kept| kept.since.is_some());
        match reach {
            Reach::Refused if unlisted => {
                self.kept.remove(&instance);
            }
            Reach::Answered => self.answered(instance, unlisted),
            Reach::Refused | Reach::Silent => self.doubt(instance, incarnation, now),
        }
        self.settle(instance, now);
    }

    /// A probe is over; tell [`reached`](List::reached) what it found, before.
    pub fn probed(&mut self, instance: InstanceId, now: Duration) {
        self.probing = self.probing.saturating_sub(1);
        let Some(doubt) = self.doubts.get_mut(&instance) else { return };
        doubt.probing = false;
        doubt.probes = (doubt.probes + 1).min(PROBE_DOUBLINGS);
        doubt.probe_at = now + self.random.about(self.settings.probe * (1 << doubt.probes));
    }

    /// The instances, in order of their names.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.merged.values()
    }

    /// Withdrawals that still count.
    pub fn tombstones(&self) -> impl Iterator<Item = Tombstone> {
        self.graves.iter().map(|(instance, grave)| Tombstone { instance: *instance, incarnation: grave.incarnation })
    }

    /// Grows with every change of the instances, the withdrawals or the rules.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether a backend has told all there is: an empty list means "none" then, and "unknown" before.
    pub fn is_known(&self) -> bool {
        self.sources.iter().any(|source| source.complete)
    }

    /// Whether any backend has told what it has.
    pub fn is_heard(&self) -> bool {
        self.sources.iter().any(|source| source.heard > 0)
    }

    /// Whether this backend's subscription is on and has told all there is.
    pub fn is_live(&self, source: usize) -> bool {
        self.sources.get(source).is_some_and(|source| source.live)
    }

    /// The rules of all backends.
    pub fn all_rules(&self) -> Vec<Arc<Rule>> {
        let mut seen = BTreeSet::new();
        let all = self.sources.iter().flat_map(|source| &source.rules);
        all.filter(|rule| seen.insert((rule.kind.clone(), rule.name.clone()))).cloned().collect()
    }

    /// Entries passed over since the start: of another service, without address, beyond the limit.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// Pulls since the start that found what no push had told.
    pub fn differed(&self) -> u64 {
        self.differed
    }
}

/// What happens to views.
impl List {
    fn all(&mut self, source: usize, listing: Listing, now: Duration) {
        let Some(from) = self.sources.get_mut(source) else { return };
        // An older state of the same history says nothing of what came after.
        let outdated = listing.epoch == from.epoch && listing.revision < from.revision;
        let complete = listing.completeness == Completeness::Complete && !outdated;
        if !outdated {
            (from.epoch, from.revision) = (listing.epoch, listing.revision);
            self.version += u64::from(!same_rules(&from.rules, &listing.rules));
            from.rules.clone_from(&listing.rules);
        }
        from.complete |= complete;
        from.told_all(now, &self.settings, &mut self.random);
        if complete {
            self.sort_out(source, &listing.entries, now);
        }
        let suspects: BTreeSet<EntryKey> = listing.suspect.into_iter().collect();
        for entry in listing.entries {
            let suspect = !suspects.is_empty() && suspects.contains(&entry.key());
            self.see(source, entry, suspect, now);
        }
        if complete {
            self.contradict_the_cache(now);
        }
    }

    /// Takes out of a backend's view what a listing that has all does not have.
    fn sort_out(&mut self, source: usize, entries: &[Arc<Entry>], now: Duration) {
        let mut listed: BTreeMap<InstanceId, u64> = BTreeMap::new();
        for entry in entries {
            let incarnation = listed.entry(entry.instance).or_default();
            *incarnation = entry.incarnation.max(*incarnation);
        }
        let there = |seen: &Seen| listed.get(&seen.entry.instance).is_some_and(|listed| *listed >= seen.entry.incarnation);
        let view = self.sources.get(source).map(|from| &from.view);
        let missing: Vec<EntryKey> =
            view.into_iter().flatten().filter(|(_, seen)| !there(seen)).map(|(_, seen)| seen.entry.key()).collect();
        missing.into_iter().for_each(|key| self.left(source, &key, Gone::Unsaid, now));
    }

    /// Whether a listing says what a backend is believed to have.
    fn is_as_listed(&self, source: usize, listing: &Listing, now: Duration) -> bool {
        let Some(from) = self.sources.get(source) else { return true };
        let mut listed: BTreeMap<InstanceId, &Arc<Entry>> = BTreeMap::new();
        for entry in listing.entries.iter().filter(|entry| self.is_sound(entry) && !self.is_buried(entry, now)) {
            let newest = listed.entry(entry.instance).or_insert(entry);
            if newest.incarnation < entry.incarnation {
                *newest = entry;
            }
        }
        let full = self.merged.len() >= self.settings.entries;
        let known = |entry: &Entry| from.view.get(&entry.instance).map_or(full, |seen| *seen.entry == *entry);
        let all = listing.completeness == Completeness::Incomplete || from.view.keys().all(|instance| listed.contains_key(instance));
        all && listed.values().all(|entry| known(entry)) && same_rules(&from.rules, &listing.rules)
    }

    /// What only the cache file has is in doubt, now that a backend has told all there is.
    fn contradict_the_cache(&mut self, now: Duration) {
        let cached: Vec<InstanceId> = self.kept.iter().filter(|(_, kept)| kept.since.is_none()).map(|(id, _)| *id).collect();
        for instance in cached {
            if let Some(kept) = self.kept.get_mut(&instance) {
                kept.since = Some(now);
            }
            self.settle(instance, now);
        }
    }

    fn put(&mut self, source: usize, entry: Arc<Entry>, now: Duration) {
        let same_history = self.graves.get(&entry.instance).is_some_and(|grave| {
            grave.told_by == self.sources.get(source).map(|from| (source, from.epoch)) && entry.incarnation <= grave.incarnation
        });
        if same_history {
            // Who told of the withdrawal tells, after it, that the instance is there again.
            self.graves.remove(&entry.instance);
        }
        self.see(source, entry, false, now);
    }

    /// Enters an entry into a backend's view, if there is nothing against it.
    fn see(&mut self, source: usize, entry: Arc<Entry>, suspect: bool, now: Duration) {
        let (instance, incarnation) = (entry.instance, entry.incarnation);
        let room = self.merged.len() < self.settings.entries || self.merged.contains_key(&instance);
        if !room || !self.is_sound(&entry) {
            self.passed_over += 1;
            return;
        }
        if self.is_buried(&entry, now) {
            return;
        }
        let Some(from) = self.sources.get_mut(source) else { return };
        if from.view.get(&instance).is_some_and(|seen| seen.entry.incarnation > incarnation) {
            return;
        }
        from.view.insert(instance, Seen { entry, suspect });
        self.settle(instance, now);
    }

    fn suspect(&mut self, source: usize, key: &EntryKey, now: Duration) {
        let seen = self.sources.get_mut(source).and_then(|from| from.view.get_mut(&key.instance));
        if let Some(seen) = seen.filter(|seen| seen.entry.incarnation == key.incarnation) {
            seen.suspect = true;
            self.settle(key.instance, now);
        }
    }

    /// Away at once, whatever other backends and the cache file have.
    fn withdrawn(&mut self, source: usize, key: &EntryKey, now: Duration) {
        let epoch = self.sources.get(source).map_or(0, |from| from.epoch);
        self.bury(key.instance, key.incarnation, Some((source, epoch)), now);
        for from in &mut self.sources {
            if from.view.get(&key.instance).is_some_and(|seen| seen.entry.incarnation <= key.incarnation) {
                from.view.remove(&key.instance);
            }
        }
        if self.kept.get(&key.instance).is_some_and(|kept| kept.entry.incarnation <= key.incarnation) {
            self.kept.remove(&key.instance);
        }
        self.settle(key.instance, now);
    }

    /// A backend does not list an entry any more.
    fn left(&mut self, source: usize, key: &EntryKey, why: Gone, now: Duration) {
        let (instance, incarnation) = (key.instance, key.incarnation);
        let Some(from) = self.sources.get_mut(source) else { return };
        let was = from.view.extract_if(instance..=instance, |_, seen| seen.entry.incarnation <= incarnation).next();
        let others = || self.sources.iter().filter_map(|s| s.view.get(&instance).map(|seen| (s.live, &seen.entry)));
        let elsewhere = others().any(|(live, entry)| live || entry.incarnation > incarnation);
        // What backends that are not heard now would say is not known: no reason to drop it, but one to doubt it.
        let unheard = others().find(|(live, _)| !live).map(|(_, entry)| Arc::clone(entry));
        if why == Gone::Expired && unheard.is_none() {
            self.kept.extract_if(instance..=instance, |_, kept| kept.entry.incarnation <= incarnation).for_each(drop);
        } else if !elsewhere {
            self.sources.iter_mut().for_each(|s| drop(s.view.remove(&instance)));
            let left = unheard.into_iter().chain(was.map(|(_, seen)| seen.entry));
            left.for_each(|entry| self.keep(entry, Some(now)));
        }
        self.settle(instance, now);
    }

    fn rules(&mut self, source: usize, rules: Vec<Arc<Rule>>) {
        if let Some(from) = self.sources.get_mut(source) {
            from.rules = rules;
            self.version += 1;
        }
    }
}

/// What is kept, doubted and forgotten.
impl List {
    fn is_sound(&self, entry: &Entry) -> bool {
        entry.service == self.service && !entry.addresses.is_empty()
    }

    fn is_buried(&self, entry: &Entry, now: Duration) -> bool {
        self.graves.get(&entry.instance).is_some_and(|grave| entry.incarnation <= grave.incarnation && now < grave.until)
    }

    fn bury(&mut self, instance: InstanceId, incarnation: u64, told_by: Option<(usize, u64)>, now: Duration) {
        if self.graves.get(&instance).is_some_and(|grave| grave.incarnation > incarnation) {
            return;
        }
        let until = now + self.settings.tombstone;
        self.graves.insert(instance, Grave { incarnation, told_by, until });
        self.version += 1;
        self.burials.push_back(instance);
        while self.burials.len() > MOST_TOMBSTONES {
            // One that was buried again since is in the queue again.
            if let Some(oldest) = self.burials.pop_front()
                && !self.burials.contains(&oldest)
            {
                self.graves.remove(&oldest);
            }
        }
    }

    fn keep(&mut self, entry: Arc<Entry>, since: Option<Duration>) {
        let newer = |kept: &Kept| kept.entry.incarnation > entry.incarnation;
        if !self.kept.get(&entry.instance).is_some_and(newer) {
            self.kept.insert(entry.instance, Kept { entry, since });
        }
    }

    /// Brings what is merged in line with what is known of an instance.
    fn settle(&mut self, instance: InstanceId, now: Duration) {
        let settled = self.weigh(instance);
        match &settled {
            Some(known) => {
                let unlisted = !known.listed && known.suspect;
                let of_another = self.doubts.get(&instance).is_some_and(|d| d.incarnation != known.entry.incarnation);
                if of_another {
                    self.end_doubt(instance);
                }
                if unlisted && !self.doubts.contains_key(&instance) {
                    // Whoever misses it misses it together with many others, and all look after it.
                    let pause = self.random.share(self.settings.probe);
                    self.enter_doubt(instance, known.entry.incarnation, true, now + pause);
                }
            }
            None => self.end_doubt(instance),
        }
        // The doubt may have ended above.
        let settled = settled.and_then(|_| self.weigh(instance));
        if self.merged.get(&instance) == settled.as_ref() {
            return;
        }
        self.version += 1;
        match settled {
            Some(known) => drop(self.merged.insert(instance, known)),
            None => drop(self.merged.remove(&instance)),
        }
    }

    /// The greatest incarnation counts; of equals what a backend lists.
    fn weigh(&mut self, instance: InstanceId) -> Option<Instance> {
        let seen = self.sources.iter().filter_map(|s| s.view.get(&instance).map(|seen| (s.live, seen)));
        let best = seen.max_by_key(|(live, seen)| (seen.entry.incarnation, *live, !seen.suspect)).map(|(_, seen)| seen);
        let unreached = |entry: &Entry| self.doubts.get(&instance).is_some_and(|d| d.incarnation == entry.incarnation && !d.answered);
        let kept = self.kept.get(&instance).filter(|kept| best.is_none_or(|best| kept.entry.incarnation > best.entry.incarnation));
        match (kept, best) {
            (Some(kept), _) => {
                let suspect = kept.since.is_some() || unreached(&kept.entry);
                Some(Instance { entry: Arc::clone(&kept.entry), listed: false, suspect })
            }
            (None, Some(seen)) => {
                let known = Instance { entry: Arc::clone(&seen.entry), listed: true, suspect: seen.suspect || unreached(&seen.entry) };
                self.kept.remove(&instance);
                Some(known)
            }
            (None, None) => None,
        }
    }

    fn enter_doubt(&mut self, instance: InstanceId, incarnation: u64, answered: bool, probe_at: Duration) {
        self.end_doubt(instance);
        self.doubts.insert(instance, Doubt { incarnation, answered, probes: 0, probe_at, probing: false });
    }

    fn end_doubt(&mut self, instance: InstanceId) {
        self.doubts.remove(&instance);
    }

    fn doubt(&mut self, instance: InstanceId, incarnation: u64, now: Duration) {
        match self.doubts.get_mut(&instance) {
            Some(doubt) => doubt.answered = false,
            None => {
                let pause = self.random.share(self.settings.probe);
                self.enter_doubt(instance, incarnation, false, now + pause);
            }
        }
    }

    fn answered(&mut self, instance: InstanceId, unlisted: bool) {
        match self.doubts.get_mut(&instance) {
            // It stays suspect as long as nobody lists it, and is looked after from time to time.
            Some(doubt) if unlisted => doubt.answered = true,
            _ => self.end_doubt(instance),
        }
    }

    /// The next suspect that is due.
    fn probe(&mut self, now: Duration) -> Option<Arc<Entry>> {
        if self.probing >= MOST_PROBES {
            return None;
        }
        let (instance, doubt) = self.doubts.iter_mut().find(|(_, d)| !d.probing && d.probe_at <= now)?;
        doubt.probing = true;
        self.probing += 1;
        self.merged.get(instance).map(|known| Arc::clone(&known.entry))
    }

    fn has_sure(&self) -> bool {
        self.merged.values().any(|known| known.listed && !known.suspect && known.entry.is_callable())
    }

    /// Lets go of what nobody has listed for a long time, if there is something else.
    fn forget_old(&mut self, now: Duration) {
        let old = |kept: &Kept| kept.since.is_some_and(|since| since + self.settings.suspect <= now);
        if !self.kept.values().any(old) || !self.has_sure() {
            return;
        }
        let gone: Vec<InstanceId> = self.kept.extract_if(.., |_, kept| old(kept)).map(|(instance, _)| instance).collect();
        gone.into_iter().for_each(|instance| self.settle(instance, now));
    }
}

/// Whether two listings have the same rules, in whatever order.
fn same_rules(a: &[Arc<Rule>], b: &[Arc<Rule>]) -> bool {
    a == b || a.len() == b.len() && a.iter().all(|rule| b.contains(rule))
}
