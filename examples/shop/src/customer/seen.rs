//! What the customer has seen of its orders, and the progress it prints.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

use farcall::prelude::*;

use crate::api::{OrderError, Outcome, Purchase, Status, Style};
use crate::order::status_of;
use crate::say::say;

/// Progress is printed this many times.
const STEPS: u64 = 6;
/// Failed calls that are shown; more of the same help nobody.
const SHOWN: usize = 3;

/// Every order's reply.
pub(crate) struct Seen {
    asked: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    purchases: BTreeMap<u64, Purchase>,
    counts: BTreeMap<Status, u64>,
    troubles: usize,
}

impl Seen {
    /// Nothing yet of so many orders.
    pub(crate) fn new(asked: u64) -> Seen {
        Seen { asked, state: Mutex::default() }
    }

    /// Writes a reply down.
    pub(crate) fn replied(&self, order: u64, style: Style, reply: &Reply<Outcome, OrderError>) {
        let seen = status_of(reply);
        if let Err(e) = reply
            && seen == Status::Failed
        {
            self.trouble(order, e);
        }
        let mut state = self.state();
        state.purchases.insert(order, Purchase { order, style, seen, told: None });
        *state.counts.entry(seen).or_default() += 1;
        let n = state.purchases.len() as u64;
        if n.is_multiple_of(self.asked.div_ceil(STEPS)) || n == self.asked {
            say(&progress(n, self.asked, &state.counts));
        }
    }

    /// Writes down what the desk told of an order.
    pub(crate) fn told(&self, order: u64, status: Status) {
        if let Some(purchase) = self.state().purchases.get_mut(&order) {
            purchase.told = Some(status);
        }
    }

    /// Shows a failed call, if few did.
    pub(crate) fn trouble(&self, order: u64, e: &dyn Display) {
        let mut state = self.state();
        state.troubles += 1;
        if state.troubles <= SHOWN {
            say(&format!("order {order} failed: {e}"));
        }
    }

    /// The numbers of all orders that have ended.
    pub(crate) fn orders(&self) -> Vec<u64> {
        self.state().purchases.keys().copied().collect()
    }

    /// All orders that have ended.
    pub(crate) fn purchases(&self) -> Vec<Purchase> {
        self.state().purchases.values().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `500 of 3000 orders: 421 shipped, 40 declined, 39 refunded`
fn progress(n: u64, asked: u64, counts: &BTreeMap<Status, u64>) -> String {
    let parts: Vec<String> = counts.iter().map(|(status, n)| format!("{n} {}", format!("{status:?}").to_lowercase())).collect();
    format!("{n} of {asked} orders: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_what_there_is() {
        let counts = BTreeMap::from([(Status::Declined, 2), (Status::Shipped, 7)]);
        assert_eq!(progress(9, 30, &counts), "9 of 30 orders: 7 shipped, 2 declined");
    }
}
