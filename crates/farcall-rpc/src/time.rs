//! The clock of connections and deadlines: tokio's, so that a test may stop and turn it (`testing`). Without tokio's
//! feature `test-util` it is the system's, at no cost.

use std::time::{Duration, Instant};

/// Now.
#[inline]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Time since then.
#[inline]
pub(crate) fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}
