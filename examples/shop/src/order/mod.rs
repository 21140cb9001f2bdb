//! An order process: a handler that calls tills and halls, wherever they are, over connections that are cut now and then.
//!
//! It keeps nothing: an order is in the journal, so that any desk can tell how far it is.

mod again;

use std::sync::Arc;

use farcall::prelude::*;
use farcall::{Key, ServerBuilder};

use crate::api::{
    CallBook, JournalClient, Order, OrderError, OrderLine, Orders, OrdersServer, Outcome, PayError, PaymentClient, Receipt, ShipError,
    Status, WarehouseClient, orders_v2,
};
use crate::calls::CallCounts;
use crate::process::{self, Home};
use crate::wares::ware;
use again::again;

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where it lives.
    pub(crate) home: Home,
    /// Which version of `Order` it serves.
    pub(crate) version: Version,
    /// Pays without keys, to see that the journal alone is enough.
    pub(crate) without_keys: bool,
}

/// The versions of `Order`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

impl Version {
    /// As it is written down.
    pub(crate) fn number(self) -> u32 {
        match self {
            Version::One => 1,
            Version::Two => 2,
        }
    }
}

impl std::str::FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Version, &'static str> {
        match text {
            "1" => Ok(Version::One),
            "2" => Ok(Version::Two),
            _ => Err("1 or 2, please"),
        }
    }
}

/// Runs the process.
pub(crate) fn run(options: Options) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let (home, counts) = (&options.home, CallCounts::new());
        let desk = Arc::new(Desk {
            version: options.version,
            with_keys: !options.without_keys,
            journal: home.reach::<JournalClient>(&counts).await?,
            payment: home.reach::<PaymentClient>(&counts).await?,
            warehouse: home.reach::<WarehouseClient>(&counts).await?,
            counts: Arc::clone(&counts),
        });
        let last = Arc::clone(&desk);
        home.serve_and(serving(desk), counts, || {}, async move { last.notes_arrive().await }).await
    })
}

/// The same desk, behind either version of the service.
fn serving(desk: Arc<Desk>) -> ServerBuilder {
    match desk.version {
        Version::One => Server::builder().serve(OrdersServer::new(FirstVersion(desk))),
        Version::Two => Server::builder().serve(orders_v2::OrdersServer::new(SecondVersion(desk))),
    }
}

struct Desk {
    version: Version,
    with_keys: bool,
    journal: JournalClient,
    payment: PaymentClient,
    warehouse: WarehouseClient,
    counts: Arc<CallCounts>,
}

struct FirstVersion(Arc<Desk>);

impl Orders for FirstVersion {
    async fn place(&self, order: Order) -> Reply<Outcome, OrderError> {
        let Order { id, card, item, pieces } = order;
        self.0.sell(id, item, pieces, card, None).await
    }

    async fn status(&self, order: u64) -> Reply<Status, OrderError> {
        self.0.status(order).await
    }

    async fn ledger(&self) -> Reply<CallBook> {
        Ok(self.0.book().await)
    }
}

struct SecondVersion(Arc<Desk>);

impl orders_v2::Orders for SecondVersion {
    async fn place(&self, order: orders_v2::Order) -> Reply<Outcome, OrderError> {
        let orders_v2::Order { id, payment_card, item, pieces, gift } = order;
        let item = u16::try_from(item).map_err(|_| OrderError::NotForSale { item: u16::MAX })?;
        self.0.sell(id, item, pieces, payment_card, gift).await
    }

    async fn status(&self, order: u64) -> Reply<Status, OrderError> {
        self.0.status(order).await
    }

    async fn ledger(&self) -> Reply<CallBook> {
        Ok(self.0.book().await)
    }
}

impl Desk {
    async fn sell(&self, order: u64, item: u16, pieces: u32, card: String, gift: Option<String>) -> Reply<Outcome, OrderError> {
        let line = self.line(order, item, pieces, gift)?;
        self.counts.attempt(self.journal.open(line.clone())).await?;
        let reply = self.pay_and_ship(&line, card).await;
        let status = status_of(&reply);
        self.mark(order, status).await?;
        let note = self.warehouse.note(order, format!("{status:?}"));
        // The order has ended, whether or not the note arrives; the ledger counts those that do not.
        let _ = self.counts.attempt(note).await;
        reply
    }

    fn line(&self, order: u64, item: u16, pieces: u32, gift: Option<String>) -> Result<OrderLine, OrderError> {
        let ware = ware(item).filter(|_| pieces > 0).ok_or(OrderError::NotForSale { item })?;
        let cents = ware.cents.saturating_mul(u64::from(pieces));
        Ok(OrderLine { order, item, pieces, cents, gift, desk: self.version.number(), status: Status::Placed })
    }

    async fn mark(&self, order: u64, status: Status) -> Result<(), RpcError> {
        self.counts.attempt(self.journal.mark(order, status)).await
    }

    async fn pay_and_ship(&self, line: &OrderLine, card: String) -> Reply<Outcome, OrderError> {
        match self.pay(line, &card).await {
            Ok(_) => self.mark(line.order, Status::Paid).await?,
            Err(Error::App(PayError::Declined { reason })) => Err(OrderError::Declined { reason })?,
            Err(e) => Err(e.upstream())?,
        }
        match again(|| self.counts.attempt(self.warehouse.ship(line.order, line.item, line.pieces)), |_| {}).await {
            Ok(parcel) => Ok(Outcome::Shipped { parcel: parcel.number }),
            Err(e) if nothing_left(&e) => self.refund(line.order).await,
            Err(e) => Err(e.upstream())?,
        }
    }

    /// One charge, whatever is cut and whoever dies when. A till that is asked again answers from its record of keys; another till, or
    /// one that was started again, has none, and what ran at the first cannot be asked there. So the key is forgotten, and the journal
    /// knows by the order's number.
    async fn pay(&self, line: &OrderLine, card: &str) -> Reply<Receipt, PayError> {
        let key = Key::new();
        let pay = || {
            let call = self.payment.pay(line.order, card.to_owned(), line.cents);
            self.counts.attempt(if self.with_keys { call.key(&key) } else { call })
        };
        again(pay, |e| {
            if e.code() == Code::FailedPrecondition {
                key.forget();
            }
        })
        .await
    }

    async fn refund(&self, order: u64) -> Reply<Outcome, OrderError> {
        let receipt = again(|| self.counts.attempt(self.payment.refund(order)), |_| {}).await.map_err(Error::upstream)?;
        Ok(Outcome::Refunded { cents: receipt.cents })
    }

    async fn status(&self, order: u64) -> Reply<Status, OrderError> {
        self.counts.attempt(self.journal.status(order)).await
    }

    /// Calls of one connection start in their order: when these are answered, all notes before them have been heard.
    async fn notes_arrive(&self) {
        // Two, since there may be two connections, and the one with fewer calls under way is taken.
        let _ = farcall::batch((self.warehouse.ledger(), self.warehouse.ledger())).await;
    }

    async fn book(&self) -> CallBook {
        self.notes_arrive().await;
        self.counts.book()
    }
}

/// Whether it is certain that nothing was shipped. Money is not given back for goods that may be on
/// their way.
fn nothing_left(e: &Error<ShipError>) -> bool {
    match e {
        Error::App(_) => true,
        Error::Rpc(e) => e.certainty().is_safe_to_retry(),
    }
}

/// What a reply to `place` says of the order; the customer reads it in the same way.
pub(crate) fn status_of(reply: &Reply<Outcome, OrderError>) -> Status {
    match reply {
        Ok(Outcome::Shipped { .. }) => Status::Shipped,
        Ok(Outcome::Refunded { .. }) => Status::Refunded,
        Err(Error::App(OrderError::Declined { .. })) => Status::Declined,
        Err(_) => Status::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_goes_back_only_if_nothing_was_shipped() {
        let rpc = |e: RpcError| Error::Rpc(e);
        assert!(nothing_left(&Error::App(ShipError::OutOfStock { item: 1, left: 0 })));
        assert!(nothing_left(&rpc(RpcError::not_sent(Code::Unavailable, "down"))));
        assert!(!nothing_left(&rpc(RpcError::new(Code::Unavailable, "lost"))));
    }
}
