//! Goods are conserved, per item and per order.

use std::collections::BTreeMap;

use super::{Audit, Books};
use crate::api::Status;
use crate::wares::ware;

pub(super) fn check(books: &Books, audit: &mut Audit) {
    audit.equal("items on shelves, items asked for their level", books.journal.shelves.len(), books.levels.len());
    for (item, (shelf, level)) in (0..).zip(books.journal.shelves.iter().zip(&books.levels)) {
        let name = ware(item).map_or("?", |w| w.name);
        let shipped: u64 = books.journal.parcels.iter().filter(|p| p.item == item).map(|p| u64::from(p.pieces)).sum();
        audit.equal(format!("{name}: pieces at the start, shipped + left"), u64::from(shelf.initial), shipped + u64::from(shelf.left));
        audit.equal(format!("{name}: pieces left, level told"), shelf.left, *level);
    }
    check_parcels(books, audit);
}

fn check_parcels(books: &Books, audit: &mut Audit) {
    let mut parcels = BTreeMap::new();
    for parcel in &books.journal.parcels {
        if parcels.insert(parcel.order, (parcel.item, parcel.pieces)).is_some() {
            audit.mismatch(format!("order {} was shipped twice", parcel.order));
        }
    }
    for line in &books.journal.orders {
        let id = line.order;
        let expected = (line.status == Status::Shipped).then_some((line.item, line.pieces));
        audit.equal(format!("order {id} ({:?}) should get (item, pieces), and gets", line.status), expected, parcels.remove(&id));
    }
    for id in parcels.into_keys() {
        audit.mismatch(format!("a parcel was shipped for order {id}, which nobody placed"));
    }
}
