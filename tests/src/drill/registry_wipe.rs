//! The only registry is killed, loses its disk, and is started again: everybody registers again and no list shrinks.

use std::time::{Duration, Instant};

use super::{Stage, hold};

/// See the module's text.
pub(super) async fn run(stage: &mut Stage) -> Result<(), String> {
    let (lease, away) = if stage.short { ("2000", 1) } else { ("15000", 10) };
    let cast = &mut stage.cast;
    let folder = cast.folder().join("node").display().to_string();
    let mut registry = cast.registry("tcp://127.0.0.1:0", &["--lease-ms", lease, "--data", &folder])?;
    let at = registry.address.clone();
    let url = format!("farcall://{}", at.trim_start_matches("tcp://"));
    let providers = [cast.provider(&url, &[])?, cast.provider(&url, &[])?, cast.provider(&url, &[])?];
    let mut consumer = cast.consumer(&url, "a", &[])?;
    consumer.lists("all three providers", Instant::now(), Duration::from_secs(20), |list| list.len() == providers.len())?;
    consumer.fewest();
    registry.kill();
    std::fs::remove_dir_all(&folder).map_err(|e| format!("{folder}: {e}"))?;
    println!("  the registry is dead and its disk empty");
    tokio::time::sleep(Duration::from_secs(away)).await;
    let back = Instant::now();
    let _registry = cast.registry(&at, &["--lease-ms", lease, "--data", &folder])?;
    // Who starts now knows only what the new node knows: all must be back there.
    let late = cast.consumer(&url, "late", &[])?;
    let all = |list: &[super::Listed]| list.len() == providers.len() && list.iter().all(|l| !l.suspect);
    late.lists("all are registered again", back, Duration::from_secs(40), all)?;
    consumer.lists("nobody is suspect", back, Duration::from_secs(40), all)?;
    let report = consumer.report()?;
    hold(&format!("no call failed: {} answers, {} failed ({})", report.ok, report.failed(), report.error), report.failed() == 0)?;
    hold("calls were made all the time", report.ok > 500 && report.gap_ms < 2000)?;
    hold("no list ever shrank", consumer.fewest().is_none_or(|fewest| fewest == providers.len()))
}
