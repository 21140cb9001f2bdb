//! Random numbers for pauses and orders: cheap, and good for nothing that an enemy must not guess.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// splitmix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Seeded by the standard library's only source of random numbers: fresh keys for every map.
    pub fn seeded() -> Random {
        Random(RandomState::new().build_hasher().finish())
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, but not, 1.
    pub fn unit(&mut self) -> f64 {
        (self.any() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A random share of `window`: full jitter.
    pub fn share(&mut self, window: Duration) -> Duration {
        window.mul_f64(self.unit())
    }

    /// `around` and up to a fifth more or less.
    pub fn about(&mut self, around: Duration) -> Duration {
        around.mul_f64(0.8 + 0.4 * self.unit())
    }

    /// The pause after so many failures in a row: a random share of a window that doubles from `base` to `cap`.
    pub fn pause(&mut self, failures: u32, base: Duration, cap: Duration) -> Duration {
        let doubled = 2u32.checked_pow(failures).and_then(|times| base.checked_mul(times));
        self.share(doubled.map_or(cap, |window| window.min(cap)))
    }
}
