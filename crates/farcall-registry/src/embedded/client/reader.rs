//! A subscription: a stream from one node. When it ends it goes on with another, at the same or another node, where it left off.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use farcall_core::{Code, RpcError, compact, frame_bytes};
use farcall_rpc::Streaming;
use tokio::time::Instant;

use super::agent::{share, window};
use super::mirror::Mirror;
use super::{Handle, PATIENCE, Shared, lock};
use crate::embedded::api::{Interest, Push};
use crate::embedded::packed::unreadable;
use crate::entry::ServiceKey;
use crate::registry::{BoxFuture, Consumer, Listing, Update, Updates};

/// The first pause is as long as the one after so many failures: up to 0.8 s.
const CROWD: u32 = 2;

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
    let known = handle.0.mirrors.get(&service).unwrap_or_default();
    let (node, stream) = open(&handle.0, &service, &consumer, &known).await?;
    let mirror = handle.0.mirrors.begin(&service, known);
    let (waiting, stream) = (VecDeque::new(), Some(stream));
    Ok(Reader { handle, node, service, consumer, stream, mirror, waiting, first: true, failures: 0, again: None })
}

async fn open(
    shared: &Shared,
    service: &ServiceKey,
    consumer: &Option<Consumer>,
    known: &Mirror,
) -> Result<(usize, Streaming<Bytes>), RpcError> {
    let interest = Interest { namespace: shared.namespace.clone(), service: service.clone(), known: Some(known.known()) };
    let stream = shared.ask(|client| client.subscribe(interest.clone(), consumer.clone()).deadline(PATIENCE)).await?;
    Ok((shared.preferred.load(Ordering::Relaxed), stream))
}

/// See the module's text.
pub(super) struct Reader {
    handle: Arc<Handle>,
    node: usize,
    service: ServiceKey,
    consumer: Option<Consumer>,
    /// None between one stream and the next.
    stream: Option<Streaming<Bytes>>,
    mirror: Arc<Mutex<Mirror>>,
    waiting: VecDeque<Update>,
    first: bool,
    /// Streams that did not come about, or to nothing, since the last push.
    failures: u32,
    /// Before this no other stream is opened.
    again: Option<Instant>,
}

impl Reader {
    async fn read(&mut self) -> Result<(), RpcError> {
        let Some(stream) = &mut self.stream else { return self.open_again().await };
        let push = match stream.next().await {
            Some(Ok(push)) => decode(&push)?,
            Some(Err(e)) => return self.ended(e),
            None => return self.ended(RpcError::new(Code::Unavailable, "the registry node ended the subscription")),
        };
        let mut mirror = lock(&self.mirror);
        let Ok(updates) = mirror.apply(&self.service, push) else {
            // Something is missing: all of it, then, from nothing.
            *mirror = Mirror::default();
            drop(mirror);
            self.pause();
            return Ok(());
        };
        self.failures = 0;
        match std::mem::take(&mut self.first) {
            true => {
                self.waiting.push_back(Update::All(mirror.listing()));
                self.waiting.extend(updates.into_iter().filter(|update| matches!(update, Update::Gone(..))));
            }
            false => self.waiting.extend(updates),
        }
        Ok(())
    }

    /// The node does not tell any more: the next stream comes from another, if there is one.
    fn ended(&mut self, e: RpcError) -> Result<(), RpcError> {
        let shared = &self.handle.0;
        let next = (self.node + 1) % shared.nodes.len();
        // Unless another reader has found one already.
        let _ = shared.preferred.compare_exchange(self.node, next, Ordering::Relaxed, Ordering::Relaxed);
        self.pause();
        match is_passing(&e) {
            true => Ok(()),
            false => Err(e),
        }
    }

    /// No stream for a while: all readers of a node lose it at the same moment, and are not to come back in one. They are many, and
    /// none is in a hurry: its list stays as it is.
    fn pause(&mut self) {
        self.stream = None;
        self.again = Some(Instant::now() + share(window(self.failures.saturating_add(CROWD))));
        self.failures = self.failures.saturating_add(1);
    }

    async fn open_again(&mut self) -> Result<(), RpcError> {
        if let Some(again) = self.again {
            tokio::time::sleep_until(again).await;
        }
        let known = lock(&self.mirror).clone();
        match open(&self.handle.0, &self.service, &self.consumer, &known).await {
            Ok((node, stream)) => (self.node, self.stream, self.first) = (node, Some(stream), true),
            Err(e) if is_passing(&e) => self.pause(),
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

fn is_passing(e: &RpcError) -> bool {
    matches!(e.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
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
        self.handle.0.mirrors.end(&self.service, &self.mirror);
    }
}
