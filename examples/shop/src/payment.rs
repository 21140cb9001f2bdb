//! A payment process: a till that keeps nothing. Several are found under one name, and any of them may die.

use std::sync::Arc;

use farcall::prelude::*;

use crate::api::{CallBook, JournalClient, PayError, Payment, PaymentServer, Receipt};
use crate::calls::CallCounts;
use crate::process::{self, Home};
use crate::say::complain;

/// What the process ends with when it is told to crash.
const CRASHED: i32 = 70;

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where it lives.
    pub(crate) home: Home,
    /// Ends without a word when so much is in the till, to see what the others make of it.
    pub(crate) crash_at: Option<u64>,
}

/// Runs the process.
pub(crate) fn run(options: Options) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let counts = CallCounts::new();
        let journal = options.home.reach::<JournalClient>(&counts).await?;
        let till = Till { journal, counts: Arc::clone(&counts), crash_at: options.crash_at };
        options.home.serve(Server::builder().serve(PaymentServer::new(till)), counts).await
    })
}

struct Till {
    journal: JournalClient,
    counts: Arc<CallCounts>,
    crash_at: Option<u64>,
}

impl Till {
    async fn crash_if_told(&self) -> Result<(), RpcError> {
        if let Some(cents) = self.crash_at
            && self.journal.balance().await? >= cents
        {
            complain("payment crashes, as it was told to");
            std::process::exit(CRASHED);
        }
        Ok(())
    }
}

impl Payment for Till {
    async fn pay(&self, order: u64, card: String, cents: u64) -> Reply<Receipt, PayError> {
        self.crash_if_told().await?;
        self.counts.attempt(self.journal.charge(order, card, cents)).await
    }

    async fn refund(&self, order: u64) -> Reply<Receipt, PayError> {
        self.counts.attempt(self.journal.refund(order)).await
    }

    async fn balance(&self) -> Reply<u64> {
        self.counts.attempt(self.journal.balance()).await
    }

    async fn ledger(&self) -> Reply<CallBook> {
        Ok(self.counts.book())
    }
}
