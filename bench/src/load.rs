//! The closed loop: `inflight` tasks for each connection, each sending its next call when the last is answered, and the clock and
//! counters around it. Also loops that end after a number of calls, and connections that are held without any.
use crate::config::{ClientConfig, ServerConfig};
use crate::delay::Delay;
use crate::histogram::Histogram;
use crate::peers::{Caller, Peer};
use crate::proc_stat::{Usage, rss_kib};
use crate::scenario::soak::Growth;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// When to measure, and whom besides this process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) warmup: Duration,
    pub(crate) length: Duration,
    /// Without it the server's CPU and memory are left out of the sums.
    pub(crate) server_pid: Option<u32>,
}

/// One cell of one round, as the client process prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) calls_per_s: f64,
    /// Quantiles are of the calls whose handler had no delay.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Client and server.
    pub(crate) cpu_us_per_call: f64,
    pub(crate) client_cpu_us_per_call: f64,
    pub(crate) server_cpu_us_per_call: f64,
    /// Peaks of client and server, added.
    pub(crate) rss_kib: u64,
}

/// Serves until the process is killed.
pub(crate) fn serve<P: Peer>(config: ServerConfig) -> Result<()> {
    runtime()?.block_on(async { tokio::spawn(P::serve(config)).await? })
}

/// Connects, runs the loop through the window and returns what was measured.
pub(crate) fn drive<P: Peer>(config: ClientConfig, window: Window) -> Result<Measurement> {
    let runtime = runtime()?;
    let measured = runtime.block_on(async { tokio::spawn(closed_loop::<P>(config, window)).await? });
    runtime.shutdown_background(); // peers leave tasks behind
    measured
}

/// Connects, makes so many calls over each connection, says so and keeps them open until the process is killed.
pub(crate) fn hold<P: Peer>(config: ClientConfig, calls: usize) -> Result<()> {
    runtime()?.block_on(async { tokio::spawn(held::<P>(config, calls)).await? })
}

async fn held<P: Peer>(config: ClientConfig, calls: usize) -> Result<()> {
    let callers = connect::<P>(&config).await?;
    for caller in &callers {
        for _ in 0..calls {
            caller.call(None).await?;
        }
    }
    println!("{} connections", callers.len());
    std::future::pending().await
}

/// Makes so many calls and tells how this process and the server's have grown since a tenth of them.
pub(crate) fn repeat<P: Peer>(config: ClientConfig, calls: usize, server_pid: u32) -> Result<Growth> {
    let runtime = runtime()?;
    let grown = runtime.block_on(async { tokio::spawn(repeated::<P>(config, calls, server_pid)).await? });
    runtime.shutdown_background();
    grown
}

async fn repeated<P: Peer>(config: ClientConfig, calls: usize, server_pid: u32) -> Result<Growth> {
    let caller = Arc::new(P::connect(config.clone()).await?);
    let memory = || -> Result<[u64; 2]> { Ok([rss_kib(std::process::id())?, rss_kib(server_pid)?]) };
    let warm_up = calls / 10;
    make_calls(&caller, &config, warm_up).await?;
    let before = memory()?;
    make_calls(&caller, &config, calls - warm_up).await?;
    let after = memory()?;
    let [client_kib, server_kib] = [0, 1].map(|side: usize| [before[side], after[side]]);
    Ok(Growth { client_kib, server_kib })
}

/// So many calls, `config.inflight` at a time.
async fn make_calls<C: Caller>(caller: &Arc<C>, config: &ClientConfig, calls: usize) -> Result<()> {
    let begun = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..config.inflight {
        let (caller, begun, payload) = (caller.clone(), begun.clone(), config.payload);
        tasks.spawn(async move {
            loop {
                let nth = begun.fetch_add(1, Relaxed);
                if nth >= calls {
                    return anyhow::Ok(());
                }
                caller.call(payload.delay_of_call(nth)).await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended?.context("a call failed")?;
    }
    Ok(())
}

/// All connections of a client.
async fn connect<P: Peer>(config: &ClientConfig) -> Result<Vec<P::Caller>> {
    let mut callers = Vec::new();
    for nth in 1..=config.connections {
        callers.push(P::connect(config.clone()).await.with_context(|| format!("connection {nth} of {}", config.connections))?);
    }
    Ok(callers)
}

/// One worker, and the loop spawned onto it: the thread inside `block_on` only waits.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

async fn closed_loop<P: Peer>(config: ClientConfig, window: Window) -> Result<Measurement> {
    let callers: Vec<_> = connect::<P>(&config).await?.into_iter().map(Arc::new).collect();
    timed(&callers, &config, window).await
}

/// Runs the loop over these connections through the window.
pub(crate) async fn timed<C: Caller>(callers: &[Arc<C>], config: &ClientConfig, window: Window) -> Result<Measurement> {
    let stopwatch = Arc::new(Stopwatch::new());
    let clock = stopwatch.clone().start(window)?;
    let each_so_often = callers.iter().flat_map(|caller| std::iter::repeat_n(caller, config.inflight));
    let mut tasks: JoinSet<Result<()>> = each_so_often
        .enumerate()
        .map(|(first, caller)| {
            let (caller, stopwatch, payload) = (caller.clone(), stopwatch.clone(), config.payload);
            async move {
                let mut began = Instant::now();
                // Each task begins elsewhere, or all would be slow at once.
                for nth in first.. {
                    let delay = payload.delay_of_call(nth);
                    caller.call(delay).await?;
                    if !stopwatch.lap(&mut began, delay) {
                        break;
                    }
                }
                Ok(())
            }
        })
        .collect();
    while let Some(ended) = tasks.join_next().await {
        ended?.context("a call failed")?;
    }
    clock.join().expect("the clock does not panic")?.measurement(&stopwatch)
}

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

/// Shared by the calling tasks and the clock thread.
struct Stopwatch {
    phase: AtomicU8,
    latencies: Histogram,
    /// Calls whose handler had a delay: their latency is known beforehand, so only their number counts.
    slow: AtomicU64,
}

impl Stopwatch {
    fn new() -> Stopwatch {
        Stopwatch { phase: AtomicU8::new(WARM_UP), latencies: Histogram::new(), slow: AtomicU64::new(0) }
    }

    /// Takes the time of the call that began at `*began` and begins the next; false when the run is over. One clock
    /// read per call: the end of a call is the beginning of the next.
    #[inline]
    fn lap(&self, began: &mut Instant, delay: Option<Delay>) -> bool {
        let now = Instant::now();
        let phase = self.phase.load(Relaxed);
        match (phase, delay) {
            (MEASURE, None) => self.latencies.record((now - *began).as_nanos() as u64),
            (MEASURE, Some(_)) => drop(self.slow.fetch_add(1, Relaxed)),
            _ => {}
        }
        *began = now;
        phase != STOP
    }

    /// A thread of its own, since a timer on the worker would wait behind the load.
    fn start(self: Arc<Self>, window: Window) -> Result<JoinHandle<Result<Spent>>> {
        let clock = std::thread::Builder::new().name("clock".into());
        Ok(clock.spawn(move || {
            std::thread::sleep(window.warmup);
            let spent = window.spend(|| self.phase.store(MEASURE, Relaxed), || self.phase.store(STOP, Relaxed));
            self.phase.store(STOP, Relaxed); // also after an error, or the callers never end
            spent
        })?)
    }
}

impl Window {
    /// Sleeps through it, `begin` and `end` at its ends; what that cost.
    pub(crate) fn spend(&self, begin: impl FnOnce(), end: impl FnOnce()) -> Result<Spent> {
        let usages = || -> Result<[Usage; 2]> {
            let server = self.server_pid.map_or(Ok(Usage::default()), Usage::of)?;
            Ok([Usage::of(std::process::id())?, server])
        };
        let before = usages()?;
        let began = Instant::now();
        begin();
        std::thread::sleep(self.length);
        end();
        let wall = began.elapsed();
        let after = usages()?;
        let cpu = |i: usize| after[i].cpu.saturating_sub(before[i].cpu);
        Ok(Spent { wall, client_cpu: cpu(0), server_cpu: cpu(1), rss_kib: after.iter().map(|u| u.peak_rss_kib).sum() })
    }
}

/// What the measured window cost.
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    pub(crate) client_cpu: Duration,
    pub(crate) server_cpu: Duration,
    pub(crate) rss_kib: u64,
}

impl Spent {
    fn measurement(&self, Stopwatch { latencies, slow, .. }: &Stopwatch) -> Result<Measurement> {
        let calls = latencies.len() + slow.load(Relaxed);
        ensure!(calls > 0, "no call ended within {:?}", self.wall);
        let per_call = |cpu: Duration| cpu.as_secs_f64() * 1e6 / calls as f64;
        let quantile_us = |q| latencies.quantile(q) as f64 / 1e3;
        Ok(Measurement {
            calls_per_s: calls as f64 / self.wall.as_secs_f64(),
            p50_us: quantile_us(0.5),
            p99_us: quantile_us(0.99),
            p999_us: quantile_us(0.999),
            cpu_us_per_call: per_call(self.client_cpu + self.server_cpu),
            client_cpu_us_per_call: per_call(self.client_cpu),
            server_cpu_us_per_call: per_call(self.server_cpu),
            rss_kib: self.rss_kib,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_divided_by_the_calls_of_the_window() {
        let stopwatch = Stopwatch::new();
        (0..990).for_each(|_| stopwatch.latencies.record(10_000));
        stopwatch.slow.store(10, Relaxed);
        let [ms100, ms200, wall] = [100, 200, 2_000].map(Duration::from_millis);
        let spent = Spent { wall, client_cpu: ms100, server_cpu: ms200, rss_kib: 5 };
        let got = spent.measurement(&stopwatch).unwrap();
        assert_eq!((got.calls_per_s, got.client_cpu_us_per_call, got.server_cpu_us_per_call), (500.0, 100.0, 200.0));
        assert!((got.cpu_us_per_call - 300.0).abs() < 1e-9 && (got.p50_us - 10.0).abs() < 0.1);
    }

    #[test]
    fn a_window_without_calls_is_an_error() {
        let spent = Spent { wall: Duration::from_secs(1), client_cpu: Duration::ZERO, server_cpu: Duration::ZERO, rss_kib: 0 };
        spent.measurement(&Stopwatch::new()).unwrap_err();
    }

    #[test]
    fn calls_outside_the_window_do_not_count() {
        let stopwatch = Stopwatch::new();
        let mut began = Instant::now();
        for (phase, goes_on) in [(WARM_UP, true), (MEASURE, true), (STOP, false)] {
            stopwatch.phase.store(phase, Relaxed);
            assert_eq!(stopwatch.lap(&mut began, None), goes_on);
            assert_eq!(stopwatch.lap(&mut began, Some(Delay::Wait)), goes_on);
        }
        assert_eq!((stopwatch.latencies.len(), stopwatch.slow.load(Relaxed)), (1, 1));
    }
}
