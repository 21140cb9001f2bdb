//! Helpers of the end-to-end tests.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use farcall::{Channel, Io, Limits, Server};
use farcall_tests::{PaymentClient, PaymentServer, Till};
use tokio::io::{AsyncWriteExt, DuplexStream};

use crate::bad_peer::opening;

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on a runtime of its own, and no longer than [`PATIENCE`].
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    run_on(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(), test)
}

/// Runs a test on this runtime, and no longer than [`PATIENCE`].
pub(crate) fn run_on<T>(runtime: tokio::runtime::Runtime, test: impl Future<Output = T>) -> T {
    let result = runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await });
    runtime.shutdown_background();
    result.expect("the test took too long")
}

/// Waits until `done` says so.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A till served on `address`, and a client of it.
pub(crate) async fn serve(address: &str) -> (Arc<Till>, Server, PaymentClient) {
    let till = Arc::new(Till::default());
    let server = Server::builder().serve(PaymentServer::shared(till.clone())).listen(address).await.unwrap();
    let client = PaymentClient::connect(server.address()).await.unwrap();
    (till, server, client)
}

/// A client whose peer said hello and then neither reads nor writes; and that peer's end of the link.
pub(crate) async fn deaf() -> (PaymentClient, DuplexStream) {
    let (ours, mut theirs) = tokio::io::duplex(1000);
    theirs.write_all(&opening()).await.unwrap();
    let channel = Channel::over(Io::boxed(ours), Limits::default()).await.unwrap();
    (PaymentClient::from(channel), theirs)
}

/// A provider in a process of its own. Killed when dropped.
pub(crate) struct Provider {
    child: Child,
    pub(crate) address: String,
}

impl Provider {
    pub(crate) fn start(address: &str) -> Provider {
        Provider::start_with(address, &[])
    }

    /// With further arguments.
    pub(crate) fn start_with(address: &str, args: &[&str]) -> Provider {
        Provider::spawn(Command::new(env!("CARGO_BIN_EXE_provider")).arg(address).args(args))
    }

    /// By a command that prints its address.
    pub(crate) fn spawn(command: &mut Command) -> Provider {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the provider's binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the provider did not come up");
        Provider { child, address: line.trim().to_owned() }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// `kill -TERM` or another.
    pub(crate) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// What it ends with, once it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for sockets, removed when dropped.
pub(crate) struct TempDir(pub(crate) std::path::PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("farcall-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    /// The user that it belongs to, which is this process's.
    pub(crate) fn owner(&self) -> u32 {
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&self.0).unwrap())
    }

    pub(crate) fn socket(&self) -> String {
        format!("unix:{}", self.0.join("s").display())
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
