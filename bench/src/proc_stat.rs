//! CPU time and memory of a process, from `/proc`.
use anyhow::{Context, Result, bail};
use std::fs;
use std::thread;
use std::time::Duration;

/// What a process has used so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Of all live threads. `schedstat` counts nanoseconds where `stat` counts ticks of 10 ms.
    pub(crate) cpu: Duration,
    /// The largest resident set so far.
    pub(crate) peak_rss_kib: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Usage> {
        Usage::read(pid).with_context(|| format!("cannot read the usage of process {pid}"))
    }

    fn read(pid: u32) -> Result<Usage> {
        let mut cpu = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between the listing and the read.
            let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            cpu += on_cpu(&line).context("unexpected schedstat")?;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Usage { cpu, peak_rss_kib: kib(&status, "VmHWM:").context("no VmHWM")? })
    }
}

/// `schedstat`: nanoseconds on a CPU, nanoseconds waiting for one, time slices.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// The value of a line "NAME   123 kB".
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The resident set of a process now; exact, where `statm` may lag behind by some pages per thread.
pub(crate) fn rss_kib(pid: u32) -> Result<u64> {
    let read = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let rollup = read.with_context(|| format!("cannot read the memory of process {pid}"))?;
    kib(&rollup, "Rss:").context("no Rss")
}

/// The same, once the process has ended what it was about: when it has not changed for a while.
pub(crate) fn settled_rss_kib(pid: u32) -> Result<u64> {
    let mut before = rss_kib(pid)?;
    for _ in 0..SETTLING_TRIES {
        thread::sleep(SETTLING);
        let now = rss_kib(pid)?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    bail!("the memory of process {pid} did not settle within {:?}", SETTLING * SETTLING_TRIES)
}

const SETTLING: Duration = Duration::from_millis(200);
const SETTLING_TRIES: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lines() {
        assert_eq!(on_cpu("1500 20 3\n"), Some(Duration::from_nanos(1500)));
        assert_eq!(kib("VmPeak:\t 9 kB\nVmHWM:\t    7128 kB\n", "VmHWM:"), Some(7128));
        assert_eq!((on_cpu("\n"), kib("VmPeak:\t 9 kB\n", "VmHWM:")), (None, None));
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.peak_rss_kib > 0);
        // Written to, so that it is there.
        let block = std::hint::black_box(vec![1u8; 8 << 20]);
        assert!(rss_kib(std::process::id()).unwrap() >= block.len() as u64 >> 10);
    }
}
