//! Two of three nodes are killed: the last one serves and registers; then they come back and know all.

use std::time::{Duration, Instant};

use super::{Stage, hold};

/// See the module's text.
pub(super) async fn run(stage: &mut Stage) -> Result<(), String> {
    let (lease, away) = if stage.short { ("2000", 3) } else { ("15000", 30) };
    let cast = &mut stage.cast;
    // Each must be told of the others before they listen.
    let at: Vec<String> = (0..3).map(|_| format!("tcp://127.0.0.1:{}", crate::servers::free_port())).collect();
    let others = |own: &str| at.iter().filter(|a| *a != own).cloned().collect::<Vec<_>>().join(",");
    let mut nodes = Vec::new();
    for own in &at {
        nodes.push(cast.registry(own, &["--lease-ms", lease, "--peers", &others(own)])?);
    }
    let hosts: Vec<&str> = at.iter().map(|a| a.trim_start_matches("tcp://")).collect();
    let url = format!("farcall://{}", hosts.join(","));
    let _first = [cast.provider(&url, &[])?, cast.provider(&url, &[])?];
    let mut consumers = [cast.consumer(&url, "a", &[])?, cast.consumer(&url, "b", &[])?, cast.consumer(&url, "c", &[])?];
    for consumer in &consumers {
        consumer.lists("both providers", Instant::now(), Duration::from_secs(20), |list| list.len() == 2)?;
    }
    nodes[0].kill();
    nodes[1].kill();
    println!("  two of three nodes are dead");
    let alone = Instant::now();
    let _third = cast.provider(&url, &[])?;
    for consumer in &consumers {
        consumer.lists("a provider that registers at the last node", alone, Duration::from_secs(40), |list| list.len() == 3)?;
    }
    tokio::time::sleep(Duration::from_secs(away)).await;
    let back = Instant::now();
    for (node, own) in nodes.iter_mut().zip(&at).take(2) {
        *node = cast.registry(own, &["--lease-ms", lease, "--peers", &others(own)])?;
    }
    // Looks at one of those that came back only.
    let late = cast.consumer(&format!("farcall://{}", hosts[0]), "late", &[])?;
    late.lists("a node that came back knows all", back, Duration::from_secs(40), |list| list.len() == 3)?;
    for consumer in &mut consumers {
        let report = consumer.report()?;
        hold(&format!("no call failed: {} answers, {} failed ({})", report.ok, report.failed(), report.error), report.failed() == 0)?;
    }
    hold("nobody lost a provider", consumers.iter().all(|consumer| consumer.list().len() == 3))
}
