//! The warehouse process: shelves that run empty.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farcall::prelude::*;

use crate::api::{Parcel, Shelf, ShipError, Warehouse, WarehouseLedger, WarehouseServer};
use crate::calls::CallCounts;
use crate::process::{self, Home};
use crate::wares::{WARES, Ware};

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where it lives.
    pub(crate) home: Home,
    /// Pieces of each item at the start, before each ware's share.
    pub(crate) stock: u32,
}

/// Runs the process.
pub(crate) fn run(options: Options) -> Result<(), String> {
    let counts = CallCounts::new();
    let hall = Hall { stock: Mutex::new(Stock::new(options.stock)), counts: Arc::clone(&counts) };
    let server = Server::builder().serve(WarehouseServer::new(hall)).observe(counts);
    process::runtime()?.block_on(options.home.serve(server))
}

struct Hall {
    stock: Mutex<Stock>,
    counts: Arc<CallCounts>,
}

struct Stock {
    shelves: Vec<Shelf>,
    parcels: Vec<Parcel>,
}

impl Hall {
    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    fn new(pieces: u32) -> Stock {
        let shelf = |ware: &Ware| {
            let initial = (u64::from(pieces) * u64::from(ware.share) / 100).try_into().unwrap_or(u32::MAX);
            Shelf { initial, left: initial }
        };
        Stock { shelves: WARES.iter().map(shelf).collect(), parcels: Vec::new() }
    }

    fn shelf(&mut self, item: u16) -> Result<&mut Shelf, ShipError> {
        self.shelves.get_mut(usize::from(item)).ok_or(ShipError::NoSuchItem { item })
    }

    fn ship(&mut self, order: u64, item: u16, pieces: u32) -> Result<Parcel, ShipError> {
        let shelf = self.shelf(item)?;
        shelf.left = shelf.left.checked_sub(pieces).ok_or(ShipError::OutOfStock { item, left: shelf.left })?;
        let parcel = Parcel { number: self.parcels.len() as u64 + 1, order, item, pieces };
        self.parcels.push(parcel.clone());
        Ok(parcel)
    }

    fn report(&self) -> String {
        let mut table = format!("{:<10}{:>8}{:>9}{:>7}", "item", "initial", "shipped", "left");
        for (ware, shelf) in WARES.iter().zip(&self.shelves) {
            let _ = write!(table, "\n{:<10}{:>8}{:>9}{:>7}", ware.name, shelf.initial, shelf.initial - shelf.left, shelf.left);
        }
        table
    }
}

impl Warehouse for Hall {
    async fn ship(&self, order: u64, item: u16, pieces: u32) -> Reply<Parcel, ShipError> {
        Ok(self.stock().ship(order, item, pieces)?)
    }

    async fn level(&self, item: u16) -> Reply<u32, ShipError> {
        Ok(self.stock().shelf(item)?.left)
    }

    fn report(&self) -> Reply<String> {
        Ok(self.stock().report())
    }

    async fn ledger(&self) -> Reply<WarehouseLedger> {
        let stock = self.stock();
        Ok(WarehouseLedger { shelves: stock.shelves.clone(), parcels: stock.parcels.clone(), runs: self.counts.runs() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_runs_empty_and_says_so() {
        let mut stock = Stock::new(4);
        assert_eq!(stock.ship(7, 1, 2), Ok(Parcel { number: 1, order: 7, item: 1, pieces: 2 }));
        assert_eq!(stock.ship(8, 1, 2), Err(ShipError::OutOfStock { item: 1, left: 1 }));
        assert_eq!(stock.ship(9, 99, 1), Err(ShipError::NoSuchItem { item: 99 }));
        assert_eq!(stock.ship(10, 1, 1).map(|p| p.number), Ok(2));
        assert!(stock.report().contains("kettle           3        3      0"), "{}", stock.report());
    }
}
