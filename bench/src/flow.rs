//! One stream over one connection: the loops that move its items, and the counter and the clock beside them.
use crate::config::{ClientConfig, ServerConfig};
use crate::load::{Spent, Window, runtime};
use crate::peers::{Items, StreamPeer, Streams};
use crate::proc_stat::Usage;
use crate::scenario::soak::Growth;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

const GIB: f64 = (1u64 << 30) as f64;

/// Which way the items go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Direction {
    /// The server sends.
    Down,
    /// The client sends.
    Up,
}

impl Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Down => "down",
            Direction::Up => "up",
        })
    }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Direction, String> {
        match text {
            "down" => Ok(Direction::Down),
            "up" => Ok(Direction::Up),
            _ => Err("neither down (the server sends) nor up (the client sends)".into()),
        }
    }
}

/// One cell of one round, as the client process prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) items_per_s: f64,
    pub(crate) gib_per_s: f64,
    /// Client and server.
    pub(crate) cpu_us_per_item: f64,
    pub(crate) client_cpu_us_per_item: f64,
    pub(crate) server_cpu_us_per_item: f64,
    /// Peaks of client and server, added.
    pub(crate) rss_kib: u64,
}

/// Counts at the client's end what was taken from the stream or given to it: what is on the way at both ends of the window is
/// about the same.
#[derive(Default)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    over: AtomicBool,
}

impl Meter {
    /// Counts these bytes; false, and counts nothing, once the run is over.
    #[inline]
    pub(crate) fn more(&self, bytes: usize) -> bool {
        if self.over.load(Relaxed) {
            return false;
        }
        self.bytes.fetch_add(bytes as u64, Relaxed);
        true
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// A thread of its own, since a timer on the worker would wait behind the load.
    fn start(self: Arc<Self>, window: Window) -> Result<JoinHandle<Result<(u64, Spent)>>> {
        let clock = std::thread::Builder::new().name("clock".into());
        Ok(clock.spawn(move || {
            std::thread::sleep(window.warmup);
            let (mut first, mut last) = (0, 0);
            let spent = window.spend(|| first = self.bytes(), || last = self.bytes());
            self.over.store(true, Relaxed); // also after an error, or the stream never ends
            Ok((last - first, spent?))
        })?)
    }
}

impl Flow {
    fn new(bytes: u64, item: usize, spent: &Spent) -> Result<Flow> {
        ensure!(bytes > 0, "no item moved within {:?}", spent.wall);
        let items = bytes as f64 / item as f64;
        let per_item = |cpu: Duration| cpu.as_secs_f64() * 1e6 / items;
        Ok(Flow {
            items_per_s: items / spent.wall.as_secs_f64(),
            gib_per_s: bytes as f64 / GIB / spent.wall.as_secs_f64(),
            cpu_us_per_item: per_item(spent.client_cpu + spent.server_cpu),
            client_cpu_us_per_item: per_item(spent.client_cpu),
            server_cpu_us_per_item: per_item(spent.server_cpu),
            rss_kib: spent.rss_kib,
        })
    }
}

/// Serves clients that open streams until the process is killed.
pub(crate) fn serve<P: StreamPeer>(config: ServerConfig) -> Result<()> {
    runtime()?.block_on(async { tokio::spawn(P::serve_streams(config)).await? })
}

/// Connects, lets items of `item` bytes flow through the window and returns what was measured.
pub(crate) fn drive<P: StreamPeer>(config: ClientConfig, direction: Direction, item: usize, window: Window) -> Result<Flow> {
    let runtime = runtime()?;
    let flow = runtime.block_on(async { tokio::spawn(flowing::<P>(config, direction, item, window)).await? });
    runtime.shutdown_background(); // peers leave tasks behind
    flow
}

async fn flowing<P: StreamPeer>(config: ClientConfig, direction: Direction, item: usize, window: Window) -> Result<Flow> {
    let connection = P::open(config).await?;
    let meter = Arc::new(Meter::default());
    let clock = meter.clone().start(window)?;
    match direction {
        Direction::Down => {
            let mut items = connection.download(item).await?;
            while meter.more(items.next().await?) {}
        }
        Direction::Up => {
            let (read, sent) = (connection.upload(item, meter.clone()).await?, meter.bytes());
            ensure!(read == sent, "the server has read {read} bytes of the {sent} that were sent");
        }
    }
    let (bytes, spent) = clock.join().expect("the clock does not panic")?;
    Flow::new(bytes, item, &spent)
}

/// How a slow reader reads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pauses {
    /// In all.
    pub(crate) bytes: u64,
    pub(crate) item: usize,
    /// Between two pauses.
    pub(crate) every: u64,
    pub(crate) pause: Duration,
}

/// Reads one stream with pauses, and tells how far the peaks of this process and the server's have risen.
pub(crate) fn read_slowly<P: StreamPeer>(config: ClientConfig, pauses: Pauses, server_pid: u32) -> Result<Growth> {
    let runtime = runtime()?;
    let grown = runtime.block_on(async { tokio::spawn(reading_slowly::<P>(config, pauses, server_pid)).await? });
    runtime.shutdown_background();
    grown
}

async fn reading_slowly<P: StreamPeer>(config: ClientConfig, pauses: Pauses, server_pid: u32) -> Result<Growth> {
    let peaks = || -> Result<[u64; 2]> { Ok([Usage::of(std::process::id())?.peak_rss_kib, Usage::of(server_pid)?.peak_rss_kib]) };
    let connection = P::open(config).await?;
    let before = peaks()?;
    let mut items = connection.download(pauses.item).await?;
    let (mut read, mut next_pause) = (0, pauses.every);
    while read < pauses.bytes {
        read += items.next().await? as u64;
        if read >= next_pause {
            tokio::time::sleep(pauses.pause).await;
            next_pause += pauses.every;
        }
    }
    let after = peaks()?;
    let [client_kib, server_kib] = [0, 1].map(|side: usize| [before[side], after[side]]);
    Ok(Growth { client_kib, server_kib })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_print_as_they_are_written() {
        for direction in [Direction::Down, Direction::Up] {
            assert_eq!(direction.to_string().parse(), Ok(direction));
        }
        "sideways".parse::<Direction>().unwrap_err();
    }

    #[test]
    fn cpu_and_bytes_are_divided_by_the_items_of_the_window() {
        let [ms100, ms300, wall] = [100, 300, 2_000].map(Duration::from_millis);
        let spent = Spent { wall, client_cpu: ms100, server_cpu: ms300, rss_kib: 5 };
        let flow = Flow::new(2 << 30, 1 << 20, &spent).unwrap();
        assert_eq!((flow.items_per_s, flow.gib_per_s), (1024.0, 1.0));
        assert!((flow.cpu_us_per_item - 400_000.0 / 2048.0).abs() < 1e-9);
        assert!((flow.client_cpu_us_per_item * 3.0 - flow.server_cpu_us_per_item).abs() < 1e-9);
        Flow::new(0, 64, &spent).unwrap_err();
    }

    #[test]
    fn nothing_counts_once_the_run_is_over() {
        let meter = Meter::default();
        assert!(meter.more(3) && meter.more(4));
        meter.over.store(true, Relaxed);
        assert!(!meter.more(5));
        assert_eq!(meter.bytes(), 7);
    }
}
