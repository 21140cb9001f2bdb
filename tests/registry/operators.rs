//! Instances that are turned off, on, and given other shares while everybody runs: by operators, by their rules, and by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use farcall::registry::{Event, Memory, Override, Registration, Registry, Watcher};
use farcall::{Discover, Server};
use farcall_tests::{PaymentClient, Till, order};

use crate::faulty::{Fault, Faulty};
use crate::support::{TempDir, find, payment, provide, provide_as, quick, run, until, written};

async fn paid(client: &PaymentClient, times: u64) {
    for n in 0..times {
        client.pay(order(n, 1)).await.unwrap();
    }
}

fn count(of: &(Arc<Till>, Server)) -> u64 {
    of.0.paid.swap(0, Ordering::SeqCst)
}

#[test]
fn an_operator_turns_an_instance_off_and_on_by_its_address() {
    run(async {
        let registry = Memory::new();
        let (first, second) = (provide(&registry, "tcp://127.0.0.1:0").await, provide(&registry, "tcp://127.0.0.1:0").await);
        let (client, directory) = find(&registry).with_directory().await.unwrap();
        until("both are known", || directory.instances().len() == 2).await;
        let at = |of: &(Arc<Till>, Server)| of.1.address().to_string();
        let say = |name: String, what: Override| registry.write_rule(what.rule(&payment(), &name));
        let off = Override { enabled: Some(false), ..Override::default() };
        for (down, up) in [(&first, &second), (&second, &first)] {
            say(at(down), off).await.unwrap();
            until("it is off", || directory.instances().iter().filter(|i| i.entry.is_callable()).count() == 1).await;
            paid(&client, 10).await;
            assert_eq!((count(down), count(up)), (0, 10));
            say(at(down), Override::default()).await.unwrap();
            until("it is on", || directory.instances().iter().all(|i| i.entry.is_callable())).await;
        }
        // Both off: that is said, and not as if nobody were there.
        say(at(&first), off).await.unwrap();
        say(at(&second), Override { weight: Some(0), ..Override::default() }).await.unwrap();
        until("both are off", || !directory.instances().iter().any(|i| i.entry.is_callable())).await;
        let e = client.pay(order(1, 1)).await.unwrap_err();
        assert!(e.rpc().is_some_and(|e| e.message().contains("2 providers are registered, and all are disabled or have weight 0")), "{e}");
    });
}

#[test]
fn a_rule_outlasts_an_outage_in_the_consumers_file() {
    run(async {
        let registry = Faulty::new();
        let (first, second) = (provide(registry.open(), "tcp://127.0.0.1:0").await, provide(registry.open(), "tcp://127.0.0.1:0").await);
        let folder = TempDir::new("ruled");
        let start = || PaymentClient::discover(registry.open()).guard(quick()).cache_in(&folder.0);
        let (client, directory) = start().with_directory().await.unwrap();
        until("both are known", || directory.instances().len() == 2).await;
        let before = written(&folder.0).await.1;
        let off = Override { enabled: Some(false), ..Override::default() };
        registry.open().write_rule(off.rule(&payment(), &first.1.address().to_string())).await.unwrap();
        until("one is off", || directory.instances().iter().filter(|i| i.entry.is_callable()).count() == 1).await;
        while written(&folder.0).await.1 == before {}
        drop((client, directory));
        registry.set(Fault::Down);
        let (client, _directory) = start().with_directory().await.unwrap();
        paid(&client, 10).await;
        assert_eq!((count(&first), count(&second)), (0, 10));
    });
}

/// Notes the fewest instances that a list had.
struct Least(AtomicUsize);

impl Watcher for Least {
    fn tell(&self, event: &Event<'_>) {
        if let Event::Changed { directory } = event {
            self.0.fetch_min(directory.instances().len(), Ordering::SeqCst);
        }
    }
}

#[test]
fn a_provider_changes_what_it_says_of_itself_without_a_gap() {
    run(async {
        let registry = Memory::new();
        let registration = Registration::at(&registry).enabled(false).label("zone", "a");
        let handle = registration.handle();
        let first = provide_as(registration, "tcp://127.0.0.1:0").await;
        let second = provide(&registry, "tcp://127.0.0.1:0").await;
        let least = Arc::new(Least(AtomicUsize::new(usize::MAX)));
        let (client, directory) = find(&registry).watch(least.clone()).with_directory().await.unwrap();
        until("both are known", || directory.instances().len() == 2).await;
        least.0.store(usize::MAX, Ordering::SeqCst);
        paid(&client, 5).await;
        assert_eq!((count(&first), count(&second)), (0, 5));
        let mine = |directory: &farcall::registry::Directory| {
            let address = first.1.address().to_string();
            directory.instances().iter().find(|i| i.entry.addresses[0].address == address).unwrap().entry.clone()
        };
        // Warm by now.
        handle.set_enabled(true);
        handle.set_label("zone", "b");
        handle.set_weight(7);
        until("the last change is seen", || mine(&directory).weight == 7).await;
        let entry = mine(&directory);
        assert_eq!((entry.enabled, entry.labels["zone"].as_str()), (true, "b"));
        handle.set_label("zone", None);
        until("the label is gone", || mine(&directory).labels.is_empty()).await;
        assert_eq!(least.0.load(Ordering::SeqCst), 2, "it was never away");
        // And goes as one that never changed.
        first.1.drain(std::time::Duration::from_secs(5)).await.unwrap();
        until("it has gone", || directory.instances().len() == 1).await;
    });
}

/// A change that is made while no registry takes it is there when one does.
#[test]
fn a_change_during_an_outage_is_made_up_for() {
    run(async {
        let registry = Faulty::new();
        let registration = Registration::at(registry.open());
        let (handle, status) = (registration.handle(), registration.status());
        let (_, _server) = provide_as(registration, "tcp://127.0.0.1:0").await;
        registry.set(Fault::Down);
        until("it is lost", || !status.borrow()[0].held).await;
        handle.set_weight(3);
        registry.set(Fault::None);
        until("it is there again", || status.borrow()[0].held).await;
        assert_eq!(registry.entries(&payment()).await.iter().map(|e| e.weight).collect::<Vec<_>>(), [3]);
    });
}
