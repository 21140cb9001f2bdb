//! Thousands of clients of a registry in one process, each with a connection of its own: some register, some subscribe.

use std::collections::BTreeMap;
use std::sync::Arc;

use farcall::registry::embedded::Nodes;
use farcall::registry::{Advertised, Consumer, Entry, InstanceId, Registry, ServiceKey};
use tokio::task::JoinSet;

/// Instances of one service, as far as there are so many.
const PER_SERVICE: u64 = 10;
/// Of them at a time: a crowd that grows, not one that is let loose.
const AT_A_TIME: usize = 50;

/// Runs the role: says when all are in, then holds them for as long as the process lives.
pub(super) async fn run(providers: u64, subscribers: u64, node: &str) -> Result<(), String> {
    let services = providers.div_ceil(PER_SERVICE).max(1);
    let (mut joining, mut all) = (JoinSet::new(), Vec::new());
    for n in 0..providers + subscribers {
        if joining.len() == AT_A_TIME {
            all.extend(joined(&mut joining).await?);
        }
        let (node, service) = (node.to_owned(), service(n % services));
        joining.spawn(async move { if n < providers { provide(&node, service, n).await } else { watch(&node, service).await } });
    }
    while !joining.is_empty() {
        all.extend(joined(&mut joining).await?);
    }
    println!("ready {} are in", all.len());
    super::roles::until_stdin_ends(|| "0 0 0 0 -".to_owned()).await;
    drop(all);
    Ok(())
}

type Held = Box<dyn std::any::Any + Send>;

async fn joined(joining: &mut JoinSet<Result<Held, String>>) -> Result<Option<Held>, String> {
    joining.join_next().await.map(|joined| joined.map_err(|e| e.to_string())?).transpose()
}

async fn provide(node: &str, service: ServiceKey, n: u64) -> Result<Held, String> {
    let nodes = Nodes::builder([node]).build().map_err(|e| e.to_string())?;
    let held = nodes.publish(Arc::new(entry(service, n))).await.map_err(|e| e.to_string())?;
    Ok(Box::new((nodes, held)))
}

async fn watch(node: &str, service: ServiceKey) -> Result<Held, String> {
    let nodes = Nodes::builder([node]).build().map_err(|e| e.to_string())?;
    let consumer = Consumer { application: "crowd".into(), host: String::new() };
    let mut updates = nodes.subscribe(&service, Some(consumer)).await.map_err(|e| e.to_string())?;
    updates.next().await.map_err(|e| e.to_string())?;
    // It goes on by itself when the node is lost; what it tells nobody needs here.
    let reading = tokio::spawn(async move { while updates.next().await.is_ok() {} });
    Ok(Box::new((nodes, reading)))
}

fn service(n: u64) -> ServiceKey {
    ServiceKey { name: format!("org.example.crowd.Service{n}"), group: String::new(), version: String::new() }
}

fn entry(service: ServiceKey, n: u64) -> Entry {
    Entry {
        service,
        instance: InstanceId(u128::from(n).to_be_bytes()),
        incarnation: 1,
        application: "crowd".into(),
        addresses: vec![Advertised { protocol: "farcall".into(), address: format!("tcp://10.0.{}.{}:9000", n >> 8, n & 255) }],
        labels: BTreeMap::new(),
        weight: 100,
        enabled: true,
        host: None,
        methods: Vec::new(),
        params: BTreeMap::new(),
    }
}
