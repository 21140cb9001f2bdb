//! The service of the order processes, in its second version: the same service by name, with another [`Order`].
//!
//! Nobody numbers versions: desks and customers of both meet, find that their tables differ in one row, and read each other's orders.

use farcall::prelude::*;

use super::{CallBook, OrderError, Outcome, Status};

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

/// What a customer wants: since the first version a field has come, one has a better name, and one has grown.
#[farcall::data]
#[farcall(name = "com.example.shop.PurchaseOrder")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// Chosen by the customer; the shop takes each number once.
    #[farcall(tag = 1)]
    pub(crate) id: u64,
    /// The number of the card to charge. It was called `card`.
    #[farcall(tag = 2, name = "cardNumber")]
    #[serde(alias = "card")]
    pub(crate) payment_card: String,
    /// The item. It was a u16.
    #[farcall(tag = 3)]
    pub(crate) item: u32,
    /// How many.
    #[farcall(tag = 4)]
    pub(crate) pieces: u32,
    /// What to write on the card, if it is a gift. A desk of the first version never sees it.
    #[farcall(tag = 5)]
    pub(crate) gift: Option<String>,
}
