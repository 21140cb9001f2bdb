//! Two sessions and a network in one struct, driven at random: calls both ways, one-way calls,
//! bodies in fragments, streams in every direction with slow producers and readers, cancels,
//! deadlines, refusals, handles dropped at any time, GoAway, cuts at any byte.
//!
//! What must hold is checked against a [`ledger`] of what really happened and a [`tap`] on the wire:
//! every call ends once, what is said about its execution is true and as exact as can be known; a
//! stream yields a prefix of what was sent, and the whole of it if it ended without error; nobody
//! who waits is forgotten; credit is neither exceeded nor lost; nothing is left over in any table.
//! `FARCALL_SEED=n` replays one run.

mod ledger;
mod pair;
mod provider;
mod side;
mod streams;
mod tap;

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use farcall_core::Certainty;
use farcall_sim::{replaying, run_seeds};
use ledger::Seen;
use pair::Pair;

/// How often things were seen: a simulation that never gets anywhere would pass too.
#[derive(Default)]
struct Tally {
    seen: HashSet<(Option<Certainty>, bool, usize, bool)>,
    ends: HashSet<(bool, Seen)>,
    counts: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn add(&mut self, pair: &Pair) {
        let records = || pair.ledger.values();
        self.seen.extend(records().map(|r| (r.promised, r.sent, r.executed, r.oneway)));
        self.ends
            .extend(records().flat_map(|r| [(false, r.args.seen), (true, r.results.seen)]).filter_map(|(dir, seen)| Some((dir, seen?))));
        let items = records().map(|r| (r.args.read + r.results.read) as usize).sum();
        let large = records().filter(|r| r.len > 128 << 10 && r.executed > 0).count();
        let counts = [
            ("cuts", pair.is_cut() as usize),
            ("drains", pair.drains()),
            ("items", items),
            ("large bodies run", large),
            ("credits", pair.tap.credits),
            ("pieces", pair.tap.pieces),
            ("resets", pair.tap.resets),
            ("calls that waited for credit", pair.starved),
            ("calls refused for held", pair.too_much),
            ("calls on rows that were held", pair.held),
            ("calls run by a plan", pair.resolved),
            ("calls given up while held", pair.held_in_vain),
        ];
        counts.into_iter().for_each(|(what, n)| *self.counts.entry(what).or_default() += n);
    }

    fn check(&self) {
        println!("{:?}", self.counts);
        for (what, n) in &self.counts {
            assert!(*n > 100, "{n} {what}");
        }
        for promised in [Some(Certainty::NotSent), Some(Certainty::NotExecuted), Some(Certainty::MaybeExecuted), None] {
            assert!(self.seen.iter().any(|s| s.0 == promised), "never {promised:?}");
        }
        assert!(self.seen.contains(&(Some(Certainty::MaybeExecuted), true, 0, false)), "nothing was ever lost on the way");
        assert!(self.seen.contains(&(Some(Certainty::MaybeExecuted), true, 1, false)), "no answer was ever lost");
        for results in [false, true] {
            for seen in [Seen::Whole, Seen::AppError, Seen::Failed, Seen::Dropped] {
                assert!(self.ends.contains(&(results, seen)), "no stream ever ended so: {seen:?}, results: {results}");
            }
        }
    }
}

#[test]
fn every_call_and_every_stream_ends_once_and_truthfully() {
    let tally = Mutex::new(Tally::default());
    run_seeds(0..10_000, |seed| {
        let mut pair = Pair::new(seed);
        pair.run();
        tally.lock().unwrap().add(&pair);
    });
    if !replaying() {
        tally.lock().unwrap().check();
    }
}
