//! A subscription: a stream from one node. When it ends, the next one goes to another.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use farcall_core::{Code, RpcError, compact, frame_bytes};
use farcall_rpc::Streaming;

use super::mirror::Mirror;
use super::{Handle, PATIENCE, Shared, lock};
use crate::embedded::api::{Interest, Push};
use crate::embedded::packed::unreadable;
use crate::entry::ServiceKey;
use crate::registry::{BoxFuture, Consumer, Listing, Update, Updates};

fn decode(bytes: &Bytes) -> Result<Push, RpcError> {
    frame_bytes::with_frame(bytes, || compact::decode(bytes)).map_err(|e| unreadable("a listing", e))
}

/// All entries of a service now, from the node that reads go to. If a reader knows them already, only that is said.
pub(super) async fn list(shared: &Shared, service: &ServiceKey) -> Result<Listing, RpcError> {
    let mut known = shared.mirrors.get(service).unwrap_or_default();
    for _ in 0..2 {
        let interest = Interest { namespace: shared.namespace.clone(), service: service.clone(), known: Some(known.known()) };
        let listed = shared.ask(|client| client.list(interest.clone()).deadline(PATIENCE)).await?;
        if known.apply(service, decode(&listed)?).is_ok() {
            return Ok(known.listing());
        }
        // What was known was wrong: from nothing, then.
        known = Mirror::default();
    }
    Err(RpcError::new(Code::DataLoss, format!("the registry {} does not say what it has of {service}", shared.describe())))
}

/// Subscribes at the node that reads go to, or the next that can be reached.
pub(super) async fn subscribe(handle: Arc<Handle>, service: ServiceKey, consumer: Option<Consumer>) -> Result<Reader, RpcError> {
    let shared = &handle.0;
    let known = shared.mirrors.get(&service).unwrap_or_default();
    let interest = Interest { namespace: shared.namespace.clone(), service: service.clone(), known: Some(known.known()) };
    let opening = shared.ask(|client| client.subscribe(interest.clone(), consumer.clone()).deadline(PATIENCE));
    let stream = opening.await?;
    let (node, mirror) = (shared.preferred.load(Ordering::Relaxed), shared.mirrors.begin(&service, known));
    Ok(Reader { handle, node, service, stream, mirror, waiting: VecDeque::new(), first: true, sound: true })
}

/// See the module's text.
pub(super) struct Reader {
    handle: Arc<Handle>,
    node: usize,
    service: ServiceKey,
    stream: Streaming<Bytes>,
    mirror: Arc<Mutex<Mirror>>,
    waiting: VecDeque<Update>,
    first: bool,
    sound: bool,
}

impl Reader {
    async fn read(&mut self) -> Result<(), RpcError> {
        let push = match self.stream.next().await {
            Some(Ok(push)) => decode(&push)?,
            Some(Err(e)) => return Err(self.elsewhere(e)),
            None => return Err(self.elsewhere(RpcError::new(Code::Unavailable, "the registry node ended the subscription"))),
        };
        let mut mirror = lock(&self.mirror);
        let updates = mirror.apply(&self.service, push).inspect_err(|_| self.sound = false)?;
        match std::mem::take(&mut self.first) {
            true => self.waiting.push_back(Update::All(mirror.listing())),
            false => self.waiting.extend(updates),
        }
        Ok(())
    }

    /// The node does not tell any more: the next reader asks another, if there is one.
    fn elsewhere(&self, e: RpcError) -> RpcError {
        let shared = &self.handle.0;
        let next = (self.node + 1) % shared.nodes.len();
        // Unless another reader has found one already.
        let _ = shared.preferred.compare_exchange(self.node, next, Ordering::Relaxed, Ordering::Relaxed);
        e
    }
}

impl Updates for Reader {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RpcError>> {
        Box::pin(async move {
            loop {
                if let Some(update) = self.waiting.pop_front() {
                    return Ok(update);
                }
                self.read().await?;
            }
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.handle.0.mirrors.end(&self.service, &self.mirror, self.sound);
    }
}
