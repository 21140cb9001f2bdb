//! What went wrong with registries in production, elsewhere, each as a test of what happens here. In this order:
//!
//! 1. A registry came back empty, consumers read it before providers were back, and nobody was found (ZooKeeper, Nacos).
//! 2. A node was busy for longer than a lease and expired what it had not heard (Nacos).
//! 3. All came back at once, what failed half-way was never repeated (ZooKeeper's TreeCache, the Go client of Nacos).
//! 4. The server dropped a process that lived, which never registered again (Nacos).
//! 5. A consumer was started again during the outage and had no list (etcd users).
//! 6. Replicas disagreed for hours and nobody saw it (Nacos).
//! 7. A protection against empty lists kept the last instance after it had been taken away (Nacos's client).
//! 8. Clocks that jump, and a stalled server that expires what others hold (Eureka).
//!
//! The same on real servers and processes: `tests/backends` and `./run drill`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use farcall::registry::{Directory, Event, Gone, Update, Watcher};
use farcall::{Discover, Registration, Server};
use farcall_registry::embedded::{Embedded, RegistryLimits};
use farcall_tests::{PaymentClient, order};

use crate::faulty::{Fault, Faulty};
use crate::support::{TempDir, find, payment, provide, provide_as, quick, run, until};

/// Notes how few instances a list ever had, and what was told.
#[derive(Default)]
struct Notes {
    watching: AtomicBool,
    least: AtomicUsize,
    gone: Mutex<Vec<Gone>>,
    differed: AtomicUsize,
}

impl Notes {
    fn watch(&self) {
        self.least.store(usize::MAX, Ordering::SeqCst);
        self.watching.store(true, Ordering::SeqCst);
    }

    fn least(&self) -> usize {
        self.least.load(Ordering::SeqCst)
    }
}

impl Watcher for Notes {
    fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Changed { directory } if self.watching.load(Ordering::SeqCst) => {
                self.least.fetch_min(directory.instances().len(), Ordering::SeqCst);
            }
            Event::Updated { update: Update::Gone(_, why), .. } => self.gone.lock().unwrap().push(*why),
            Event::Differed { .. } => drop(self.differed.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }
    }
}

/// A client that finds at these registries, its list, and what is noted of it.
async fn noting(registries: impl Into<farcall::registry::Backends>) -> (PaymentClient, Directory, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let (client, directory) = find(registries).watch(notes.clone()).with_directory().await.unwrap();
    (client, directory, notes)
}

async fn pays(client: &PaymentClient, times: u64) {
    for n in 0..times {
        client.pay(order(n, 1)).await.unwrap();
    }
}

#[test]
fn failure_1_a_registry_that_comes_back_empty_empties_no_list() {
    run(async {
        let registry = Faulty::new();
        let (_, _first) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let (_, _second) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let (client, directory, notes) = noting(registry.open()).await;
        until("both are known", || directory.instances().len() == 2).await;
        notes.watch();
        registry.set(Fault::Down);
        pays(&client, 20).await;
        // Sure of itself: it says that its empty list is complete.
        registry.set(Fault::Wiped);
        until("the empty list was heard", || directory.instances().iter().all(|i| !i.listed)).await;
        pays(&client, 20).await;
        // One who starts only now is not told that there is nobody as long as its cache says otherwise: see failure 5.
        registry.set(Fault::None);
        until("both are listed again", || directory.instances().iter().filter(|i| i.listed && !i.suspect).count() == 2).await;
        assert_eq!(notes.least(), 2);
    });
}

/// A node on a thread of its own, which can be held up.
struct Stalling {
    node: Arc<Embedded>,
    runtime: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const LEASE: Duration = Duration::from_millis(900);

impl Stalling {
    /// With these others, at this address.
    fn start(address: &str, peers: &[String]) -> Stalling {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let (address, peers) = (address.to_owned(), peers.to_vec());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let limits = RegistryLimits { lease: LEASE, ..RegistryLimits::default() };
                let builder = peers.into_iter().fold(Embedded::builder().limits(limits), |builder, peer| builder.peer(peer));
                let node = Arc::new(builder.listen(address).await.unwrap());
                tell.send((node, tokio::runtime::Handle::current())).unwrap();
                let _ = stopped.await;
            });
        });
        let (node, runtime) = told.recv().unwrap();
        Stalling { node, runtime, stop: Some(stop), thread: Some(thread) }
    }

    /// Until it is over: nothing is read, nothing is renewed, its clock goes on.
    async fn stalls(&self, time: Duration) {
        let stalled = self.runtime.spawn(async move { std::thread::sleep(time) });
        stalled.await.unwrap();
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn failure_2_a_node_that_is_busy_for_longer_than_a_lease_expires_nobody() {
    run(async {
        let node = Stalling::start("tcp://127.0.0.1:0", &[]);
        let url = node.node.url();
        let mut servers = Vec::new();
        for _ in 0..4 {
            servers.push(provide(url.as_str(), "tcp://127.0.0.1:0").await);
        }
        let (client, directory, notes) = noting(url.as_str()).await;
        until("all are known, past the warm-up", || directory.instances().len() == 4 && directory.seen().known).await;
        notes.watch();
        for _ in 0..2 {
            node.stalls(3 * LEASE).await;
            pays(&client, 20).await;
        }
        until("all are sure again", || directory.instances().iter().filter(|i| i.listed && !i.suspect).count() == 4).await;
        assert_eq!((notes.least(), &notes.gone.lock().unwrap()[..]), (4, &[] as &[Gone]));
    });
}

#[test]
fn failure_3_what_failed_half_way_is_repeated_until_it_is_acknowledged_and_not_too_often() {
    run(async {
        let registry = Faulty::new();
        let registrations: Vec<Registration> = (0..20).map(|_| Registration::at(registry.open())).collect();
        let statuses: Vec<_> = registrations.iter().map(Registration::status).collect();
        let mut servers = Vec::new();
        for registration in registrations {
            servers.push(provide_as(registration, "tcp://127.0.0.1:0").await);
        }
        let (_client, directory, _) = noting(registry.open()).await;
        let all_held = || statuses.iter().all(|status| status.borrow()[0].held);
        until("all are there", all_held).await;
        let (before, begun) = (registry.publishes(), Instant::now());
        // It comes and goes while they register again: some get through each time.
        for _ in 0..5 {
            registry.set(Fault::Down);
            until("all have lost it", || statuses.iter().all(|status| !status.borrow()[0].held)).await;
            registry.set(Fault::None);
            until("some are there", || statuses.iter().any(|status| status.borrow()[0].held)).await;
        }
        until("all are there again", all_held).await;
        until("and listed", || directory.instances().iter().filter(|i| i.listed && !i.suspect).count() == 20).await;
        // Pauses are random shares of 20 to 200 ms: on average, well below 50 attempts a second each.
        let attempts = registry.publishes() - before;
        let most = 20.0 * (10.0 + 50.0 * begun.elapsed().as_secs_f64());
        assert!((attempts as f64) < most, "{attempts} attempts in {:?}", begun.elapsed());
    });
}

#[test]
fn failure_4_a_process_that_the_registry_dropped_while_it_lived_registers_again() {
    run(async {
        let registry = Faulty::new();
        let registration = Registration::at(registry.open());
        let status = registration.status();
        let (_, _server) = provide_as(registration, "tcp://127.0.0.1:0").await;
        assert!(status.borrow()[0].held);
        // Its connection stays open and nobody tells it anything: only asking finds out.
        registry.set(Fault::Wiped);
        until("it has asked", || status.borrow()[0].published > 1 || !status.borrow()[0].held).await;
        registry.set(Fault::None);
        until("it is there again", || status.borrow()[0].held && status.borrow()[0].published > 1).await;
        assert_eq!(registry.entries(&payment()).await.len(), 1);
    });
}

#[test]
fn failure_5_a_consumer_that_is_started_during_the_outage_calls_from_its_file() {
    run(async {
        let registry = Faulty::new();
        let (_, _server) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let folder = TempDir::new("outage");
        let start = || PaymentClient::discover(registry.open()).guard(quick()).cache_in(&folder.0).application("shop");
        let (client, directory) = start().with_directory().await.unwrap();
        pays(&client, 3).await;
        let file = || {
            std::fs::read_dir(folder.0.join("shop/_"))
                .is_ok_and(|mut files| files.any(|f| f.unwrap().path().extension().is_some_and(|e| e == "list")))
        };
        until("its list is on disk", file).await;
        drop((client, directory));
        for fault in [Fault::Down, Fault::Hang, Fault::Refuse, Fault::Wiped] {
            registry.set(fault);
            let begun = Instant::now();
            let (client, directory) = start().with_directory().await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
            pays(&client, 3).await;
            assert!(begun.elapsed() < Duration::from_secs(2), "{fault:?}: it waited {:?} for what it need not", begun.elapsed());
            assert_eq!(directory.instances().len(), 1, "{fault:?}");
        }
    });
}

#[test]
fn failure_6_what_was_never_told_is_found_and_said() {
    run(async {
        let registry = Faulty::new();
        let (_, _first) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let (_, _second) = provide(registry.open(), "tcp://127.0.0.1:0").await;
        let (client, directory, notes) = noting(registry.open()).await;
        until("both are known", || directory.instances().len() == 2).await;
        // The replica that we hear tells of an end that did not happen.
        let key = registry.entries(&payment()).await[0].key();
        registry.forge(Update::Gone(key, Gone::Expired));
        until("it is believed", || !notes.gone.lock().unwrap().is_empty()).await;
        until("the next pull finds out", || notes.differed.load(Ordering::SeqCst) > 0).await;
        until("both are known again", || directory.instances().iter().filter(|i| i.listed).count() == 2).await;
        pays(&client, 3).await;
    });
}

#[test]
fn failure_7_that_the_last_instance_was_taken_away_shows_at_once() {
    run(async {
        let node = Embedded::builder().listen("tcp://127.0.0.1:0").await.unwrap();
        let url = node.url();
        let (_, server) = provide(url.as_str(), "tcp://127.0.0.1:0").await;
        let (client, directory, _) = noting(url.as_str()).await;
        pays(&client, 1).await;
        let begun = Instant::now();
        // It withdraws, then waits for its callers to leave, which they do because they were told.
        server.drain(Duration::from_secs(20)).await.unwrap();
        until("nobody is listed", || directory.instances().is_empty()).await;
        // Far below the lease of 15 s, and below what a drain would wait for callers that are told nothing.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(client.pay(order(1, 1)).await.is_err());
    });
}

#[test]
fn failure_8_a_stalled_node_expires_nothing_at_its_peers() {
    run(async {
        let (a, b) = (free_address(), free_address());
        let (first, second) = (Stalling::start(&a, std::slice::from_ref(&b)), Stalling::start(&b, std::slice::from_ref(&a)));
        let both = format!("farcall://{},{}", &a["tcp://".len()..], &b["tcp://".len()..]);
        let mut servers: Vec<(_, Server)> = Vec::new();
        for _ in 0..3 {
            servers.push(provide(both.as_str(), "tcp://127.0.0.1:0").await);
        }
        let (client, directory, notes) = noting(both.as_str()).await;
        until("all are known", || directory.instances().len() == 3 && directory.seen().known).await;
        notes.watch();
        second.stalls(3 * LEASE).await;
        first.stalls(3 * LEASE).await;
        pays(&client, 20).await;
        until("all are sure again", || directory.instances().iter().filter(|i| i.listed && !i.suspect).count() == 3).await;
        assert_eq!(notes.least(), 3);
    });
}

fn free_address() -> String {
    format!("tcp://127.0.0.1:{}", farcall_tests::servers::free_port())
}

/// The wall clock may jump: it names starts and orders rules, and decides nothing about time.
#[test]
fn failure_8_the_wall_clock_measures_nothing() {
    let mut found = Vec::new();
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/farcall-registry/src");
    let mut folders = vec![sources.clone()];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            if file.is_dir() {
                folders.push(file);
            } else if std::fs::read_to_string(&file).unwrap().contains("SystemTime::now") {
                found.push(file.strip_prefix(&sources).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    // The moment of a rule's version; an incarnation.
    assert_eq!(found, ["embedded/server/mod.rs", "registration.rs"]);
}
