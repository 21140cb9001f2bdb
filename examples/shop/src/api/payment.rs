//! The service of the payment processes.

use farcall::prelude::*;

use super::CallBook;

/// Charges cards and gives money back. There are several, and none keeps anything: what happened is in the journal.
#[farcall::service]
#[farcall(name = "com.example.shop.PaymentService")]
pub(crate) trait Payment {
    /// Charges an order, once, however often and at whichever till it is called.
    #[farcall(name = "charge")]
    async fn pay(
        &self,
        #[farcall(tag = 1)] order: u64,
        #[farcall(tag = 2)] card: String,
        #[farcall(tag = 3)] cents: u64,
    ) -> Reply<Receipt, PayError>;

    /// Gives back what an order was charged. Again gives the same receipt and no more money.
    #[farcall(idempotent)]
    async fn refund(&self, order: u64) -> Reply<Receipt, PayError>;

    /// What is in the till, in cents.
    #[farcall(idempotent)]
    async fn balance(&self) -> Reply<u64>;

    /// The calls it made, and those that ran.
    #[farcall(idempotent)]
    async fn ledger(&self) -> Reply<CallBook>;
}

/// Money moved for an order.
#[farcall::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// The order.
    pub(crate) order: u64,
    /// How much.
    pub(crate) cents: u64,
}

/// Why no money was moved.
#[farcall::error]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PayError {
    /// The bank says no.
    Declined {
        /// Its words.
        reason: String,
    },
    /// There is nothing to give back.
    NeverPaid {
        /// The order.
        order: u64,
    },
}
