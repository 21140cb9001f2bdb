//! `registry`: how many instances and subscribers a node of the embedded registry carries, and how soon consumers see a change.
//!
//! The node is a process of its own; providers and consumers are connections of this one, each with one session or subscription, over
//! loopback and on the same cores. A change is timed from the call that registers it to each consumer's decoding of it.
use crate::child::{Child, Process};
use crate::command::Command;
use crate::open_files;
use crate::options::{ATTACHED, Options, Parsed};
use crate::proc_stat::{Usage, rss_kib};
use anyhow::{Context, Result, bail, ensure};
use farcall::{Limits, RpcError, Streaming};
use farcall_registry::embedded::api::{Hello, Interest, Notice, Outcome, Push, RegistrarClient};
use farcall_registry::embedded::{Embedded, RegistryLimits};
use farcall_registry::{Advertised, Consumer, Entry, InstanceId, MethodPrints, ServiceKey};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "registry",
        usage: USAGE,
        prepare: |words| {
            let plan = Plan::parse(&words.options(OPTIONS)?)?;
            Ok(Box::new(move || plan.run()))
        },
    },
    Command {
        name: "registry-node",
        usage: "registry-node",
        prepare: |words| {
            let process = Process::parse(&words.options(&[ATTACHED])?)?;
            Ok(Box::new(move || {
                process.settle()?;
                serve()
            }))
        },
    },
];

const USAGE: &str = "\
registry [options]        a node of the embedded registry with many instances and subscribers
  --instances N      entries registered                            (20000)
  --services N       services they are of                          (500)
  --subscribers N    connections that subscribe                    (2000)
  --watching N       of them, those of the service that changes    (1000)
  --providers N      connections that register                     (100)
  --changes N        changes timed                                 (20)
  --most-ms MS       fail if p99 of a change is more               (no limit)
  --least N          fail if fewer are registered per second       (no limit)
  --most-mib MIB     fail if the node's memory is more             (no limit)";
const OPTIONS: &[&str] =
    &["--instances", "--services", "--subscribers", "--watching", "--providers", "--changes", "--most-ms", "--least", "--most-mib"];

/// Entries in one call, as the backend has them.
const BATCH: usize = 256;
/// For any one call.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two changes: each is seen at once, none is held back because of the one before.
const CALM: Duration = Duration::from_millis(1100);
/// Subscribers that connect at a time: a node lets only so many in that have not said who they are.
const CONNECTING: usize = 128;
/// Between two renewals of all sessions.
const RENEWING: Duration = Duration::from_secs(4);
/// Methods of each service.
const METHODS: u8 = 10;

struct Plan {
    instances: usize,
    services: usize,
    subscribers: usize,
    watching: usize,
    providers: usize,
    changes: usize,
    most_ms: Option<f64>,
    least: Option<f64>,
    most_mib: Option<f64>,
}

impl Plan {
    fn parse(options: &Options) -> Parsed<Plan> {
        let plan = Plan {
            instances: options.count("--instances", "20000", 1_000_000)?,
            services: options.count("--services", "500", 100_000)?,
            subscribers: options.count("--subscribers", "2000", 25_000)?,
            watching: options.count("--watching", "1000", 25_000)?,
            providers: options.count("--providers", "100", 10_000)?,
            changes: options.count("--changes", "20", 1000)?,
            most_ms: options.maybe("--most-ms")?,
            least: options.maybe("--least")?,
            most_mib: options.maybe("--most-mib")?,
        };
        match plan.watching > plan.subscribers {
            true => Err(format!("--watching {} are more than --subscribers {}", plan.watching, plan.subscribers)),
            false => Ok(plan),
        }
    }

    fn run(self) -> Result<()> {
        open_files::allow(self.subscribers + self.providers)?;
        let mut node = Child::bare("registry node", "registry-node")?;
        let address = node.line(Duration::from_secs(5)).context("no node")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (registered, seen) = runtime.block_on(self.measure(&address))?;
        let usage = Usage::of(node.pid())?;
        println!(
            "registry: {} instances of {} services, {} subscribers, {} of them watching one service",
            self.instances, self.services, self.subscribers, self.watching
        );
        println!("registered per second        {registered:.0}");
        println!("a change, at every watcher   p50 {:.1} ms, p99 {:.1} ms, last {:.1} ms", at(&seen, 50), at(&seen, 99), at(&seen, 100));
        let mib = rss_kib(node.pid())? as f64 / 1024.0;
        println!("the node                     {mib:.0} MiB resident, {:.1} s CPU", usage.cpu.as_secs_f64());
        self.judge(registered, &seen, mib)
    }

    fn judge(&self, registered: f64, seen: &[f64], mib: f64) -> Result<()> {
        if let Some(most) = self.most_mib.filter(|most| mib > *most) {
            bail!("{mib:.0} MiB are more than {most}");
        }
        if let Some(least) = self.least.filter(|least| registered < *least) {
            bail!("{registered:.0} registrations per second are fewer than {least}");
        }
        if let Some(most) = self.most_ms.filter(|most| at(seen, 99) > *most) {
            bail!("p99 of a change, {:.1} ms, is more than {most} ms", at(seen, 99));
        }
        Ok(())
    }

    /// Registrations per second, and how many milliseconds after a change each watcher saw it, in order.
    async fn measure(&self, address: &str) -> Result<(f64, Vec<f64>)> {
        let sessions = self.open(address).await?;
        let registered = self.register(&sessions).await?;
        // However long it takes until all subscribers are there.
        let renewing = tokio::spawn(renew(sessions.clone()));
        let (told, mut news) = mpsc::unbounded_channel();
        let (there, mut arrived) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(CONNECTING));
        let mut reading = Vec::new();
        for n in 0..self.subscribers {
            let place = Arc::clone(&places).acquire_owned().await?;
            let service = if n < self.watching { 0 } else { n % self.services };
            let told = (n < self.watching).then(|| told.clone());
            let (address, there) = (address.to_owned(), there.clone());
            reading.push(tokio::spawn(async move {
                if let Err(e) = watch(address, service, told, place, &there).await {
                    let _ = there.send(Err(e));
                }
            }));
        }
        drop((told, there));
        // The first push of each: all are there before the first change.
        for _ in 0..self.subscribers {
            tokio::time::timeout(PATIENCE, arrived.recv()).await?.context("a subscriber ended")??;
        }
        for _ in 0..self.watching {
            tokio::time::timeout(PATIENCE, news.recv()).await?.context("a subscriber ended")?;
        }
        let mut seen = Vec::new();
        for change in 0..self.changes {
            tokio::time::sleep(CALM).await;
            let begun = Instant::now();
            let mut entry = entry(0, 0);
            entry.weight = change as u32;
            sessions[0].register(vec![entry]).await?;
            for _ in 0..self.watching {
                let at = tokio::time::timeout(PATIENCE, news.recv()).await?.context("a subscriber ended")?;
                seen.push(at.saturating_duration_since(begun).as_secs_f64() * 1000.0);
            }
        }
        reading.iter().for_each(tokio::task::JoinHandle::abort);
        renewing.abort();
        seen.sort_by(f64::total_cmp);
        Ok((registered, seen))
    }

    async fn open(&self, address: &str) -> Result<Vec<Session>> {
        let mut sessions = Vec::new();
        for _ in 0..self.providers {
            sessions.push(Session::open(address).await?);
        }
        Ok(sessions)
    }

    /// All of them at the same time, each its share.
    async fn register(&self, sessions: &[Session]) -> Result<f64> {
        let begun = Instant::now();
        let mut running = Vec::new();
        for (p, session) in sessions.iter().enumerate() {
            let session = session.clone();
            let own: Vec<usize> = (p..self.instances).step_by(self.providers).collect();
            let services = self.services;
            running.push(tokio::spawn(async move {
                for batch in own.chunks(BATCH) {
                    session.register(batch.iter().map(|n| entry(*n, n % services)).collect()).await?;
                }
                Ok::<(), anyhow::Error>(())
            }));
        }
        for one in running {
            one.await??;
        }
        Ok(self.instances as f64 / begun.elapsed().as_secs_f64())
    }
}

/// Keeps them, as providers do.
async fn renew(sessions: Vec<Session>) -> Result<()> {
    loop {
        for session in &sessions {
            session.client.renew(session.id).deadline(PATIENCE).await?;
        }
        tokio::time::sleep(RENEWING).await;
    }
}

/// The value below which so many percent are, of values in order.
fn at(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

fn client(address: &str) -> Result<RegistrarClient, RpcError> {
    let limits = Limits { spin: Duration::ZERO, ..Limits::default() };
    RegistrarClient::connect(address).limits(limits).lazy()
}

/// A provider's session.
#[derive(Clone)]
struct Session {
    client: RegistrarClient,
    id: u64,
    /// Held open.
    _notices: Arc<tokio::sync::Mutex<Streaming<Notice>>>,
}

impl Session {
    async fn open(address: &str) -> Result<Session> {
        let client = client(address)?;
        let who = Consumer { application: "bench".into(), host: String::new() };
        let mut notices = client.open(Hello { namespace: String::new(), who, own: Vec::new() }).deadline(PATIENCE).await?;
        match notices.next().await {
            Some(Ok(Notice::Opened(opened))) => Ok(Session { client, id: opened.session, _notices: Arc::new(notices.into()) }),
            other => bail!("a session begins with {other:?}"),
        }
    }

    async fn register(&self, entries: Vec<Entry>) -> Result<()> {
        let outcomes = self.client.register(self.id, entries).deadline(PATIENCE).await?;
        ensure!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "refused: {outcomes:?}");
        Ok(())
    }
}

fn service(n: usize) -> ServiceKey {
    ServiceKey { name: format!("org.example.bench.Service{n}"), group: String::new(), version: "1.0".into() }
}

/// As large as entries are: an address, labels, ten methods.
fn entry(n: usize, of: usize) -> Entry {
    let print = |m: u8| MethodPrints { name: format!("method{m}"), args: [m; 16], result: [m + 1; 16], error: [m + 2; 16], bits: 0 };
    let mut instance = [0; 16];
    instance[..8].copy_from_slice(&(n as u64).to_le_bytes());
    Entry {
        service: service(of),
        instance: InstanceId(instance),
        incarnation: 1,
        application: "bench".into(),
        addresses: vec![Advertised {
            protocol: "farcall".into(),
            address: format!("tcp://10.{}.{}.{}:9000", n >> 16, n >> 8 & 255, n & 255),
        }],
        labels: BTreeMap::from([("zone".into(), "b".into()), ("tag".into(), "blue".into())]),
        weight: 100,
        enabled: true,
        host: None,
        methods: (0..METHODS).map(print).collect(),
        params: BTreeMap::new(),
    }
}

/// A subscriber: says that it is there, and leaves its place to the next; if it watches, it says when it saw what.
async fn watch(
    address: String,
    of: usize,
    told: Option<mpsc::UnboundedSender<Instant>>,
    place: OwnedSemaphorePermit,
    there: &mpsc::UnboundedSender<Result<()>>,
) -> Result<()> {
    let mut place = Some(place);
    let client = client(&address)?;
    let interest = Interest { namespace: String::new(), service: service(of), known: None };
    let who = Consumer { application: "bench".into(), host: String::new() };
    let mut pushes = client.subscribe(interest, Some(who)).deadline(PATIENCE).await?;
    while let Some(push) = pushes.next().await {
        let push: Push = farcall::compact::decode(&push?)?;
        if place.take().is_some() {
            let _ = there.send(Ok(()));
        }
        // That the node has warmed up is no change of the service.
        if let Some(told) = told.as_ref().filter(|_| push.whole || !push.put.is_empty()) {
            let _ = told.send(Instant::now());
        }
    }
    Ok(())
}

/// The node's process, until it is killed.
fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // It may open as many files as the process that started it has seen to; all who come are of one host.
        let limits = RegistryLimits {
            session_services: 100_000,
            session_entries: 1_000_000,
            connections_per_host: 100_000,
            caller_services: 1_000_000,
            caller_entries: 1_000_000,
            ..RegistryLimits::default()
        };
        let node = Embedded::builder().limits(limits).listen("tcp://127.0.0.1:0").await?;
        println!("{}", node.address());
        std::future::pending::<()>().await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((at(&values, 50), at(&values, 99), at(&values, 100), at(&[], 50)), (50.0, 99.0, 100.0, 0.0));
    }
}
