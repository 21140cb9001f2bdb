//! One call, three styles.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};

use super::seen::Seen;
use super::version::Sells;
use crate::api::Style;
use crate::calls::CallCounts;
use crate::generate::Want;

/// Orders that one style has in flight at a time.
const IN_FLIGHT: usize = 64;

/// Who places the orders.
#[derive(Clone)]
pub(crate) struct Buyer<S> {
    pub(crate) orders: S,
    pub(crate) counts: Arc<CallCounts>,
    pub(crate) seen: Arc<Seen>,
}

impl<S: Sells> Buyer<S> {
    /// Synchronous: the thread blocks until each reply is here.
    pub(crate) fn wait_for_each(&self, orders: Vec<Want>) {
        for order in orders.into_iter().take_while(|_| !self.seen.goes_home()) {
            let (id, gift) = (order.id, S::gift(&order));
            let reply = self.counts.attempt(self.orders.place(order)).wait();
            self.seen.replied(id, Style::Waited, gift, &reply);
        }
    }

    /// Asynchronous: many are on their way while the oldest is awaited.
    pub(crate) async fn await_many(&self, orders: Vec<Want>) {
        let mut flying = VecDeque::with_capacity(IN_FLIGHT);
        let mut orders = orders.into_iter().take_while(|_| !self.seen.goes_home());
        loop {
            for order in orders.by_ref().take(IN_FLIGHT - flying.len()) {
                let (id, gift) = (order.id, S::gift(&order));
                flying.push_back((id, gift, self.counts.attempt(self.orders.place(order)).send()));
            }
            let Some((id, gift, call)) = flying.pop_front() else { return };
            self.seen.replied(id, Style::Awaited, gift, &call.await);
        }
    }

    /// By callback: each reply is handed to a closure. The thread only keeps their number in bounds.
    pub(crate) fn give_callbacks(&self, orders: Vec<Want>) {
        let (over, ended) = mpsc::channel();
        let mut flying = 0;
        for order in orders.into_iter().take_while(|_| !self.seen.goes_home()) {
            if flying == IN_FLIGHT {
                // A callback runs exactly once, so this ends.
                flying -= usize::from(ended.recv().is_ok());
            }
            let (id, gift, seen, over) = (order.id, S::gift(&order), Arc::clone(&self.seen), over.clone());
            self.counts.attempt(self.orders.place(order)).then(move |reply| {
                seen.replied(id, Style::CalledBack, gift, &reply);
                let _ = over.send(());
            });
            flying += 1;
        }
        drop(over);
        // Until the last callback has dropped its sender.
        while ended.recv().is_ok() {}
    }
}
