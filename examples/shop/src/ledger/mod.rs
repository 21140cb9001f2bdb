//! The audit: everybody's books side by side, and what does not agree.

mod calls;
mod collect;
mod money;
mod orders;
mod stock;
mod table;
#[cfg(test)]
mod tests;
mod versions;

use std::fmt;

pub(crate) use collect::{Places, collect};
pub(crate) use table::table;

use crate::api::{CallBook, CustomerLedger, JournalLedger};

/// Everybody's books.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    /// Orders that the demo asked for.
    pub(crate) asked: u64,
    /// Of each customer process, also of those that were ended.
    pub(crate) customers: Vec<CustomerLedger>,
    /// What all processes of a role did together, also those that were ended well.
    pub(crate) desks: CallBook,
    pub(crate) tills: CallBook,
    pub(crate) halls: CallBook,
    pub(crate) journal: JournalLedger,
    /// Tills that were killed: what they counted died with them.
    pub(crate) killed_tills: u64,
    /// What a warehouse tells of each item when it is asked for its level.
    pub(crate) levels: Vec<u32>,
    /// What the demo itself called.
    pub(crate) demo: CallBook,
    /// How often the wires to the tills were cut.
    pub(crate) cuts: u64,
    /// Orders that a customer of one version is known to have placed with a desk of another, so that there must be as many.
    pub(crate) pairs: Vec<Pair>,
}

/// Orders of customers of one version at desks of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) customer: u32,
    pub(crate) desk: u32,
    /// At least so many.
    pub(crate) orders: u64,
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
    Versions,
    Calls,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let area = match self.area {
            Area::Orders => "orders",
            Area::Money => "money",
            Area::Stock => "stock",
            Area::Versions => "versions",
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
    audit.area = Area::Versions;
    versions::check(books, &mut audit);
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
