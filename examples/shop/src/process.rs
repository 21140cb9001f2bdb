//! What every process of the shop has in common: a runtime, a server, and how it ends.

use std::future::{Future, IntoFuture};
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use farcall::{Connect, Discover, Register, RpcError, Server, ServerBuilder, StopSignals};
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

/// Where a process listens and what ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// `tcp://127.0.0.1:0`
    pub(crate) listen: String,
    /// The registry at which it is found by name, if there is one.
    pub(crate) registry: Option<String>,
    /// End when stdin does: a launcher that holds its other end cannot leave this process behind,
    /// however it dies.
    pub(crate) until_stdin_closes: bool,
}

impl Home {
    /// Serves until told to end, then lets running calls end.
    pub(crate) async fn serve(&self, server: ServerBuilder) -> Result<(), String> {
        let mut ends = ends(self.until_stdin_closes)?;
        let server = self.listen(server).await?;
        ends.recv().await;
        drain(server, &mut ends).await
    }

    /// Opens the port and says so.
    pub(crate) async fn listen(&self, server: ServerBuilder) -> Result<Server, String> {
        let server = match &self.registry {
            Some(url) => server.register(url),
            None => server,
        };
        let server = server.listen(self.listen.as_str()).await.map_err(|e| e.to_string())?;
        say(&format!("{READY}{}", server.address()));
        Ok(server)
    }
}

/// Where another process is: at an address, or wherever the registry says.
pub(crate) fn reach<C: Discover>(address: Option<&str>, registry: Option<&str>, counts: Arc<CallCounts>) -> Result<Reaching<C>, String> {
    match (address, registry) {
        (Some(address), _) => Ok(Box::pin(Connect::<C>::to(address).observe(counts).into_future())),
        (None, Some(url)) => Ok(Box::pin(C::discover(url).observe(counts).into_future())),
        (None, None) => Err(format!("where is {}? give its address, or --registry", C::descriptor().name)),
    }
}

/// A client on its way.
pub(crate) type Reaching<C> = Pin<Box<dyn Future<Output = Result<C, RpcError>> + Send>>;

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
