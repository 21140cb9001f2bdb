//! The customer process: places orders in three styles, a third each, then asks how they went.

mod seen;
mod styles;

use std::sync::Arc;
use std::thread;

use farcall::prelude::*;
use tokio::sync::mpsc;

use crate::api::{Customer, CustomerLedger, CustomerServer, OrdersClient, Purchase};
use crate::calls::CallCounts;
use crate::generate;
use crate::process::{self, Home};
use crate::say::say;
use seen::Seen;
use styles::Buyer;

/// How the customer tells the launcher that all orders have ended.
pub(crate) const DONE: &str = "done";
/// Statuses asked for in one write.
const BATCH: usize = 100;

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where it lives.
    pub(crate) home: Home,
    /// Where the order desk lives; none = wherever the registry says.
    pub(crate) order: Option<String>,
    /// How many orders.
    pub(crate) orders: u64,
    /// Which orders.
    pub(crate) seed: u64,
}

/// Runs the process.
pub(crate) fn run(options: Options) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let mut ends = process::ends(options.home.until_stdin_closes)?;
        let counts = CallCounts::new();
        let registry = options.home.registry.as_deref();
        let orders = process::reach::<OrdersClient>(options.order.as_deref(), registry, counts.clone())?;
        let orders = orders.await.map_err(|e| e.to_string())?;
        let buyer = Buyer { orders, counts: Arc::clone(&counts), seen: Arc::new(Seen::new(options.orders)) };
        let desk = Answers { seen: Arc::clone(&buyer.seen), counts };
        let server = options.home.listen(Server::builder().serve(CustomerServer::new(desk))).await?;
        let shopping = tokio::spawn(shop(buyer, options.orders, options.seed));
        ends.recv().await;
        shopping.abort();
        process::drain(server, &mut ends).await
    })
}

/// Buys everything, in all styles at once; two of them on threads that know no runtime.
async fn shop(buyer: Buyer, count: u64, seed: u64) {
    let mut thirds = [Vec::new(), Vec::new(), Vec::new()];
    for (order, third) in generate::orders(count, seed).into_iter().zip((0..3).cycle()) {
        thirds[third].push(order);
    }
    let [waited, awaited, called_back] = thirds;
    let (at_work, mut ended) = mpsc::channel::<()>(1);
    in_thread(&buyer, &at_work, |buyer| buyer.wait_for_each(waited));
    in_thread(&buyer, &at_work, |buyer| buyer.give_callbacks(called_back));
    buyer.await_many(awaited).await;
    // Nothing is ever sent: it ends when both threads have dropped their end, also by a panic.
    drop(at_work);
    ended.recv().await;
    ask_statuses(&buyer).await;
    say(DONE);
}

/// Shops on a thread of its own. Nobody joins it: a process told to end does not wait for it.
fn in_thread(buyer: &Buyer, at_work: &mpsc::Sender<()>, shop: impl FnOnce(&Buyer) + Send + 'static) {
    let (buyer, at_work) = (buyer.clone(), at_work.clone());
    thread::spawn(move || {
        shop(&buyer);
        drop(at_work);
    });
}

/// Asks the order desk about every order, many questions in one write.
async fn ask_statuses(buyer: &Buyer) {
    for orders in buyer.seen.orders().chunks(BATCH) {
        let questions: Vec<_> = orders.iter().map(|id| buyer.counts.attempt(buyer.orders.status(*id))).collect();
        for (id, answer) in orders.iter().zip(farcall::batch(questions).await) {
            match answer {
                Ok(status) => buyer.seen.told(*id, status),
                Err(e) => buyer.seen.trouble(*id, &e),
            }
        }
    }
}

/// The customer's side of the audit.
struct Answers {
    seen: Arc<Seen>,
    counts: Arc<CallCounts>,
}

impl Customer for Answers {
    async fn ledger(&self) -> Reply<CustomerLedger> {
        let purchases: Vec<Purchase> = self.seen.purchases();
        Ok(CustomerLedger { purchases, calls: self.counts.calls() })
    }
}
