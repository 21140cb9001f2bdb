//! The payment process: a till, and a charge per order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farcall::prelude::*;

use crate::api::{Charge, PayError, Payment, PaymentLedger, PaymentServer, Receipt};
use crate::calls::CallCounts;
use crate::process::{self, Home};
use crate::say::complain;

/// Cards whose numbers end so are declined.
pub(crate) const DECLINED_ENDING: &str = "0002";
/// No card is good for more.
const CARD_LIMIT: u64 = 10_000_000;
/// What the process ends with when it is told to crash.
const CRASHED: i32 = 70;

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where it lives.
    pub(crate) home: Home,
    /// Ends without a word after this many charges, to see what the others make of it.
    pub(crate) crash_after: Option<usize>,
}

/// Runs the process.
pub(crate) fn run(options: Options) -> Result<(), String> {
    let counts = CallCounts::new();
    let till = Till { accounts: Mutex::default(), counts: Arc::clone(&counts), crash_after: options.crash_after };
    let server = Server::builder().serve(PaymentServer::new(till)).observe(counts);
    process::runtime()?.block_on(options.home.serve(server))
}

struct Till {
    accounts: Mutex<Accounts>,
    counts: Arc<CallCounts>,
    crash_after: Option<usize>,
}

#[derive(Default)]
struct Accounts {
    till: u64,
    charges: BTreeMap<u64, Vec<Charge>>,
    declined: u64,
    notes: u64,
}

impl Till {
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crash_if_told(&self) {
        if self.crash_after.is_some_and(|n| self.accounts().charges.len() >= n) {
            complain("payment crashes, as it was told to");
            std::process::exit(CRASHED);
        }
    }
}

impl Accounts {
    fn charge(&mut self, order: u64, card: &str, cents: u64) -> Result<Receipt, PayError> {
        if let Some(reason) = decline(card, cents) {
            self.declined += 1;
            return Err(PayError::Declined { reason: reason.to_owned() });
        }
        self.till += cents;
        self.charges.entry(order).or_default().push(Charge { order, cents, refunded: false });
        Ok(Receipt { order, cents })
    }

    fn refund(&mut self, order: u64) -> Result<Receipt, PayError> {
        let charge = self.charges.get_mut(&order).and_then(|charges| charges.first_mut()).ok_or(PayError::NeverPaid { order })?;
        if !std::mem::replace(&mut charge.refunded, true) {
            self.till -= charge.cents;
        }
        Ok(Receipt { order, cents: charge.cents })
    }
}

/// What the bank says.
fn decline(card: &str, cents: u64) -> Option<&'static str> {
    match cents {
        0 => Some("nothing to pay"),
        1..=CARD_LIMIT if card.ends_with(DECLINED_ENDING) => Some("insufficient funds"),
        1..=CARD_LIMIT => None,
        _ => Some("over the card's limit"),
    }
}

impl Payment for Till {
    async fn pay(&self, order: u64, card: String, cents: u64) -> Reply<Receipt, PayError> {
        self.crash_if_told();
        Ok(self.accounts().charge(order, &card, cents)?)
    }

    async fn refund(&self, order: u64) -> Reply<Receipt, PayError> {
        Ok(self.accounts().refund(order)?)
    }

    async fn note(&self, _order: u64, _text: String) {
        self.accounts().notes += 1;
    }

    async fn balance(&self) -> Reply<u64> {
        Ok(self.accounts().till)
    }

    async fn ledger(&self) -> Reply<PaymentLedger> {
        let accounts = self.accounts();
        Ok(PaymentLedger {
            till: accounts.till,
            charges: accounts.charges.values().flatten().cloned().collect(),
            declined: accounts.declined,
            notes: accounts.notes,
            runs: self.counts.runs(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_comes_each_time_and_goes_once() {
        let mut accounts = Accounts::default();
        assert_eq!(accounts.charge(1, "4242", 500), Ok(Receipt { order: 1, cents: 500 }));
        assert_eq!(accounts.charge(3, "4242", 700), accounts.charge(3, "4242", 700));
        assert_eq!(accounts.refund(1), accounts.refund(1));
        assert_eq!(accounts.refund(2), Err(PayError::NeverPaid { order: 2 }));
        assert_eq!(accounts.till, 1400);
    }

    #[test]
    fn cards_are_declined_with_a_reason() {
        for (card, cents, expected) in [
            ("4242", 0, Some("nothing to pay")),
            ("4000-0002", 1, Some("insufficient funds")),
            ("4242", CARD_LIMIT, None),
            ("4242", u64::MAX, Some("over the card's limit")),
        ] {
            assert_eq!(decline(card, cents), expected, "{card} {cents}");
        }
    }
}
