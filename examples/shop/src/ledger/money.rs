//! Money is conserved, in sum and per order; each order is paid once, however often it was tried, and wherever.

use std::collections::BTreeMap;

use super::{Audit, Books};
use crate::api::{JournalLedger, Status};

const PAY: &str = "Payment.pay";

/// Cents charged, and cents given back.
pub(super) fn sums(journal: &JournalLedger) -> (u64, u64) {
    let sum = |refunded: bool| journal.charges.iter().filter(|c| c.refunded || !refunded).map(|c| c.cents).sum();
    (sum(false), sum(true))
}

/// Attempts to pay at a till, how often the journal was asked to charge, and how often it did or declined.
pub(super) fn payments(books: &Books) -> (u64, u64, u64) {
    let asked = books.journal.book.run("Journal.charge").executed();
    (books.desks.call(PAY).attempted, asked, books.journal.charges.len() as u64 + books.journal.declined)
}

pub(super) fn check(books: &Books, audit: &mut Audit) {
    let (charged, refunded) = sums(&books.journal);
    audit.equal("cents charged - refunded, cents in the till", charged - refunded, books.journal.till);
    let declined = books.journal.orders.iter().filter(|line| line.status == Status::Declined).count() as u64;
    audit.equal("orders declined at the desk, cards declined", declined, books.journal.declined);
    let (_, asked, settled) = payments(books);
    audit.equal("orders in the journal, cards charged or declined", books.journal.orders.len() as u64, settled);
    if asked < settled {
        audit.mismatch(format!("{settled} cards were charged or declined, and only {asked} times was that asked for"));
    }
    let mut charges = BTreeMap::new();
    for c in &books.journal.charges {
        if charges.insert(c.order, (c.cents, c.refunded)).is_some() {
            audit.mismatch(format!("order {} was charged twice", c.order));
        }
    }
    for line in &books.journal.orders {
        let expected = match line.status {
            Status::Shipped => Some((line.cents, false)),
            Status::Refunded => Some((line.cents, true)),
            _ => None,
        };
        let id = line.order;
        audit.equal(format!("order {id} ({:?}) should be charged (cents, refunded), and is", line.status), expected, charges.remove(&id));
    }
    for (id, (cents, _)) in charges {
        audit.mismatch(format!("{cents} cents are charged for order {id}, which nobody placed"));
    }
}
