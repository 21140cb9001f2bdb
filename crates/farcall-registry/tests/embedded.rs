//! Nodes and their backend over real sockets, in one process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::{Code, Credentials};
use farcall_registry::embedded::{Embedded, Nodes, RegistryLimits};
use farcall_registry::{Completeness, Consumer, Entry, Gone, InstanceId, Listing, Registry, Rule, ServiceKey, Update, Updates};

const PATIENCE: Duration = Duration::from_secs(20);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await });
    runtime.shutdown_background();
    done.expect("the test took too long")
}

fn quick() -> RegistryLimits {
    RegistryLimits { lease: Duration::from_millis(600), ..RegistryLimits::default() }
}

async fn node() -> Embedded {
    Embedded::builder().limits(quick()).listen("tcp://127.0.0.1:0").await.unwrap()
}

/// A folder, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("farcall-embedded-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Until a node lists so many entries.
async fn lists(node: &Embedded, name: &str, n: usize) {
    let alone = nodes(&[node]);
    while alone.list(&service(name)).await.unwrap().entries.len() != n {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn rule(body: &str) -> Rule {
    Rule { service: service("pay"), kind: "tag-router".into(), name: "a".into(), body: body.into() }
}

/// Two nodes that know of each other.
async fn pair() -> (Embedded, Embedded) {
    // Each must know the other's before it starts.
    let (at, bt) = (own_address(), own_address());
    let node = |own: &str, other: &str| Embedded::builder().limits(quick()).peer(other.to_owned()).listen(own.to_owned());
    (node(&at, &bt).await.unwrap(), node(&bt, &at).await.unwrap())
}

/// A port that stays free between a node's end and its next start: below those that the system gives to whoever connects.
fn own_address() -> String {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (std::process::id().wrapping_mul(37).wrapping_add(n.into()) % 10_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("tcp://127.0.0.1:{port}");
        }
    }
}

fn nodes(of: &[&Embedded]) -> Nodes {
    Nodes::builder(of.iter().map(|node| node.address().to_string())).build().unwrap()
}

fn service(name: &str) -> ServiceKey {
    ServiceKey { name: name.into(), group: String::new(), version: String::new() }
}

fn entry(name: &str, n: u8) -> Arc<Entry> {
    let at = Entry::at(&service(name), format!("tcp://10.0.0.{n}:9000"));
    Arc::new(Entry { instance: InstanceId([n; 16]), incarnation: 1, application: "till".into(), ..at })
}

async fn first(updates: &mut Box<dyn Updates>) -> Listing {
    match updates.next().await.unwrap() {
        Update::All(listing) => listing,
        other => panic!("{other:?}"),
    }
}

/// The next update that is not about how well the node sees.
async fn next(updates: &mut Box<dyn Updates>) -> Update {
    loop {
        match updates.next().await.unwrap() {
            Update::All(_) => {}
            other => return other,
        }
    }
}

#[test]
fn an_entry_is_seen_and_seen_to_go() {
    run(async {
        let node = node().await;
        let (provider, consumer) = (nodes(&[&node]), nodes(&[&node]));
        let mut updates = consumer.subscribe(&service("pay"), None).await.unwrap();
        assert!(first(&mut updates).await.entries.is_empty());
        let mut held = provider.publish(entry("pay", 1)).await.unwrap();
        assert!(matches!(next(&mut updates).await, Update::Put(e) if *e == *entry("pay", 1)));
        assert!(held.check().await.unwrap());
        assert_eq!(consumer.list(&service("pay")).await.unwrap().entries, [entry("pay", 1)]);
        held.withdraw().await.unwrap();
        assert!(matches!(next(&mut updates).await, Update::Gone(key, Gone::Withdrawn) if key == entry("pay", 1).key()));
        assert!(consumer.list(&service("pay")).await.unwrap().entries.is_empty());
    });
}

#[test]
fn a_lost_provider_is_suspect_at_once_and_gone_after_its_lease() {
    run(async {
        let node = node().await;
        let (provider, consumer) = (nodes(&[&node]), nodes(&[&node]));
        let held = provider.publish(entry("pay", 1)).await.unwrap();
        let mut updates = consumer.subscribe(&service("pay"), None).await.unwrap();
        // Beyond the warm-up, whose end is told by a listing: one in which the entry has gone already would leave no more to tell.
        let listing = loop {
            let listing = first(&mut updates).await;
            if listing.completeness == Completeness::Complete {
                break listing;
            }
        };
        assert_eq!(listing.entries.len(), 1);
        // All that holds the connection.
        drop((held, provider));
        loop {
            match next(&mut updates).await {
                Update::Suspect(_) => {}
                Update::Gone(key, Gone::Expired) => break assert_eq!(key, entry("pay", 1).key()),
                other => panic!("{other:?}"),
            }
        }
    });
}

/// What goes with the very push that tells the end of the warm-up is told like everything that goes.
#[test]
fn an_entry_that_goes_as_the_warm_up_ends_is_said_to_have_expired() {
    run(async {
        let node = node().await;
        let (provider, consumer) = (nodes(&[&node]), nodes(&[&node]));
        let mut updates = consumer.subscribe(&service("pay"), None).await.unwrap();
        let held = provider.publish(entry("pay", 1)).await.unwrap();
        // Lost long before the warm-up ends, its lease over when it does or soon after.
        drop((held, provider));
        let gone = loop {
            match updates.next().await.unwrap() {
                Update::Gone(key, why) => break Some((key, why)),
                Update::All(listing) if listing.completeness == Completeness::Complete && listing.entries.is_empty() => break None,
                _ => {}
            }
        };
        assert_eq!(gone, Some((entry("pay", 1).key(), Gone::Expired)));
    });
}

#[test]
fn a_node_lets_in_as_many_connections_of_a_host_as_it_is_told() {
    run(async {
        let limits = RegistryLimits { connections_per_host: 2, ..quick() };
        let node = Embedded::builder().limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
        let (first, second, third) = (nodes(&[&node]), nodes(&[&node]), nodes(&[&node]));
        first.services().await.unwrap();
        second.services().await.unwrap();
        let e = third.services().await.unwrap_err();
        assert!(e.message().contains("connections_per_host"), "{e}");
        first.services().await.unwrap();
    });
}

/// A million services by one client: it may open many sessions, and has one share in all of them.
#[test]
fn a_caller_has_one_share_in_all_its_sessions() {
    run(async {
        let limits = RegistryLimits { caller_services: 3, caller_entries: 5, ..quick() };
        let node = Embedded::builder().limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
        let sessions: Vec<Nodes> = (0..4).map(|_| nodes(&[&node])).collect();
        let mut held = Vec::new();
        for (n, session) in sessions.iter().take(3).enumerate() {
            held.push(session.publish(entry(&format!("pay{n}"), 1)).await.unwrap());
        }
        let e = sessions[3].publish(entry("pay3", 1)).await.err().unwrap();
        assert_eq!((e.code(), e.message().contains("limit `caller_services`")), (Code::ResourceExhausted, true), "{e}");
        for n in 2..4 {
            held.push(sessions[0].publish(entry("pay0", n)).await.unwrap());
        }
        let e = sessions[1].publish(entry("pay1", 9)).await.err().unwrap();
        assert_eq!((e.code(), e.message().contains("limit `caller_entries`")), (Code::ResourceExhausted, true), "{e}");
        // What is given back may be taken again.
        held.remove(0).withdraw().await.unwrap();
        sessions[0].publish(entry("pay0", 7)).await.unwrap();
    });
}

#[test]
fn a_node_that_was_just_started_says_that_it_does_not_know_all() {
    run(async {
        let node = node().await;
        let consumer = nodes(&[&node]);
        let mut updates = consumer.subscribe(&service("pay"), None).await.unwrap();
        assert_eq!(first(&mut updates).await.completeness, Completeness::Incomplete);
        assert_eq!(first(&mut updates).await.completeness, Completeness::Complete);
    });
}

#[test]
fn consumers_and_services_are_told() {
    run(async {
        let node = node().await;
        let registry = nodes(&[&node]);
        let _held = registry.publish(entry("pay", 1)).await.unwrap();
        let who = Consumer { application: "shop".into(), host: "10.0.0.9/4711".into() };
        let _updates = registry.subscribe(&service("pay"), Some(who.clone())).await.unwrap();
        assert_eq!(registry.consumers(&service("pay")).await.unwrap(), [who]);
        let services = registry.services().await.unwrap();
        assert_eq!((services.len(), services[0].entries, services[0].consumers), (1, 1, 1));
    });
}

#[test]
fn a_node_that_is_started_again_gets_everything_back() {
    run(async {
        let address = own_address();
        let one = Embedded::builder().limits(quick()).listen(address.clone()).await.unwrap();
        let provider = nodes(&[&one]);
        let mut held = provider.publish(entry("pay", 1)).await.unwrap();
        drop(one);
        held.lost().await;
        let again = Embedded::builder().limits(quick()).listen(address).await.unwrap();
        let _held = loop {
            if let Ok(held) = provider.publish(entry("pay", 1)).await {
                break held;
            }
        };
        assert_eq!(nodes(&[&again]).list(&service("pay")).await.unwrap().entries, [entry("pay", 1)]);
    });
}

#[test]
fn with_two_nodes_one_may_be_lost() {
    run(async {
        let (one, two) = (node().await, node().await);
        let (provider, consumer) = (nodes(&[&one, &two]), nodes(&[&one, &two]));
        let _held = provider.publish(entry("pay", 1)).await.unwrap();
        for node in [&one, &two] {
            let alone = nodes(&[node]);
            while alone.list(&service("pay")).await.unwrap().entries.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        let mut updates = consumer.subscribe(&service("pay"), None).await.unwrap();
        assert_eq!(first(&mut updates).await.entries.len(), 1);
        drop(one);
        assert_eq!(consumer.list(&service("pay")).await.unwrap().entries.len(), 1);
        drop(two);
        let e = consumer.list(&service("pay")).await.unwrap_err();
        assert!(e.message().contains("no node of the registry farcall://127.0.0.1:"), "{e}");
    });
}

#[test]
fn what_one_node_heard_the_other_has_too_for_as_long_as_it_lives() {
    run(async {
        let (one, two) = pair().await;
        let provider = nodes(&[&one]);
        let held = provider.publish(entry("pay", 1)).await.unwrap();
        let dying = nodes(&[&one]);
        let lost = dying.publish(entry("pay", 2)).await.unwrap();
        lists(&two, "pay", 2).await;
        let consumer = nodes(&[&two]);
        let mut updates = consumer.subscribe(&service("pay"), None).await.unwrap();
        first(&mut updates).await;
        // Longer than the lease: copies live as long as the original.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        lists(&two, "pay", 2).await;
        held.withdraw().await.unwrap();
        loop {
            match next(&mut updates).await {
                Update::Gone(key, Gone::Withdrawn) => break assert_eq!(key, entry("pay", 1).key()),
                Update::Put(_) | Update::Suspect(_) => {}
                other => panic!("{other:?}"),
            }
        }
        drop((lost, dying));
        lists(&one, "pay", 0).await;
        lists(&two, "pay", 0).await;
    });
}

#[test]
fn a_node_that_comes_back_learns_what_was_taken_away_and_what_rules_there_are() {
    run(async {
        let (one, two) = pair().await;
        let both = nodes(&[&one, &two]);
        let held = both.publish(entry("pay", 1)).await.unwrap();
        lists(&one, "pay", 1).await;
        lists(&two, "pay", 1).await;
        both.write_rule(rule("zone=b")).await.unwrap();
        for node in [&one, &two] {
            let alone = nodes(&[node]);
            while alone.list(&service("pay")).await.unwrap().rules.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let (address, other) = (one.address().to_string(), two.address().to_string());
        drop(one);
        held.withdraw().await.unwrap();
        lists(&two, "pay", 0).await;
        let one = Embedded::builder().limits(quick()).peer(other).listen(address).await.unwrap();
        let alone = nodes(&[&one]);
        while alone.list(&service("pay")).await.unwrap().rules.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(alone.list(&service("pay")).await.unwrap().entries.is_empty());
    });
}

#[test]
fn a_node_with_a_folder_serves_at_once_what_it_knew() {
    run(async {
        let folder = Folder::new("restart");
        let start = || Embedded::builder().limits(quick()).folder(&folder.0).listen("tcp://127.0.0.1:0");
        let node = start().await.unwrap();
        let provider = nodes(&[&node]);
        let held = provider.publish(entry("pay", 1)).await.unwrap();
        provider.write_rule(rule("zone=b")).await.unwrap();
        node.stop(Duration::from_secs(5)).await.unwrap();
        let node = start().await.unwrap();
        assert_eq!(node.troubles(), [] as [&str; 0]);
        let listing = nodes(&[&node]).list(&service("pay")).await.unwrap();
        assert_eq!((listing.entries, listing.suspect), (vec![entry("pay", 1)], vec![entry("pay", 1).key()]));
        assert_eq!((listing.rules.len(), listing.completeness), (1, Completeness::Incomplete));
        // Nobody confirms it here: it goes after the warm-up.
        lists(&node, "pay", 0).await;
        drop(held);
    });
}

/// Who comes while a node says goodbye is sent away: a stream that began then would never end, and the node with it.
#[test]
fn a_node_that_stops_takes_nobody_any_more() {
    use farcall_registry::embedded::api::{Hello, Interest, RegistrarClient};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stopping = async {
        // It says goodbye, then saves what it has, then drains: meanwhile it answers.
        let folder = Folder::new("stop");
        let node = Embedded::builder().limits(quick()).folder(&folder.0).listen("tcp://127.0.0.1:0").await.unwrap();
        let _held = nodes(&[&node]).publish(entry("pay", 1)).await.unwrap();
        let client = RegistrarClient::connect(node.address()).await.unwrap();
        let interest = Interest { namespace: String::new(), service: service("pay"), known: None };
        client.list(interest.clone()).await.unwrap();
        // On their way, and not read yet when the node begins to stop.
        let who = Consumer { application: "test".into(), host: String::new() };
        let opening = client.open(Hello { namespace: String::new(), who, own: Vec::new() }).send();
        let subscribing = client.subscribe(interest, None).send();
        node.stop(Duration::from_secs(5)).await.unwrap();
        assert!(opening.await.is_err() && subscribing.await.is_err());
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, stopping).await }).unwrap();
}

#[test]
fn only_who_may_registers() {
    run(async {
        use farcall_rpc::{Identity, auth::Tokens};
        let tokens = Tokens::new().token("bank-token", Identity::new("bank")).token("other-token", Identity::new("other"));
        let node = Embedded::builder()
            .limits(quick())
            .authenticate(tokens)
            .allow_anonymous()
            .allow("bank:register,rules:pay*".parse().unwrap())
            .allow("other:register:pay*".parse().unwrap())
            .allow("*:read:*".parse().unwrap())
            .listen("tcp://127.0.0.1:0")
            .await
            .unwrap();
        let with =
            |token: &str| Nodes::builder([node.address().to_string()]).credentials(Credentials::bearer(token.to_owned())).build().unwrap();
        let (bank, other, nobody) = (with("bank-token"), with("other-token"), nodes(&[&node]));
        let _held = bank.publish(entry("pay", 1)).await.unwrap();
        let refused = |e: farcall_core::RpcError, why: &str| {
            assert_eq!(e.code(), Code::PermissionDenied, "{e}");
            assert!(e.message().contains(why), "{e}");
        };
        refused(nobody.publish(entry("pay", 2)).await.err().unwrap(), "a caller without a name may not register for pay");
        refused(bank.publish(entry("ship", 2)).await.err().unwrap(), "\"bank\" may not register for ship");
        refused(other.publish(entry("pay", 1)).await.err().unwrap(), "another caller registered this instance");
        refused(other.write_rule(rule("x")).await.unwrap_err(), "may not write rules for pay");
        bank.write_rule(rule("x")).await.unwrap();
        assert_eq!(nobody.list(&service("pay")).await.unwrap().entries, [entry("pay", 1)]);
    });
}

#[test]
fn what_is_too_much_is_refused_by_name() {
    run(async {
        let limits = RegistryLimits { labels: 2, addresses: 1, session_services: 2, entry_bytes: 4096, ..quick() };
        let node = Embedded::builder().limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
        let registry = nodes(&[&node]);
        let refused = async |change: &dyn Fn(&mut Entry), limit: &str| {
            let mut wrong = Entry::clone(&entry("pay", 9));
            change(&mut wrong);
            let e = registry.publish(Arc::new(wrong)).await.err().unwrap();
            assert!(e.message().contains(limit), "{e}");
        };
        let label = |n: usize| (0..n).map(|n| (format!("label-{n}"), "x".to_owned())).collect::<BTreeMap<_, _>>();
        refused(&|e| e.labels = label(3), "its limit `labels`").await;
        refused(&|e| e.params = label(3), "its limit `labels`").await;
        refused(&|e| e.addresses.push(e.addresses[0].clone()), "its limit `addresses`").await;
        refused(&|e| e.addresses.clear(), "an entry without addresses").await;
        refused(&|e| e.application = "x".repeat(600), "its limit `name_bytes`").await;
        refused(&|e| e.application = "\x1b[2J".into(), "control characters").await;
        refused(&|e| e.params = BTreeMap::from([("x".to_owned(), "y".repeat(5000))]), "its limit `entry_bytes`").await;
        refused(&|e| e.service.name = String::new(), "the service has no name").await;
        let mut held = Vec::new();
        for name in ["a", "b"] {
            held.push(registry.publish(entry(name, 1)).await.unwrap());
        }
        let e = registry.publish(entry("c", 1)).await.err().unwrap();
        assert_eq!((e.code(), e.message().contains("`session_services`")), (Code::ResourceExhausted, true), "{e}");
        // What is there stays, and there is room again when something goes.
        assert_eq!(registry.services().await.unwrap().len(), 2);
        held.pop().unwrap().withdraw().await.unwrap();
        registry.publish(entry("c", 1)).await.unwrap();
    });
}

/// Whoever the node does not let in learns why, and need not wait until it might have been let in.
#[test]
fn a_session_that_is_refused_is_a_refusal_of_what_was_to_be_registered() {
    run(async {
        use farcall_rpc::{Identity, auth::Tokens};
        let tokens = Tokens::new().token("bank-token", Identity::new("bank"));
        let node = Embedded::builder().limits(quick()).authenticate(tokens).listen("tcp://127.0.0.1:0").await.unwrap();
        let wrong = Nodes::builder([node.address().to_string()]).credentials(Credentials::bearer("wrong")).build().unwrap();
        for registry in [wrong, nodes(&[&node])] {
            for n in 0..3 {
                let refused = tokio::time::timeout(Duration::from_secs(2), registry.publish(entry("pay", n))).await;
                let e = refused.expect("it takes no longer than the pause between two sessions").err().unwrap();
                assert_eq!((e.code(), e.certainty()), (Code::Unauthenticated, farcall_core::Certainty::NotSent), "{e}");
            }
        }
    });
}
