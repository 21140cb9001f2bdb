//! Both versions of `Order` met, each the other, and nothing that both sides know was lost between them.

use std::collections::BTreeMap;

use super::{Audit, Books, Pair};

/// Orders by the versions of customer and desk.
pub(super) fn pairs(books: &Books) -> BTreeMap<(u32, u32), u64> {
    let customers: BTreeMap<u64, u32> =
        books.customers.iter().flat_map(|customer| customer.purchases.iter().map(|p| (p.order, customer.version))).collect();
    let mut pairs = BTreeMap::new();
    for line in &books.journal.orders {
        if let Some(customer) = customers.get(&line.order) {
            *pairs.entry((*customer, line.desk)).or_default() += 1;
        }
    }
    pairs
}

pub(super) fn check(books: &Books, audit: &mut Audit) {
    let met = pairs(books);
    for Pair { customer, desk, orders } in &books.pairs {
        let n = met.get(&(*customer, *desk)).copied().unwrap_or(0);
        if n < *orders {
            audit.mismatch(format!("customers of v{customer} placed {n} orders with desks of v{desk}, and there should be {orders}"));
        }
    }
    let gifts: BTreeMap<u64, (u32, &Option<String>)> =
        books.customers.iter().flat_map(|customer| customer.purchases.iter().map(|p| (p.order, (customer.version, &p.gift)))).collect();
    for line in &books.journal.orders {
        if let Some((version, gift)) = gifts.get(&line.order) {
            // The field came with v2: it arrives between two that know it, and is passed over by a desk that does not.
            let expected = if (*version, line.desk) == (2, 2) { (*gift).clone() } else { None };
            audit.equal(
                format!("order {}, v{version} to v{}: what to write on the card", line.order, line.desk),
                expected,
                line.gift.clone(),
            );
        }
    }
}
