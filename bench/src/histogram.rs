//! Latencies in log-linear buckets: 64 to each power of two, so a quantile is off by at most 0.8%.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;
/// Values from 2^40 ns (18 minutes) on share the last bucket.
const MAX_BITS: u32 = 40;
const BUCKETS: usize = (MAX_BITS - SUB_BITS + 1) as usize * SUB;

/// Counts of nanoseconds. Relaxed atomics let every task record without a lock; a process has one worker thread,
/// so the counters are never contended.
pub(crate) struct Histogram {
    counts: Box<[AtomicU64]>,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram { counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }

    #[inline]
    pub(crate) fn record(&self, ns: u64) {
        self.counts[bucket(ns)].fetch_add(1, Relaxed);
    }

    pub(crate) fn len(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The value at or below which the share `q` of all values lies (nearest rank), as its bucket's midpoint; 0 if
    /// nothing was recorded.
    pub(crate) fn quantile(&self, q: f64) -> u64 {
        let rank = ((q * self.len() as f64).ceil() as u64).max(1);
        let mut below = 0;
        let hit = self.counts.iter().position(|count| {
            below += count.load(Relaxed);
            below >= rank
        });
        hit.map_or(0, midpoint)
    }
}

/// Values below `SUB` have a bucket each; above, the leading one picks the power and the next bits the bucket in it.
#[inline]
fn bucket(ns: u64) -> usize {
    let ns = ns.min((1 << MAX_BITS) - 1);
    let shift = (63 - (ns | SUB as u64).leading_zeros()) - SUB_BITS;
    (shift as usize) * SUB + (ns >> shift) as usize
}

fn midpoint(bucket: usize) -> u64 {
    let shift = (bucket / SUB).saturating_sub(1);
    let low = ((bucket - shift * SUB) as u64) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_close_to_the_middle_of_its_bucket() {
        for ns in (0..2_000).chain((0..40).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1])) {
            let middle = midpoint(bucket(ns));
            assert!(middle.abs_diff(ns) as f64 <= ns as f64 * 0.008, "{ns} became {middle}");
        }
    }

    #[test]
    fn buckets_grow_with_the_value_and_end_at_the_last() {
        assert!((0..100_000u64).is_sorted_by_key(bucket));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket((1 << MAX_BITS) - 1), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_one_to_hundred() {
        let histogram = Histogram::new();
        (1..=100).for_each(|us| histogram.record(us * 1_000));
        assert_eq!(histogram.len(), 100);
        for (q, want) in [(0.0, 1_000), (0.5, 50_000), (0.99, 99_000), (1.0, 100_000)] {
            let got = histogram.quantile(q);
            assert!(got.abs_diff(want) as f64 <= want as f64 * 0.008, "q {q}: {got}, not {want}");
        }
    }

    #[test]
    fn an_empty_histogram_answers_zero() {
        assert_eq!(Histogram::new().quantile(0.5), 0);
    }
}
