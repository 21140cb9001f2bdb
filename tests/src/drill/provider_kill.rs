//! A provider is killed with `kill -9`: consumers with a connection to it know at once, all know when its lease is over.

use std::time::{Duration, Instant};

use super::{Stage, hold};

/// See the module's text.
pub(super) async fn run(stage: &mut Stage) -> Result<(), String> {
    let lease = if stage.short { Duration::from_secs(3) } else { Duration::from_secs(15) };
    let cast = &mut stage.cast;
    let registry = cast.registry("tcp://127.0.0.1:0", &["--lease-ms", &lease.as_millis().to_string()])?;
    let url = format!("farcall://{}", registry.address.trim_start_matches("tcp://"));
    let mut providers = [cast.provider(&url, &[])?, cast.provider(&url, &[])?, cast.provider(&url, &[])?];
    let mut consumers = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        consumers.push(cast.consumer(&url, name, &[])?);
    }
    let start = Instant::now();
    for consumer in &consumers {
        consumer.lists("all three providers", start, Duration::from_secs(20), |list| list.len() == 3 && list.iter().all(|l| !l.suspect))?;
    }
    // A node that was just started lets nothing expire.
    tokio::time::sleep(lease + Duration::from_secs(1)).await;
    let mut busiest = (0, 0);
    for (n, provider) in providers.iter_mut().enumerate() {
        busiest = busiest.max((provider.report()?.ok, n));
    }
    let victim = &mut providers[busiest.1];
    let dead = victim.address.clone();
    let mut before = Vec::new();
    for consumer in &mut consumers {
        before.push(consumer.report()?);
    }
    let killed = Instant::now();
    victim.kill();
    let (mut suspect, mut gone) = (Duration::ZERO, Duration::ZERO);
    for consumer in &consumers {
        let known = |list: &[super::Listed]| list.iter().all(|l| l.address != dead || l.suspect);
        suspect = suspect.max(consumer.lists("the dead one is suspect, or gone", killed, Duration::from_secs(20), known)?);
    }
    for consumer in &consumers {
        let known = |list: &[super::Listed]| list.iter().all(|l| l.address != dead);
        gone = gone.max(consumer.lists("the dead one is gone", killed, lease * 3, known)?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut cut = 0;
    for (consumer, before) in consumers.iter_mut().zip(&before) {
        let after = consumer.report()?;
        cut += after.failed() - before.failed();
        hold(
            &format!("it calls on: {} answers, {} failed, longest gap {} ms ({})", after.ok, after.failed(), after.gap_ms, after.error),
            after.ok > before.ok + 100,
        )?;
        // At most one call of each caller was under way; it may have run, so nobody repeats it.
        hold("only calls that were under way failed", after.failed() - before.failed() <= 8)?;
    }
    println!("  suspect after {} ms, gone after {} ms, {cut} calls cut off", suspect.as_millis(), gone.as_millis());
    hold("suspect within 1 s", suspect <= Duration::from_secs(1))?;
    hold("gone within the lease and 1 s", gone <= lease + Duration::from_secs(1))
}
