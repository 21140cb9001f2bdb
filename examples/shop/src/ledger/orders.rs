//! Every order ended, once, and customer and desk say the same of it.

use std::collections::BTreeMap;

use super::{Audit, Books};
use crate::api::Status;

/// Orders by how they ended.
pub(super) fn by_status(books: &Books) -> BTreeMap<Status, u64> {
    let mut counts = BTreeMap::new();
    for line in &books.desk.orders {
        *counts.entry(line.status).or_default() += 1;
    }
    counts
}

pub(super) fn check(books: &Books, audit: &mut Audit) {
    let n = |status| by_status(books).get(&status).copied().unwrap_or(0);
    let ended = n(Status::Shipped) + n(Status::Declined) + n(Status::Refunded);
    audit.equal("orders asked for, orders shipped + declined + refunded", books.asked, ended);
    audit.equal("orders asked for, orders the customer has a reply to", books.asked, books.customer.purchases.len() as u64);
    audit.equal("orders at the desk, orders of the customer", books.desk.orders.len(), books.customer.purchases.len());
    let purchases: BTreeMap<_, _> = books.customer.purchases.iter().map(|p| (p.order, p)).collect();
    for line in &books.desk.orders {
        let id = line.order;
        let Some(purchase) = purchases.get(&id) else {
            audit.mismatch(format!("order {id} is {:?} at the desk and unknown to the customer", line.status));
            continue;
        };
        audit.equal(format!("order {id} at the desk, in the customer's reply"), line.status, purchase.seen);
        audit.equal(format!("order {id} at the desk, when asked for its status"), Some(line.status), purchase.told);
    }
}
