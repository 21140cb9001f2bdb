//! Every provider is asked to end and started again, one after the other, under load: nobody's call fails, and nobody finds one that
//! is not ready.

use std::time::{Duration, Instant};

use super::{Stage, hold};

/// How long a provider warms up: it listens and answers, and says that it is not ready.
const WARM_UP: &str = "400";
/// The longest time from a signal until everybody's list is right: a push, and no lease.
const WITHDRAWN: Duration = Duration::from_millis(1000);

/// See the module's text.
pub(super) async fn run(stage: &mut Stage) -> Result<(), String> {
    let rounds = if stage.short { 1 } else { 5 };
    let cast = &mut stage.cast;
    let registry = cast.registry("tcp://127.0.0.1:0", &[])?;
    let url = format!("farcall://{}", registry.address.trim_start_matches("tcp://"));
    let warm = ["--warm-ms", WARM_UP];
    let mut providers = [cast.provider(&url, &warm)?, cast.provider(&url, &warm)?, cast.provider(&url, &warm)?];
    let mut consumers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        consumers.push(cast.consumer(&url, name, &["--check", "yes"])?);
    }
    let all = |list: &[super::Listed]| list.len() == 3 && list.iter().all(|l| !l.suspect);
    for consumer in &consumers {
        consumer.lists("all three providers", Instant::now(), Duration::from_secs(20), all)?;
    }
    let mut longest = Duration::ZERO;
    for n in (0..3).cycle().take(3 * rounds) {
        let (leaving, told) = (providers[n].address.clone(), Instant::now());
        hold("a provider that is asked to end ends well", providers[n].end()?)?;
        for consumer in &consumers {
            let gone = |list: &[super::Listed]| list.iter().all(|l| l.address != leaving);
            longest = longest.max(consumer.lists("it is withdrawn", told, WITHDRAWN * 5, gone)?);
        }
        let up = Instant::now();
        providers[n] = cast.provider(&url, &warm)?;
        for consumer in &consumers {
            let took = consumer.lists("it is back", up, Duration::from_secs(20), all)?;
            hold("not before it was ready", took >= Duration::from_millis(WARM_UP.parse().unwrap_or_default()))?;
        }
    }
    hold(&format!("withdrawn everywhere {} ms after the signal, which is no lease", longest.as_millis()), longest <= WITHDRAWN)?;
    for consumer in &mut consumers {
        // Those there were at the start, and each that came.
        let checked = consumer.line("checked", 3 + 3 * rounds as u64, Duration::from_secs(10)).is_ok();
        hold("every instance was ready when it was found", checked && consumer.heard("unready") == 0)?;
        let report = consumer.report()?;
        hold(&format!("no call failed: {} answers, {} failed ({})", report.ok, report.failed(), report.error), report.failed() == 0)?;
        hold("calls were made all the time", report.ok > 500 && report.gap_ms < 1000)?;
    }
    Ok(())
}
