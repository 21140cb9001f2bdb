//! Many seeds on all cores, or the one that is to be replayed.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that names one seed to run.
const SEED: &str = "FARCALL_SEED";

/// Whether one seed is replayed: then nothing can be said of how much was seen in all.
pub fn replaying() -> bool {
    std::env::var_os(SEED).is_some()
}

/// Runs every seed of the range, or the one in FARCALL_SEED. A seed that panics is named, and the
/// panic goes on.
pub fn run_seeds(seeds: Range<u64>, run: impl Fn(u64) + Sync) {
    let seeds = match std::env::var(SEED).ok().and_then(|s| s.parse().ok()) {
        Some(one) => one..one + 1,
        None => seeds,
    };
    let next = AtomicU64::new(seeds.start);
    let work = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < seeds.end
        {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
                // The others need not go on.
                next.store(seeds.end, Ordering::Relaxed);
                eprintln!("seed {seed}: replay with {SEED}={seed}");
                resume_unwind(panic);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores.min((seeds.end - seeds.start) as usize)).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
}
