//! One call, three styles.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};

use crate::api::{Order, OrdersClient, Style};
use crate::calls::CallCounts;
use crate::customer::seen::Seen;

/// Orders that one style has in flight at a time.
const IN_FLIGHT: usize = 64;

/// Who places the orders.
#[derive(Clone)]
pub(crate) struct Buyer {
    pub(crate) orders: OrdersClient,
    pub(crate) counts: Arc<CallCounts>,
    pub(crate) seen: Arc<Seen>,
}

impl Buyer {
    /// Synchronous: the thread blocks until each reply is here.
    pub(crate) fn wait_for_each(&self, orders: Vec<Order>) {
        for order in orders {
            let id = order.id;
            let reply = self.counts.attempt(self.orders.place(order)).wait();
            self.seen.replied(id, Style::Waited, &reply);
        }
    }

    /// Asynchronous: many are on their way while the oldest is awaited.
    pub(crate) async fn await_many(&self, orders: Vec<Order>) {
        let mut flying = VecDeque::with_capacity(IN_FLIGHT);
        let mut orders = orders.into_iter();
        loop {
            for order in orders.by_ref().take(IN_FLIGHT - flying.len()) {
                flying.push_back((order.id, self.counts.attempt(self.orders.place(order)).send()));
            }
            let Some((id, call)) = flying.pop_front() else { return };
            self.seen.replied(id, Style::Awaited, &call.await);
        }
    }

    /// By callback: each reply is handed to a closure. The thread only keeps their number in bounds.
    pub(crate) fn give_callbacks(&self, orders: Vec<Order>) {
        let (over, ended) = mpsc::channel();
        let mut flying = 0;
        for order in orders {
            if flying == IN_FLIGHT {
                // A callback runs exactly once, so this ends.
                flying -= usize::from(ended.recv().is_ok());
            }
            let (id, seen, over) = (order.id, Arc::clone(&self.seen), over.clone());
            self.counts.attempt(self.orders.place(order)).then(move |reply| {
                seen.replied(id, Style::CalledBack, &reply);
                let _ = over.send(());
            });
            flying += 1;
        }
        drop(over);
        // Until the last callback has dropped its sender.
        while ended.recv().is_ok() {}
    }
}
