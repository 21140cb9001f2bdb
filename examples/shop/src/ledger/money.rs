//! Money is conserved, in sum and per order; each order is paid once, however often it was tried.

use std::collections::BTreeMap;

use super::{Audit, Books};
use crate::api::{PaymentLedger, RunCount, Status};

const PAY: &str = "Payment.pay";

/// Cents charged, and cents given back.
pub(super) fn sums(payment: &PaymentLedger) -> (u64, u64) {
    let sum = |refunded: bool| payment.charges.iter().filter(|c| c.refunded || !refunded).map(|c| c.cents).sum();
    (sum(false), sum(true))
}

/// Attempts to pay, and how many of them ran.
pub(super) fn payments(books: &Books) -> (u64, u64) {
    let attempted = books.desk.payment_calls.iter().filter(|call| call.method == PAY).map(|call| call.attempted).sum();
    let ran = books.payment.runs.iter().filter(|run| run.method == PAY).map(RunCount::executed).sum();
    (attempted, ran)
}

pub(super) fn check(books: &Books, audit: &mut Audit) {
    let (charged, refunded) = sums(&books.payment);
    audit.equal("cents charged - refunded, cents in the till", charged - refunded, books.payment.till);
    let declined = books.desk.orders.iter().filter(|line| line.status == Status::Declined).count() as u64;
    audit.equal("orders declined at the desk, cards declined at payment", declined, books.payment.declined);
    let (_, ran) = payments(books);
    audit.equal("orders at the desk, payments that ran", books.desk.orders.len() as u64, ran);
    let mut charges = BTreeMap::new();
    for c in &books.payment.charges {
        if charges.insert(c.order, (c.cents, c.refunded)).is_some() {
            audit.mismatch(format!("order {} was charged twice", c.order));
        }
    }
    for line in &books.desk.orders {
        let expected = match line.status {
            Status::Shipped => Some((line.cents, false)),
            Status::Refunded => Some((line.cents, true)),
            _ => None,
        };
        let id = line.order;
        audit.equal(format!("order {id} ({:?}) should be charged (cents, refunded), and is", line.status), expected, charges.remove(&id));
    }
    for (id, (cents, _)) in charges {
        audit.mismatch(format!("{cents} cents are charged for order {id}, which the desk does not know"));
    }
}
