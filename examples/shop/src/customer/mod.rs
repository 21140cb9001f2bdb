//! The customer process: places orders in three styles, a third each, then asks how they went.

mod seen;
mod styles;
mod version;

use std::sync::Arc;
use std::thread;

use farcall::prelude::*;
use tokio::sync::mpsc;

use crate::api::{Customer, CustomerLedger, CustomerServer, OrdersClient, orders_v2};
use crate::calls::CallCounts;
use crate::generate;
use crate::order::Version;
use crate::process::{self, Home};
use seen::Seen;
use styles::Buyer;
use version::Sells;

/// Statuses asked for in one write.
const BATCH: usize = 100;

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where it lives.
    pub(crate) home: Home,
    /// Which version of `Order` it speaks.
    pub(crate) version: Version,
    /// Which orders.
    pub(crate) seed: u64,
}

/// Runs the process.
pub(crate) fn run(options: Options) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let counts = CallCounts::new();
        match options.version {
            Version::One => serve(options.home.reach::<OrdersClient>(&counts).await?, &options, counts).await,
            Version::Two => serve(options.home.reach::<orders_v2::OrdersClient>(&counts).await?, &options, counts).await,
        }
    })
}

async fn serve<S: Sells>(orders: S, options: &Options, counts: Arc<CallCounts>) -> Result<(), String> {
    let buyer = Buyer { orders, counts: Arc::clone(&counts), seen: Arc::new(Seen::default()) };
    let seen = Arc::clone(&buyer.seen);
    let desk = Shopper { buyer, version: options.version, seed: options.seed };
    let server = Server::builder().serve(CustomerServer::new(desk));
    options.home.serve_and(server, counts, move || seen.go_home(), async {}).await
}

struct Shopper<S> {
    buyer: Buyer<S>,
    version: Version,
    seed: u64,
}

impl<S: Sells> Customer for Shopper<S> {
    async fn buy(&self, first: u64, count: u64) -> Reply<()> {
        self.buyer.seen.is_going_for(count);
        buy(&self.buyer, first, count, self.seed).await;
        ask_statuses(&self.buyer, first, count).await;
        Ok(())
    }

    async fn bought(&self) -> Reply<u64> {
        Ok(self.buyer.seen.count())
    }

    async fn ledger(&self) -> Reply<CustomerLedger> {
        let (purchases, book) = (self.buyer.seen.purchases(), self.buyer.counts.book());
        Ok(CustomerLedger { version: self.version.number(), purchases, book })
    }
}

/// Buys everything, in all styles at once; two of them on threads that know no runtime.
async fn buy<S: Sells>(buyer: &Buyer<S>, first: u64, count: u64, seed: u64) {
    let mut thirds = [Vec::new(), Vec::new(), Vec::new()];
    for (order, third) in generate::orders(first, count, seed).into_iter().zip((0..3).cycle()) {
        thirds[third].push(order);
    }
    let [waited, awaited, called_back] = thirds;
    let (at_work, mut ended) = mpsc::channel::<()>(1);
    in_thread(buyer, &at_work, |buyer| buyer.wait_for_each(waited));
    in_thread(buyer, &at_work, |buyer| buyer.give_callbacks(called_back));
    buyer.await_many(awaited).await;
    // Nothing is ever sent: it ends when both threads have dropped their end, also by a panic.
    drop(at_work);
    ended.recv().await;
}

/// Shops on a thread of its own. Nobody joins it: a process told to end does not wait for it.
fn in_thread<S: Sells>(buyer: &Buyer<S>, at_work: &mpsc::Sender<()>, shop: impl FnOnce(&Buyer<S>) + Send + 'static) {
    let (buyer, at_work) = (buyer.clone(), at_work.clone());
    thread::spawn(move || {
        shop(&buyer);
        drop(at_work);
    });
}

/// Asks an order desk about every order, many questions in one write.
async fn ask_statuses<S: Sells>(buyer: &Buyer<S>, first: u64, count: u64) {
    let orders: Vec<u64> = (first..first.saturating_add(count)).collect();
    for orders in orders.chunks(BATCH) {
        let questions: Vec<_> = orders.iter().map(|id| buyer.counts.attempt(buyer.orders.status(*id))).collect();
        for (id, answer) in orders.iter().zip(farcall::batch(questions).await) {
            match answer {
                Ok(status) => buyer.seen.told(*id, status),
                Err(e) => buyer.seen.trouble(*id, &e),
            }
        }
    }
}
