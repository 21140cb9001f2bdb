//! The service of the journal process: the one durable book that all tills, halls and desks share.

use farcall::prelude::*;

use super::{CallBook, OrderError, Parcel, PayError, Receipt, ShipError, Status};

/// Writes down what must happen once. The number of the order is the key of all of it: whoever asks again, through whichever
/// process, gets the same answer, and nothing happens a second time. So all of it is idempotent.
#[farcall::service]
pub(crate) trait Journal {
    /// An order was taken. Another order under a number that is taken is refused.
    #[farcall(idempotent)]
    async fn open(&self, order: OrderLine) -> Reply<(), OrderError>;

    /// How far an order is now.
    #[farcall(idempotent)]
    async fn mark(&self, order: u64, status: Status) -> Reply<()>;

    /// How far an order is.
    #[farcall(idempotent)]
    async fn status(&self, order: u64) -> Reply<Status, OrderError>;

    /// Charges an order, unless it is charged, or declined, already.
    #[farcall(idempotent)]
    async fn charge(&self, order: u64, card: String, cents: u64) -> Reply<Receipt, PayError>;

    /// Gives back what an order was charged, unless it was given back.
    #[farcall(idempotent)]
    async fn refund(&self, order: u64) -> Reply<Receipt, PayError>;

    /// What is in the till, in cents.
    #[farcall(idempotent)]
    async fn balance(&self) -> Reply<u64>;

    /// Takes pieces of an item from the shelf and ships them, unless this order has its parcel already.
    #[farcall(idempotent)]
    async fn ship(&self, order: u64, item: u16, pieces: u32) -> Reply<Parcel, ShipError>;

    /// The shelves, by item number.
    #[farcall(idempotent)]
    async fn shelves(&self) -> Reply<Vec<Shelf>>;

    /// Everything.
    #[farcall(idempotent)]
    async fn ledger(&self) -> Reply<JournalLedger>;
}

/// Everything that is written down.
#[farcall::data]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JournalLedger {
    /// Every order, by number.
    pub(crate) orders: Vec<OrderLine>,
    /// Cents in the till, kept beside the charges and not computed from them.
    pub(crate) till: u64,
    /// Every charge, by order. None has two, unless the journal forgets.
    pub(crate) charges: Vec<Charge>,
    /// Declined cards.
    pub(crate) declined: u64,
    /// By item number.
    pub(crate) shelves: Vec<Shelf>,
    /// Everything shipped.
    pub(crate) parcels: Vec<Parcel>,
    /// Handlers that ran.
    pub(crate) book: CallBook,
}

/// An order as it was taken, and how far it is.
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
    /// What to write on the card, of an order that said so to a desk that knows what that is.
    pub(crate) gift: Option<String>,
    /// The version of `Order` that the desk serves which took it.
    pub(crate) desk: u32,
    /// How far it is.
    pub(crate) status: Status,
}

/// A charge.
#[farcall::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charge {
    /// The order.
    pub(crate) order: u64,
    /// How much.
    pub(crate) cents: u64,
    /// It was given back.
    pub(crate) refunded: bool,
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
