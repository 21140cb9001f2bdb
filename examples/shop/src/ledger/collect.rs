//! Asks every process for its books.

use farcall::prelude::*;

use super::Books;
use crate::api::{CustomerClient, OrdersClient, PaymentClient, ShipError, WarehouseClient};
use crate::calls::CallCounts;
use crate::wares::items;

/// Where the processes live.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    pub(crate) payment: String,
    pub(crate) warehouse: String,
    pub(crate) order: String,
    pub(crate) customer: String,
}

/// The books, and the warehouse's report. Callers are asked before their providers: when the desk
/// answers, its notes have reached payment.
pub(crate) async fn collect(at: &Addresses, asked: u64) -> Result<(Books, String), String> {
    let text = |e: RpcError| format!("the books cannot be collected: {e}");
    let customer = CustomerClient::connect(&at.customer).await.map_err(text)?.ledger().await.map_err(text)?;
    let desk = OrdersClient::connect(&at.order).await.map_err(text)?.ledger().await.map_err(text)?;
    let counts = CallCounts::new();
    let warehouse = WarehouseClient::connect(&at.warehouse).observe(counts.clone()).await.map_err(text)?;
    let levels = farcall::batch(items().map(|i| counts.attempt(warehouse.level(i))).collect::<Vec<_>>()).await;
    let levels = levels.into_iter().collect::<Reply<Vec<u32>, ShipError>>().map_err(|e| text(e.upstream()))?;
    let report = counts.attempt(warehouse.report()).await.map_err(text)?;
    let demo_calls = counts.calls();
    let warehouse = warehouse.ledger().await.map_err(text)?;
    let payment = PaymentClient::connect(&at.payment).await.map_err(text)?.ledger().await.map_err(text)?;
    Ok((Books { asked, customer, desk, payment, warehouse, levels, demo_calls, cuts: 0 }, report))
}
