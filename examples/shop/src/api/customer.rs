//! The service of the customer processes: what to buy, and what was bought, for the audit.

use farcall::prelude::*;

use super::{CallBook, Status};

/// Places orders when it is told to; can be asked how that went.
#[farcall::service]
pub(crate) trait Customer {
    /// Buys so many things, in orders numbered from `first`, and returns when each has ended.
    async fn buy(&self, first: u64, count: u64) -> Reply<()>;

    /// How many orders have ended so far.
    #[farcall(idempotent)]
    async fn bought(&self) -> Reply<u64>;

    /// Everything the customer has written down.
    #[farcall(idempotent)]
    async fn ledger(&self) -> Reply<CustomerLedger>;
}

/// The books of the customer.
#[farcall::data]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CustomerLedger {
    /// The version of `Order` that it speaks.
    pub(crate) version: u32,
    /// Every order, by number.
    pub(crate) purchases: Vec<Purchase>,
    /// Calls made, and those that ran.
    pub(crate) book: CallBook,
}

/// An order as the customer knows it.
#[farcall::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Purchase {
    /// Its number.
    pub(crate) order: u64,
    /// How the call was made.
    pub(crate) style: Style,
    /// What is to be written on the card, if it is a gift.
    pub(crate) gift: Option<String>,
    /// What the reply said.
    pub(crate) seen: Status,
    /// What the desk told when it was asked later.
    pub(crate) told: Option<Status>,
}

/// The three ways in which a call is made.
#[farcall::data]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `wait()`: the thread blocks.
    Waited,
    /// `send()`, then `.await`: many in flight.
    Awaited,
    /// `then()`: a callback.
    CalledBack,
}
