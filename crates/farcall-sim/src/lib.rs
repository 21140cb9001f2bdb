//! What simulations are made of: random numbers from a seed, and links that delay, hold back and
//! break.
//!
//! A simulation puts two peers in one struct and drives them at random; everything random comes
//! from one [`Rng`], so that a seed that fails can be run again. `tests/session` simulates the
//! protocol of `farcall-wire` so. There is no time here and no thread in a simulation: the clock is
//! a number that the simulation counts.

mod link;
mod rng;
mod seeds;

pub use link::Link;
pub use rng::Rng;
pub use seeds::{replaying, run_seeds};
