//! The only registry is killed under load, for a minute, and a consumer is restarted meanwhile: nobody's calls fail.

use std::time::{Duration, Instant};

use super::{Stage, hold};

/// See the module's text.
pub(super) async fn run(stage: &mut Stage) -> Result<(), String> {
    let outage = if stage.short { Duration::from_secs(4) } else { Duration::from_secs(60) };
    let lease = if stage.short { "2000" } else { "15000" };
    let cast = &mut stage.cast;
    let mut registry = cast.registry("tcp://127.0.0.1:0", &["--lease-ms", lease])?;
    let at = registry.address.clone();
    let url = format!("farcall://{}", at.trim_start_matches("tcp://"));
    let _providers = [cast.provider(&url, &[])?, cast.provider(&url, &[])?, cast.provider(&url, &[])?];
    let mut consumers = vec![cast.consumer(&url, "a", &[])?, cast.consumer(&url, "b", &[])?];
    for consumer in &consumers {
        consumer.lists("all three providers", Instant::now(), Duration::from_secs(20), |list| list.len() == 3)?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    consumers[0].fewest();
    registry.kill();
    println!("  the registry is dead");
    tokio::time::sleep(outage / 2).await;
    consumers[1].kill();
    consumers[1] = cast.consumer(&url, "b", &[])?;
    consumers[1]
        .lists("a consumer that starts during the outage has its list", Instant::now(), Duration::from_secs(2), |list| list.len() == 3)?;
    tokio::time::sleep(outage / 2).await;
    let alone = consumers[1].report()?;
    hold(&format!("it calls without a registry: {} answers, {} failed", alone.ok, alone.failed()), alone.ok > 100 && alone.failed() == 0)?;
    let back = Instant::now();
    let _registry = cast.registry(&at, &["--lease-ms", lease])?;
    for consumer in &consumers {
        consumer.lists("nobody is missing or suspect", back, Duration::from_secs(60), |list| {
            list.len() == 3 && list.iter().all(|l| !l.suspect)
        })?;
    }
    // Beyond the time in which a restarted registry waits for its providers.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for consumer in &mut consumers {
        let report = consumer.report()?;
        hold(&format!("no call failed: {} answers, {} failed ({})", report.ok, report.failed(), report.error), report.failed() == 0)?;
        hold("calls were made all the time", report.ok > 500)?;
    }
    hold("nobody lost a provider", consumers.iter().all(|consumer| consumer.fewest().is_none_or(|fewest| fewest == 3)))
}
