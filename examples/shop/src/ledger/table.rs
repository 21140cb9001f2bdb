//! The ledger as people read it.

use std::fmt::Write;

use super::{Books, Mismatch, calls, money, orders};
use crate::api::{CallCount, Status, Style};
use crate::wares;

/// Mismatches that are shown; one mistake often shows in every order.
const SHOWN: usize = 12;

/// The whole ledger, ending with what does not agree or with the word that all does.
pub(crate) fn table(books: &Books, mismatches: &[Mismatch]) -> String {
    let mut out = String::from("ledger\n");
    out.push_str(&sums(books));
    out.push_str(&call_table(books));
    match mismatches {
        [] => out.push_str("the ledger is right: orders, money, stock and calls all agree"),
        found => {
            for mismatch in found.iter().take(SHOWN) {
                let _ = writeln!(out, "MISMATCH {mismatch}");
            }
            let _ = write!(out, "the ledger is WRONG: {} mismatches", found.len());
        }
    }
    out
}

fn sums(books: &Books) -> String {
    let by_status = orders::by_status(books);
    let n = |status| by_status.get(&status).copied().unwrap_or(0);
    let style = |style| books.customer.purchases.iter().filter(|p| p.style == style).count();
    let (charged, refunded) = money::sums(&books.payment);
    let (cuts, cents) = (books.cuts, wares::money);
    let shelves = &books.warehouse.shelves;
    let initial: u64 = shelves.iter().map(|s| u64::from(s.initial)).sum();
    let left: u64 = shelves.iter().map(|s| u64::from(s.left)).sum();
    let shipped: u64 = books.warehouse.parcels.iter().map(|p| u64::from(p.pieces)).sum();
    let (attempted, ran) = money::payments(books);
    let failed = n(Status::Failed) + n(Status::Placed) + n(Status::Paid);
    format!(
        "  orders  {} = {} shipped + {} declined + {} refunded + {failed} failed\n\
         \x20 styles  {} waited, {} awaited, {} called back\n\
         \x20 money   {} charged - {} refunded = {} in the till\n\
         \x20 cuts    the wire to the till was cut {cuts} times: {attempted} attempts to pay, {ran} ran\n\
         \x20 stock   {initial} pieces - {shipped} shipped = {left} left\n",
        books.desk.orders.len(),
        n(Status::Shipped),
        n(Status::Declined),
        n(Status::Refunded),
        style(Style::Waited),
        style(Style::Awaited),
        style(Style::CalledBack),
        cents(charged),
        cents(refunded),
        cents(books.payment.till),
    )
}

fn call_table(books: &Books) -> String {
    let mut out = format!(
        "  {:<25}{:<18}{:>9}{:>9}{:>8}{:>8}{:>10}{:>9}\n",
        "calls", "method", "attempted", "results", "errors", "not run", "uncertain", "executed"
    );
    for link in calls::links(books) {
        for call in link.calls {
            let CallCount { method, attempted, ok, app_error, not_executed, uncertain } = call;
            let executed = link.run(method).executed();
            let name = link.name;
            let _ =
                writeln!(out, "  {name:<25}{method:<18}{attempted:>9}{ok:>9}{app_error:>8}{not_executed:>8}{uncertain:>10}{executed:>9}");
        }
    }
    out
}
