//! Every call is accounted for: attempted, ended once, and run as often as its caller believes.

use std::collections::BTreeMap;

use super::{Audit, Books};
use crate::api::{CallBook, CallCount, Status};

/// Those who call, and those who are called, each all processes of a role together.
pub(super) struct Link<'a> {
    /// `order → payment`
    pub(super) name: &'static str,
    /// The service's name, as counted: `Payment`.
    service: &'static str,
    caller: CallBook,
    provider: &'a CallBook,
    /// Of some who called, or who were called, nobody knows any more what they counted.
    callers_lost: bool,
    runs_lost: bool,
}

/// All links. No two roles call the same method, so that a provider's count belongs to one link.
pub(super) fn links(books: &Books) -> [Link<'_>; 7] {
    let customers = books.customers.iter().fold(CallBook::default(), |all, customer| all.and(&customer.book));
    let link = |name, service, caller: &CallBook, provider| {
        let caller = caller.clone();
        Link { name, service, caller, provider, callers_lost: false, runs_lost: false }
    };
    let killed = books.killed_tills > 0;
    [
        link("customer → order", "Orders", &customers, &books.desks),
        Link { runs_lost: killed, ..link("order → payment", "Payment", &books.desks, &books.tills) },
        link("order → warehouse", "Warehouse", &books.desks, &books.halls),
        link("order → journal", "Journal", &books.desks, &books.journal.book),
        Link { callers_lost: killed, ..link("payment → journal", "Journal", &books.tills, &books.journal.book) },
        link("warehouse → journal", "Journal", &books.halls, &books.journal.book),
        link("demo → warehouse", "Warehouse", &books.demo, &books.halls),
    ]
}

impl Link<'_> {
    /// What was called over it.
    pub(super) fn calls(&self) -> impl Iterator<Item = &CallCount> {
        let of = |call: &&CallCount| call.method.split_once('.').is_some_and(|(service, _)| service == self.service);
        self.caller.calls.iter().filter(of).filter(|call| !is_audit(&call.method))
    }

    /// How often a method ran, as far as anybody knows.
    pub(super) fn executed(&self, method: &str) -> u64 {
        self.provider.run(method).executed()
    }

    /// What there is to say of counts that died: of callers, of runs.
    pub(super) fn lost(&self) -> (bool, bool) {
        (self.callers_lost, self.runs_lost)
    }
}

/// What tills call: if one was killed, some of it may be known to nobody.
const CALLED_BY_TILLS: [&str; 3] = ["Journal.charge", "Journal.refund", "Journal.balance"];

/// Whether these are the audit's own calls. A book cannot hold the call that it is the reply to.
fn is_audit(method: &str) -> bool {
    method.ends_with(".ledger") || method.starts_with("farcall.")
}

pub(super) fn check(books: &Books, audit: &mut Audit) {
    let links = links(books);
    let mut callers: BTreeMap<&str, u64> = BTreeMap::new();
    for link in &links {
        for call in link.calls() {
            *callers.entry(&call.method).or_default() += 1;
            check_method(link, call, audit);
        }
    }
    for (method, n) in callers.iter().filter(|(_, n)| **n > 1) {
        audit.mismatch(format!("{method} has {n} callers, so its runs cannot be told apart"));
    }
    for book in [&books.desks, &books.tills, &books.halls, &books.journal.book] {
        let excused = |method: &str| is_audit(method) || books.killed_tills > 0 && CALLED_BY_TILLS.contains(&method);
        for run in book.runs.iter().filter(|run| !excused(&run.method) && !callers.contains_key(run.method.as_str())) {
            audit.mismatch(format!("{} ran {} times and nobody called it", run.method, run.executed()));
        }
    }
    let ended = books.journal.orders.iter().filter(|line| !matches!(line.status, Status::Placed | Status::Paid)).count() as u64;
    audit.equal("orders that ended, notes that warehouses heard", ended, books.halls.run("Warehouse.note").executed());
}

fn check_method(link: &Link<'_>, call: &CallCount, audit: &mut Audit) {
    let (method, run) = (&call.method, link.provider.run(&call.method));
    let name = format!("{} {method}", link.name);
    audit.equal(format!("{name}: attempted, answered + failed"), call.attempted, call.answered() + call.failed());
    // With calls of which nobody knows whether they ran there is a range; without, it is one number.
    let most = call.attempted.saturating_sub(call.not_executed);
    let least = most.saturating_sub(call.uncertain);
    let too_many = run.executed() > most && !link.callers_lost;
    let too_few = run.executed() < least && !link.runs_lost;
    if too_many || too_few {
        audit.mismatch(format!("{name}: attempted - not executed = {most} ({} uncertain), but {} ran", call.uncertain, run.executed()));
    }
    if call.uncertain == 0 && link.lost() == (false, false) {
        audit.equal(format!("{name}: results had, results given"), call.ok, run.ok);
        audit.equal(format!("{name}: errors had, errors given"), call.app_error, run.app_error);
    }
}
