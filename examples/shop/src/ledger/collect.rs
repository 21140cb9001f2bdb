//! Asks every process for its books.

use farcall::prelude::*;

use super::Books;
use crate::api::{CallBook, CustomerClient, JournalClient, OrdersClient, PaymentClient, ShipError, WarehouseClient};
use crate::calls::CallCounts;
use crate::wares::items;

/// Where the processes live that are up; the audit asks each, not one of each name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) journal: String,
    pub(crate) payment: Vec<String>,
    pub(crate) warehouse: Vec<String>,
    pub(crate) order: Vec<String>,
    pub(crate) customer: Vec<String>,
}

/// Adds the books of all who are up, and gives a warehouse's report. Callers are asked before their providers: when a desk
/// answers, its notes have reached the warehouses.
pub(crate) async fn collect(at: &Places, books: &mut Books) -> Result<String, RpcError> {
    for address in &at.customer {
        books.customers.push(CustomerClient::connect(address).await?.ledger().await?);
    }
    for address in &at.order {
        books.desks = std::mem::take(&mut books.desks).and(&OrdersClient::connect(address).await?.ledger().await?);
    }
    let (report, demo) = look(&at.warehouse[0], books).await?;
    books.demo = demo;
    for address in &at.payment {
        books.tills = std::mem::take(&mut books.tills).and(&PaymentClient::connect(address).await?.ledger().await?);
    }
    for address in &at.warehouse {
        books.halls = std::mem::take(&mut books.halls).and(&WarehouseClient::connect(address).await?.ledger().await?);
    }
    books.journal = JournalClient::connect(&at.journal).await?.ledger().await?;
    Ok(report)
}

/// What a warehouse tells those who only look.
async fn look(warehouse: &str, books: &mut Books) -> Result<(String, CallBook), RpcError> {
    let counts = CallCounts::new();
    let warehouse = WarehouseClient::connect(warehouse).observe(counts.clone()).await?;
    let levels = farcall::batch(items().map(|i| counts.attempt(warehouse.level(i))).collect::<Vec<_>>()).await;
    books.levels = levels.into_iter().collect::<Reply<Vec<u32>, ShipError>>().map_err(Error::upstream)?;
    let report = counts.attempt(warehouse.report()).await?;
    Ok((report, counts.book()))
}
