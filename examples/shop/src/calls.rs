//! Counts calls at both ends, for the ledger.
//!
//! Attempts are counted by the caller before it makes the call, ends by farcall's observer: that the
//! two agree is something to find out, not true by construction.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farcall::{Call, Certainty, Ended, Method, Observer, Outcome, Side};

use crate::api::{CallBook, CallCount, RunCount};

/// The counts of one process.
#[derive(Default)]
pub(crate) struct CallCounts {
    made: Mutex<BTreeMap<String, CallCount>>,
    ran: Mutex<BTreeMap<String, RunCount>>,
}

impl CallCounts {
    /// No calls yet.
    pub(crate) fn new() -> Arc<CallCounts> {
        Arc::default()
    }

    /// Counts a call that is about to be made: `counts.attempt(payment.pay(…)).await`.
    pub(crate) fn attempt<M: Method>(&self, call: Call<M>) -> Call<M> {
        let name = M::service().full_name(usize::from(M::INDEX));
        self.made(name, |count| count.attempted += 1);
        call
    }

    /// What was counted so far.
    pub(crate) fn book(&self) -> CallBook {
        CallBook { calls: lock(&self.made).values().cloned().collect(), runs: lock(&self.ran).values().cloned().collect() }
    }

    fn made(&self, method: String, edit: impl FnOnce(&mut CallCount)) {
        let mut made = lock(&self.made);
        edit(made.entry(method).or_insert_with_key(|m| CallCount { method: m.clone(), ..CallCount::default() }));
    }

    fn ran(&self, method: String, edit: impl FnOnce(&mut RunCount)) {
        let mut ran = lock(&self.ran);
        edit(ran.entry(method).or_insert_with_key(|m| RunCount { method: m.clone(), ..RunCount::default() }));
    }
}

impl Observer for CallCounts {
    fn ended(&self, outcome: &Outcome<'_>) {
        let method = format!("{}.{}", outcome.service, outcome.method);
        match outcome.side {
            Side::Client => self.made(method, |count| match outcome.ended {
                Ended::Ok => count.ok += 1,
                Ended::AppError => count.app_error += 1,
                Ended::Failed(_, Certainty::MaybeExecuted) => count.uncertain += 1,
                Ended::Failed(_, Certainty::NotSent | Certainty::NotExecuted) => count.not_executed += 1,
                Ended::Replayed => {}
            }),
            Side::Server => self.ran(method, |count| match outcome.ended {
                Ended::Ok => count.ok += 1,
                Ended::AppError => count.app_error += 1,
                Ended::Failed(_, Certainty::MaybeExecuted) => count.failed += 1,
                // Refused before its handler: the caller counts it as not executed. Answered from what another
                // attempt did: that one is counted.
                Ended::Failed(_, Certainty::NotSent | Certainty::NotExecuted) | Ended::Replayed => {}
            }),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
