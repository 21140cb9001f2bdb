//! Wrong numbers on purpose, and right ones lost: an audit that never finds anything proves nothing.

use std::str::FromStr;

use crate::ledger::Books;

/// What to get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    Money,
    Stock,
    Calls,
    /// Neither do desks pay with keys, nor does the journal remember whom it charged.
    Keys,
    /// The journal alone forgets whom it charged: a till that dies takes its record of keys with it.
    Journal,
    /// The consumer that is started again while the registry is dead has lost its cache file.
    Cache,
}

impl Sabotage {
    /// Makes the books wrong by one; what else goes wrong they show by themselves.
    pub(crate) fn apply(self, books: &mut Books) {
        match self {
            Sabotage::Money => books.journal.till += 1,
            Sabotage::Stock => books.journal.shelves.iter_mut().take(1).for_each(|shelf| shelf.left += 1),
            Sabotage::Calls => books.journal.book.runs.iter_mut().filter(|run| run.method == "Journal.open").for_each(|run| run.ok += 1),
            Sabotage::Keys | Sabotage::Journal | Sabotage::Cache => {}
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
            "journal" => Ok(Sabotage::Journal),
            "cache" => Ok(Sabotage::Cache),
            _ => Err("money, stock, calls, keys, journal or cache, please"),
        }
    }
}
