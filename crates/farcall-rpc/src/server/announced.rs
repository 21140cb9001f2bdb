//! Those who are told when a server is ready and when it is to go; one that starts as not ready is announced when it has become so.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use farcall_core::{Address, RpcError, ServiceDescriptor};
use tokio::task::AbortHandle;

use crate::announce::Announce;
use crate::connection::Services;
use crate::health::Readiness;

/// See the module's text. Dropped, it announces nothing any more.
pub(super) struct Announced {
    all: Arc<[Box<dyn Announce>]>,
    waiting: Option<AbortHandle>,
}

impl Announced {
    /// Announces now, or, of a server that is not ready yet, as soon as it is: nobody is to find one that asks not to be called.
    pub(super) async fn start(
        all: Vec<Box<dyn Announce>>,
        addresses: &[Address],
        services: &Arc<Services>,
        readiness: &Readiness,
    ) -> Result<Announced, RpcError> {
        let mut announced = Announced { all: all.into(), waiting: None };
        if announced.is_empty() {
            return Ok(announced);
        }
        if readiness.is_ready("") == Some(true) {
            tell(&announced.all, addresses, services).await?;
            return Ok(announced);
        }
        let (all, addresses) = (Arc::clone(&announced.all), addresses.to_vec());
        let (services, readiness) = (Arc::clone(services), readiness.clone());
        let waiting = tokio::spawn(async move {
            if readiness.until_ready().await {
                // A refusal comes too late to end the server; whoever announces it says so where it says everything.
                let _ = tell(&all, &addresses, &services).await;
            }
        });
        announced.waiting = Some(waiting.abort_handle());
        Ok(announced)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Withdraws, all at once, and waits for that no longer than this.
    pub(super) async fn withdraw(&self, patience: Duration) {
        self.stop_waiting();
        let mut leaving: Vec<_> = self.all.iter().map(|announce| announce.leaving()).collect();
        let all = poll_fn(|cx| {
            leaving.retain_mut(|one| one.as_mut().poll(cx).is_pending());
            if leaving.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        // One that hangs must not keep the server from ending well.
        let _ = tokio::time::timeout(patience, all).await;
    }

    fn stop_waiting(&self) {
        if let Some(waiting) = &self.waiting {
            waiting.abort();
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

/// What is built in is no news to anybody.
async fn tell(all: &[Box<dyn Announce>], addresses: &[Address], services: &Services) -> Result<(), RpcError> {
    let own = |d: &&ServiceDescriptor| !d.name.starts_with("farcall.");
    let descriptors: Vec<&ServiceDescriptor> = services.skeletons.iter().map(|s| s.descriptor()).filter(own).collect();
    for announce in all {
        announce.ready(addresses, &descriptors).await?;
    }
    Ok(())
}
