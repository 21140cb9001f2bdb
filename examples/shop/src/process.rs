//! What every process of the shop has in common: a runtime, a server, and how it ends.

use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use farcall::{Discover, Limits, Observer, Register, Registration, Server, ServerBuilder, StopSignals};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::calls::CallCounts;
use crate::race::{Won, race};
use crate::say::say;

/// How a process tells the launcher its address.
pub(crate) const READY: &str = "ready ";
/// How long calls that run may take when a process is told to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Reasons to end that wait to be looked at; the first is enough.
const REASONS: usize = 4;

/// What the last words of a process begin with: its [`CallBook`](crate::api::CallBook), for the audit.
pub(crate) const BOOK: &str = "book ";

/// Where a process lives and what ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// `tcp://127.0.0.1:0`
    pub(crate) listen: String,
    /// Under which address others reach it, if not under that.
    pub(crate) advertise: Option<String>,
    /// The registry at which it registers, and finds others by name.
    pub(crate) registry: String,
    /// End when stdin does: a launcher that holds its other end cannot leave this process behind,
    /// however it dies.
    pub(crate) until_stdin_closes: bool,
}

impl Home {
    /// Serves until told to end, then lets running calls end, and says what was counted.
    pub(crate) async fn serve(&self, server: ServerBuilder, counts: Arc<CallCounts>) -> Result<(), String> {
        self.serve_and(server, counts, || {}, async {}).await
    }

    /// As [`serve`](Home::serve), with something to do when it is told to end, and before the last words.
    pub(crate) async fn serve_and(
        &self,
        server: ServerBuilder,
        counts: Arc<CallCounts>,
        ending: impl FnOnce(),
        last: impl Future,
    ) -> Result<(), String> {
        let mut ends = ends(self.until_stdin_closes)?;
        let server = self.listen(server.observe(Arc::clone(&counts) as Arc<dyn Observer>)).await?;
        ends.recv().await;
        ending();
        drain(server, &mut ends).await?;
        last.await;
        let mut book = Vec::new();
        farcall::json::encode_into(&counts.book(), &mut book).map_err(|e| e.to_string())?;
        say(&format!("{BOOK}{}", String::from_utf8_lossy(&book)));
        Ok(())
    }

    /// Opens the port, registers and says so.
    async fn listen(&self, server: ServerBuilder) -> Result<Server, String> {
        let mut registration = Registration::at(self.registry.as_str());
        if let Some(address) = &self.advertise {
            registration = registration.advertise(address);
        }
        let server = server.register(registration).listen(self.listen.as_str()).await.map_err(|e| e.to_string())?;
        say(&format!("{READY}{}", server.address()));
        Ok(server)
    }

    /// A client of a service, wherever the registry says that it is: connected to two of its instances when there is much to do.
    pub(crate) async fn reach<C: Discover>(&self, counts: &Arc<CallCounts>) -> Result<C, String> {
        let counts = Arc::clone(counts) as Arc<dyn Observer>;
        let found = C::discover(self.registry.as_str()).connections(2).limits(again_soon()).observe(counts).await;
        found.map_err(|e| e.to_string())
    }
}

/// Bad wires are cut every few milliseconds, and are none the worse for it: that is no reason to let a till alone for seconds, as one
/// would a provider that dies again and again.
fn again_soon() -> Limits {
    Limits { reconnect_base: Duration::from_millis(2), reconnect_cap: Duration::from_millis(20), ..Limits::default() }
}

/// Ends gracefully, or at once when it is told so once more.
pub(crate) async fn drain(server: Server, ends: &mut mpsc::Receiver<&'static str>) -> Result<(), String> {
    match race(server.drain(PATIENCE), ends.recv()).await {
        Won::First(drained) => drained.map_err(|e| e.to_string()),
        Won::Second(why) => Err(format!("{}: stopped before running calls had ended", why.unwrap_or_default())),
    }
}

/// A runtime. Two workers: a process of the shop waits more than it works.
pub(crate) fn runtime() -> Result<Runtime, String> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|e| format!("no runtime: {e}"))
}

/// Tells when it is time to end, and why.
pub(crate) fn ends(when_stdin_closes: bool) -> Result<mpsc::Receiver<&'static str>, String> {
    let (tell, ends) = mpsc::channel(REASONS);
    let (mut signals, of_signal) = (StopSignals::new().map_err(|e| e.to_string())?, tell.clone());
    tokio::spawn(async move { while of_signal.send(signals.next().await).await.is_ok() {} });
    if when_stdin_closes {
        // A thread of its own, not the runtime's: a blocked read would keep the runtime from ending.
        std::thread::spawn(move || {
            let mut sink = [0; 64];
            while std::io::stdin().read(&mut sink).is_ok_and(|n| n > 0) {}
            let _ = tell.blocking_send("stdin closed");
        });
    }
    Ok(ends)
}
