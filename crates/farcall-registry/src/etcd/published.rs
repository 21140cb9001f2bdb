//! A key that stands for an instance, and its loss.

use std::sync::Arc;

use farcall_core::{Code, RpcError};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::dubbo::view;
use crate::entry::Entry;
use crate::etcd::Inner;
use crate::etcd::grpc::{PUT, RANGE};
use crate::etcd::messages::{Done, PutRequest, RangeRequest, RangeResponse};
use crate::etcd::updates::WITHDRAWN;
use crate::registry::{BoxFuture, Published};

pub(super) struct EtcdPublished {
    inner: Arc<Inner>,
    key: String,
    lease: i64,
    current: watch::Receiver<i64>,
}

/// Puts the key of an entry, in place of what an earlier start has left.
pub(super) async fn publish(inner: Arc<Inner>, entry: &Entry, node: &str) -> Result<EtcdPublished, RpcError> {
    let directory = inner.layout.providers(&entry.service.name);
    let names = inner.client.keys(&format!("{directory}/"), false).await?.pairs.into_iter().map(|(name, _)| name);
    let old = view::earlier(names, entry, node)?;
    let key = format!("{directory}/{node}");
    let current = inner.leases.current();
    let lease = inner.put_leased(&key).await?;
    for name in old {
        inner.delete(format!("{directory}/{name}")).await?;
    }
    Ok(EtcdPublished { inner, key, lease, current })
}

impl EtcdPublished {
    /// Whether the key is there under our lease.
    async fn is_ours(&self) -> Result<bool, RpcError> {
        let request = RangeRequest { key: self.key.clone().into_bytes(), keys_only: true, ..RangeRequest::default() };
        let found: RangeResponse = self.inner.client.call(&RANGE, &request).await?;
        Ok(found.kvs.first().is_some_and(|kv| kv.lease == self.lease))
    }

    async fn wait_for_loss(&mut self) -> RpcError {
        let lost = |why: &str| RpcError::new(Code::Unavailable, format!("{}: the entry is lost: {why}", self.inner.name));
        let period = self.inner.leases.ttl();
        loop {
            if *self.current.borrow_and_update() != self.lease {
                return lost("its lease ended");
            }
            tokio::select! {
                changed = self.current.changed() => if changed.is_err() {
                    return lost("its lease is no longer renewed");
                },
                // Somebody may have deleted it. A watch for each would cost the cluster more than this question.
                () = sleep(period) => match self.is_ours().await {
                    Ok(true) => {}
                    Ok(false) => return lost("its key is gone, or another's"),
                    Err(e) if e.code() == Code::Unavailable => {}
                    Err(e) => return e,
                },
            }
        }
    }

    async fn take_away(self) -> Result<(), RpcError> {
        if !self.is_ours().await? {
            return Ok(());
        }
        let request = PutRequest { key: self.key.clone().into_bytes(), value: WITHDRAWN.to_vec(), lease: self.lease };
        self.inner.client.call::<_, Done>(&PUT, &request).await?;
        self.inner.delete(self.key.clone()).await
    }
}

impl Published for EtcdPublished {
    fn lost(&mut self) -> BoxFuture<'_, RpcError> {
        Box::pin(self.wait_for_loss())
    }

    fn check(&mut self) -> BoxFuture<'_, Result<bool, RpcError>> {
        Box::pin(self.is_ours())
    }

    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), RpcError>> {
        Box::pin(self.take_away())
    }
}
