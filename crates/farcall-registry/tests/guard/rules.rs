//! Single rules of the guard, each where the simulation would only show that something is wrong: times, limits, who outweighs whom.

use std::sync::Arc;
use std::time::Duration;

use farcall_registry::guard::{Action, Keeping, List, MOST_PROBES, MOST_TOMBSTONES, Random, Reach, Task};
use farcall_registry::{Completeness, Entry, EntryKey, Gone, GuardSettings, InstanceId, Listing, Rule, ServiceKey, Update};

const SEC: Duration = Duration::from_secs(1);

fn service() -> ServiceKey {
    ServiceKey { name: "pay".into(), group: String::new(), version: String::new() }
}

fn entry(n: u16, incarnation: u64) -> Arc<Entry> {
    let mut instance = [0; 16];
    instance[..2].copy_from_slice(&n.to_be_bytes());
    let at = Entry::at(&service(), format!("tcp://10.0.{}.{}:1", n >> 8, n & 255));
    Arc::new(Entry { instance: InstanceId(instance), incarnation, ..at })
}

fn listing(entries: &[Arc<Entry>], revision: u64) -> Listing {
    let (suspect, rules) = Default::default();
    Listing { entries: entries.to_vec(), suspect, rules, completeness: Completeness::Complete, revision, epoch: 1 }
}

/// A list whose backends have been subscribed to.
struct Guarded {
    list: List,
    now: Duration,
}

impl Guarded {
    fn new(settings: GuardSettings, backends: usize) -> Guarded {
        let mut guarded = Guarded { list: List::new(service(), backends, settings, Random::new(7)), now: Duration::ZERO };
        assert_eq!(guarded.actions(), (0..backends).map(Action::Subscribe).collect::<Vec<_>>());
        guarded
    }

    fn update(&mut self, backend: usize, update: Update) {
        self.list.update(backend, update, self.now);
    }

    fn all(&mut self, backend: usize, entries: &[Arc<Entry>], revision: u64) {
        self.update(backend, Update::All(listing(entries, revision)));
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.list.poll(self.now)).collect()
    }

    fn known(&self) -> Vec<EntryKey> {
        self.list.instances().map(|i| i.entry.key()).collect()
    }

    /// Answers nothing until then; what was to be done meanwhile.
    fn wait(&mut self, until: Duration) -> Vec<(Duration, Action)> {
        let mut done = Vec::new();
        while let Some(at) = self.list.wake_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            done.extend(self.actions().into_iter().map(|action| (self.now, action)));
        }
        self.now = until;
        done.extend(self.actions().into_iter().map(|action| (self.now, action)));
        done
    }
}

#[test]
fn what_no_push_told_is_pulled_when_it_is_time() {
    let mut times = Vec::new();
    for seed in 0..50 {
        let mut list = List::new(service(), 1, GuardSettings::default(), Random::new(seed));
        assert_eq!(list.poll(Duration::ZERO), Some(Action::Subscribe(0)));
        list.update(0, Update::All(listing(&[entry(1, 1)], 1)), Duration::ZERO);
        let at = list.wake_at().unwrap();
        assert_eq!((list.poll(at - SEC / 1000), list.poll(at)), (None, Some(Action::Pull(0))));
        times.push(at);
        let two = [entry(1, 1), entry(2, 1)];
        list.pulled(0, Some(listing(&two, 2)), at);
        assert_eq!((list.instances().count(), list.differed()), (2, 1));
    }
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*least >= 24 * SEC && *most <= 36 * SEC && *most - *least > 6 * SEC, "{least:?} to {most:?}: all pull at the same moment");
}

/// A pull that an update overtook is older than what is known; two in a row that find something mean that pushes are lost.
#[test]
fn a_pull_that_was_overtaken_is_no_news_and_one_that_finds_something_twice_ends_the_subscription() {
    let mut guarded = Guarded::new(GuardSettings::default(), 1);
    guarded.all(0, &[entry(1, 1)], 1);
    guarded.now = guarded.list.wake_at().unwrap();
    assert_eq!(guarded.actions(), [Action::Pull(0)]);
    guarded.update(0, Update::Put(entry(2, 1)));
    guarded.list.pulled(0, Some(listing(&[entry(1, 1)], 1)), guarded.now);
    assert!(guarded.list.instances().count() == 2 && guarded.list.differed() == 0 && guarded.list.instances().all(|i| !i.suspect));
    for n in 3..5 {
        assert!(guarded.list.is_live(0));
        guarded.now = guarded.list.wake_at().unwrap();
        assert_eq!(guarded.actions(), [Action::Pull(0)]);
        let all: Vec<_> = (1..=n).map(|n| entry(n, 1)).collect();
        guarded.list.pulled(0, Some(listing(&all, u64::from(n))), guarded.now);
    }
    assert!(!guarded.list.is_live(0));
    assert_eq!((guarded.known().len(), guarded.list.differed()), (4, 2));
}

/// Rules are a part of what is compared.
#[test]
fn a_rule_that_no_push_told_is_found_by_the_next_pull() {
    let mut guarded = Guarded::new(GuardSettings::default(), 1);
    guarded.all(0, &[entry(1, 1)], 1);
    let version = guarded.list.version();
    guarded.now = guarded.list.wake_at().unwrap();
    guarded.actions();
    let rule = Rule { service: service(), kind: "instance".into(), name: "x".into(), body: "enabled=false".into() };
    let listing = Listing { rules: vec![Arc::new(rule)], ..listing(&[entry(1, 1)], 2) };
    guarded.list.pulled(0, Some(listing), guarded.now);
    assert!(guarded.list.version() > version && guarded.list.differed() == 1 && guarded.list.all_rules().len() == 1);
}

#[test]
fn a_withdrawal_outweighs_others_listings_for_its_time() {
    let mut guarded = Guarded::new(GuardSettings::default(), 2);
    for backend in 0..2 {
        guarded.all(backend, &[entry(1, 5)], 1);
    }
    guarded.update(0, Update::Gone(entry(1, 5).key(), Gone::Withdrawn));
    assert_eq!(guarded.known(), []);
    // The other has not heard of it, and says so again and again.
    guarded.now = 59 * SEC;
    guarded.update(1, Update::Put(entry(1, 5)));
    guarded.all(1, &[entry(1, 5)], 2);
    assert_eq!(guarded.known(), []);
    // A later start is another.
    guarded.update(1, Update::Put(entry(1, 6)));
    assert_eq!(guarded.known(), [entry(1, 6).key()]);
    guarded.update(1, Update::Gone(entry(1, 6).key(), Gone::Withdrawn));
    guarded.now = 120 * SEC;
    guarded.update(1, Update::Put(entry(1, 6)));
    assert_eq!(guarded.known(), [entry(1, 6).key()]);
    // And who told of it may take it back.
    guarded.update(0, Update::Put(entry(2, 1)));
    guarded.update(0, Update::Gone(entry(2, 1).key(), Gone::Withdrawn));
    guarded.update(0, Update::Put(entry(2, 1)));
    assert_eq!(guarded.known().len(), 2);
}

#[test]
fn the_oldest_withdrawals_are_forgotten_first() {
    let mut guarded = Guarded::new(GuardSettings::default(), 1);
    guarded.all(0, &[], 1);
    for n in 0..MOST_TOMBSTONES as u16 + 3 {
        guarded.update(0, Update::Gone(entry(n, 1).key(), Gone::Withdrawn));
    }
    let left: Vec<InstanceId> = guarded.list.tombstones().map(|tomb| tomb.instance).collect();
    assert_eq!((left.len(), left[0]), (MOST_TOMBSTONES, entry(3, 1).instance));
}

#[test]
fn what_nobody_lists_goes_after_its_time_if_there_are_others() {
    let mut guarded = Guarded::new(GuardSettings { pull: 10_000 * SEC, ..GuardSettings::default() }, 1);
    guarded.all(0, &[entry(1, 1), entry(2, 1)], 1);
    guarded.all(0, &[entry(2, 1)], 2);
    assert!(guarded.list.instances().any(|i| i.entry.instance == entry(1, 1).instance && i.suspect && !i.listed));
    guarded.wait(599 * SEC);
    assert_eq!(guarded.known().len(), 2);
    guarded.wait(601 * SEC);
    assert_eq!(guarded.known(), [entry(2, 1).key()]);
    // All there is stays, however old.
    guarded.all(0, &[], 3);
    guarded.wait(5000 * SEC);
    assert_eq!(guarded.known(), [entry(2, 1).key()]);
    // Until it refuses: two witnesses.
    guarded.list.reached(entry(2, 1).instance, 1, Reach::Refused, guarded.now);
    assert_eq!(guarded.known(), []);
}

/// What a backend lists is not taken out because one connection was refused, and is used first again when it answers.
#[test]
fn what_is_listed_and_refuses_is_doubted_until_it_answers() {
    let mut guarded = Guarded::new(GuardSettings::default(), 1);
    guarded.all(0, &[entry(1, 1)], 1);
    let instance = entry(1, 1).instance;
    for reach in [Reach::Refused, Reach::Silent] {
        guarded.list.reached(instance, 1, reach, guarded.now);
        assert!(guarded.list.instances().all(|i| i.suspect && i.listed));
        // Of an earlier start: that is not this one.
        guarded.list.reached(instance, 0, Reach::Answered, guarded.now);
        assert!(guarded.list.instances().all(|i| i.suspect));
        guarded.list.reached(instance, 1, Reach::Answered, guarded.now);
        assert!(guarded.list.instances().all(|i| !i.suspect));
    }
}

#[test]
fn suspects_are_looked_at_few_at_a_time_and_less_and_less_often() {
    let mut guarded = Guarded::new(GuardSettings { pull: 10_000 * SEC, ..GuardSettings::default() }, 1);
    let all: Vec<_> = (0..40).map(|n| entry(n, 1)).collect();
    guarded.all(0, &all, 1);
    guarded.all(0, &[], 2);
    let first = guarded.wait(SEC);
    assert_eq!(first.len(), MOST_PROBES);
    // One that is never reached is looked at after 1, 2, 4 ... and then every 32 s or so.
    let mut guarded = Guarded::new(GuardSettings { pull: 10_000 * SEC, suspect: 100_000 * SEC, ..GuardSettings::default() }, 1);
    guarded.all(0, &[entry(1, 1)], 1);
    guarded.all(0, &[], 2);
    let mut looks = Vec::new();
    while guarded.now < 300 * SEC {
        let at = guarded.list.wake_at().unwrap();
        for (at, action) in guarded.wait(at) {
            assert!(matches!(action, Action::Probe(_)));
            looks.push(at);
            guarded.list.reached(entry(1, 1).instance, 1, Reach::Silent, guarded.now);
            guarded.list.probed(entry(1, 1).instance, guarded.now);
        }
    }
    assert!((10..=20).contains(&looks.len()), "{looks:?}");
    let last = looks[looks.len() - 1] - looks[looks.len() - 2];
    assert!((25 * SEC..=39 * SEC).contains(&last), "{last:?}");
}

#[test]
fn entries_beyond_the_limit_are_passed_over_and_counted() {
    let mut guarded = Guarded::new(GuardSettings { entries: 3, ..GuardSettings::default() }, 1);
    let all: Vec<_> = (0..5).map(|n| entry(n, 1)).collect();
    guarded.all(0, &all, 1);
    assert_eq!((guarded.known().len(), guarded.list.passed_over()), (3, 2));
    // One that is known may change.
    guarded.update(0, Update::Put(entry(1, 2)));
    assert!(guarded.known().contains(&entry(1, 2).key()));
}

/// Of a backend that was just started, what is not listed may exist.
#[test]
fn a_listing_that_is_not_complete_is_merged() {
    let mut guarded = Guarded::new(GuardSettings::default(), 1);
    guarded.all(0, &[entry(1, 1), entry(2, 1)], 5);
    guarded.update(0, Update::All(Listing { completeness: Completeness::Incomplete, epoch: 2, ..listing(&[entry(3, 1)], 1) }));
    assert!(guarded.list.instances().count() == 3 && guarded.list.instances().all(|i| i.listed && !i.suspect));
}

#[test]
fn pauses_after_failures_double_to_their_cap_and_differ() {
    let settings = GuardSettings::default();
    let mut longest = [Duration::ZERO; 12];
    let mut shortest = [Duration::MAX; 12];
    for seed in 0..200 {
        let mut keeping = Keeping::new(settings.clone(), Random::new(seed));
        let mut now = Duration::ZERO;
        for n in 0..12 {
            assert_eq!(keeping.poll(now), Some(Task::Publish));
            keeping.failed(now);
            let at = keeping.wake_at().unwrap();
            (longest[n], shortest[n]) = (longest[n].max(at - now), shortest[n].min(at - now));
            now = at;
        }
    }
    for (n, (longest, shortest)) in longest.iter().zip(shortest).enumerate() {
        let window = (settings.retry_base * (1 << n)).min(settings.retry_cap);
        assert!(*longest <= window && *longest > window.mul_f64(0.9), "{n}: {longest:?} of {window:?}");
        assert!(shortest < window.mul_f64(0.1), "{n}: never before {shortest:?}: all come at the same moment");
    }
}

/// One check that fails may be the network's; an entry that is not there is published again.
#[test]
fn an_entry_is_published_again_when_it_is_not_there_or_cannot_be_asked_for_twice() {
    let held = |seed| {
        let mut keeping = Keeping::new(GuardSettings::default(), Random::new(seed));
        assert_eq!(keeping.poll(Duration::ZERO), Some(Task::Publish));
        keeping.published(Duration::ZERO);
        let at = keeping.wake_at().unwrap();
        assert!((24 * SEC..=36 * SEC).contains(&at), "{at:?}");
        assert_eq!(keeping.poll(at), Some(Task::Check));
        (keeping, at)
    };
    let (mut keeping, at) = held(1);
    keeping.checked(Some(false), at);
    assert_eq!(keeping.poll(at + GuardSettings::default().retry_base), Some(Task::Publish));
    let (mut keeping, at) = held(2);
    keeping.checked(None, at);
    assert!(keeping.is_held());
    let at = keeping.wake_at().unwrap();
    assert_eq!(keeping.poll(at), Some(Task::Check));
    keeping.checked(None, at);
    assert_eq!(keeping.poll(at + GuardSettings::default().retry_base), Some(Task::Publish));
    let (mut keeping, at) = held(3);
    keeping.checked(Some(true), at);
    assert!(keeping.is_held() && keeping.poll(at).is_none());
    keeping.changed(at);
    assert_eq!(keeping.poll(at), Some(Task::Publish));
}

/// Of two starts of an instance the later counts, whichever backend still has the earlier one.
#[test]
fn the_greatest_incarnation_counts() {
    for (first, second) in [(1, 2), (2, 1)] {
        let mut guarded = Guarded::new(GuardSettings::default(), 2);
        guarded.all(0, &[entry(1, first)], 1);
        guarded.all(1, &[entry(1, second)], 1);
        assert_eq!(guarded.known(), [entry(1, 2).key()]);
    }
}

/// An older state of the same history says nothing of what came after.
#[test]
fn an_outdated_listing_puts_nothing_in_doubt() {
    let mut guarded = Guarded::new(GuardSettings::default(), 1);
    guarded.all(0, &[entry(1, 1), entry(2, 1)], 5);
    guarded.all(0, &[entry(1, 1)], 3);
    assert!(guarded.list.instances().count() == 2 && guarded.list.instances().all(|i| i.listed && !i.suspect));
}

/// A lease that ended at one backend says nothing of what another lists.
#[test]
fn an_expiry_at_one_backend_leaves_what_another_lists() {
    let mut guarded = Guarded::new(GuardSettings::default(), 2);
    guarded.all(0, &[entry(1, 1)], 1);
    guarded.all(1, &[entry(1, 1)], 1);
    guarded.update(0, Update::Gone(entry(1, 1).key(), Gone::Expired));
    assert!(guarded.list.instances().count() == 1 && guarded.list.instances().all(|i| i.listed && !i.suspect));
    guarded.update(1, Update::Gone(entry(1, 1).key(), Gone::Expired));
    assert_eq!(guarded.known(), []);
}
