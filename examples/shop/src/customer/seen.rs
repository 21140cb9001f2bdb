//! What the customer has seen of its orders, and the progress it prints.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

use farcall::prelude::*;

use crate::api::{OrderError, Outcome, Purchase, Status, Style};
use crate::order::status_of;
use crate::say::say;

/// Progress is printed this many times in each round of shopping.
const STEPS: u64 = 2;
/// Failed calls that are shown; more of the same help nobody.
const SHOWN: usize = 3;

/// Every order's reply.
#[derive(Default)]
pub(crate) struct Seen(Mutex<State>);

#[derive(Default)]
struct State {
    /// Orders before this round, and at its end.
    before: u64,
    asked: u64,
    goes_home: bool,
    purchases: BTreeMap<u64, Purchase>,
    counts: BTreeMap<Status, u64>,
    troubles: usize,
}

impl Seen {
    /// So many further orders are to come.
    pub(crate) fn is_going_for(&self, count: u64) {
        let mut state = self.state();
        state.before = state.purchases.len() as u64;
        state.asked = state.before + count;
    }

    /// Nothing more is bought.
    pub(crate) fn go_home(&self) {
        self.state().goes_home = true;
    }

    /// Whether nothing more is bought.
    pub(crate) fn goes_home(&self) -> bool {
        self.state().goes_home
    }

    /// How many orders have ended.
    pub(crate) fn count(&self) -> u64 {
        self.state().purchases.len() as u64
    }

    /// Writes a reply down.
    pub(crate) fn replied(&self, order: u64, style: Style, gift: Option<String>, reply: &Reply<Outcome, OrderError>) {
        let seen = status_of(reply);
        if let Err(e) = reply
            && seen == Status::Failed
        {
            self.trouble(order, e);
        }
        let mut state = self.state();
        state.purchases.insert(order, Purchase { order, style, gift, seen, told: None });
        *state.counts.entry(seen).or_default() += 1;
        let (n, round) = (state.purchases.len() as u64, state.asked - state.before);
        if (n - state.before).is_multiple_of(round.div_ceil(STEPS).max(1)) || n == state.asked {
            say(&progress(n, state.asked, &state.counts));
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

    /// All orders that have ended.
    pub(crate) fn purchases(&self) -> Vec<Purchase> {
        self.state().purchases.values().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
