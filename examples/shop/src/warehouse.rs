//! A warehouse process: ships what the journal says is on the shelves. Several are found under one name.

use std::fmt::Write;
use std::sync::Arc;

use farcall::prelude::*;

use crate::api::{CallBook, JournalClient, Parcel, Shelf, ShipError, Warehouse, WarehouseServer};
use crate::calls::CallCounts;
use crate::process::{self, Home};
use crate::wares::WARES;

/// Runs the process.
pub(crate) fn run(home: &Home) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let counts = CallCounts::new();
        let hall = Hall { journal: home.reach::<JournalClient>(&counts).await?, counts: Arc::clone(&counts) };
        home.serve(Server::builder().serve(WarehouseServer::new(hall)), counts).await
    })
}

struct Hall {
    journal: JournalClient,
    counts: Arc<CallCounts>,
}

impl Warehouse for Hall {
    async fn ship(&self, order: u64, item: u16, pieces: u32) -> Reply<Parcel, ShipError> {
        self.counts.attempt(self.journal.ship(order, item, pieces)).await
    }

    async fn note(&self, _order: u64, _text: String) {}

    async fn level(&self, item: u16) -> Reply<u32, ShipError> {
        let shelves = self.counts.attempt(self.journal.shelves()).await?;
        let shelf = shelves.get(usize::from(item)).ok_or(ShipError::NoSuchItem { item })?;
        Ok(shelf.left)
    }

    fn report(&self) -> Reply<String> {
        Ok(table(&self.counts.attempt(self.journal.shelves()).wait()?))
    }

    async fn ledger(&self) -> Reply<CallBook> {
        Ok(self.counts.book())
    }
}

fn table(shelves: &[Shelf]) -> String {
    let mut table = format!("{:<10}{:>8}{:>9}{:>7}", "item", "initial", "shipped", "left");
    for (ware, shelf) in WARES.iter().zip(shelves) {
        let _ = write!(table, "\n{:<10}{:>8}{:>9}{:>7}", ware.name, shelf.initial, shelf.initial - shelf.left, shelf.left);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shelves_as_a_table() {
        let shelves = [Shelf { initial: 2, left: 2 }, Shelf { initial: 3, left: 0 }];
        assert!(table(&shelves).contains("kettle           3        3      0"), "{}", table(&shelves));
    }
}
