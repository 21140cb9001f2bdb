//! What the processes of a drill do: provider, consumer, registry, a crowd of registry clients; those of the flood.
//!
//! Each says `ready ADDRESS` on its stdout when it is, answers `report` on its stdin with its books, and ends when its stdin does. A
//! provider ends gracefully on SIGTERM.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farcall::auth::{Authenticator, Identity, Shown};
use farcall::health::{HealthClient, Serving};
use farcall::prelude::*;
use farcall::registry::embedded::{Embedded, RegistryLimits};
use farcall::registry::{BoxFuture, Directory, Registration, ToStderr};
use farcall::{Limits, StopSignals};

use super::{crowd, flood};
use crate::{PaymentClient, PaymentServer, Till, order};

/// `--name value`
type Args = BTreeMap<String, String>;

/// Runs a role; returns when it is over.
pub fn run(role: &str, args: &[String]) -> Result<(), String> {
    let args: Args = args.chunks(2).filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.clone()))).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|e| e.to_string())?;
    let ended = runtime.block_on(async {
        match role {
            "provider" => provider(&args).await,
            "consumer" => consumer(&args).await,
            "registry" => registry(&args).await,
            "crowd" => crowd::run(number(&args, "--providers", 0), number(&args, "--subscribers", 0), text(&args, "--node", "")).await,
            "door" => flood::door(text(&args, "--tls", "")).await,
            "caller" => flood::caller(text(&args, "--to", ""), text(&args, "--tls", "")).await,
            "strangers" => flood::strangers(text(&args, "--to", ""), number(&args, "--number", 0) as u8, number(&args, "--links", 0)).await,
            other => Err(format!("there is no role {other:?}: see `roles.rs`")),
        }
    });
    runtime.shutdown_background();
    ended
}

fn text<'a>(args: &'a Args, name: &str, default: &'a str) -> &'a str {
    args.get(name).map_or(default, String::as_str)
}

fn number(args: &Args, name: &str, default: u64) -> u64 {
    args.get(name).and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Answers each `report` on stdin; returns when stdin ends.
pub(super) async fn until_stdin_ends(report: impl Fn() -> String + Send + 'static) {
    let (ended, told) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == "report" {
                println!("report {}", report());
            }
        }
        let _ = ended.send(());
    });
    let _ = told.await;
}

async fn provider(args: &Args) -> Result<(), String> {
    let signals = StopSignals::new().map_err(|e| e.to_string())?;
    let till = Arc::new(Till::default());
    let mut registration = Registration::at(text(args, "--registry", "")).watch(Arc::new(ToStderr)).application("drill");
    if let Some(address) = args.get("--advertise") {
        registration = registration.advertise(address);
    }
    let mut server = Server::builder().serve(PaymentServer::shared(Arc::clone(&till))).register(registration).allow_anonymous();
    let warm_up = args.get("--warm-ms").map(|_| Duration::from_millis(number(args, "--warm-ms", 0)));
    if warm_up.is_some() {
        server = server.unready();
    }
    let server = server.listen(text(args, "--listen", "tcp://127.0.0.1:0")).await.map_err(|e| e.to_string())?;
    println!("ready {}", server.address());
    if let Some(time) = warm_up {
        tokio::time::sleep(time).await;
        server.readiness().set(true);
    }
    let books = move || format!("{} 0 0 0 -", till.paid.load(Ordering::SeqCst));
    tokio::spawn(async move {
        until_stdin_ends(books).await;
        std::process::exit(0);
    });
    server.drain_on(signals, Duration::from_secs(10)).await.map_err(|e| e.to_string())
}

#[derive(Default)]
pub(super) struct Books {
    ok: AtomicU64,
    not_executed: AtomicU64,
    maybe: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    answer: Option<Instant>,
    gap: Duration,
    error: String,
}

impl Books {
    pub(super) fn enter(&self, failed: Option<String>, certainty: Certainty) {
        let count = match (&failed, certainty) {
            (None, _) => &self.ok,
            (Some(_), Certainty::MaybeExecuted) => &self.maybe,
            (Some(_), _) => &self.not_executed,
        };
        count.fetch_add(1, Ordering::SeqCst);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match failed {
            None => {
                let before = last.answer.replace(Instant::now());
                last.gap = before.map_or(Duration::ZERO, |at| at.elapsed()).max(last.gap);
            }
            Some(error) => last.error = error,
        }
    }

    pub(super) fn show(&self) -> String {
        let n = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{} {} {} {} {}", n(&self.ok), n(&self.not_executed), n(&self.maybe), last.gap.as_millis(), last.error.replace('\n', " "))
    }
}

async fn consumer(args: &Args) -> Result<(), String> {
    let heartbeat = Duration::from_millis(number(args, "--heartbeat-ms", 1000));
    let discovering = PaymentClient::discover(text(args, "--registry", ""))
        .application("drill")
        .cache_in(PathBuf::from(text(args, "--cache", "")))
        .watch(Arc::new(ToStderr))
        .limits(Limits { heartbeat: Some(heartbeat), ..Limits::default() });
    let (client, directory) = discovering.with_directory().await.map_err(|e| e.to_string())?;
    if args.contains_key("--check") {
        tokio::spawn(check_new(directory.clone()));
    }
    tokio::spawn(say_list(directory));
    println!("ready -");
    let books = Arc::new(Books::default());
    let pause = Duration::from_millis(number(args, "--pause-ms", 2));
    for caller in 0..number(args, "--callers", 8) {
        tokio::spawn(call(client.clone(), Arc::clone(&books), caller << 32, pause));
    }
    until_stdin_ends(move || books.show()).await;
    Ok(())
}

/// Calls one after the other, for ever.
pub(super) async fn call(client: PaymentClient, books: Arc<Books>, first: u64, pause: Duration) {
    for n in first.. {
        let paid = client.pay(order(n, 1)).await;
        let (failed, certainty) = match &paid {
            Err(Error::Rpc(e)) => (Some(e.to_string()), e.certainty()),
            _ => (None, Certainty::MaybeExecuted),
        };
        books.enter(failed, certainty);
        tokio::time::sleep(pause).await;
    }
}

/// Says what the directory lists, whenever that changes.
async fn say_list(directory: Directory) {
    let mut seen = directory.watch();
    loop {
        seen.borrow_and_update();
        let instances = directory.instances();
        let words = instances.iter().map(|i| {
            let address = i.entry.addresses.first().map_or("?", |a| a.address.as_str());
            format!("{address}{}", if i.suspect { "*" } else { "" })
        });
        println!("list {}", words.collect::<Vec<_>>().join(" "));
        if seen.changed().await.is_err() {
            return;
        }
    }
}

/// Asks every instance that is new in the list, at once and directly, whether it is ready: nobody is to be listed who is not.
async fn check_new(directory: Directory) {
    let (mut seen, mut known) = (directory.watch(), BTreeSet::new());
    loop {
        seen.borrow_and_update();
        for instance in directory.instances().iter() {
            let address = instance.entry.addresses.first().map(|a| a.address.clone()).unwrap_or_default();
            if known.insert((instance.entry.instance, instance.entry.incarnation)) {
                tokio::spawn(async move {
                    let answer = async { HealthClient::connect(&address).await?.check(String::new()).await };
                    match answer.await {
                        Ok(Serving::Ready) => println!("checked {address}"),
                        other => println!("unready {address} {other:?}"),
                    }
                });
            }
        }
        if seen.changed().await.is_err() {
            return;
        }
    }
}

/// When connections came, as the node's doorkeeper, who lets everybody in.
#[derive(Default)]
struct Came(Mutex<Vec<Instant>>);

/// The time of which the busiest is told.
const WINDOW: Duration = Duration::from_millis(100);

impl Authenticator for Came {
    fn authenticate<'a>(&'a self, _: Shown<'a>) -> BoxFuture<'a, Result<Option<Identity>, RpcError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        Box::pin(std::future::ready(Ok(None)))
    }

    fn asks_for(&self) -> String {
        "nothing".into()
    }
}

impl Came {
    /// How many, and the most within any tenth of a second.
    fn show(&self) -> String {
        let came = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |(n, at): (usize, &Instant)| came[n..].partition_point(|later| later.duration_since(*at) < WINDOW);
        format!("{} {} 0 0 -", came.len(), came.iter().enumerate().map(within).max().unwrap_or_default())
    }
}

async fn registry(args: &Args) -> Result<(), String> {
    let mut signals = StopSignals::new().map_err(|e| e.to_string())?;
    let came = Arc::new(Came::default());
    let lease = Duration::from_millis(number(args, "--lease-ms", 15_000));
    let mut builder = Embedded::builder().limits(RegistryLimits { lease, ..RegistryLimits::default() });
    builder = builder.authenticate(Arc::clone(&came)).allow_anonymous();
    for peer in text(args, "--peers", "").split(',').filter(|peer| !peer.is_empty()) {
        builder = builder.peer(peer);
    }
    if let Some(folder) = args.get("--data") {
        builder = builder.folder(folder);
    }
    let node = builder.listen(text(args, "--listen", "tcp://127.0.0.1:0")).await.map_err(|e| e.to_string())?;
    println!("ready {}", node.address());
    tokio::spawn(async move {
        until_stdin_ends(move || came.show()).await;
        std::process::exit(0);
    });
    signals.next().await;
    node.stop(Duration::from_secs(5)).await.map_err(|e| e.to_string())
}
