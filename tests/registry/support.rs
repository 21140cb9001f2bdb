//! What these tests share.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farcall::registry::{Backends, Discovering, GuardSettings, ServiceKey};
use farcall::{Discover, Register, Registration, Server, ServerBuilder};
use farcall_tests::{PaymentClient, PaymentServer, Till};

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on a runtime of its own, and no longer than [`PATIENCE`].
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
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

/// Times that suit tests: nothing waits for the defaults' seconds.
pub(crate) fn quick() -> GuardSettings {
    GuardSettings {
        pull: Duration::from_millis(200),
        check: Duration::from_millis(200),
        retry_base: Duration::from_millis(20),
        retry_cap: Duration::from_millis(200),
        call: Duration::from_millis(500),
        probe: Duration::from_millis(50),
        ..GuardSettings::default()
    }
}

/// A till that registers.
pub(crate) async fn provide(registries: impl Into<Backends>, address: &str) -> (Arc<Till>, Server) {
    provide_as(Registration::at(registries), address).await
}

pub(crate) async fn provide_as(registration: Registration, address: &str) -> (Arc<Till>, Server) {
    let till = Arc::new(Till::default());
    let server = serving(&till).register(registration.guard(quick())).listen(address).await.unwrap();
    (till, server)
}

pub(crate) fn serving(till: &Arc<Till>) -> ServerBuilder {
    Server::builder().serve(PaymentServer::shared(Arc::clone(till)))
}

/// A client that looks for tills and keeps no cache file.
pub(crate) fn find(registries: impl Into<Backends>) -> Discovering<PaymentClient> {
    PaymentClient::discover(registries).guard(quick()).without_cache()
}

pub(crate) fn payment() -> ServiceKey {
    ServiceKey::of(<PaymentClient as farcall::Stub>::descriptor())
}

/// A folder, removed when dropped.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("farcall-registry-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The only cache file below and what is in it, once nothing more is being written.
pub(crate) async fn written(folder: &std::path::Path) -> (PathBuf, Vec<u8>) {
    let mut last = Vec::new();
    loop {
        let mut folders = vec![folder.to_owned()];
        let (mut file, mut now) = (PathBuf::new(), Vec::new());
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
                match path.extension().and_then(|e| e.to_str()) {
                    None if path.is_dir() => folders.push(path),
                    Some("list") => (now, file) = (std::fs::read(&path).unwrap_or_default(), path),
                    _ => {}
                }
            }
        }
        if !now.is_empty() && now == last {
            return (file, now);
        }
        last = now;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
