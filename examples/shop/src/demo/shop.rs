//! The shop as the launcher sees it: who is where, what is being bought, whose books are in already.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farcall::prelude::*;
use farcall::registry::Registry;
use farcall::registry::embedded::Nodes;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::children::Children;
use super::wire::BadWire;
use super::{Options, Sabotage};
use crate::api::{CallBook, CustomerClient};
use crate::generate;
use crate::ledger::{self, Books, Pair, Places};
use crate::say::say;

/// How long anything may take that the launcher waits for.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// See the module's text.
pub(super) struct Shop<'a> {
    pub(super) options: &'a Options,
    pub(super) children: &'a mut Children,
    folder: &'a Path,
    url: String,
    /// Where each process is that is up.
    at: BTreeMap<&'static str, String>,
    wires: BTreeMap<&'static str, BadWire>,
    cuts: Arc<AtomicU64>,
    /// The number of the next order.
    next: u64,
    /// What is known of those that have ended, and what is to be found of the others.
    books: Books,
}

/// A round of shopping that is under way.
pub(super) struct Buying {
    customer: CustomerClient,
    count: u64,
    running: JoinHandle<Result<(), RpcError>>,
}

fn text(e: RpcError) -> String {
    e.to_string()
}

impl<'a> Shop<'a> {
    /// Nobody is there yet.
    pub(super) fn new(options: &'a Options, folder: &'a Path, children: &'a mut Children) -> Shop<'a> {
        let books = Books { asked: options.orders, ..Books::default() };
        let (at, wires) = (BTreeMap::new(), BTreeMap::new());
        Shop { options, children, folder, url: String::new(), at, wires, cuts: Arc::default(), next: 1, books }
    }

    /// A step begins.
    pub(super) fn step(&self, line: &str) {
        say(&format!("\n{line}"));
    }

    /// Something of the step that is under way.
    pub(super) fn tell(&self, line: &str) {
        say(&format!("   {line}"));
    }

    /// So many hundredths of all orders.
    pub(super) fn share(&self, hundredths: u64) -> u64 {
        self.options.orders * hundredths / 100
    }

    /// The orders that are left when all these are placed.
    pub(super) fn rest(&self, shares: &[u64]) -> u64 {
        self.options.orders - shares.iter().map(|share| self.share(*share)).sum::<u64>()
    }
}

/// Who comes and goes.
impl Shop<'_> {
    async fn start(&mut self, name: &'static str, args: &[&str]) -> Result<(), String> {
        let with_registry = [&["--registry", &self.url], args].concat();
        let address = self.children.start(name, &with_registry).await?;
        self.at.insert(name, address);
        Ok(())
    }

    pub(super) async fn registry(&mut self) -> Result<(), String> {
        self.url = self.children.start("registry", &[]).await?;
        Ok(())
    }

    pub(super) async fn journal(&mut self) -> Result<(), String> {
        let (stock, file) = (generate::stock_for(self.options.orders).to_string(), self.folder.join("journal").display().to_string());
        let mut args = vec!["--stock", &stock, "--file", &file];
        if matches!(self.options.sabotage, Some(Sabotage::Keys | Sabotage::Journal)) {
            args.push("--forgetful");
        }
        self.start("journal", &args).await
    }

    /// Behind a bad wire, under whose near end it is registered.
    pub(super) async fn till(&mut self, name: &'static str) -> Result<(), String> {
        let wire = BadWire::lay(Arc::clone(&self.cuts)).await?;
        let crash = self.options.crash_payment_at.map(|cents| cents.to_string());
        let mut args = vec!["--advertise", wire.address.as_str()];
        if let Some(cents) = &crash {
            args.extend(["--crash-at", cents]);
        }
        self.start(name, &args).await?;
        wire.lead_to(&self.at[name]);
        self.wires.insert(name, wire);
        Ok(())
    }

    pub(super) async fn warehouse(&mut self, name: &'static str) -> Result<(), String> {
        let socket = format!("unix:{}", self.folder.join(name).with_extension("sock").display());
        self.start(name, &["--listen", &socket]).await
    }

    pub(super) async fn desk(&mut self, name: &'static str, version: &str) -> Result<(), String> {
        let mut args = vec!["--version", version];
        if self.options.sabotage == Some(Sabotage::Keys) {
            args.push("--without-keys");
        }
        self.start(name, &args).await
    }

    pub(super) async fn customer(&mut self, name: &'static str, version: &str) -> Result<(), String> {
        let seed = self.options.seed.to_string();
        self.start(name, &["--version", version, "--seed", &seed]).await
    }

    /// What it counted dies with it.
    pub(super) async fn kill_till(&mut self, name: &'static str) -> Result<(), String> {
        self.children.kill(name).await?;
        self.forget(name);
        self.books.killed_tills += 1;
        Ok(())
    }

    pub(super) async fn stop_till(&mut self, name: &'static str) -> Result<(), String> {
        let book = self.children.stop(name).await?;
        self.forget(name);
        self.books.tills = std::mem::take(&mut self.books.tills).and(&book);
        Ok(())
    }

    pub(super) async fn stop_desk(&mut self, name: &'static str) -> Result<(), String> {
        let book = self.children.stop(name).await?;
        self.forget(name);
        self.books.desks = std::mem::take(&mut self.books.desks).and(&book);
        Ok(())
    }

    /// One that does not buy now: what it bought is asked for before.
    pub(super) async fn end_customer(&mut self, name: &'static str) -> Result<(), String> {
        let mut books = self.client(name)?.ledger().await.map_err(text)?;
        // Its last words say more than what it could say of itself then, but not what it bought.
        books.book = CallBook { runs: Vec::new(), ..self.children.stop(name).await? };
        self.forget(name);
        self.books.customers.push(books);
        Ok(())
    }

    fn forget(&mut self, name: &'static str) {
        self.at.remove(name);
        self.wires.remove(name);
    }

    /// Starts the registry where it was, empty, and waits until all have registered again.
    pub(super) async fn registry_again(&mut self) -> Result<(), String> {
        let listen = self.url.replacen("farcall://", "tcp://", 1);
        self.children.start("registry", &["--listen", &listen]).await?;
        let back = Instant::now();
        let node = Nodes::builder([listen]).build().map_err(text)?;
        let all = self.at.len() as u64;
        let registered = async {
            loop {
                let services = node.services().await.unwrap_or_default();
                let entries: u64 = services.iter().map(|service| service.entries).sum();
                if entries >= all {
                    return Ok(());
                }
                if back.elapsed() > PATIENCE {
                    return Err(format!("{entries} of {all} processes have registered again within {} s", PATIENCE.as_secs()));
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        self.children.during(registered).await?;
        let took = back.elapsed().as_millis();
        self.tell(&format!("the registry is back, and knew nothing: all {all} processes had registered again {took} ms later"));
        Ok(())
    }

    /// Waits until a customer's cache file has an address of this process.
    pub(super) async fn is_kept(&mut self, customer: &str, name: &str) -> Result<(), String> {
        let folder = self.folder.join("lists").join(customer).join("_");
        let address = self.at.get(name).cloned().ok_or_else(|| format!("there is no {name}"))?;
        let until = Instant::now() + PATIENCE;
        let kept = async {
            while !has(&folder, address.as_bytes()) {
                if Instant::now() > until {
                    return Err(format!("no list in {} has {address}", folder.display()));
                }
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        self.children.during(kept).await
    }

    /// Takes a process's lists away.
    pub(super) fn lose_cache(&self, name: &str) -> Result<(), String> {
        let folder = self.folder.join("lists").join(name);
        std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))
    }
}

/// Whether a list in this folder has these bytes.
fn has(folder: &Path, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|file| file.path());
    let lists = files.filter(|path| path.extension().is_some_and(|e| e == "list"));
    lists.filter_map(|path| std::fs::read(path).ok()).any(|list| list.windows(bytes.len()).any(|part| part == bytes))
}

/// What is bought.
impl Shop<'_> {
    fn client(&self, name: &'static str) -> Result<CustomerClient, String> {
        let address = self.at.get(name).ok_or_else(|| format!("there is no {name}"))?;
        CustomerClient::connect(address).lazy().map_err(text)
    }

    /// Lets a customer buy so many things.
    pub(super) fn buying(&mut self, name: &'static str, count: u64) -> Result<Buying, String> {
        let customer = self.client(name)?;
        let (first, buyer) = (self.next, customer.clone());
        self.next += count;
        let running = tokio::spawn(async move {
            match count {
                0 => Ok(()),
                count => buyer.buy(first, count).deadline(PATIENCE).await,
            }
        });
        Ok(Buying { customer, count, running })
    }

    /// Waits until a tenth of it has ended: what happens then happens to orders.
    pub(super) async fn under_way(&mut self, buying: &Buying) -> Result<(), String> {
        let begun = async {
            let before = buying.customer.bought().await.map_err(text)?;
            while !buying.running.is_finished() {
                let bought = buying.customer.bought().await.map_err(text)?;
                if bought >= before + buying.count.div_ceil(10) {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        self.children.during(begun).await
    }

    /// Waits until all of it has ended.
    pub(super) async fn bought(&mut self, buying: Buying) -> Result<(), String> {
        let ended = async { buying.running.await.map_err(|e| e.to_string())?.map_err(text) };
        self.children.during(ended).await
    }

    /// So many orders of customers of one version meet a desk of one, for sure.
    pub(super) fn met(&mut self, customer: u32, desk: u32, orders: u64) {
        match self.books.pairs.iter_mut().find(|pair| (pair.customer, pair.desk) == (customer, desk)) {
            Some(pair) => pair.orders += orders,
            None => self.books.pairs.push(Pair { customer, desk, orders }),
        }
    }
}

/// At the end.
impl Shop<'_> {
    fn all(&self, role: &str) -> Vec<String> {
        self.at.iter().filter(|(name, _)| name.starts_with(role)).map(|(_, address)| address.clone()).collect()
    }

    /// Everybody's books, and a warehouse's report.
    pub(super) async fn books(&mut self) -> Result<(String, Books), String> {
        let places = Places {
            journal: self.all("journal").concat(),
            payment: self.all("payment"),
            warehouse: self.all("warehouse"),
            order: self.all("order"),
            customer: self.all("customer"),
        };
        let mut books = std::mem::take(&mut self.books);
        books.cuts = self.cuts.load(Ordering::Relaxed);
        let report = ledger::collect(&places, &mut books);
        let report = self.children.during(async { report.await.map_err(|e| format!("the books cannot be collected: {e}")) }).await?;
        Ok((report, books))
    }

    /// What to try while all are up.
    pub(super) fn invitation(&self) -> String {
        let farcall = farcall_command();
        let (url, none) = (&self.url, String::new());
        let at = |name| self.at.get(name).unwrap_or(&none);
        let all: Vec<String> = self.at.iter().map(|(name, address)| format!("  {name:<12}{address}\n")).collect();
        format!(
            "\nall are up:\n{}  registry    {url}\ntry:\n  {farcall} ls --registry {url}\n  {farcall} watch Payment --registry {url}\n  \
             {farcall} describe {}\n  {farcall} call {} Payment.balance '{{}}'\n  \
             {farcall} call {} Orders.status '{{\"order\": 1}}'\n  {farcall} call {} Warehouse.report '{{}}'\nCtrl-C ends them.",
            all.concat(),
            at("payment-1"),
            at("payment-1"),
            at("order-2"),
            at("warehouse-1"),
        )
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
