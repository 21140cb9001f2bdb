//! The service of the order processes, in its first version.

use farcall::prelude::*;

use super::CallBook;

/// Takes orders and sees them through: payment, then the warehouse.
#[farcall::service]
pub(crate) trait Orders {
    /// Runs an order to its end. The card is charged once; what cannot be shipped is refunded. Placed again, it ends in the same way.
    async fn place(&self, order: Order) -> Reply<Outcome, OrderError>;

    /// How far an order is.
    #[farcall(idempotent)]
    async fn status(&self, order: u64) -> Reply<Status, OrderError>;

    /// The calls it made, and those that ran.
    #[farcall(idempotent)]
    async fn ledger(&self) -> Reply<CallBook>;
}

/// What a customer wants.
#[farcall::data]
#[farcall(name = "com.example.shop.PurchaseOrder")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// Chosen by the customer; the shop takes each number once.
    #[farcall(tag = 1)]
    pub(crate) id: u64,
    /// The number of the card to charge.
    #[farcall(tag = 2, name = "cardNumber")]
    pub(crate) card: String,
    /// The item.
    #[farcall(tag = 3)]
    pub(crate) item: u16,
    /// How many.
    #[farcall(tag = 4)]
    pub(crate) pieces: u32,
}

/// How an order ended that was paid.
#[farcall::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is on its way.
    Shipped {
        /// The number of the parcel.
        parcel: u64,
    },
    /// There were not enough pieces left.
    Refunded {
        /// What was given back.
        cents: u64,
    },
}

/// Why an order was not taken.
#[farcall::error]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OrderError {
    /// The card was declined.
    Declined {
        /// The bank's words.
        reason: String,
    },
    /// The shop does not sell that, or not zero pieces of it.
    NotForSale {
        /// The item.
        item: u16,
    },
    /// There is another order of this number.
    Taken {
        /// The order.
        order: u64,
    },
    /// There is no order of this number.
    Unknown {
        /// The order.
        order: u64,
    },
}

/// How far an order is.
#[farcall::data]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// Written down.
    Placed,
    /// Charged.
    Paid,
    /// On its way.
    Shipped,
    /// Not paid.
    Declined,
    /// Paid, out of stock, paid back.
    Refunded,
    /// A call failed on the way.
    Failed,
}
