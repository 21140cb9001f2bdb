//! Money is conserved, in sum and per order.

use std::collections::BTreeMap;

use super::{Audit, Books};
use crate::api::{PaymentLedger, Status};

/// Cents charged, and cents given back.
pub(super) fn sums(payment: &PaymentLedger) -> (u64, u64) {
    let sum = |refunded: bool| payment.charges.iter().filter(|c| c.refunded || !refunded).map(|c| c.cents).sum();
    (sum(false), sum(true))
}

pub(super) fn check(books: &Books, audit: &mut Audit) {
    let (charged, refunded) = sums(&books.payment);
    audit.equal("cents charged - refunded, cents in the till", charged - refunded, books.payment.till);
    let declined = books.desk.orders.iter().filter(|line| line.status == Status::Declined).count() as u64;
    audit.equal("orders declined at the desk, cards declined at payment", declined, books.payment.declined);
    let mut charges: BTreeMap<_, _> = books.payment.charges.iter().map(|c| (c.order, (c.cents, c.refunded))).collect();
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
