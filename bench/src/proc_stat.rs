//! CPU time and peak memory of a process, from `/proc`.
use anyhow::{Context, Result};
use std::fs;
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
        Ok(Usage { cpu, peak_rss_kib: peak_rss_kib(&status).context("no VmHWM")? })
    }
}

/// `schedstat`: nanoseconds on a CPU, nanoseconds waiting for one, time slices.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn peak_rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lines() {
        assert_eq!(on_cpu("1500 20 3\n"), Some(Duration::from_nanos(1500)));
        assert_eq!(peak_rss_kib("VmPeak:\t 9 kB\nVmHWM:\t    7128 kB\n"), Some(7128));
        assert_eq!((on_cpu("\n"), peak_rss_kib("VmPeak:\t 9 kB\n")), (None, None));
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.peak_rss_kib > 0);
    }
}
