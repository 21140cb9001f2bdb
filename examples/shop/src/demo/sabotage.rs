//! Wrong numbers on purpose: an audit that never finds anything proves nothing.

use std::str::FromStr;

use crate::ledger::Books;

/// What to get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    Money,
    Stock,
    Calls,
    /// The desk pays without keys.
    Keys,
}

impl Sabotage {
    /// Makes the books wrong by one; without keys they become so by themselves.
    pub(crate) fn apply(self, books: &mut Books) {
        match self {
            Sabotage::Money => books.payment.till += 1,
            Sabotage::Stock => books.warehouse.shelves.iter_mut().take(1).for_each(|shelf| shelf.left += 1),
            Sabotage::Calls => books.payment.runs.iter_mut().take(1).for_each(|run| run.ok += 1),
            Sabotage::Keys => {}
        }
    }
}

impl FromStr for Sabotage {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Sabotage, &'static str> {
        match text {
            "money" => Ok(Sabotage::Money),
            "stock" => Ok(Sabotage::Stock),
            "calls" => Ok(Sabotage::Calls),
            "keys" => Ok(Sabotage::Keys),
            _ => Err("money, stock, calls or keys, please"),
        }
    }
}
