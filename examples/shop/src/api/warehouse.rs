//! The service of the warehouse process.

use farcall::prelude::*;

use super::RunCount;

/// Keeps the stock and ships from it.
#[farcall::service]
pub(crate) trait Warehouse {
    /// Takes pieces of an item from the shelf and ships them.
    async fn ship(&self, order: u64, item: u16, pieces: u32) -> Reply<Parcel, ShipError>;

    /// Pieces of an item that are left.
    #[farcall(idempotent)]
    async fn level(&self, item: u16) -> Reply<u32, ShipError>;

    /// The shelves as a table for people. A plain `fn`: it runs on the blocking pool, as it would if
    /// it wrote a file.
    fn report(&self) -> Reply<String>;

    /// Everything the warehouse has written down.
    #[farcall(idempotent)]
    async fn ledger(&self) -> Reply<WarehouseLedger>;
}

/// Something on its way to the customer.
#[farcall::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// Its number.
    pub(crate) number: u64,
    /// The order.
    pub(crate) order: u64,
    /// What is in it.
    pub(crate) item: u16,
    /// How many.
    pub(crate) pieces: u32,
}

/// Why nothing was shipped.
#[farcall::error]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShipError {
    /// Fewer pieces are left than were ordered.
    OutOfStock {
        /// The item.
        item: u16,
        /// Pieces left.
        left: u32,
    },
    /// The shop does not sell that.
    NoSuchItem {
        /// The item.
        item: u16,
    },
}

/// The books of the warehouse.
#[farcall::data]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WarehouseLedger {
    /// By item number.
    pub(crate) shelves: Vec<Shelf>,
    /// Everything shipped.
    pub(crate) parcels: Vec<Parcel>,
    /// Handlers that ran.
    pub(crate) runs: Vec<RunCount>,
}

/// The stock of one item.
#[farcall::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shelf {
    /// Pieces at the start.
    pub(crate) initial: u32,
    /// Pieces now.
    pub(crate) left: u32,
}
