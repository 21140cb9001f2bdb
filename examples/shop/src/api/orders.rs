//! The service of the order process.

use farcall::prelude::*;

use super::{CallCount, RunCount};

/// Takes orders and sees them through: payment, then the warehouse.
#[farcall::service]
pub(crate) trait Orders {
    /// Runs an order to its end. The card is charged at most once; what cannot be shipped is refunded.
    async fn place(&self, order: Order) -> Reply<Outcome, OrderError>;

    /// How far an order is.
    #[farcall(idempotent)]
    async fn status(&self, order: u64) -> Reply<Status, OrderError>;

    /// Everything the order desk has written down.
    #[farcall(idempotent)]
    async fn ledger(&self) -> Reply<OrderLedger>;
}

/// What a customer wants.
#[farcall::data]
#[farcall(name = "com.example.shop.PurchaseOrder")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// Chosen by the customer; an order desk takes each number once.
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
    /// There is an order of this number already.
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

/// The books of the order desk.
#[farcall::data]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OrderLedger {
    /// Every order, by number.
    pub(crate) orders: Vec<OrderLine>,
    /// Calls made to payment.
    pub(crate) payment_calls: Vec<CallCount>,
    /// Calls made to the warehouse.
    pub(crate) warehouse_calls: Vec<CallCount>,
    /// Handlers that ran.
    pub(crate) runs: Vec<RunCount>,
}

/// An order as the desk knows it.
#[farcall::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderLine {
    /// Its number.
    pub(crate) order: u64,
    /// What.
    pub(crate) item: u16,
    /// How many.
    pub(crate) pieces: u32,
    /// What it costs.
    pub(crate) cents: u64,
    /// How far it is.
    pub(crate) status: Status,
}
