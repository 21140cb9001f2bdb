//! The orders of a demo, the same for the same seed.
//!
//! Which of two customers gets the last lamp is still a race between processes: the ledger holds
//! for every outcome of it.

use crate::wares::WARES;

/// What a customer wants, in no version's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) id: u64,
    pub(crate) card: String,
    pub(crate) item: u16,
    pub(crate) pieces: u32,
    pub(crate) gift: Option<String>,
}

/// One card in this many is declined.
const DECLINED_ONE_IN: u64 = 12;
/// The most pieces in one order.
const MOST_PIECES: u64 = 3;
/// One order in this many is a gift.
const GIFT_ONE_IN: u64 = 3;

/// splitmix64 (Steele, Lea, Flood 2014): eight lines, no crate, good enough to pick from a catalogue.
pub(crate) struct SplitMix(u64);

impl SplitMix {
    /// A generator with this seed.
    pub(crate) fn new(seed: u64) -> SplitMix {
        SplitMix(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is small enough for the bias of the remainder not to matter.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// `count` orders, numbered from `first`. What an order is depends on its number, not on those before it.
pub(crate) fn orders(first: u64, count: u64, seed: u64) -> Vec<Want> {
    (first..first.saturating_add(count)).map(|id| order(id, seed)).collect()
}

fn order(id: u64, seed: u64) -> Want {
    let mut random = SplitMix::new(SplitMix::new(seed).next() ^ id);
    let last = if random.below(DECLINED_ONE_IN) == 0 { crate::journal::DECLINED_ENDING } else { "4242" };
    Want {
        id,
        card: format!("4000-{:04}-{last}", random.below(10_000)),
        item: random.below(WARES.len() as u64) as u16,
        pieces: 1 + random.below(MOST_PIECES) as u32,
        gift: (random.below(GIFT_ONE_IN) == 0).then(|| format!("with love, customer of order {id}")),
    }
}

/// Pieces of each item that so many orders ask for and pay, on average. With each ware's share of it,
/// about one paid order in ten finds its shelf empty.
pub(crate) fn stock_for(orders: u64) -> u32 {
    let paid = orders * (DECLINED_ONE_IN - 1) / DECLINED_ONE_IN;
    (paid * (1 + MOST_PIECES) / 2 / WARES.len() as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        // The first outputs for seed 1234567, as listed by Rosetta Code.
        let mut random = SplitMix::new(1_234_567);
        assert_eq!([random.next(), random.next(), random.next()], [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        assert_eq!(orders(1, 100, 7), orders(1, 100, 7));
        assert_eq!(orders(1, 100, 7)[50..], orders(51, 50, 7));
        assert_ne!(orders(1, 100, 7), orders(1, 100, 8));
    }

    #[test]
    fn orders_are_of_all_kinds() {
        let orders = orders(1, 3000, 1);
        let declined = orders.iter().filter(|o| o.card.ends_with(crate::journal::DECLINED_ENDING)).count();
        assert!((150..350).contains(&declined), "{declined}");
        for item in crate::wares::items() {
            let asked: u32 = orders.iter().filter(|o| o.item == item).map(|o| o.pieces).sum();
            assert!(asked > 300, "item {item}: {asked}");
        }
        assert!(orders.iter().all(|o| (1..=3).contains(&o.pieces)));
    }

    #[test]
    fn some_stock_runs_out_and_some_does_not() {
        let paid = orders(1, 3000, 1).into_iter().filter(|o| !o.card.ends_with(crate::journal::DECLINED_ENDING));
        let mut left: Vec<i64> = WARES.iter().map(|w| i64::from(stock_for(3000) * w.share / 100)).collect();
        paid.for_each(|o| left[usize::from(o.item)] -= i64::from(o.pieces));
        assert!(left.iter().any(|left| *left < 0) && left.iter().any(|left| *left > 0), "{left:?}");
    }
}
