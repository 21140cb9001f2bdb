//! Every order ended, once, and customers and journal say the same of it.

use std::collections::BTreeMap;

use super::{Audit, Books};
use crate::api::{Purchase, Status};

/// Orders by how they ended.
pub(super) fn by_status(books: &Books) -> BTreeMap<Status, u64> {
    let mut counts = BTreeMap::new();
    for line in &books.journal.orders {
        *counts.entry(line.status).or_default() += 1;
    }
    counts
}

/// All purchases of all customers.
pub(super) fn purchases(books: &Books) -> impl Iterator<Item = &Purchase> {
    books.customers.iter().flat_map(|customer| &customer.purchases)
}

pub(super) fn check(books: &Books, audit: &mut Audit) {
    let n = |status| by_status(books).get(&status).copied().unwrap_or(0);
    let ended = n(Status::Shipped) + n(Status::Declined) + n(Status::Refunded);
    audit.equal("orders asked for, orders shipped + declined + refunded", books.asked, ended);
    let all: BTreeMap<_, _> = purchases(books).map(|p| (p.order, p)).collect();
    audit.equal("orders asked for, orders that customers have a reply to", books.asked, all.len() as u64);
    audit.equal("orders in the journal, orders of the customers", books.journal.orders.len(), purchases(books).count());
    for line in &books.journal.orders {
        let id = line.order;
        let Some(purchase) = all.get(&id) else {
            audit.mismatch(format!("order {id} is {:?} in the journal and unknown to the customers", line.status));
            continue;
        };
        audit.equal(format!("order {id} in the journal, in the customer's reply"), line.status, purchase.seen);
        audit.equal(format!("order {id} in the journal, when asked for its status"), Some(line.status), purchase.told);
    }
}
