//! What the processes agree on: one service trait each, and the types that travel.

mod count;
mod customer;
mod journal;
mod orders;
pub(crate) mod orders_v2;
mod payment;
mod warehouse;

pub(crate) use count::{CallBook, CallCount, RunCount};
pub(crate) use customer::{Customer, CustomerClient, CustomerLedger, CustomerServer, Purchase, Style};
pub(crate) use journal::{Charge, Journal, JournalClient, JournalLedger, JournalServer, OrderLine, Shelf};
pub(crate) use orders::{Order, OrderError, Orders, OrdersClient, OrdersServer, Outcome, Status};
pub(crate) use payment::{PayError, Payment, PaymentClient, PaymentServer, Receipt};
pub(crate) use warehouse::{Parcel, ShipError, Warehouse, WarehouseClient, WarehouseServer};
