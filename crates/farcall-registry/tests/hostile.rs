//! Bytes that no sane program sends, at a node and at its clients: real conversations, damaged on the way. A seed that fails is
//! replayed with FARCALL_SEED.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farcall_registry::embedded::{Embedded, Nodes, RegistryLimits};
use farcall_registry::{Consumer, Entry, InstanceId, Registry, Rule, ServiceKey};
use farcall_sim::{Rng, run_seeds};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// For what a client whose bytes are damaged may try.
const ATTEMPT: Duration = Duration::from_millis(100);
/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);

fn service(name: &str) -> ServiceKey {
    ServiceKey { name: name.into(), group: String::new(), version: String::new() }
}

fn entry(name: &str, n: u8) -> Arc<Entry> {
    let labels = BTreeMap::from([("zone".into(), "b".into())]);
    let at = Entry::at(&service(name), format!("tcp://10.0.0.{n}:9000"));
    Arc::new(Entry { instance: InstanceId([n; 16]), incarnation: 1, application: "till".into(), labels, ..at })
}

/// Passes on what comes, and damages it: flips bits, leaves bytes out, repeats some, cuts it short. The first bytes pass, so that there is a
/// conversation to damage.
async fn damaging(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut rng: Rng) {
    let (mut passed, mut buffer) = (0, [0; 2048]);
    let unharmed = rng.below(2000);
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let mut bytes = buffer[..n].to_vec();
        passed += n;
        if passed > unharmed && rng.one_in(2) {
            let at = rng.below(bytes.len());
            match rng.below(5) {
                0 | 1 => bytes[at] ^= 1 << rng.below(8),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, rng.any() as u8),
                _ => bytes[at..].iter_mut().for_each(|byte| *byte = rng.any() as u8),
            }
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// A way to the node that damages what goes over it; where it is.
async fn bad_way(node: String, seed: u64) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let way = tokio::spawn(async move {
        let mut rng = Rng(seed);
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(&node["tcp://".len()..]).await else { return };
            let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
            // One direction, or both.
            let (there, back) = (Rng(rng.any()), Rng(rng.any()));
            tokio::spawn(damaging(from_near, to_far, there));
            tokio::spawn(damaging(from_far, to_near, back));
        }
    });
    (address, way)
}

/// Tasks that panic end unseen.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn a_node_and_its_clients_outlive_damaged_bytes() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.lock().unwrap().push(panic.to_string());
        before(panic);
    }));
    run_seeds(0..30, |seed| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, damaged(seed)).await.expect("it took too long") });
        runtime.shutdown_background();
    });
    assert_eq!(*PANICS.lock().unwrap(), [] as [&str; 0]);
}

async fn damaged(seed: u64) {
    let limits = RegistryLimits { lease: Duration::from_millis(600), ..RegistryLimits::default() };
    let node = Embedded::builder().limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
    let good = Nodes::builder([node.address().to_string()]).build().unwrap();
    let held = good.publish(entry("good", 1)).await.unwrap();
    let (bad_address, way) = bad_way(node.address().to_string(), seed).await;
    let bad = Nodes::builder([bad_address]).build().unwrap();
    let mut rng = Rng(seed ^ 0x5eed);
    for n in 0..3 {
        let name = rng.pick(&["good", "bad"]);
        let rule = Rule { service: service("bad"), kind: "tag-router".into(), name: "a".into(), body: "x".repeat(rng.below(300)) };
        let who = Consumer { application: "a".into(), host: "h".into() };
        // Whatever comes of it: an error by name, or an answer; no panic, and no end of the node.
        tokio::time::timeout(ATTEMPT, bad.publish(entry("bad", n))).await.ok();
        tokio::time::timeout(ATTEMPT, bad.list(&service(name))).await.ok();
        tokio::time::timeout(ATTEMPT, bad.services()).await.ok();
        tokio::time::timeout(ATTEMPT, bad.write_rule(rule)).await.ok();
        if let Ok(Ok(mut updates)) = tokio::time::timeout(ATTEMPT, bad.subscribe(&service(name), Some(who))).await {
            tokio::time::timeout(ATTEMPT, updates.next()).await.ok();
        }
    }
    drop(bad);
    way.abort();
    // To everybody else it is as it was.
    assert_eq!(good.list(&service("good")).await.unwrap().entries.iter().filter(|e| ***e == *entry("good", 1)).count(), 1);
    let other = good.publish(entry("good", 2)).await.unwrap();
    other.withdraw().await.unwrap();
    drop(held);
}
