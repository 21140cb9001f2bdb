//! Items on their way out: what a stream yields, encoded one at a time.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use farcall_core::{Code, CodecId, Fault, RpcError, codec};
use futures_core::Stream;
use serde::Serialize;

use super::Streaming;
use crate::method::{Form, Formed, ItemShapes};

/// What an item's encoding came to.
pub(crate) enum Produced {
    /// It is in the buffers given.
    Item,
    /// There are no more.
    End,
    /// The stream ended with the application's error, encoded.
    AppError(Vec<u8>),
    /// It ended with a system error.
    Failed(RpcError),
}

/// A stream without its types.
pub(crate) trait Items: Send {
    /// Encodes the next item: into `head`, and what need not be copied into `tail`.
    fn poll_item(&mut self, cx: &mut Context<'_>, head: &mut Vec<u8>, tail: &mut Bytes) -> Poll<Produced>;
}

/// A stream whose items are encoded in a codec, in a form.
pub(crate) struct Encoded<T, E: Fault, F> {
    stream: Streaming<T, E>,
    codec: CodecId,
    shapes: ItemShapes,
    form: PhantomData<fn() -> F>,
}

impl<T, E: Fault, F> Encoded<T, E, F> {
    pub(crate) fn new(stream: Streaming<T, E>, codec: CodecId, shapes: ItemShapes) -> Self {
        Encoded { stream, codec, shapes, form: PhantomData }
    }
}

impl<T, E, F> Items for Encoded<T, E, F>
where
    T: Send,
    E: Fault + Serialize,
    F: Form<T>,
{
    fn poll_item(&mut self, cx: &mut Context<'_>, head: &mut Vec<u8>, tail: &mut Bytes) -> Poll<Produced> {
        let item = ready!(Pin::new(&mut self.stream).poll_next(cx));
        Poll::Ready(match item {
            Some(Ok(item)) => {
                if self.codec == CodecId::Compact
                    && let Some(bytes) = F::segment(&item, head)
                {
                    *tail = bytes;
                    return Poll::Ready(Produced::Item);
                }
                match codec::encode_into(self.codec, &Formed::<T, F>(&item, PhantomData), self.shapes.item, head) {
                    Ok(()) => Produced::Item,
                    Err(e) => Produced::Failed(RpcError::new(Code::Internal, format!("a stream item cannot be encoded: {e}"))),
                }
            }
            None => Produced::End,
            Some(Err(error)) => match E::split(error) {
                Ok(app) => {
                    let mut bytes = Vec::new();
                    match codec::encode_into(self.codec, &app, self.shapes.error, &mut bytes) {
                        Ok(()) => Produced::AppError(bytes),
                        Err(e) => Produced::Failed(RpcError::new(Code::Internal, format!("a stream's error cannot be encoded: {e}"))),
                    }
                }
                Err(error) => Produced::Failed(error),
            },
        })
    }
}
