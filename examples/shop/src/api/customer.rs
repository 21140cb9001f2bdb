//! The service of the customer process: what it bought, for the audit.

use farcall::prelude::*;

use super::{CallCount, Status};

/// Places orders; can be asked how that went.
#[farcall::service]
pub(crate) trait Customer {
    /// Everything the customer has written down.
    #[farcall(idempotent)]
    async fn ledger(&self) -> Reply<CustomerLedger>;
}

/// The books of the customer.
#[farcall::data]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CustomerLedger {
    /// Every order, by number.
    pub(crate) purchases: Vec<Purchase>,
    /// Calls made to the order desk.
    pub(crate) calls: Vec<CallCount>,
}

/// An order as the customer knows it.
#[farcall::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Purchase {
    /// Its number.
    pub(crate) order: u64,
    /// How the call was made.
    pub(crate) style: Style,
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
