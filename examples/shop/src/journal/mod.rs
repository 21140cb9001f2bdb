//! The journal process: one book for money, goods and orders, on disk before anybody is answered.
//!
//! Tills, halls and desks may be several, and may die: what happened is here, under the order's number, so that asking again never makes
//! it happen twice. `docs/decisions/shop-ledger.md` says why. It survives the death of its process, not of the machine: nothing is forced
//! to disk, which every order would pay for.

mod accounts;
mod file;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farcall::prelude::*;

use crate::api::{Journal, JournalLedger, JournalServer, OrderError, OrderLine, Parcel, PayError, Receipt, Shelf, ShipError, Status};
use crate::calls::CallCounts;
use crate::process::{self, Home};
pub(crate) use accounts::DECLINED_ENDING;
use accounts::{Accounts, Event};
use file::File;

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where it lives.
    pub(crate) home: Home,
    /// Pieces of each item at the start, before each ware's share.
    pub(crate) stock: u32,
    /// Where it writes; none = nowhere.
    pub(crate) file: Option<PathBuf>,
    /// Charges as often as it is asked, to see that the ledger finds what comes of it.
    pub(crate) forgetful: bool,
}

/// Runs the process.
pub(crate) fn run(options: Options) -> Result<(), String> {
    let mut accounts = Accounts::new(options.stock, options.forgetful);
    let file = options.file.map(|path| File::open(&path, |event| accounts.apply(event))).transpose()?;
    let counts = CallCounts::new();
    let book = Book { pages: Mutex::new(Pages { accounts, file }), counts: Arc::clone(&counts) };
    let server = Server::builder().serve(JournalServer::new(book));
    process::runtime()?.block_on(options.home.serve(server, counts))
}

struct Book {
    pages: Mutex<Pages>,
    counts: Arc<CallCounts>,
}

struct Pages {
    accounts: Accounts,
    file: Option<File>,
}

impl Pages {
    /// Writes down what happens, then lets it happen.
    fn enter(&mut self, event: Option<Event>) -> Result<(), RpcError> {
        let Some(event) = event else { return Ok(()) };
        if let Some(file) = &mut self.file {
            file.append(&event).map_err(|why| RpcError::not_executed(Code::Unavailable, why))?;
        }
        self.accounts.apply(event);
        Ok(())
    }
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Book {
    async fn open(&self, order: OrderLine) -> Reply<(), OrderError> {
        let mut pages = self.pages();
        let event = pages.accounts.open(order)?;
        Ok(pages.enter(event)?)
    }

    async fn mark(&self, order: u64, status: Status) -> Reply<()> {
        let mut pages = self.pages();
        let event = pages.accounts.mark(order, status);
        pages.enter(event)
    }

    async fn status(&self, order: u64) -> Reply<Status, OrderError> {
        Ok(self.pages().accounts.status(order)?)
    }

    async fn charge(&self, order: u64, card: String, cents: u64) -> Reply<Receipt, PayError> {
        let mut pages = self.pages();
        let event = pages.accounts.charge(order, &card, cents);
        pages.enter(event)?;
        Ok(pages.accounts.receipt(order)?)
    }

    async fn refund(&self, order: u64) -> Reply<Receipt, PayError> {
        let mut pages = self.pages();
        let event = pages.accounts.refund(order);
        pages.enter(event)?;
        Ok(pages.accounts.receipt(order)?)
    }

    async fn balance(&self) -> Reply<u64> {
        Ok(self.pages().accounts.balance())
    }

    async fn ship(&self, order: u64, item: u16, pieces: u32) -> Reply<Parcel, ShipError> {
        let mut pages = self.pages();
        let (parcel, event) = pages.accounts.ship(order, item, pieces)?;
        pages.enter(event)?;
        Ok(parcel)
    }

    async fn shelves(&self) -> Reply<Vec<Shelf>> {
        Ok(self.pages().accounts.shelves().to_vec())
    }

    async fn ledger(&self) -> Reply<JournalLedger> {
        Ok(self.pages().accounts.ledger(self.counts.book()))
    }
}
