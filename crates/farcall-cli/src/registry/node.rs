//! `farcall registry`: a node, until the process is asked to end.

use std::time::Duration;

use farcall::StopSignals;
use farcall_registry::embedded::{Embedded, RegistryLimits};

use super::args::Node;
use crate::failure::Failure;
use crate::is_read;

/// For calls that run when it is asked to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs it; says on the first line where it listens.
pub(crate) async fn run(options: Node) -> Result<String, Failure> {
    // Before it listens, so that no signal comes too early.
    let signals = StopSignals::new()?;
    let mut limits = RegistryLimits::default();
    limits.lease = options.lease.unwrap_or(limits.lease);
    let mut listen = options.listen.into_iter();
    let mut builder = Embedded::builder().limits(limits);
    let first = listen.next().unwrap_or_default();
    for also in listen {
        builder = builder.also(also);
    }
    let node = builder.listen(first).await?;
    let addresses: Vec<String> = node.addresses().iter().map(ToString::to_string).collect();
    is_read(&format!("listening on {}\n", addresses.join(", ")))?;
    node.stop_on(signals, PATIENCE).await?;
    Ok(String::new())
}
