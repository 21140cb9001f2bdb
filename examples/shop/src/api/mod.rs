//! What the processes agree on: one service trait each, and the types that travel.

mod count;
mod customer;
mod orders;
mod payment;
mod warehouse;

pub(crate) use count::{CallCount, RunCount};
pub(crate) use customer::{Customer, CustomerClient, CustomerLedger, CustomerServer, Purchase, Style};
pub(crate) use orders::{Order, OrderError, OrderLedger, OrderLine, Orders, OrdersClient, OrdersServer, Outcome, Status};
pub(crate) use payment::{Charge, PayError, Payment, PaymentClient, PaymentLedger, PaymentServer, Receipt};
pub(crate) use warehouse::{Parcel, Shelf, ShipError, Warehouse, WarehouseClient, WarehouseLedger, WarehouseServer};
