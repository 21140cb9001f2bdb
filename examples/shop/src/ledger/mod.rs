//! The audit: everybody's books side by side, and what does not agree.

mod calls;
mod collect;
mod money;
mod orders;
mod stock;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use collect::{Addresses, collect};
pub(crate) use table::table;

use crate::api::{CallCount, CustomerLedger, OrderLedger, PaymentLedger, WarehouseLedger};

/// Everybody's books.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    /// Orders that the demo asked for.
    pub(crate) asked: u64,
    pub(crate) customer: CustomerLedger,
    pub(crate) desk: OrderLedger,
    pub(crate) payment: PaymentLedger,
    pub(crate) warehouse: WarehouseLedger,
    /// What the warehouse tells of each item when it is asked for its level.
    pub(crate) levels: Vec<u32>,
    /// Calls of the demo itself to the warehouse.
    pub(crate) demo_calls: Vec<CallCount>,
    /// How often the wire between desk and till was cut.
    pub(crate) cuts: u64,
}

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) area: Area,
    pub(crate) what: String,
}

/// What a mismatch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    Orders,
    Money,
    Stock,
    Calls,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let area = match self.area {
            Area::Orders => "orders",
            Area::Money => "money",
            Area::Stock => "stock",
            Area::Calls => "calls",
        };
        write!(f, "{area}: {}", self.what)
    }
}

/// All that does not agree.
pub(crate) fn check(books: &Books) -> Vec<Mismatch> {
    let mut audit = Audit { area: Area::Orders, found: Vec::new() };
    orders::check(books, &mut audit);
    audit.area = Area::Money;
    money::check(books, &mut audit);
    audit.area = Area::Stock;
    stock::check(books, &mut audit);
    audit.area = Area::Calls;
    calls::check(books, &mut audit);
    audit.found
}

/// Collects mismatches of one area after the other.
struct Audit {
    area: Area,
    found: Vec<Mismatch>,
}

impl Audit {
    fn equal<T: PartialEq + fmt::Debug>(&mut self, what: impl fmt::Display, one: T, other: T) {
        if one != other {
            self.mismatch(format!("{what}: {one:?} and {other:?}"));
        }
    }

    fn mismatch(&mut self, what: String) {
        self.found.push(Mismatch { area: self.area, what });
    }
}
