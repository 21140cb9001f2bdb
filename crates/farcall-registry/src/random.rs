//! Random numbers that nobody's safety depends on: for pauses and for whom to try first.

use std::hash::{BuildHasher, Hasher, RandomState};
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
use std::time::Duration;

/// Any number.
pub(crate) fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A pause with full jitter: any share of a window that doubles with every failure, from `base` to `cap`.
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) fn pause(failures: u32, base: Duration, cap: Duration) -> Duration {
    let window = 2u32.checked_pow(failures).and_then(|times| base.checked_mul(times)).map_or(cap, |window| window.min(cap));
    window.mul_f64(number() as f64 / u64::MAX as f64)
}

#[cfg(all(test, any(feature = "zookeeper", feature = "etcd")))]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_within_their_window_and_differ() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        for failures in 0..100 {
            assert!(pause(failures, base, cap) <= cap);
        }
        assert!((0..20).all(|_| pause(0, base, cap) <= base));
        let some: std::collections::HashSet<Duration> = (0..20).map(|_| pause(9, base, cap)).collect();
        assert!(some.len() > 10, "{some:?}");
    }
}
