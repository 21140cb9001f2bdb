//! Small calls with company: what else goes over their connection while they are timed.
use crate::config::ClientConfig;
use crate::load::{Measurement, Window, runtime, timed};
use crate::peers::{Items, Mixed, StreamPeer};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The large reply: 100 MB.
pub(crate) const LARGE: usize = 100_000_000;
/// Of the stream with the slow reader.
const ITEM: usize = 64 << 10;
/// Between two items of it. tokio's timers tick in milliseconds, so that this becomes one to two.
const WAIT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Beside {
    Nothing,
    /// One large reply after the other.
    Large,
    /// A stream of large items that the client takes slowly: always as much is on its way as the peer lets be.
    SlowReader,
}

impl Beside {
    pub(crate) const ALL: [Beside; 3] = [Beside::Nothing, Beside::Large, Beside::SlowReader];
}

impl Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Beside::Nothing => "nothing",
            Beside::Large => "large",
            Beside::SlowReader => "slow-reader",
        })
    }
}

impl FromStr for Beside {
    type Err = String;

    fn from_str(text: &str) -> Result<Beside, String> {
        let found = Beside::ALL.into_iter().find(|beside| beside.to_string() == text);
        found.ok_or_else(|| "none of nothing, large, slow-reader".into())
    }
}

/// One cell of one round, as the client process prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Company {
    #[serde(flatten)]
    pub(crate) calls: Measurement,
    /// Of what went beside the calls.
    pub(crate) beside_bytes_per_s: f64,
}

/// Connects, keeps the connection busy with `beside`, and times small calls through the window.
pub(crate) fn drive<P: StreamPeer<Streams: Mixed>>(config: ClientConfig, window: Window, beside: Beside) -> Result<Company> {
    let runtime = runtime()?;
    let company = runtime.block_on(async { tokio::spawn(in_company::<P>(config, window, beside)).await? });
    runtime.shutdown_background(); // peers leave tasks behind
    company
}

async fn in_company<P: StreamPeer<Streams: Mixed>>(config: ClientConfig, window: Window, beside: Beside) -> Result<Company> {
    let connection = Arc::new(P::open(config.clone()).await?);
    let moved = Arc::new(Mutex::new(Moved::default()));
    let busy = tokio::spawn(keep_busy(connection.clone(), beside, moved.clone()));
    let calls = timed(&[connection], &config, window).await?;
    // It ends by itself only with an error.
    if beside != Beside::Nothing && busy.is_finished() {
        busy.await?.context("beside the calls")?;
        bail!("what goes beside the calls has ended");
    }
    busy.abort();
    let moved = *moved.lock().expect("nothing panics under this lock");
    ensure!(beside == Beside::Nothing || moved.bytes > 0, "nothing large went beside the calls: give more --secs");
    Ok(Company { calls, beside_bytes_per_s: moved.per_s() })
}

/// Bytes, and the time they took.
#[derive(Clone, Copy, Default)]
struct Moved {
    bytes: u64,
    time: Duration,
}

impl Moved {
    fn per_s(self) -> f64 {
        match self.bytes {
            0 => 0.0,
            bytes => bytes as f64 / self.time.as_secs_f64(),
        }
    }
}

async fn keep_busy<C: Mixed>(connection: Arc<C>, beside: Beside, moved: Arc<Mutex<Moved>>) -> Result<()> {
    let mut began = Instant::now();
    let mut count = |bytes: usize| {
        let mut moved = moved.lock().expect("nothing panics under this lock");
        moved.bytes += bytes as u64;
        moved.time += began.elapsed();
        began = Instant::now();
    };
    match beside {
        Beside::Nothing => Ok(()),
        Beside::Large => loop {
            connection.large(LARGE).await?;
            count(LARGE);
        },
        Beside::SlowReader => {
            let mut items = connection.download(ITEM).await?;
            loop {
                count(items.next().await?);
                tokio::time::sleep(WAIT).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn company_prints_as_it_is_written() {
        for beside in Beside::ALL {
            assert_eq!(beside.to_string().parse(), Ok(beside));
        }
        "nobody".parse::<Beside>().unwrap_err();
    }

    #[test]
    fn nothing_moves_at_no_speed() {
        assert_eq!(Moved::default().per_s(), 0.0);
        assert_eq!(Moved { bytes: 100, time: Duration::from_secs(2) }.per_s(), 50.0);
    }
}
