//! What users get, on every backend alike: servers that register and clients that discover, through the guard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farcall::prelude::*;
use farcall::registry::{GuardSettings, Override};
use farcall::{Discover, Register, Registration, Server};
use farcall_tests::{PaymentClient, PaymentServer, Till};

use crate::suite::{LEASE, Subject};
use crate::support::{PATIENCE, eventually, run};

/// Times that suit tests.
pub(crate) fn quick() -> GuardSettings {
    GuardSettings {
        pull: Duration::from_millis(500),
        check: Duration::from_millis(500),
        retry_base: Duration::from_millis(50),
        retry_cap: Duration::from_millis(500),
        call: Duration::from_secs(3),
        probe: Duration::from_millis(100),
        ..GuardSettings::default()
    }
}

pub(crate) async fn provide(url: &str) -> Server {
    let registration = Registration::at(url).guard(quick());
    let server = Server::builder().serve(PaymentServer::new(Till::default())).register(registration);
    server.listen("tcp://127.0.0.1:0").await.unwrap()
}

/// Until the backend itself, asked by somebody else, lists so many.
async fn listed<S: Subject>(subject: &S, wanted: usize) {
    let registry = subject.open();
    // In Dubbo's layout it stands under its Java name.
    let payment = registry.key_of(<PaymentClient as farcall::Stub>::descriptor());
    let list = || async {
        let list = registry.list(&payment).await.map_err(|e| e.to_string())?;
        if list.entries.len() == wanted { Ok(()) } else { Err(format!("{} are listed", list.entries.len())) }
    };
    eventually(&format!("{wanted} are listed"), list).await;
}

/// A consumer that calls on and on, and counts what fails.
pub(crate) struct Calling {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Calling {
    pub(crate) fn start(client: PaymentClient) -> Calling {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), good.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                client.status(7).await.expect("no call fails");
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Calling { stop, good, task }
    }

    pub(crate) async fn ends_without_a_failure(self) {
        let before = self.good.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(self.good.load(Ordering::Relaxed) > before, "it still calls");
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no call failed");
    }
}

/// The registry is away for longer than every lease: no call fails, and afterwards all are registered again by themselves.
pub(crate) fn through_the_guard_an_outage_fails_no_call<S: Subject>(subject: &mut S) {
    run(async {
        let url = subject.url();
        let (_first, _second) = (provide(&url).await, provide(&url).await);
        listed(subject, 2).await;
        let client = PaymentClient::discover(url.as_str()).guard(quick()).without_cache().await.unwrap();
        let calling = Calling::start(client);
        subject.kill();
        tokio::time::sleep(LEASE + Duration::from_secs(2)).await;
        subject.start_again();
        // Past the leases that were left from before.
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        listed(subject, 2).await;
        calling.ends_without_a_failure().await;
    });
}

/// The registry comes back with nothing in it: an empty list is not believed, nor left empty.
pub(crate) fn through_the_guard_a_wipe_fails_no_call<S: Subject>(subject: &mut S) {
    run(async {
        let url = subject.url();
        let (_first, _second) = (provide(&url).await, provide(&url).await);
        listed(subject, 2).await;
        let client = PaymentClient::discover(url.as_str()).guard(quick()).without_cache().await.unwrap();
        let calling = Calling::start(client);
        subject.kill();
        subject.wipe();
        subject.start_again();
        listed(subject, 2).await;
        calling.ends_without_a_failure().await;
    });
}

/// A server that drains is gone at once, also if it was the last; and one that comes is found.
pub(crate) fn through_the_guard_what_is_withdrawn_is_gone_at_once<S: Subject>(subject: &mut S) {
    run(async {
        let url = subject.url();
        let first = provide(&url).await;
        let client = PaymentClient::discover(url.as_str()).guard(quick()).without_cache();
        let (client, directory) = client.with_directory().await.unwrap();
        client.status(7).await.unwrap();
        let start = Instant::now();
        first.drain(Duration::from_secs(5)).await.unwrap();
        until("nobody is there", || directory.instances().is_empty()).await;
        assert!(start.elapsed() < LEASE, "{:?}: long before its lease ends", start.elapsed());
        let e = client.status(7).await.unwrap_err();
        assert_eq!(e.code(), Code::Unavailable, "{e}");
        let _second = provide(&url).await;
        until("the new one", || directory.instances().len() == 1).await;
        client.status(7).await.unwrap();
    });
}

/// An operator turns an instance off, and the last one, too; what is turned on again is called again.
pub(crate) fn through_the_guard_an_operator_turns_instances_off_and_on<S: Subject>(subject: &mut S) {
    run(async {
        let url = subject.url();
        let (first, _second) = (provide(&url).await, provide(&url).await);
        let client = PaymentClient::discover(url.as_str()).guard(quick()).without_cache();
        let (client, directory) = client.with_directory().await.unwrap();
        let callable = |wanted: usize| {
            let directory = directory.clone();
            move || directory.instances().iter().filter(|i| i.entry.is_callable()).count() == wanted
        };
        until("both are called", callable(2)).await;
        let operator = subject.open();
        let payment = operator.key_of(<PaymentClient as farcall::Stub>::descriptor());
        let address = first.address().to_string();
        let off = Override { enabled: Some(false), ..Override::default() };
        eventually("a rule", || operator.write_rule(off.rule(&payment, &address))).await;
        until("one is off", callable(1)).await;
        for _ in 0..10 {
            client.status(7).await.unwrap();
        }
        assert_ne!(client.channel().peer().map(|peer| peer.address), Some(address.clone()));
        // Pulls see the same rules as pushes: nothing is found to differ, time and again.
        let version = directory.seen().version;
        tokio::time::sleep(4 * quick().pull).await;
        assert_eq!(directory.seen().version, version);
        eventually("no rule", || operator.write_rule(Override::default().rule(&payment, &address))).await;
        until("it is on again", callable(2)).await;
    });
}

/// A provider changes its weight and its labels: consumers see one instance all the time.
pub(crate) fn through_the_guard_a_provider_changes_what_it_says<S: Subject>(subject: &mut S) {
    run(async {
        let url = subject.url();
        let registration = Registration::at(url.as_str()).guard(quick());
        let handle = registration.handle();
        let server = Server::builder().serve(PaymentServer::new(Till::default())).register(registration);
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let client = PaymentClient::discover(url.as_str()).guard(quick()).without_cache();
        let (client, directory) = client.with_directory().await.unwrap();
        let calling = Calling::start(client);
        for weight in [5, 50, 500] {
            handle.set_weight(weight);
            handle.set_label("tag", "gray");
            let said = || match &directory.instances()[..] {
                [one] => one.entry.weight == weight && one.entry.labels.get("tag").is_some_and(|tag| tag == "gray"),
                other => panic!("{} instances", other.len()),
            };
            until("it is seen", said).await;
        }
        listed(subject, 1).await;
        calling.ends_without_a_failure().await;
        server.drain(Duration::from_secs(5)).await.unwrap();
        until("nobody is there", || directory.instances().is_empty()).await;
    });
}

pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
