//! The lease that all keys of a process hang on: granted when it is first needed, renewed until the cluster says that it is gone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use farcall_core::RpcError;
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;

use crate::etcd::client::Client;
use crate::etcd::grpc::{GRANT, KEEP_ALIVE, REVOKE};
use crate::etcd::messages::{Done, LeaseGrantRequest, LeaseRequest, LeaseResponse};

/// Pause before a renewal that failed is tried again: at most so long, at random.
const AGAIN: Duration = Duration::from_millis(1000);

/// Grants and renews.
#[derive(Debug)]
pub(crate) struct Leases {
    client: Arc<Client>,
    ttl: Duration,
    granting: Mutex<()>,
    /// The one that holds; 0: none.
    current: watch::Sender<i64>,
}

impl Leases {
    pub(crate) fn new(client: Arc<Client>, ttl: Duration) -> Arc<Leases> {
        Arc::new(Leases { client, ttl, granting: Mutex::new(()), current: watch::channel(0).0 })
    }

    /// The lease that holds, a new one if there is none.
    pub(crate) async fn get(self: &Arc<Leases>) -> Result<i64, RpcError> {
        let _one_at_a_time = self.granting.lock().await;
        let current = *self.current.borrow();
        if current != 0 {
            return Ok(current);
        }
        let request = LeaseGrantRequest { ttl: i64::try_from(self.ttl.as_secs()).unwrap_or(15).max(1), id: 0 };
        let granted: LeaseResponse = self.client.call(&GRANT, &request).await?;
        self.current.send_replace(granted.id);
        tokio::spawn(renew(Arc::downgrade(self), granted.id, self.ttl / 3));
        Ok(granted.id)
    }

    /// The lease does not hold any more: the next who needs one gets another.
    pub(crate) fn is_gone(&self, id: i64) {
        self.current.send_if_modified(|current| {
            let ours = *current == id;
            if ours {
                *current = 0;
            }
            ours
        });
    }

    /// How long it outlives its last renewal.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Which holds, and when that changes.
    pub(crate) fn current(&self) -> watch::Receiver<i64> {
        self.current.subscribe()
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let id = *self.current.borrow();
        let client = self.client.clone();
        // Without a runtime it ends by itself.
        if let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| id != 0) {
            runtime.spawn(async move { client.call::<_, Done>(&REVOKE, &LeaseRequest { id }).await.ok() });
        }
    }
}

/// Renews a lease every `period`. Streams end with every restart of a server, and a lease that nobody renews takes all keys with it:
/// so each renewal is a request of its own, and only the cluster's word ends them.
async fn renew(leases: Weak<Leases>, id: i64, period: Duration) {
    let mut pause = period;
    loop {
        sleep(pause).await;
        let Some(leases) = leases.upgrade() else { return };
        if *leases.current.borrow() != id {
            return;
        }
        match leases.client.call::<_, LeaseResponse>(&KEEP_ALIVE, &LeaseRequest { id }).await {
            Ok(renewed) if renewed.ttl <= 0 => return leases.is_gone(id),
            Ok(_) => pause = period,
            Err(_) => pause = crate::random::pause(8, AGAIN, AGAIN).min(period),
        }
    }
}
