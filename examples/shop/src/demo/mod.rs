//! The launcher: starts the processes, kills the registry among them and starts it again, follows the others, compares their books and ends them all.

mod child;
mod children;
mod folder;
mod sabotage;
mod wire;

use std::path::Path;
use std::time::Duration;

use children::Children;
use folder::TempFolder;
pub(crate) use sabotage::Sabotage;
use wire::BadWire;

use farcall::prelude::*;

use crate::api::WarehouseClient;
use crate::customer::DONE;
use crate::ledger::{self, Addresses};
use crate::say::say;
use crate::{generate, process};

/// How long a failure may wait for the news that a process died, which explains it better.
const BLAME: Duration = Duration::from_secs(1);

/// How long it may take until a list is on disk.
const KEPT: Duration = Duration::from_secs(10);
/// How long the registry is dead.
const OUTAGE: Duration = Duration::from_millis(300);

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) once: bool,
    pub(crate) orders: u64,
    pub(crate) seed: u64,
    /// Makes payment crash, to see what becomes of the others.
    pub(crate) crash_payment_after: Option<u64>,
    /// Makes the books wrong, to see that it is found.
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
    let (at, wire, registry) = start(options, folder, children).await?;
    outage(&registry, folder, children).await?;
    children.line_of("customer", DONE).await?;
    audit(options, &at, &wire, children).await?;
    if options.once {
        return Ok(());
    }
    say(&invitation(&at));
    children.until_signal().await
}

/// Starts the processes, each with the addresses of those it calls.
async fn start(options: &Options, folder: &TempFolder, children: &mut Children) -> Result<(Addresses, BadWire, String), String> {
    let (orders, seed) = (options.orders.to_string(), options.seed.to_string());
    let stock = generate::stock_for(options.orders).to_string();
    let socket = format!("unix:{}", folder.path().join("warehouse.sock").display());
    let crash = options.crash_payment_after.map(|n| n.to_string());
    let mut of_payment = Vec::new();
    if let Some(n) = &crash {
        of_payment.extend(["--crash-after", n]);
    }
    let url = children.start("registry", &[]).await?;
    of_payment.extend(["--registry", &url]);
    let payment = children.start("payment", &of_payment).await?;
    let warehouse = children.start("warehouse", &["--listen", &socket, "--stock", &stock, "--registry", &url]).await?;
    let wire = BadWire::to(&payment).await?;
    let mut of_order = vec!["--till", &wire.address, "--registry", &url];
    if options.sabotage == Some(Sabotage::Keys) {
        of_order.push("--without-keys");
    }
    let order = children.start("order", &of_order).await?;
    let customer = children.start("customer", &["--registry", &url, "--orders", &orders, "--seed", &seed]).await?;
    Ok((Addresses { payment, warehouse, order, customer }, wire, url))
}

/// Kills the registry while orders are placed, and starts it again, empty, where it was. A consumer that starts in between finds the
/// warehouse in its cache file.
async fn outage(url: &str, folder: &TempFolder, children: &mut Children) -> Result<(), String> {
    let text = |e: RpcError| format!("a consumer that is started while the registry is dead: {e}");
    let find = || WarehouseClient::discover(url).application("visitor").cache_in(folder.path().join("lists"));
    let visitor = find().await.map_err(text)?;
    is_kept(&folder.path().join("lists/visitor/_")).await?;
    drop(visitor);
    children.kill("registry").await?;
    say("registry  | killed");
    drop(find().await.map_err(text)?);
    tokio::time::sleep(OUTAGE).await;
    let listen = url.replacen("farcall://", "tcp://", 1);
    children.start("registry", &["--listen", &listen]).await.map(drop)
}

/// Waits until there is a list on disk in this folder.
async fn is_kept(folder: &Path) -> Result<(), String> {
    let is_list = |file: std::io::Result<std::fs::DirEntry>| file.is_ok_and(|file| file.path().extension().is_some_and(|e| e == "list"));
    let until = tokio::time::Instant::now() + KEPT;
    while !std::fs::read_dir(folder).is_ok_and(|mut files| files.any(is_list)) {
        if tokio::time::Instant::now() > until {
            return Err(format!("no list was kept in {} within {} s", folder.display(), KEPT.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Collects the books and prints the ledger; an error if it is wrong.
async fn audit(options: &Options, at: &Addresses, wire: &BadWire, children: &mut Children) -> Result<(), String> {
    let (mut books, report) = match ledger::collect(at, options.orders).await {
        Ok(collected) => collected,
        Err(e) => return Err(children.death_within(BLAME).await.unwrap_or(e)),
    };
    books.cuts = wire.cuts();
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

/// The command line as it can be typed here: by its path, if it was built beside this program.
fn farcall_command() -> String {
    let beside = std::env::current_exe().map(|exe| exe.with_file_name("farcall")).unwrap_or_default();
    let here = std::env::current_dir().unwrap_or_default();
    match beside.is_file() {
        true => beside.strip_prefix(here).unwrap_or(&beside).display().to_string(),
        false => "farcall".to_owned(),
    }
}

fn invitation(at: &Addresses) -> String {
    let Addresses { payment, warehouse, order, customer } = at;
    let farcall = farcall_command();
    format!(
        "\nall four are up:\n  payment   {payment}\n  warehouse {warehouse}\n  order     {order}\n  customer  {customer}\n\
         try:\n  {farcall} describe {payment}\n  {farcall} call {payment} Payment.balance '{{}}'\n  \
         {farcall} call {order} Orders.status '{{\"order\": 1}}'\n  \
         {farcall} call {warehouse} Warehouse.report '{{}}'\nCtrl-C ends them."
    )
}
