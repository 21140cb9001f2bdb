//! The order process: a handler that calls two other processes, one of them over a connection that is cut now
//! and then.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farcall::prelude::*;
use farcall::{Fault, Key, Limits, Method};

use crate::api::{
    Order, OrderError, OrderLedger, OrderLine, Orders, OrdersServer, Outcome, PayError, PaymentClient, Receipt, ShipError, Status,
    WarehouseClient,
};
use crate::calls::CallCounts;
use crate::process::{self, Home};
use crate::wares::ware;

/// How often a call to the till is made while its connection is being cut.
const ATTEMPTS: usize = 30;
/// What a cut connection is given to come back.
const PAUSE: Duration = Duration::from_millis(10);

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where it lives.
    pub(crate) home: Home,
    /// Where payment lives; none = wherever the registry says.
    pub(crate) payment: Option<String>,
    /// Where money is moved, if that goes another way.
    pub(crate) till: Option<String>,
    /// Pays without keys, to see that the ledger finds what comes of it.
    pub(crate) without_keys: bool,
    /// Where the warehouse lives; none = wherever the registry says.
    pub(crate) warehouse: Option<String>,
}

/// Runs the process.
pub(crate) fn run(options: Options) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let (to_payment, to_warehouse, here) = (CallCounts::new(), CallCounts::new(), CallCounts::new());
        let text = |e: RpcError| e.to_string();
        let registry = options.home.registry.as_deref();
        let payment = || process::reach::<PaymentClient>(options.payment.as_deref(), registry, to_payment.clone());
        let till = match &options.till {
            Some(wire) => PaymentClient::connect(wire).limits(again_soon()).observe(to_payment.clone()).await.map_err(text)?,
            None => payment()?.await.map_err(text)?,
        };
        let warehouse = process::reach::<WarehouseClient>(options.warehouse.as_deref(), registry, to_warehouse.clone())?;
        let desk = Desk {
            book: Book::default(),
            till,
            with_keys: !options.without_keys,
            payment: payment()?.await.map_err(text)?,
            warehouse: warehouse.await.map_err(text)?,
            to_payment,
            to_warehouse,
            here: Arc::clone(&here),
        };
        options.home.serve(Server::builder().serve(OrdersServer::new(desk)).observe(here)).await
    })
}

struct Desk {
    book: Book,
    /// For money. What was cut here is called again until it is answered.
    till: PaymentClient,
    with_keys: bool,
    /// For notes, which nobody misses if they are lost; so the ledger would be wrong if they went over a wire
    /// that is cut.
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

/// The bad wire is cut every few milliseconds, and is none the worse for it: that is no reason to let
/// the till alone for seconds, as one would a provider that dies again and again.
fn again_soon() -> Limits {
    Limits { reconnect_base: Duration::from_millis(2), reconnect_cap: Duration::from_millis(20), ..Limits::default() }
}

impl Desk {
    async fn pay_and_ship(&self, line: &OrderLine, card: String) -> Reply<Outcome, OrderError> {
        match self.pay(line, &card).await {
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

    /// One charge, whatever is cut when: every attempt has the same key, so at most one of them runs.
    async fn pay(&self, line: &OrderLine, card: &str) -> Reply<Receipt, PayError> {
        let key = Key::new();
        let pay = || {
            let call = self.till.pay(line.order, card.to_owned(), line.cents);
            if self.with_keys { call.key(&key) } else { call }
        };
        answered(|| self.to_payment.attempt(pay())).await
    }

    async fn refund(&self, order: u64) -> Reply<Outcome, OrderError> {
        // Idempotent: it needs no key to be called again.
        let receipt = answered(|| self.to_payment.attempt(self.till.refund(order))).await.map_err(Error::upstream)?;
        Ok(Outcome::Refunded { cents: receipt.cents })
    }
}

/// Calls again for as long as there is no connection, or it is cut before the reply.
async fn answered<M: Method>(call: impl Fn() -> Call<M> + Send) -> Reply<M::Out, M::Err> {
    for _ in 1..ATTEMPTS {
        match call().await.map_err(M::Err::split) {
            Ok(out) => return Ok(out),
            Err(Ok(app)) => return Err(app.lift()),
            Err(Err(e)) if e.code() != Code::Unavailable => return Err(e.into()),
            Err(Err(_)) => tokio::time::sleep(PAUSE).await,
        }
    }
    call().await
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
