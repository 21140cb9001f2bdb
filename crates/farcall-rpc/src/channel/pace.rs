//! When a channel may try to connect again: at once after a connection that was good, else after a
//! pause with full jitter.
//!
//! When a provider dies, all its consumers notice in the same moment. Were each to come back after
//! the same pause, they would come together, and together again after the next. So each waits for a
//! random share of a window that doubles with every failure. A value without clock and random source:
//! both are arguments.

use std::time::{Duration, Instant};

use farcall_core::Limits;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Pace {
    base: Duration,
    cap: Duration,
    /// Attempts that came to nothing since a connection was last good.
    failures: u32,
    /// Before this, no attempt is made.
    due: Option<Instant>,
}

impl Pace {
    pub(super) fn new(limits: &Limits) -> Pace {
        Pace { base: limits.reconnect_base, cap: limits.reconnect_cap, failures: 0, due: None }
    }

    /// The time until the next attempt may be made.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// An attempt has failed. `random` is any number: all of its 64 bits count.
    pub(super) fn failed(&mut self, now: Instant, random: u64) {
        self.due = now.checked_add(share(self.window(), random));
        self.failures = self.failures.saturating_add(1);
    }

    /// A connection was lost that had `lasted` so long. A good one is replaced at once; one that did
    /// not even outlast the pause that a failure costs is no better than a failure, or a provider
    /// that dies of its first call would be called on without end. Returns whether it was good.
    pub(super) fn lost(&mut self, lasted: Duration, now: Instant, random: u64) -> bool {
        let good = lasted >= self.window();
        match good {
            true => (self.failures, self.due) = (0, None),
            false => self.failed(now, random),
        }
        good
    }

    /// The longest pause that a failure costs now.
    fn window(&self) -> Duration {
        let doubled = 2u32.checked_pow(self.failures).and_then(|times| self.base.checked_mul(times));
        doubled.map_or(self.cap, |window| window.min(self.cap))
    }
}

/// The share of `window` that `random` is of all numbers: from nothing to all but all of it.
fn share(window: Duration, random: u64) -> Duration {
    // Less than the window, which is a number of nanoseconds that fits 64 bits for 584 years.
    let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(nanos) * u128::from(random)) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::random::Xorshift;

    const MS: Duration = Duration::from_millis(1);
    const HALF: u64 = 1 << 63;

    fn pace() -> Pace {
        Pace::new(&Limits::default())
    }

    #[test]
    fn the_first_attempt_is_made_at_once_and_each_failure_doubles_the_window() {
        let (mut pace, mut now) = (pace(), Instant::now());
        assert_eq!(pace.pause(now), Duration::ZERO);
        for ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            pace.failed(now, HALF);
            assert_eq!(pace.pause(now), ms * MS);
            assert_eq!(pace.pause(now + 30 * MS), (ms - 30) * MS);
            now += ms * MS;
            assert_eq!(pace.pause(now), Duration::ZERO);
        }
        // However long it goes on.
        pace.failures = u32::MAX;
        pace.failed(now, u64::MAX);
        assert_eq!(pace.pause(now).as_millis(), 9999);
    }

    #[test]
    fn a_pause_is_any_share_of_its_window() {
        let now = Instant::now();
        for (random, ms) in [(0, 0), (HALF / 2, 50), (HALF, 100), (u64::MAX, 199)] {
            let mut pace = pace();
            pace.failed(now, random);
            assert_eq!(pace.pause(now).as_millis(), ms);
        }
    }

    #[test]
    fn a_good_connection_is_replaced_at_once_and_a_bad_one_is_a_failure() {
        let (mut pace, now) = (pace(), Instant::now());
        assert!(pace.lost(200 * MS, now, HALF));
        assert_eq!(pace.pause(now), Duration::ZERO);
        assert!(!pace.lost(199 * MS, now, HALF));
        assert_eq!(pace.pause(now), 100 * MS);
        // After two failures it must last longer to be trusted.
        pace.failed(now, HALF);
        pace.lost(700 * MS, now, HALF);
        assert_eq!(pace.pause(now), 400 * MS);
        pace.lost(1600 * MS, now, HALF);
        assert_eq!(pace.pause(now), Duration::ZERO);
        pace.failed(now, HALF);
        assert_eq!(pace.pause(now), 100 * MS);
    }

    #[test]
    fn extreme_limits_do_no_harm() {
        let now = Instant::now();
        for (reconnect_base, reconnect_cap) in
            [(Duration::MAX, Duration::MAX), (Duration::ZERO, Duration::MAX), (Duration::MAX, Duration::ZERO), (MS, Duration::ZERO)]
        {
            let mut pace = Pace::new(&Limits { reconnect_base, reconnect_cap, ..Limits::default() });
            for _ in 0..100 {
                pace.failed(now, u64::MAX);
                pace.lost(MS, now, u64::MAX);
            }
            assert!(pace.pause(now) <= reconnect_cap);
        }
    }

    /// A thousand consumers, a provider that is gone for a minute: how many come in each tenth of a
    /// second, and when the last of them is back.
    #[test]
    fn a_herd_spreads_out() {
        let start = Instant::now();
        let mut came = [0; 1000];
        let mut back = Vec::new();
        for seed in 1..=1000 {
            let (mut pace, mut random, mut at) = (pace(), Xorshift::new(seed), Duration::ZERO);
            while at < Duration::from_secs(60) {
                came[at.as_millis() as usize / 100] += 1;
                pace.failed(start + at, random.next());
                at += pace.pause(start + at);
            }
            back.push(at);
        }
        assert!(came[0] >= 1000);
        // Ten seconds on, a thousand make about twenty attempts in a tenth of a second: no wave is left.
        assert!(came[100..600].iter().all(|&n| n < 60), "{:?}", &came[100..600]);
        assert!(came.iter().sum::<u32>() < 30_000);
        assert!(back.iter().all(|at| *at < Duration::from_secs(70)));
    }
}
