//! Calls without a stub: by descriptor and bytes.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::{CodecId, Metadata, RpcError, ServiceDescriptor};

use crate::keys::Key;
use farcall_wire::Item;

use crate::method::BoxFuture;
use crate::stream::Received;

/// A call whose arguments are encoded already.
#[derive(Debug, Clone)]
pub struct RawCall {
    /// The service, as its provider describes it.
    pub service: Arc<ServiceDescriptor>,
    /// Row of the method.
    pub method: usize,
    /// The codec of arguments and result.
    pub codec: CodecId,
    /// The encoded arguments.
    pub args: Bytes,
    /// Metadata beside them.
    pub metadata: Metadata,
    /// Time for the call; `None` = the default.
    pub deadline: Option<Duration>,
    /// The idempotency key, if any: see [`Call::key`](crate::Call::key).
    pub key: Option<Key>,
}

/// What came back.
#[derive(Debug)]
pub enum RawReply {
    /// The encoded result.
    Ok(Bytes),
    /// The encoded application error.
    AppError(Bytes),
    /// A stream of encoded results.
    Stream(RawStream),
}

/// A stream of results without its types. Dropped, it tells the provider to stop.
#[derive(Debug)]
pub struct RawStream(pub(crate) Received);

/// What comes out of a [`RawStream`].
#[derive(Debug)]
pub enum RawItem {
    /// An encoded item.
    Item(Bytes),
    /// The stream is over with the application's error, encoded.
    AppError(Bytes),
    /// It is over with a system error.
    Failed(RpcError),
}

impl RawStream {
    /// The next item; `None` once the stream is over.
    pub async fn next(&mut self) -> Option<RawItem> {
        match poll_fn(|cx| self.0.poll_item(cx)).await {
            Item::Item(bytes) => Some(RawItem::Item(bytes)),
            Item::AppError(bytes) => Some(RawItem::AppError(bytes)),
            Item::Failed(error) => Some(RawItem::Failed(error)),
            Item::End => None,
        }
    }
}

/// Anything that can make a call: a farcall [`Channel`](crate::Channel), later a gRPC or Dubbo one.
/// The command line uses it, and fault tolerance will.
pub trait Invoke: Send + Sync {
    /// Makes the call.
    fn invoke(&self, call: RawCall) -> BoxFuture<'_, Result<RawReply, RpcError>>;
}
