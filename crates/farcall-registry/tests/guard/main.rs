//! The guard's machines against backends that fail in every way, for many seeds.
//!
//! What must hold: nothing leaves a consumer's list but for a stated reason; what is withdrawn is away at once; nothing is done in a
//! busy loop; and when the faults stop, the list becomes the truth. A seed that fails is replayed with FARCALL_SEED.

mod backend;
mod rules;
mod world;

use farcall_sim::run_seeds;
use world::World;

#[test]
fn a_list_loses_nothing_without_reason_and_becomes_the_truth() {
    run_seeds(0..100, |seed| World::new(seed).run());
}
