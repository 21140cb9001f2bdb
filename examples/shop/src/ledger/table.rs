//! The ledger as people read it.

use std::fmt::Write;

use super::{Books, Mismatch, calls, money, orders, versions};
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
        [] => out.push_str("the ledger is right: orders, money, stock, versions and calls all agree"),
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
    let style = |style| orders::purchases(books).filter(|p| p.style == style).count();
    let (charged, refunded) = money::sums(&books.journal);
    let (cuts, cents) = (books.cuts, wares::money);
    let shelves = &books.journal.shelves;
    let initial: u64 = shelves.iter().map(|s| u64::from(s.initial)).sum();
    let left: u64 = shelves.iter().map(|s| u64::from(s.left)).sum();
    let shipped: u64 = books.journal.parcels.iter().map(|p| u64::from(p.pieces)).sum();
    let (attempted, asked, settled) = money::payments(books);
    let failed = n(Status::Failed) + n(Status::Placed) + n(Status::Paid);
    let pairs: Vec<String> = versions::pairs(books).iter().map(|((customer, desk), n)| format!("v{customer} at v{desk} {n}")).collect();
    format!(
        "  orders    {} = {} shipped + {} declined + {} refunded + {failed} failed\n\
         \x20 styles    {} waited, {} awaited, {} called back\n\
         \x20 versions  customers of a version at desks of one: {}\n\
         \x20 money     {} charged - {} refunded = {} in the till\n\
         \x20 once      wires to tills cut {cuts} times, {} tills killed: {attempted} attempts to pay, the journal was asked {asked} times \
         and charged or declined {settled}\n\
         \x20 stock     {initial} pieces - {shipped} shipped = {left} left\n",
        books.journal.orders.len(),
        n(Status::Shipped),
        n(Status::Declined),
        n(Status::Refunded),
        style(Style::Waited),
        style(Style::Awaited),
        style(Style::CalledBack),
        pairs.join(", "),
        cents(charged),
        cents(refunded),
        cents(books.journal.till),
        books.killed_tills,
    )
}

fn call_table(books: &Books) -> String {
    let mut out = format!(
        "  {:<21}{:<18}{:>9}{:>9}{:>8}{:>8}{:>10}{:>9}\n",
        "calls", "method", "attempted", "results", "errors", "not run", "uncertain", "executed"
    );
    for link in calls::links(books) {
        for call in link.calls() {
            let CallCount { method, attempted, ok, app_error, not_executed, uncertain } = call;
            let (executed, name) = (link.executed(method), link.name);
            let lost = match link.lost() {
                (false, false) => "",
                (true, _) => "  (and what a killed till called)",
                (_, true) => "  (and what ran at a killed till)",
            };
            let _ = writeln!(
                out,
                "  {name:<21}{method:<18}{attempted:>9}{ok:>9}{app_error:>8}{not_executed:>8}{uncertain:>10}{executed:>9}{lost}"
            );
        }
    }
    out
}
