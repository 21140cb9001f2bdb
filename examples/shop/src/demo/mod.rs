//! The launcher: starts the processes, kills some of them and starts them again while orders run, compares everybody's books and ends
//! them all. The story is in `story.rs`.

mod child;
mod children;
mod folder;
mod sabotage;
mod shop;
mod story;
mod wire;

use std::time::Duration;

use children::Children;
use folder::TempFolder;
pub(crate) use sabotage::Sabotage;
use shop::Shop;

use crate::ledger;
use crate::process;
use crate::say::say;

/// How long a failure may wait for the news that a process died, which explains it better.
const BLAME: Duration = Duration::from_secs(1);

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) once: bool,
    pub(crate) orders: u64,
    pub(crate) seed: u64,
    /// Makes the tills crash when they have taken so many cents, to see what becomes of the others.
    pub(crate) crash_payment_at: Option<u64>,
    /// Makes the books wrong, or something lost, to see that it is found.
    pub(crate) sabotage: Option<Sabotage>,
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let folder = TempFolder::new()?;
        let mut children = Children::new(&folder.path().join("lists"))?;
        let shown = show(options, &folder, &mut children).await;
        let ended = children.end().await;
        shown.and(ended)
    })
}

async fn show(options: &Options, folder: &TempFolder, children: &mut Children) -> Result<(), String> {
    let mut shop = Shop::new(options, folder.path(), children);
    let told = match story::tell(&mut shop).await {
        Ok(()) => audit(options, &mut shop).await,
        failed => failed,
    };
    if let Err(e) = told {
        return Err(shop.children.death_within(BLAME).await.unwrap_or(e));
    }
    if options.once {
        return Ok(());
    }
    say(&shop.invitation());
    children.until_signal().await
}

/// Collects the books and prints the ledger; an error if it is wrong.
async fn audit(options: &Options, shop: &mut Shop<'_>) -> Result<(), String> {
    let (report, mut books) = shop.books().await?;
    if let Some(sabotage) = options.sabotage {
        sabotage.apply(&mut books);
    }
    let mismatches = ledger::check(&books);
    say(&format!("\n{report}\n\n{}", ledger::table(&books, &mismatches)));
    match mismatches.len() {
        0 => Ok(()),
        n => Err(format!("{n} mismatches in the ledger")),
    }
}
