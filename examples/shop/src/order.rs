//! The order process: a handler that calls two other processes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farcall::prelude::*;

use crate::api::{
    Order, OrderError, OrderLedger, OrderLine, Orders, OrdersServer, Outcome, PayError, PaymentClient, ShipError, Status, WarehouseClient,
};
use crate::calls::CallCounts;
use crate::process::{self, Home};
use crate::wares::ware;

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where it lives.
    pub(crate) home: Home,
    /// Where payment lives.
    pub(crate) payment: String,
    /// Where the warehouse lives.
    pub(crate) warehouse: String,
}

/// Runs the process.
pub(crate) fn run(options: Options) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let (to_payment, to_warehouse, here) = (CallCounts::new(), CallCounts::new(), CallCounts::new());
        let desk = Desk {
            book: Book::default(),
            payment: PaymentClient::connect(&options.payment).observe(to_payment.clone()).await.map_err(|e| e.to_string())?,
            warehouse: WarehouseClient::connect(&options.warehouse).observe(to_warehouse.clone()).await.map_err(|e| e.to_string())?,
            to_payment,
            to_warehouse,
            here: Arc::clone(&here),
        };
        options.home.serve(Server::builder().serve(OrdersServer::new(desk)).observe(here)).await
    })
}

struct Desk {
    book: Book,
    payment: PaymentClient,
    warehouse: WarehouseClient,
    to_payment: Arc<CallCounts>,
    to_warehouse: Arc<CallCounts>,
    here: Arc<CallCounts>,
}

impl Orders for Desk {
    async fn place(&self, order: Order) -> Reply<Outcome, OrderError> {
        let line = self.book.open(&order)?;
        let reply = self.pay_and_ship(&line, order.card).await;
        let status = status_of(&reply);
        self.book.set(line.order, status);
        let note = self.payment.note(line.order, format!("{status:?}"));
        // The order has ended, whether or not the note arrives; the ledger counts those that do not.
        let _ = self.to_payment.attempt(note).await;
        reply
    }

    async fn status(&self, order: u64) -> Reply<Status, OrderError> {
        let line = self.book.lines().get(&order).map(|line| line.status);
        Ok(line.ok_or(OrderError::Unknown { order })?)
    }

    async fn ledger(&self) -> Reply<OrderLedger> {
        // Calls of one connection start in their order: when this one is answered, all notes before it
        // have been heard.
        self.to_payment.attempt(self.payment.balance()).await?;
        Ok(OrderLedger {
            orders: self.book.lines().values().cloned().collect(),
            payment_calls: self.to_payment.calls(),
            warehouse_calls: self.to_warehouse.calls(),
            runs: self.here.runs(),
        })
    }
}

impl Desk {
    async fn pay_and_ship(&self, line: &OrderLine, card: String) -> Reply<Outcome, OrderError> {
        match self.to_payment.attempt(self.payment.pay(line.order, card, line.cents)).await {
            Ok(_) => self.book.set(line.order, Status::Paid),
            Err(Error::App(PayError::Declined { reason })) => Err(OrderError::Declined { reason })?,
            Err(e) => Err(e.upstream())?,
        }
        match self.to_warehouse.attempt(self.warehouse.ship(line.order, line.item, line.pieces)).await {
            Ok(parcel) => Ok(Outcome::Shipped { parcel: parcel.number }),
            Err(e) if nothing_left(&e) => self.refund(line.order).await,
            Err(e) => Err(e.upstream())?,
        }
    }

    async fn refund(&self, order: u64) -> Reply<Outcome, OrderError> {
        let receipt = self.to_payment.attempt(self.payment.refund(order)).await.map_err(Error::upstream)?;
        Ok(Outcome::Refunded { cents: receipt.cents })
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

/// The orders of this desk and how far they are.
#[derive(Default)]
struct Book(Mutex<BTreeMap<u64, OrderLine>>);

impl Book {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<u64, OrderLine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, order: &Order) -> Result<OrderLine, OrderError> {
        let &Order { id, item, pieces, .. } = order;
        let ware = ware(item).filter(|_| pieces > 0).ok_or(OrderError::NotForSale { item })?;
        let line = OrderLine { order: id, item, pieces, cents: ware.cents * u64::from(pieces), status: Status::Placed };
        match self.lines().entry(id) {
            Entry::Occupied(_) => Err(OrderError::Taken { order: id }),
            Entry::Vacant(place) => Ok(place.insert(line).clone()),
        }
    }

    fn set(&self, order: u64, status: Status) {
        if let Some(line) = self.lines().get_mut(&order) {
            line.status = status;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_takes_an_order_once() {
        let book = Book::default();
        let order = Order { id: 1, card: String::new(), item: 5, pieces: 2 };
        assert_eq!(book.open(&order), Ok(OrderLine { order: 1, item: 5, pieces: 2, cents: 1798, status: Status::Placed }));
        assert_eq!(book.open(&order), Err(OrderError::Taken { order: 1 }));
        assert_eq!(book.open(&Order { id: 2, item: 8, ..order.clone() }), Err(OrderError::NotForSale { item: 8 }));
        assert_eq!(book.open(&Order { id: 2, pieces: 0, ..order }), Err(OrderError::NotForSale { item: 5 }));
    }

    #[test]
    fn money_goes_back_only_if_nothing_was_shipped() {
        let rpc = |e: RpcError| Error::Rpc(e);
        assert!(nothing_left(&Error::App(ShipError::OutOfStock { item: 1, left: 0 })));
        assert!(nothing_left(&rpc(RpcError::not_sent(Code::Unavailable, "down"))));
        assert!(!nothing_left(&rpc(RpcError::new(Code::Unavailable, "lost"))));
    }
}
