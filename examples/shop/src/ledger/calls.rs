//! Every call is accounted for: attempted, ended once, and run as often as its caller believes.

use std::collections::BTreeMap;

use super::{Audit, Books};
use crate::api::{CallCount, RunCount, Status};

/// A caller and its provider.
pub(super) struct Link<'a> {
    /// `order → payment, tcp`
    pub(super) name: &'static str,
    /// What the caller counted.
    pub(super) calls: &'a [CallCount],
    /// What the provider counted.
    pub(super) runs: &'a [RunCount],
}

/// All links. No two callers call the same method, so that a provider's count belongs to one link.
pub(super) fn links(books: &Books) -> [Link<'_>; 4] {
    let warehouse = &books.warehouse.runs;
    [
        Link { name: "customer → order, tcp", calls: &books.customer.calls, runs: &books.desk.runs },
        Link { name: "order → payment, tcp", calls: &books.desk.payment_calls, runs: &books.payment.runs },
        Link { name: "order → warehouse, unix", calls: &books.desk.warehouse_calls, runs: warehouse },
        Link { name: "demo → warehouse, unix", calls: &books.demo_calls, runs: warehouse },
    ]
}

impl Link<'_> {
    /// What the provider counted for a method.
    pub(super) fn run(&self, method: &str) -> RunCount {
        self.runs.iter().find(|run| run.method == method).cloned().unwrap_or_default()
    }
}

/// Whether these are the audit's own calls. A book cannot hold the call that it is the reply to.
fn is_audit(method: &str) -> bool {
    method.ends_with(".ledger") || method.starts_with("farcall.")
}

pub(super) fn check(books: &Books, audit: &mut Audit) {
    let links = links(books);
    let mut callers: BTreeMap<&str, u64> = BTreeMap::new();
    for link in &links {
        for call in link.calls {
            *callers.entry(&call.method).or_default() += 1;
            check_method(link, call, audit);
        }
    }
    for (method, n) in callers.iter().filter(|(_, n)| **n > 1) {
        audit.mismatch(format!("{method} has {n} callers, so its runs cannot be told apart"));
    }
    for runs in [&books.desk.runs, &books.payment.runs, &books.warehouse.runs] {
        for run in runs.iter().filter(|run| !is_audit(&run.method) && !callers.contains_key(run.method.as_str())) {
            audit.mismatch(format!("{} ran {} times and nobody called it", run.method, run.executed()));
        }
    }
    audit.equal("notes that ran, notes that payment wrote down", links[1].run("Payment.note").executed(), books.payment.notes);
    let ended = books.desk.orders.iter().filter(|line| !matches!(line.status, Status::Placed | Status::Paid)).count() as u64;
    audit.equal("orders that ended, notes that payment wrote down", ended, books.payment.notes);
}

fn check_method(link: &Link<'_>, call: &CallCount, audit: &mut Audit) {
    let (method, run) = (&call.method, link.run(&call.method));
    let name = format!("{} {method}", link.name);
    audit.equal(format!("{name}: attempted, answered + failed"), call.attempted, call.answered() + call.failed());
    // With calls of which nobody knows whether they ran there is a range; without, it is one number.
    let most = call.attempted.saturating_sub(call.not_executed);
    let least = most.saturating_sub(call.uncertain);
    if !(least..=most).contains(&run.executed()) {
        audit.mismatch(format!("{name}: attempted - not executed = {most} ({} uncertain), but {} ran", call.uncertain, run.executed()));
    }
    if call.uncertain == 0 {
        audit.equal(format!("{name}: results had, results given"), call.ok, run.ok);
        audit.equal(format!("{name}: errors had, errors given"), call.app_error, run.app_error);
    }
}
