//! The service of the payment process.

use farcall::prelude::*;

use super::RunCount;

/// Charges cards and gives money back.
#[farcall::service]
#[farcall(name = "com.example.shop.PaymentService")]
pub(crate) trait Payment {
    /// Charges an order, each time it is called: call it with a key to be charged once.
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

    /// Takes notice of how an order ended; nobody waits for it.
    #[farcall(oneway)]
    async fn note(&self, order: u64, text: String);

    /// What is in the till, in cents.
    #[farcall(idempotent)]
    async fn balance(&self) -> Reply<u64>;

    /// Everything payment has written down.
    #[farcall(idempotent)]
    async fn ledger(&self) -> Reply<PaymentLedger>;
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

/// The books of payment.
#[farcall::data]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PaymentLedger {
    /// Cents in the till, kept beside the charges and not computed from them.
    pub(crate) till: u64,
    /// Every charge, by order. None has two, unless somebody pays without a key.
    pub(crate) charges: Vec<Charge>,
    /// Declined cards.
    pub(crate) declined: u64,
    /// Notes heard.
    pub(crate) notes: u64,
    /// Handlers that ran.
    pub(crate) runs: Vec<RunCount>,
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
