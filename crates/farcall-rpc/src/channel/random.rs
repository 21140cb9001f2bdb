//! Random numbers for pauses: cheap, and good for nothing that an enemy must not guess.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Marsaglia's xorshift64*: a few instructions a number, every state but zero once in its period.
#[derive(Debug)]
pub(super) struct Xorshift(u64);

impl Xorshift {
    pub(super) fn new(seed: u64) -> Xorshift {
        // Zero would stay zero; and the numbers of small seeds begin alike unless they are spread.
        Xorshift(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// Seeded by the standard library's only source of random numbers: fresh keys for every map.
    pub(super) fn seeded() -> Xorshift {
        Xorshift::new(RandomState::new().build_hasher().finish())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_their_range_evenly_whatever_the_seed() {
        for seed in [0, 1, 2, u64::MAX] {
            let mut random = Xorshift::new(seed);
            let mut tenths = [0; 10];
            for _ in 0..10_000 {
                tenths[((u128::from(random.next()) * 10) >> 64) as usize] += 1;
            }
            assert!(tenths.iter().all(|&n| (850..1150).contains(&n)), "{seed}: {tenths:?}");
        }
        assert_ne!(Xorshift::seeded().next(), Xorshift::seeded().next());
    }
}
