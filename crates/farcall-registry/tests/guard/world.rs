//! Providers, backends and one consumer in one struct, driven at random.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farcall_registry::guard::{Action, Keeping, List, Random, Reach, Task};
use farcall_registry::{Entry, Gone, GuardSettings, InstanceId, ServiceKey, Update};
use farcall_sim::Rng;

use crate::backend::Backend;

/// How long things go wrong, and how long they may take to come right again, in milliseconds.
const STORM: u64 = 60_000;
const CALM: u64 = 60_000;
/// What a step takes, in milliseconds.
const STEP: u64 = 20;
/// The cap on a backend's answer.
const CAP: u64 = 1000;

struct Provider {
    entry: Arc<Entry>,
    alive: bool,
    /// It has taken itself back, and is about to end.
    leaving: bool,
    keeping: Vec<Keeping>,
    /// Nobody reaches it, and it reaches nobody.
    cut_off: bool,
}

/// An answer under way.
enum Answer {
    Pulled(usize, Option<farcall_registry::Listing>),
    Ended(usize, u64),
    Probed(InstanceId, u64, Reach),
}

pub(crate) struct World {
    now: u64,
    rng: Rng,
    backends: Vec<Backend>,
    providers: Vec<Provider>,
    list: List,
    settings: GuardSettings,
    answers: Vec<(u64, Answer)>,
    /// The number of each backend's subscription: an end of an earlier one is not listened to.
    subscriptions: Vec<u64>,
    /// Withdrawals that the consumer was told: until when, up to which incarnation, by whom, in which epoch it was.
    graves: BTreeMap<InstanceId, (u64, u64, usize)>,
    actions: u64,
    calm: bool,
    trace: Vec<String>,
}

fn service() -> ServiceKey {
    ServiceKey { name: "Payment".into(), group: String::new(), version: String::new() }
}

fn entry(n: usize, incarnation: u64) -> Arc<Entry> {
    let at = Entry::at(&service(), format!("tcp://10.0.0.{n}:1"));
    Arc::new(Entry { instance: InstanceId([n as u8; 16]), incarnation, application: "sim".into(), ..at })
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let settings = GuardSettings {
            pull: Duration::from_millis(2000),
            check: Duration::from_millis(2000),
            retry_base: Duration::from_millis(200),
            retry_cap: Duration::from_millis(5000),
            call: Duration::from_millis(CAP),
            suspect: Duration::from_secs(if rng.one_in(4) { 5 } else { 600 }),
            probe: Duration::from_millis(200),
            tombstone: Duration::from_millis(10_000),
            entries: 100,
        };
        let backends: Vec<Backend> = (0..1 + rng.below(3)).map(|_| Backend::new(&mut rng)).collect();
        let n = backends.len();
        let list = List::new(service(), n, settings.clone(), Random::new(rng.any()));
        let mut world = World {
            now: 0,
            rng,
            backends,
            providers: Vec::new(),
            list,
            settings,
            answers: Vec::new(),
            subscriptions: vec![0; n],
            graves: BTreeMap::new(),
            actions: 0,
            calm: false,
            trace: Vec::new(),
        };
        for n in 0..1 + world.rng.below(5) {
            let provider = world.provider(n, 1);
            world.providers.push(provider);
        }
        world
    }

    fn provider(&mut self, n: usize, incarnation: u64) -> Provider {
        let keeping = self.backends.iter().map(|_| Keeping::new(self.settings.clone(), Random::new(self.rng.any()))).collect();
        Provider { entry: entry(n, incarnation), alive: true, leaving: false, keeping, cut_off: false }
    }

    pub(crate) fn run(mut self) {
        while self.now < STORM {
            if self.rng.one_in(200) {
                self.fault();
            }
            self.step();
        }
        self.heal();
        let actions = self.actions;
        while self.now < STORM + CALM {
            self.step();
        }
        self.is_the_truth();
        // With pulls and checks every two seconds or so, and nothing wrong, there is little to do.
        let most = 40 + (CALM / 1000) * self.backends.len() as u64 * 4;
        assert!(self.actions - actions < most, "{} actions in calm", self.actions - actions);
    }

    fn at(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    fn step(&mut self) {
        self.now += STEP;
        for n in 0..self.backends.len() {
            self.backends[n].tick(self.now, &mut self.rng);
            self.deliver(n);
        }
        self.answer();
        self.provide();
        self.act();
    }

    /// Something goes wrong, or right again.
    fn fault(&mut self) {
        let (b, p) = (self.rng.below(self.backends.len()), self.rng.below(self.providers.len()));
        match self.rng.below(10) {
            0 | 1 if self.backends[b].up => {
                self.note(format!("backend {b} stops"));
                self.backends[b].stop();
                self.end_subscription(b);
                self.lose_publications(b);
            }
            0..=2 => {
                let wiped = self.rng.one_in(2);
                self.note(format!("backend {b} starts, wiped: {wiped}"));
                if !self.backends[b].up {
                    self.backends[b].start(self.now, wiped);
                }
            }
            3 => {
                self.backends[b].hangs = !self.backends[b].hangs;
                self.note(format!("backend {b} hangs: {}", self.backends[b].hangs));
            }
            4 => {
                self.note(format!("provider {p} dies"));
                self.die(p);
            }
            5 | 6 if !self.providers[p].alive => {
                let incarnation = self.providers[p].entry.incarnation + 1;
                self.note(format!("provider {p} starts with {incarnation}"));
                self.providers[p] = self.provider(p, incarnation);
            }
            7 => {
                let cut_off = !self.providers[p].cut_off;
                self.note(format!("provider {p} cut off: {cut_off}"));
                self.cut_off(p, cut_off);
            }
            8 if self.providers[p].alive && !self.providers[p].cut_off => {
                self.note(format!("provider {p} leaves"));
                self.leave(p);
            }
            _ => {
                // The consumer's subscription is cut.
                self.note(format!("subscription {b} is cut"));
                self.backends[b].subscribed = false;
                self.backends[b].told.clear();
                self.end_subscription(b);
            }
        }
    }

    fn note(&mut self, what: String) {
        let line = format!("{:>6} {what}", self.now);
        self.say(|| line.clone());
        self.trace.push(line);
    }

    /// Only for those who replay a seed.
    fn say(&self, what: impl FnOnce() -> String) {
        if std::env::var_os("FARCALL_SEED").is_some() {
            eprintln!("{:>6} {}", self.now, what());
        }
    }

    fn heal(&mut self) {
        self.calm = true;
        for b in 0..self.backends.len() {
            self.backends[b].hangs = false;
            if !self.backends[b].up {
                self.backends[b].start(self.now, false);
            }
        }
        (0..self.providers.len()).for_each(|p| self.cut_off(p, false));
        self.note("calm".to_owned());
    }

    fn end_subscription(&mut self, b: usize) {
        self.answers.push((self.now + 20, Answer::Ended(b, self.subscriptions[b])));
    }

    fn lose_publications(&mut self, b: usize) {
        let now = self.at();
        let held = self.providers.iter_mut().filter(|p| p.alive && p.keeping[b].is_held());
        held.for_each(|provider| provider.keeping[b].lost(now));
    }

    fn die(&mut self, p: usize) {
        self.providers[p].alive = false;
        let instance = self.providers[p].entry.instance;
        for b in 0..self.backends.len() {
            self.backends[b].cut(instance, self.now, &mut self.rng);
        }
    }

    fn cut_off(&mut self, p: usize, cut_off: bool) {
        let provider = &mut self.providers[p];
        if std::mem::replace(&mut provider.cut_off, cut_off) != cut_off && provider.alive {
            let (instance, now) = (provider.entry.instance, Duration::from_millis(self.now));
            for b in 0..self.backends.len() {
                self.backends[b].cut(instance, self.now, &mut self.rng);
                if self.providers[p].keeping[b].is_held() {
                    self.providers[p].keeping[b].lost(now);
                }
            }
        }
    }

    /// As on SIGTERM: it withdraws where that is possible, then it ends.
    fn leave(&mut self, p: usize) {
        let key = self.providers[p].entry.key();
        for b in 0..self.backends.len() {
            match self.backends[b].answers() {
                true => self.backends[b].withdraw(&key, self.now, &mut self.rng),
                false => self.backends[b].cut(key.instance, self.now, &mut self.rng),
            }
        }
        self.providers[p].leaving = true;
        self.providers[p].alive = false;
    }

    fn provide(&mut self) {
        let now = self.at();
        for p in 0..self.providers.len() {
            for b in 0..self.backends.len() {
                let provider = &mut self.providers[p];
                if !provider.alive {
                    continue;
                }
                let (entry, reaches) = (Arc::clone(&provider.entry), self.backends[b].answers() && !provider.cut_off);
                match provider.keeping[b].poll(now) {
                    Some(Task::Publish) if reaches => {
                        self.backends[b].publish(&entry, self.now, &mut self.rng);
                        self.providers[p].keeping[b].published(now);
                    }
                    Some(Task::Publish) => provider.keeping[b].failed(now),
                    Some(Task::Check) => {
                        let there = reaches.then(|| self.backends[b].holds(&entry.key()));
                        provider.keeping[b].checked(there, now);
                    }
                    None => {}
                }
            }
        }
    }

    fn deliver(&mut self, b: usize) {
        while self.backends[b].answers()
            && let Some((at, _)) = self.backends[b].told.front()
            && *at <= self.now
            && let Some((_, update)) = self.backends[b].told.pop_front()
        {
            self.say(|| format!("backend {b} tells {update:?}"));
            let mut reasons = BTreeSet::new();
            if let Update::Gone(key, Gone::Withdrawn | Gone::Expired) = &update {
                reasons.insert(key.instance);
            }
            if let Update::Gone(key, Gone::Withdrawn) = &update {
                let grave = (self.now + self.settings.tombstone.as_millis() as u64, key.incarnation, b);
                self.graves.insert(key.instance, grave);
            }
            if let Update::Put(entry) = &update
                && self.graves.get(&entry.instance).is_some_and(|(_, _, by)| *by == b)
            {
                self.graves.remove(&entry.instance);
            }
            self.change(&reasons, |list, now| list.update(b, update, now));
        }
    }

    fn answer(&mut self) {
        let now = self.now;
        let due: Vec<(u64, Answer)> = self.answers.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, answer) in due {
            match answer {
                Answer::Pulled(b, listing) => {
                    self.say(|| format!("backend {b} lists {listing:?}"));
                    self.change(&BTreeSet::new(), |list, now| list.pulled(b, listing, now));
                }
                Answer::Ended(b, number) if number == self.subscriptions[b] => {
                    self.change(&BTreeSet::new(), |list, now| list.ended(b, now));
                }
                Answer::Ended(..) => {}
                Answer::Probed(instance, incarnation, reach) => {
                    let refused = reach == Reach::Refused;
                    let unlisted = self.list.instances().any(|i| i.entry.instance == instance && !i.listed && i.suspect);
                    let reasons = if refused && unlisted { BTreeSet::from([instance]) } else { BTreeSet::new() };
                    self.change(&reasons, |list, now| list.reached(instance, incarnation, reach, now));
                    self.list.probed(instance, self.at());
                }
            }
        }
    }

    fn act(&mut self) {
        let now = self.at();
        loop {
            let before: BTreeSet<InstanceId> = self.list.instances().map(|i| i.entry.instance).collect();
            let action = self.list.poll(now);
            let old = self.settings.suspect < Duration::from_secs(600);
            let after: BTreeSet<InstanceId> = self.list.instances().map(|i| i.entry.instance).collect();
            assert!(old || before == after, "{:?} went by time alone", before.difference(&after));
            assert!(before == after || !after.is_empty(), "time has emptied the list");
            let Some(action) = action else { break };
            self.actions += 1;
            self.carry_out(action);
        }
        assert!(self.list.wake_at().is_none_or(|at| at > now), "awake again at once: {:?}", self.list.wake_at());
        assert!(self.actions < 100_000, "a busy loop");
    }

    fn carry_out(&mut self, action: Action) {
        let delay = self.now + self.rng.below(300) as u64;
        match action {
            Action::Subscribe(b) => {
                self.subscriptions[b] += 1;
                self.backends[b].subscribed = false;
                self.backends[b].told.clear();
                match self.backends[b].answers() {
                    true => self.backends[b].subscribe(self.now, self.calm, &mut self.rng),
                    false => self.answers.push((self.now + CAP, Answer::Ended(b, self.subscriptions[b]))),
                }
            }
            Action::Pull(b) => {
                let listing = self.backends[b].answers().then(|| self.backends[b].listing(self.now, self.calm, &mut self.rng));
                let at = if listing.is_some() { delay } else { self.now + CAP };
                self.answers.push((at, Answer::Pulled(b, listing)));
            }
            Action::Probe(entry) => {
                let provider = self.providers.iter().find(|p| p.entry.instance == entry.instance);
                let reach = match provider {
                    Some(p) if p.cut_off => Reach::Silent,
                    Some(p) if p.alive => Reach::Answered,
                    _ => Reach::Refused,
                };
                self.answers.push((delay, Answer::Probed(entry.instance, entry.incarnation, reach)));
            }
        }
    }

    /// Gives the list an event, after which only these may be gone.
    fn change(&mut self, reasons: &BTreeSet<InstanceId>, event: impl FnOnce(&mut List, Duration)) {
        let before: BTreeSet<InstanceId> = self.list.instances().map(|i| i.entry.instance).collect();
        event(&mut self.list, Duration::from_millis(self.now));
        let after: BTreeSet<InstanceId> = self.list.instances().map(|i| i.entry.instance).collect();
        for gone in before.difference(&after) {
            assert!(reasons.contains(gone), "{} {gone} left without a reason\n{}", self.now, self.trace.join("\n"));
        }
        for instance in self.list.instances() {
            let entry = &instance.entry;
            let buried = self.graves.get(&entry.instance).is_some_and(|(until, to, _)| self.now < *until && entry.incarnation <= *to);
            assert!(!buried, "{} {} is listed though withdrawn\n{}", self.now, entry.instance, self.trace.join("\n"));
        }
    }

    /// The list is what there is, and every backend has it.
    fn is_the_truth(&self) {
        let alive: BTreeSet<_> = self.providers.iter().filter(|p| p.alive).map(|p| (p.entry.instance, p.entry.incarnation)).collect();
        let listed: BTreeSet<_> = self.list.instances().map(|i| (i.entry.instance, i.entry.incarnation)).collect();
        assert_eq!(listed, alive, "{}", self.trace.join("\n"));
        for instance in self.list.instances() {
            assert!(instance.listed && !instance.suspect, "{instance:?}\n{}", self.trace.join("\n"));
        }
        for provider in self.providers.iter().filter(|p| p.alive) {
            assert!(provider.keeping.iter().all(Keeping::is_held));
            assert!(self.backends.iter().all(|b| b.holds(&provider.entry.key())), "{}", self.trace.join("\n"));
        }
        assert!((0..self.backends.len()).all(|b| self.list.is_live(b)));
    }
}
