//! Calls without a stub: by descriptor and bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::{CodecId, Metadata, RpcError, ServiceDescriptor};

use crate::keys::Key;
use crate::method::BoxFuture;

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
#[derive(Debug, Clone)]
pub enum RawReply {
    /// The encoded result.
    Ok(Bytes),
    /// The encoded application error.
    AppError(Bytes),
}

/// Anything that can make a call: a farcall [`Channel`](crate::Channel), later a gRPC or Dubbo one.
/// The command line uses it, and fault tolerance will.
pub trait Invoke: Send + Sync {
    /// Makes the call.
    fn invoke(&self, call: RawCall) -> BoxFuture<'_, Result<RawReply, RpcError>>;
}
