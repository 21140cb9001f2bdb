//! What every backend must do alike, as tests over the trait. `suite!` makes them for one backend.
//!
//! Those that leave the server alone share one; those that hurt it have one each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farcall::Code;
use farcall_registry::{Completeness, Gone, InstanceId, Registry, Rule, ServiceKey};

use crate::support::{Seen, consumer, entry, eventually, publish, run, runtime, service, soon};

/// How long a lease or session lasts in these tests.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// How long lists are incomplete after a connection is made, in those tests that look at it.
pub(crate) const SETTLE: Duration = Duration::from_millis(1500);

/// A backend under test: a server and how to reach it.
pub(crate) trait Subject: Sized + Sync {
    /// A server of its own; `None` if it is not installed.
    fn start() -> Option<Self>;
    /// One that all tests share which leave it alone.
    fn shared() -> Option<&'static Self>;
    /// A client of its own, whose leases last [`LEASE`] and whose lists settle in [`SETTLE`].
    fn open(&self) -> Arc<dyn Registry>;
    /// The URL of [`Subject::open`].
    fn url(&self) -> String;
    /// Ends the server as a crash does.
    fn kill(&mut self);
    /// Starts it again with what it had.
    fn start_again(&mut self);
    /// Takes its data away while it does not run.
    fn wipe(&mut self);
    /// Stops it dead: connections stay open and nothing comes.
    fn pause(&self);
    /// Lets it go on.
    fn resume(&self);
    /// Puts things beside the entries of a service that no sane program would.
    fn put_garbage(&self, service: &ServiceKey);
}

/// How a backend may say that an instance was withdrawn.
fn is_withdrawal(gone: &[(farcall_registry::EntryKey, Gone)]) -> bool {
    matches!(gone, [(_, Gone::Withdrawn)])
}

pub(crate) fn registers_and_is_found_whole<S: Subject>(subject: &S) {
    run(async {
        let (provider, reader) = (subject.open(), subject.open());
        let service = service("Whole");
        let mut seen = Seen::new(&reader, &service).await;
        assert!(seen.entries.is_empty());
        let published = entry(&service, 1);
        let mut held = publish(&provider, &published).await;
        seen.instances(&[1]).await;
        assert_eq!(*seen.entries[&published.key()], published);
        let list = reader.list(&service).await.unwrap();
        assert_eq!(list.entries.len(), 1);
        assert_eq!(*list.entries[0], published);
        assert!(held.check().await.unwrap());
        let others = ServiceKey { group: "red".into(), ..service.clone() };
        assert!(reader.list(&others).await.unwrap().entries.is_empty(), "another group is another service");
        let of_service = |list: Vec<farcall_registry::ServiceSummary>| list.into_iter().find(|s| s.service == service);
        let summary = eventually("the consumer is counted", || async {
            let found = of_service(reader.services().await.map_err(|e| e.to_string())?);
            found.filter(|s| s.consumers == 1).ok_or_else(|| "not yet".to_owned())
        });
        assert_eq!(summary.await.entries, 1);
    });
}

pub(crate) fn withdrawn_shows_at_once<S: Subject>(subject: &S) {
    run(async {
        let (provider, reader) = (subject.open(), subject.open());
        let service = service("Withdraw");
        let mut seen = Seen::new(&reader, &service).await;
        let held = publish(&provider, &entry(&service, 1)).await;
        seen.instances(&[1]).await;
        held.withdraw().await.unwrap();
        // At once: long before the lease ends.
        let start = Instant::now();
        seen.instances(&[]).await;
        assert!(is_withdrawal(&seen.gone), "{:?}", seen.gone);
        assert!(start.elapsed() < LEASE, "{:?}", start.elapsed());
        assert!(reader.list(&service).await.unwrap().entries.is_empty());
        // And comes back.
        let _held = publish(&provider, &entry(&service, 1)).await;
        seen.instances(&[1]).await;
    });
}

/// The process dies: what it held is gone when its lease ends, and not before.
pub(crate) fn a_crash_is_seen_when_the_lease_ends<S: Subject>(subject: &S) {
    run(async {
        let reader = subject.open();
        let service = service("Crash");
        let mut seen = Seen::new(&reader, &service).await;
        let dying = Dying::publishes(subject, entry(&service, 1));
        let other = publish(&reader, &entry(&service, 2)).await;
        seen.instances(&[1, 2]).await;
        let start = Instant::now();
        // Its tasks end where they stand: nothing is said to the server.
        dying.dies();
        seen.instances(&[2]).await;
        assert!(start.elapsed() > LEASE / 3, "{:?}: a broken connection is not the end of a lease", start.elapsed());
        assert!(seen.gone.iter().all(|(_, how)| *how != Gone::Withdrawn), "{:?}", seen.gone);
        drop(other);
    });
}

pub(crate) fn a_later_start_takes_the_place_of_an_earlier<S: Subject>(subject: &S) {
    run(async {
        let (first, second) = (subject.open(), subject.open());
        let service = service("Start");
        let mut seen = Seen::new(&first, &service).await;
        let mut early = entry(&service, 1);
        let _held = publish(&first, &early).await;
        let mut late = early.clone();
        late.incarnation += 1;
        let mut held = publish(&second, &late).await;
        seen.until("only the later", |seen| seen.entries.keys().map(|k| k.incarnation).collect::<Vec<_>>() == [late.incarnation]).await;
        // The same once more, with other labels: it is never away.
        seen.watch_least();
        late.labels.insert("zone".into(), "b".into());
        let _held_again = publish(&second, &late).await;
        seen.until("the new label", |seen| seen.entries.values().all(|e| e.labels["zone"] == "b")).await;
        assert_eq!(seen.least, 1);
        assert_eq!(first.list(&service).await.unwrap().entries.len(), 1);
        soon("the first publication's loss", held.lost()).await;
        // What was started earlier does not come back over it.
        early.labels.clear();
        let early = Arc::new(early);
        let refused = eventually("an earlier start is refused", || async {
            match first.publish(early.clone()).await {
                Err(refused) => Ok(refused),
                // Of several nodes one had not heard of the later one yet. It takes it away as soon as it has.
                Ok(mut held) => Err(soon("it is lost", held.lost()).await),
            }
        });
        let refused = refused.await;
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    });
}

/// The name of the node that a dead session left is the same as ours: it must not vanish under us with that session.
pub(crate) fn what_a_dead_session_left_is_replaced<S: Subject>(subject: &S) {
    run(async {
        let service = service("Left");
        let published = entry(&service, 1);
        Dying::publishes(subject, published.clone()).dies();
        let registry = subject.open();
        let mut held = publish(&registry, &published).await;
        let mut seen = Seen::new(&registry, &service).await;
        seen.instances(&[1]).await;
        seen.watch_least();
        seen.listen(2 * LEASE).await;
        assert_eq!(seen.least, 1, "it went away with the dead session");
        assert!(held.check().await.unwrap());
    });
}

pub(crate) fn consumers_are_recorded<S: Subject>(subject: &S) {
    run(async {
        let (one, two) = (subject.open(), subject.open());
        let service = service("Used");
        let seen = Seen::new(&one, &service).await;
        let recorded = |wanted: usize| {
            let (two, service) = (&two, &service);
            move || async move {
                let consumers = two.consumers(service).await.map_err(|e| e.to_string())?;
                if consumers.len() == wanted { Ok(consumers) } else { Err(format!("{consumers:?}")) }
            }
        };
        assert_eq!(eventually("a consumer", recorded(1)).await, [consumer()]);
        drop(seen);
        eventually("no consumer", recorded(0)).await;
    });
}

pub(crate) fn rules_are_told<S: Subject>(subject: &S) {
    run(async {
        let (writer, reader) = (subject.open(), subject.open());
        let service = service("Ruled");
        let rule = |name: &str, body: &str| Rule {
            service: service.clone(),
            kind: "condition-router".into(),
            name: name.into(),
            body: body.into(),
        };
        let mut seen = Seen::new(&reader, &service).await;
        for (name, body) in [("slow one", "a => b"), ("", "c => d\n空"), ("slow one", "e => f")] {
            writer.write_rule(rule(name, body)).await.unwrap();
            seen.until(body, |seen| seen.rules.iter().any(|r| **r == rule(name, body))).await;
        }
        assert_eq!(seen.rules.len(), 2, "{:?}", seen.rules);
        let list = reader.list(&service).await.unwrap();
        assert_eq!(list.rules.len(), 2);
        // Of another service: not told.
        let mut other = rule("", "x");
        other.service.version = "2".into();
        writer.write_rule(other).await.unwrap();
        writer.write_rule(rule("slow one", "")).await.unwrap();
        seen.until("one less", |seen| seen.rules.len() == 1).await;
        writer.write_rule(rule("", "")).await.unwrap();
        seen.until("none", |seen| seen.rules.is_empty()).await;
    });
}

pub(crate) fn revisions_grow<S: Subject>(subject: &S) {
    run(async {
        let registry = subject.open();
        let service = service("Revised");
        let mut held = Vec::new();
        let mut revisions = Vec::new();
        for n in 0..5 {
            held.push(publish(&registry, &entry(&service, n)).await);
            let list = registry.list(&service).await.unwrap();
            revisions.push((list.epoch, list.revision));
        }
        let epochs: BTreeSet<u64> = revisions.iter().map(|r| r.0).collect();
        assert_eq!(epochs.len(), 1, "one history");
        assert!(revisions.is_sorted_by(|a, b| a.1 < b.1), "{revisions:?}");
    });
}

pub(crate) fn flapping_ends_in_the_truth<S: Subject>(subject: &S) {
    run(async {
        let (provider, reader) = (subject.open(), subject.open());
        let service = service("Flapping");
        let mut seen = Seen::new(&reader, &service).await;
        let steady = publish(&provider, &entry(&service, 9)).await;
        seen.instances(&[9]).await;
        seen.watch_least();
        for n in 0..40 {
            let held = publish(&provider, &entry(&service, n % 3)).await;
            if n % 5 == 0 {
                seen.listen(Duration::from_millis(1)).await;
            }
            held.withdraw().await.unwrap();
        }
        let _last = publish(&provider, &entry(&service, 7)).await;
        seen.instances(&[7, 9]).await;
        assert!(seen.least >= 1, "the steady one was never away");
        assert!(seen.gone.iter().all(|(_, how)| *how == Gone::Withdrawn), "{:?}", seen.gone);
        drop(steady);
    });
}

/// A caller that waits for updates and for something else at once drops the wait again and again.
pub(crate) fn a_dropped_wait_loses_nothing<S: Subject>(subject: &S) {
    run(async {
        let (provider, reader) = (subject.open(), subject.open());
        let service = service("Dropped");
        let mut seen = Seen::new(&reader, &service).await;
        let mut held = Vec::new();
        for n in 0..20 {
            held.push(publish(&provider, &entry(&service, n)).await);
            for micros in [0, 50, 500] {
                seen.listen(Duration::from_micros(micros)).await;
            }
        }
        seen.instances(&(0..20).collect::<Vec<u8>>()).await;
        // So does one that gives up publishing or listing half-way.
        for micros in [0, 100, 1000, 3000] {
            let wait = Duration::from_micros(micros);
            tokio::time::timeout(wait, provider.publish(Arc::new(entry(&service, 50)))).await.ok();
            tokio::time::timeout(wait, reader.list(&service)).await.ok();
            tokio::time::timeout(wait, reader.subscribe(&service, None)).await.ok();
        }
        assert!(reader.list(&service).await.unwrap().entries.len() >= 20);
    });
}

pub(crate) fn garbage_beside_ours_is_passed_over<S: Subject>(subject: &S) {
    run(async {
        let (provider, reader) = (subject.open(), subject.open());
        let service = service("Garbage");
        let mut seen = Seen::new(&reader, &service).await;
        let _held = publish(&provider, &entry(&service, 1)).await;
        subject.put_garbage(&service);
        let _more = publish(&provider, &entry(&service, 2)).await;
        seen.instances(&[1, 2]).await;
        let mut fresh = Seen::new(&reader, &service).await;
        fresh.instances(&[1, 2]).await;
        let consumers = reader.consumers(&service).await.unwrap();
        assert!(!consumers.is_empty() && consumers.iter().all(|c| *c == consumer()), "{consumers:?}");
        assert!(reader.services().await.unwrap().iter().any(|s| s.service == service && s.entries == 2));
    });
}

pub(crate) fn what_is_too_large_is_refused_by_name<S: Subject>(subject: &S) {
    run(async {
        let registry = subject.open();
        let service = service("Large");
        let mut large = entry(&service, 1);
        large.labels.insert("huge".into(), "x".repeat(2 << 20));
        let large = Arc::new(large);
        let refused = refusal(|| registry.publish(large.clone())).await;
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let rule = Rule { service: service.clone(), kind: "tag-router".into(), name: String::new(), body: "x".repeat(1_200_000) };
        let refused = refusal(|| registry.write_rule(rule.clone())).await;
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let _held = publish(&registry, &entry(&service, 1)).await;
        assert_eq!(registry.list(&service).await.unwrap().entries.len(), 1);
    });
}

/// What it says in the end: on a busy machine it may first say that it is too slow.
async fn refusal<T, F: Future<Output = Result<T, farcall::RpcError>>>(mut attempt: impl FnMut() -> F) -> farcall::RpcError {
    let refused = || {
        let attempt = attempt();
        async {
            match attempt.await {
                Ok(_) => Ok(None),
                Err(e) if e.code() == Code::Unavailable => Err(e),
                Err(e) => Ok(Some(e)),
            }
        }
    };
    eventually("a refusal", refused).await.expect("it is refused")
}

pub(crate) fn many_services<S: Subject>(subject: &S) {
    run(async {
        let registry = subject.open();
        let services: Vec<ServiceKey> = (0..150).map(|_| service("Many")).collect();
        let mut held = Vec::new();
        for service in &services {
            held.push(publish(&registry, &entry(service, 1)).await);
        }
        let known: BTreeSet<ServiceKey> = registry.services().await.unwrap().into_iter().map(|s| s.service).collect();
        assert!(services.iter().all(|service| known.contains(service)), "{} are known", known.len());
    });
}

// Those that hurt the server.

/// Shorter than the lease: nobody is gone, nobody is asked to register again who would not be there.
pub(crate) fn a_short_restart_loses_nobody<S: Subject>(subject: &mut S) {
    run(async {
        let (provider, reader) = (subject.open(), subject.open());
        let service = service("Short");
        let mut held = Vec::new();
        for n in 0..20 {
            held.push(publish(&provider, &entry(&service, n)).await);
        }
        let mut seen = Seen::new(&reader, &service).await;
        seen.until("all", |seen| seen.entries.len() == 20).await;
        subject.kill();
        subject.start_again();
        // Whoever is told that it may be lost registers again, as a guard does.
        for (n, held) in held.iter_mut().enumerate() {
            if !eventually_checked(&mut **held).await {
                *held = publish(&provider, &entry(&service, n as u8)).await;
            }
        }
        // Well past the lease: they are renewed, not only remembered.
        tokio::time::sleep(3 * LEASE).await;
        for held in &mut held {
            assert!(eventually_checked(&mut **held).await, "it is not renewed");
        }
        assert_eq!(eventually("a list", || reader.list(&service)).await.entries.len(), 20);
        seen.until("a list after the restart", |seen| seen.lists >= 2 && seen.entries.len() == 20).await;
    });
}

async fn eventually_checked(held: &mut dyn farcall_registry::Published) -> bool {
    let start = Instant::now();
    loop {
        match held.check().await {
            Ok(there) => return there,
            Err(e) => assert!(start.elapsed() < crate::support::PATIENCE, "{e}"),
        }
    }
}

/// Longer than the lease, and everybody's: all register again, and no client has to be started anew.
pub(crate) fn a_long_restart_is_recovered_from<S: Subject>(subject: &mut S) {
    run(async {
        let (provider, reader) = (subject.open(), subject.open());
        let service = service("Long");
        let mut held = publish(&provider, &entry(&service, 1)).await;
        let mut seen = Seen::new(&reader, &service).await;
        seen.instances(&[1]).await;
        subject.kill();
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        subject.start_again();
        if !eventually_checked(&mut *held).await {
            held = publish(&provider, &entry(&service, 1)).await;
        }
        tokio::time::sleep(2 * LEASE).await;
        if !eventually_checked(&mut *held).await {
            // Its session was taken up and then ended all the same: the loss is told.
            soon("the loss is told", held.lost()).await;
            held = publish(&provider, &entry(&service, 1)).await;
        }
        let lists = seen.lists;
        seen.until("a list after the outage", |seen| seen.lists > 1.max(lists - 1) && seen.entries.len() == 1).await;
        assert!(held.check().await.unwrap());
    });
}

/// All its data is gone: the loss is told, and what is registered again is seen on the old subscription.
pub(crate) fn a_wipe_is_told_and_recovered_from<S: Subject>(subject: &mut S) {
    run(async {
        let (provider, reader) = (subject.open(), subject.open());
        let service = service("Wiped");
        let mut held = publish(&provider, &entry(&service, 1)).await;
        let mut seen = Seen::new(&reader, &service).await;
        seen.instances(&[1]).await;
        let epoch = seen.epoch;
        subject.kill();
        subject.wipe();
        subject.start_again();
        soon("the loss is told", held.lost()).await;
        let mut held = publish(&provider, &entry(&service, 1)).await;
        seen.until("a list of the new history", |seen| seen.epoch != epoch && seen.entries.len() == 1).await;
        assert!(held.check().await.unwrap());
        let list = eventually("a list", || reader.list(&service)).await;
        assert!(list.epoch != epoch && list.entries.len() == 1);
    });
}

/// No answer is not an empty list; and an empty list is not known to be empty as long as others may still be on their way back.
pub(crate) fn empty_is_not_unknown<S: Subject>(subject: &mut S) {
    run(async {
        let reader = subject.open();
        let service = service("Empty");
        let mut seen = Seen::new(&reader, &service).await;
        assert_eq!((seen.completeness, seen.entries.len()), (Completeness::Incomplete, 0));
        seen.until("known to be empty", |seen| seen.completeness == Completeness::Complete).await;
        assert_eq!(reader.list(&service).await.unwrap().completeness, Completeness::Complete);
        subject.kill();
        let late = subject.open();
        for registry in [&reader, &late] {
            let start = Instant::now();
            let e = registry.list(&service).await.unwrap_err();
            assert_eq!(e.code(), Code::Unavailable, "{e}");
            assert_eq!(registry.publish(Arc::new(entry(&service, 1))).await.err().unwrap().code(), Code::Unavailable);
            assert_eq!(registry.services().await.unwrap_err().code(), Code::Unavailable);
            assert!(start.elapsed() < Duration::from_secs(20), "each ends within its time");
        }
        assert!(late.subscribe(&service, None).await.is_err());
        let lists = seen.lists;
        subject.start_again();
        let list = eventually("a list", || reader.list(&service)).await;
        assert_eq!(list.completeness, Completeness::Incomplete, "just back: others may still come");
        seen.until("doubt, then certainty", |seen| seen.lists >= lists + 2 && seen.completeness == Completeness::Complete).await;
        assert!(seen.gone.is_empty() && seen.entries.is_empty());
    });
}

/// The server is stopped dead for longer than the lease, its connections open: everything ends in time, and all comes back.
pub(crate) fn a_partition_heals<S: Subject>(subject: &mut S) {
    run(async {
        let (provider, reader) = (subject.open(), subject.open());
        let service = service("Cut");
        let mut held = publish(&provider, &entry(&service, 1)).await;
        let mut seen = Seen::new(&reader, &service).await;
        seen.instances(&[1]).await;
        subject.pause();
        let start = Instant::now();
        let e = reader.list(&service).await.unwrap_err();
        assert_eq!(e.code(), Code::Unavailable, "{e}");
        assert!(held.check().await.is_err());
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        tokio::time::sleep((2 * LEASE).saturating_sub(start.elapsed())).await;
        subject.resume();
        if !eventually_checked(&mut *held).await {
            held = publish(&provider, &entry(&service, 1)).await;
        }
        let lists = seen.lists;
        seen.until("a list after the partition", |seen| seen.lists >= lists.max(2) && seen.entries.len() == 1).await;
        // And changes are told again.
        let _other = publish(&provider, &entry(&service, 2)).await;
        seen.until("what is new", |seen| seen.entries.keys().any(|key| key.instance == InstanceId([2; 16]))).await;
        drop(held);
    });
}

/// A provider that will die: all that it has runs on a runtime of its own.
struct Dying {
    runtime: tokio::runtime::Runtime,
    _held: Box<dyn farcall_registry::Published>,
    _registry: Arc<dyn Registry>,
}

impl Dying {
    fn publishes<S: Subject>(subject: &S, entry: farcall_registry::Entry) -> Dying {
        let runtime = runtime();
        let body = async {
            let registry = subject.open();
            let held = publish(&registry, &entry).await;
            (held, registry)
        };
        let (held, registry) = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(body)).join().unwrap());
        Dying { runtime, _held: held, _registry: registry }
    }

    /// Its tasks end where they stand.
    fn dies(self) {
        self.runtime.shutdown_background();
    }
}

/// The suite for one backend.
macro_rules! suite {
    ($subject:ty: shared [$($shared:ident),* $(,)?], own [$($own:ident),* $(,)?]) => {
        $(#[test]
        fn $shared() {
            if let Some(subject) = <$subject as $crate::suite::Subject>::shared() {
                $crate::suite::$shared(subject);
            }
        })*
        $(#[test]
        fn $own() {
            if let Some(mut subject) = <$subject as $crate::suite::Subject>::start() {
                $crate::suite::$own(&mut subject);
            }
        })*
    };
    ($subject:ty: guarded [$($guarded:ident),* $(,)?]) => {
        $(#[test]
        fn $guarded() {
            if let Some(mut subject) = <$subject as $crate::suite::Subject>::start() {
                $crate::guarded::$guarded(&mut subject);
            }
        })*
    };
    // A server each for all tests, where one costs little.
    ($subject:ty: each) => {
        $crate::suite::suite!($subject:
            shared [],
            own [
                registers_and_is_found_whole,
                withdrawn_shows_at_once,
                a_crash_is_seen_when_the_lease_ends,
                a_later_start_takes_the_place_of_an_earlier,
                what_a_dead_session_left_is_replaced,
                consumers_are_recorded,
                rules_are_told,
                revisions_grow,
                flapping_ends_in_the_truth,
                a_dropped_wait_loses_nothing,
                garbage_beside_ours_is_passed_over,
                what_is_too_large_is_refused_by_name,
                many_services,
                a_short_restart_loses_nobody,
                a_long_restart_is_recovered_from,
                a_wipe_is_told_and_recovered_from,
                empty_is_not_unknown,
                a_partition_heals,
            ]);
        $crate::suite::suite!($subject:
            guarded [
                through_the_guard_an_outage_fails_no_call,
                through_the_guard_a_wipe_fails_no_call,
                through_the_guard_what_is_withdrawn_is_gone_at_once,
                through_the_guard_an_operator_turns_instances_off_and_on,
                through_the_guard_a_provider_changes_what_it_says,
            ]);
    };
    ($subject:ty) => {
        $crate::suite::suite!($subject:
            guarded [
                through_the_guard_an_outage_fails_no_call,
                through_the_guard_a_wipe_fails_no_call,
                through_the_guard_what_is_withdrawn_is_gone_at_once,
                through_the_guard_an_operator_turns_instances_off_and_on,
                through_the_guard_a_provider_changes_what_it_says,
            ]);
        $crate::suite::suite!($subject:
            shared [
                registers_and_is_found_whole,
                withdrawn_shows_at_once,
                a_crash_is_seen_when_the_lease_ends,
                a_later_start_takes_the_place_of_an_earlier,
                what_a_dead_session_left_is_replaced,
                consumers_are_recorded,
                rules_are_told,
                revisions_grow,
                flapping_ends_in_the_truth,
                a_dropped_wait_loses_nothing,
                garbage_beside_ours_is_passed_over,
                what_is_too_large_is_refused_by_name,
                many_services,
            ],
            own [
                a_short_restart_loses_nobody,
                a_long_restart_is_recovered_from,
                a_wipe_is_told_and_recovered_from,
                empty_is_not_unknown,
                a_partition_heals,
            ]);
    };
}
pub(crate) use suite;
