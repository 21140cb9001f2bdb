//! Several backends at once, as while one moves from one to another: what one of them loses the other still has.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farcall::registry::{Directory, Event, Watcher};
use farcall::{Discover, Server};
use farcall_tests::PaymentClient;

use crate::embedded::Nodes;
use crate::etcd::Etcd;
use crate::guarded::{Calling, provide, quick, until};
use crate::suite::{LEASE, Subject};
use crate::support::run;

/// Notes how many instances were listed, at the least and at the most, and how often another set of addresses.
#[derive(Default)]
struct Notes {
    least: AtomicUsize,
    most: AtomicUsize,
    flaps: AtomicU64,
    last: Mutex<Vec<String>>,
}

impl Notes {
    fn begin(&self, directory: &Directory) {
        *self.last.lock().unwrap() = addresses(directory);
        self.flaps.store(0, Ordering::SeqCst);
        self.least.store(usize::MAX, Ordering::SeqCst);
        self.most.store(0, Ordering::SeqCst);
    }
}

fn addresses(directory: &Directory) -> Vec<String> {
    let mut all: Vec<String> = directory.instances().iter().map(|i| i.entry.addresses[0].address.clone()).collect();
    all.sort();
    all
}

impl Watcher for Notes {
    fn tell(&self, event: &Event<'_>) {
        let Event::Changed { directory } = event else { return };
        let now = addresses(directory);
        self.least.fetch_min(now.len(), Ordering::SeqCst);
        self.most.fetch_max(now.len(), Ordering::SeqCst);
        if std::mem::replace(&mut *self.last.lock().unwrap(), now.clone()) != now {
            self.flaps.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Until each backend has this many of its own, and their providers have told it so since it was started.
async fn both_list(subjects: [&dyn Fn() -> Arc<dyn farcall_registry::Registry>; 2], wanted: usize) {
    for open in subjects {
        let registry = open();
        let payment = registry.key_of(<PaymentClient as farcall::Stub>::descriptor());
        crate::support::eventually("all are listed", || async {
            let list = registry.list(&payment).await.map_err(|e| e.to_string())?;
            let sure = list.entries.len() - list.suspect.len();
            if (sure, list.entries.len()) == (wanted, wanted) { Ok(()) } else { Err(format!("{} are listed", list.entries.len())) }
        })
        .await;
    }
}

#[test]
fn one_of_two_backends_may_go_and_come_back() {
    let (Some(mut etcd), Some(mut nodes)) = (Etcd::start(), Nodes::<1>::start()) else { return };
    run(async {
        let url = format!("{},{}", nodes.url(), etcd.url());
        let servers: Vec<Server> = vec![provide(&url).await, provide(&url).await];
        let notes = Arc::new(Notes::default());
        let client = PaymentClient::discover(url.as_str()).guard(quick()).without_cache().watch(notes.clone());
        let (client, directory) = client.with_directory().await.unwrap();
        both_list([&|| etcd.open(), &|| nodes.open()], 2).await;
        until("both are known", || directory.instances().len() == 2).await;
        notes.begin(&directory);
        let calling = Calling::start(client);
        // Longer than leases: crashed, then wiped, then our own.
        etcd.kill();
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        etcd.start_again();
        both_list([&|| etcd.open(), &|| nodes.open()], 2).await;
        etcd.kill();
        etcd.wipe();
        etcd.start_again();
        both_list([&|| etcd.open(), &|| nodes.open()], 2).await;
        nodes.kill();
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        nodes.start_again();
        both_list([&|| etcd.open(), &|| nodes.open()], 2).await;
        calling.ends_without_a_failure().await;
        let flaps = (notes.least.load(Ordering::SeqCst).min(2), notes.most.load(Ordering::SeqCst), notes.flaps.load(Ordering::SeqCst));
        assert_eq!((flaps.0, flaps.1 <= 2, flaps.2), (2, true, 0), "least, most, flaps: {flaps:?}");
        // A withdrawal counts though it is told twice, and while one of the two cannot be told.
        etcd.kill();
        let [first, second] = <[Server; 2]>::try_from(servers).ok().unwrap();
        first.drain(Duration::from_secs(5)).await.unwrap();
        until("it has gone", || directory.instances().len() == 1).await;
        etcd.start_again();
        both_list([&|| nodes.open(), &|| nodes.open()], 1).await;
        tokio::time::sleep(2 * quick().pull).await;
        assert_eq!(directory.instances().len(), 1, "etcd's old entry does not bring it back");
        drop(second);
    });
}
