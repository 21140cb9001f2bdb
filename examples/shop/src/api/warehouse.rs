//! The service of the warehouse processes.

use farcall::prelude::*;

use super::CallBook;

/// Ships from the stock that the journal keeps.
#[farcall::service]
pub(crate) trait Warehouse {
    /// Takes pieces of an item from the shelf and ships them; once for each order.
    async fn ship(&self, order: u64, item: u16, pieces: u32) -> Reply<Parcel, ShipError>;

    /// Takes notice of how an order ended; nobody waits for it.
    #[farcall(oneway)]
    async fn note(&self, order: u64, text: String);

    /// Pieces of an item that are left.
    #[farcall(idempotent)]
    async fn level(&self, item: u16) -> Reply<u32, ShipError>;

    /// The shelves as a table for people. A plain `fn`: it runs on the blocking pool, where it may wait.
    fn report(&self) -> Reply<String>;

    /// The calls it made, and those that ran.
    #[farcall(idempotent)]
    async fn ledger(&self) -> Reply<CallBook>;
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
