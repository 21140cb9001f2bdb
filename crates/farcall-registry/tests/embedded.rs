//! Nodes and their backend over real sockets, in one process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farcall_registry::embedded::{Embedded, Nodes, RegistryLimits};
use farcall_registry::{Advertised, Completeness, Consumer, Entry, Gone, InstanceId, Listing, Registry, ServiceKey, Update, Updates};

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

fn nodes(of: &[&Embedded]) -> Nodes {
    Nodes::builder(of.iter().map(|node| node.address().to_string())).build().unwrap()
}

fn service(name: &str) -> ServiceKey {
    ServiceKey { name: name.into(), group: String::new(), version: String::new() }
}

fn entry(name: &str, n: u8) -> Arc<Entry> {
    Arc::new(Entry {
        service: service(name),
        instance: InstanceId([n; 16]),
        incarnation: 1,
        application: "till".into(),
        addresses: vec![Advertised { protocol: "farcall".into(), address: format!("tcp://10.0.0.{n}:9000") }],
        labels: BTreeMap::new(),
        weight: 100,
        enabled: true,
        host: None,
        methods: Vec::new(),
        params: BTreeMap::new(),
    })
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
        assert_eq!(first(&mut updates).await.entries.len(), 1);
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
        let one = node().await;
        let address = one.address().to_string();
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
