//! A backend as the guard must expect it to be.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use farcall_registry::{Completeness, Entry, EntryKey, Gone, InstanceId, Listing, Update};
use farcall_sim::Rng;

/// A lease, and a warm-up, in milliseconds.
pub(crate) const LEASE: u64 = 3000;

/// An entry that is held.
#[derive(Clone)]
struct Held {
    entry: Arc<Entry>,
    /// Its provider's connection is up; else the lease ends then.
    ends: Option<u64>,
}

/// See the module's text.
pub(crate) struct Backend {
    held: BTreeMap<InstanceId, Held>,
    epoch: u64,
    revision: u64,
    pub(crate) up: bool,
    /// Answers nothing, and tells nothing.
    pub(crate) hangs: bool,
    /// It was started lately, and says so.
    warm_at: u64,
    /// It can tell withdrawals and expiries apart; a tree of nodes cannot.
    says_why: bool,
    /// It says that its listings are complete although it was just started: other people's do.
    rash: bool,
    /// Listings of earlier moments, that it may give again.
    earlier: Vec<Listing>,
    /// What it told since, for the subscriber: with the moment at which it arrives.
    pub(crate) told: VecDeque<(u64, Update)>,
    pub(crate) subscribed: bool,
}

impl Backend {
    pub(crate) fn new(rng: &mut Rng) -> Backend {
        Backend {
            held: BTreeMap::new(),
            epoch: 1,
            revision: 0,
            up: true,
            hangs: false,
            warm_at: 0,
            says_why: !rng.one_in(3),
            rash: rng.one_in(3),
            earlier: Vec::new(),
            told: VecDeque::new(),
            subscribed: false,
        }
    }

    pub(crate) fn answers(&self) -> bool {
        self.up && !self.hangs
    }

    fn tell(&mut self, update: Update, now: u64, rng: &mut Rng) {
        self.revision += 1;
        if self.subscribed {
            let last = self.told.back().map_or(0, |(at, _)| *at);
            // In order, some time later; sometimes twice.
            let at = last.max(now + rng.below(200) as u64);
            for _ in 0..if rng.one_in(8) { 2 } else { 1 } {
                self.told.push_back((at, update.clone()));
            }
        }
    }

    /// The listing now; a stale one now and then, if that may be.
    pub(crate) fn listing(&mut self, now: u64, calm: bool, rng: &mut Rng) -> Listing {
        if !calm && rng.one_in(6) && !self.earlier.is_empty() {
            return self.earlier[rng.below(self.earlier.len())].clone();
        }
        let complete = self.rash || now >= self.warm_at;
        let listing = Listing {
            entries: self.held.values().map(|held| Arc::clone(&held.entry)).collect(),
            suspect: self.held.values().filter(|held| held.ends.is_some()).map(|held| held.entry.key()).collect(),
            rules: Vec::new(),
            completeness: if complete { Completeness::Complete } else { Completeness::Incomplete },
            revision: self.revision,
            epoch: self.epoch,
        };
        self.earlier.push(listing.clone());
        self.earlier.truncate(4);
        listing
    }

    pub(crate) fn subscribe(&mut self, now: u64, calm: bool, rng: &mut Rng) {
        self.told.clear();
        self.subscribed = true;
        let listing = self.listing(now, calm, rng);
        self.told.push_back((now, Update::All(listing)));
    }

    /// Its provider publishes; the connection is up from now on.
    pub(crate) fn publish(&mut self, entry: &Arc<Entry>, now: u64, rng: &mut Rng) {
        if self.held.get(&entry.instance).is_some_and(|held| held.entry.incarnation > entry.incarnation) {
            return;
        }
        self.held.insert(entry.instance, Held { entry: Arc::clone(entry), ends: None });
        self.tell(Update::Put(Arc::clone(entry)), now, rng);
    }

    pub(crate) fn holds(&self, key: &EntryKey) -> bool {
        self.held.get(&key.instance).is_some_and(|held| held.entry.key() == *key)
    }

    pub(crate) fn withdraw(&mut self, key: &EntryKey, now: u64, rng: &mut Rng) {
        if self.holds(key) {
            self.held.remove(&key.instance);
            let why = if self.says_why { Gone::Withdrawn } else { Gone::Unsaid };
            self.tell(Update::Gone(key.clone(), why), now, rng);
        }
    }

    /// The provider's connection is lost: its lease runs out.
    pub(crate) fn cut(&mut self, instance: InstanceId, now: u64, rng: &mut Rng) {
        let Some(held) = self.held.get_mut(&instance).filter(|held| held.ends.is_none()) else { return };
        held.ends = Some(now + LEASE);
        let key = held.entry.key();
        if self.says_why {
            self.tell(Update::Suspect(key), now, rng);
        }
    }

    /// Leases end, but not in the warm-up.
    pub(crate) fn tick(&mut self, now: u64, rng: &mut Rng) {
        if !self.answers() || now < self.warm_at {
            return;
        }
        let over: Vec<EntryKey> =
            self.held.values().filter(|held| held.ends.is_some_and(|ends| ends <= now)).map(|held| held.entry.key()).collect();
        for key in over {
            self.held.remove(&key.instance);
            let why = if self.says_why { Gone::Expired } else { Gone::Unsaid };
            self.tell(Update::Gone(key, why), now, rng);
        }
    }

    /// It is gone, and whatever it was about to tell.
    pub(crate) fn stop(&mut self) {
        self.up = false;
        self.subscribed = false;
        self.told.clear();
    }

    /// It comes back, with what it had or with nothing.
    pub(crate) fn start(&mut self, now: u64, wiped: bool) {
        self.up = true;
        self.warm_at = now + LEASE;
        self.epoch += 1;
        self.revision = 0;
        self.earlier.clear();
        if wiped {
            self.held.clear();
        }
        // Nobody's connection has outlived it.
        self.held.values_mut().for_each(|held| held.ends = Some(now + LEASE));
    }
}
