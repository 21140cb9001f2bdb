//! System calls per call of a provider process, counted by `strace`: waiting, reading and writing, once per batch.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use farcall_tests::{PaymentClient, Status};
use tokio::task::JoinSet;

/// On a busy machine a process is now and then woken for nothing: 3.000 to 3.003 was seen at one call in flight.
const SLACK: f64 = 1.02;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn calls_in_flight_share_system_calls() {
    if !strace_works() {
        eprintln!("skipped: `strace` counts the system calls, and it is not here or may not trace");
        return;
    }
    let at_start_and_end = system_calls(1, 0);
    for (inflight, calls, most) in [(1, 5_000, 3.0), (16, 20_000, 0.3), (256, 50_000, 0.03)] {
        let per_call = (system_calls(inflight, calls) - at_start_and_end) as f64 / calls as f64;
        assert!(per_call <= most * SLACK, "{per_call} system calls per call, {inflight} in flight, not {most}");
    }
}

fn strace_works() -> bool {
    let traced = Command::new("strace").args(["-f", "-c", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    traced.is_ok_and(|status| status.success())
}

/// All system calls of a provider that answers so many calls.
fn system_calls(inflight: u64, calls: u64) -> i64 {
    let provider = TracedProvider::start(inflight);
    make_calls(&provider.address, inflight, calls);
    provider.system_calls()
}

fn make_calls(address: &str, inflight: u64, calls: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = PaymentClient::connect(address).await.unwrap();
        let begun = Arc::new(AtomicU64::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..inflight {
            let (client, begun) = (client.clone(), begun.clone());
            callers.spawn(async move {
                while begun.fetch_add(1, Relaxed) < calls {
                    assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
                }
            });
        }
        tokio::time::timeout(PATIENCE, callers.join_all()).await.expect("the calls took too long");
    });
}

/// A provider that `strace` watches. It ends when its standard input closes, so also when a test fails.
struct TracedProvider {
    strace: Child,
    address: String,
    summary: PathBuf,
}

impl TracedProvider {
    fn start(inflight: u64) -> TracedProvider {
        let summary = std::env::temp_dir().join(format!("farcall-strace-{}-{inflight}", std::process::id()));
        let mut strace = Command::new("strace")
            .args(["-f", "-c", "-o"])
            .arg(&summary)
            .args([env!("CARGO_BIN_EXE_provider"), "tcp://127.0.0.1:0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(strace.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the provider did not come up");
        TracedProvider { strace, address: line.trim().to_owned(), summary }
    }

    /// Ends the provider and reads what `strace` has counted.
    fn system_calls(mut self) -> i64 {
        drop(self.strace.stdin.take());
        assert!(self.strace.wait().unwrap().success());
        let summary = std::fs::read_to_string(&self.summary).unwrap();
        // "100.00    0.012345    3    4711    12 total"; the errors may be missing.
        let total = summary.lines().find(|line| line.ends_with(" total")).and_then(|line| line.split_whitespace().nth(3));
        total.and_then(|calls| calls.parse().ok()).unwrap_or_else(|| panic!("no total in {summary}"))
    }
}

impl Drop for TracedProvider {
    fn drop(&mut self) {
        drop(self.strace.stdin.take());
        let _ = self.strace.wait();
        let _ = std::fs::remove_file(&self.summary);
    }
}
