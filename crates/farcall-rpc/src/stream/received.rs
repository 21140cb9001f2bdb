//! A stream that comes from the peer.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use farcall_core::reading::decode;
use farcall_core::{Code, CodecError, CodecId, Fault, Reading, Reply, RpcError, Stage};
use farcall_wire::{Item, Receiver};
use futures_core::Stream;
use serde::de::DeserializeOwned;

use super::Streaming;
use crate::connection::{Connection, Inner};
use crate::intercept::Ends;
use crate::method::{Form, ItemShapes, Unformed};
use crate::observer::Ended;

/// A stream that comes from the peer, without its types. Dropped, it tells the peer to stop.
#[doc(hidden)]
pub struct Received {
    pub(crate) inner: Arc<Inner>,
    /// A caller's stream keeps its connection.
    pub(crate) connection: Option<Arc<Connection>>,
    pub(crate) at: Receiver,
    /// Items that were taken and not read yet.
    pub(crate) taken: VecDeque<Bytes>,
    pub(crate) codec: CodecId,
    /// The method it belongs to, for errors.
    pub(crate) method: String,
    /// Whom its end is told.
    pub(crate) ends: Option<Box<Ends>>,
    /// How its items are read, if caller and provider differ.
    pub(crate) reading: Option<Arc<Reading>>,
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Received {
    pub(crate) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        let polled = match self.taken.pop_front() {
            Some(item) => return Poll::Ready(Item::Item(item)),
            None => self.inner.poll_item(self.at, &mut self.taken, cx.waker()),
        };
        if let (Some(ends), Poll::Ready(item)) = (&mut self.ends, &polled) {
            match item {
                Item::Item(_) => {}
                Item::End => ends.tell(Ended::Ok),
                Item::AppError(_) => ends.tell(Ended::AppError),
                Item::Failed(e) => ends.tell(Ended::Failed(e.code(), e.certainty())),
            }
        }
        polled
    }

    /// With its types.
    pub(crate) fn into_streaming<T, E, F>(self, shapes: ItemShapes) -> Streaming<T, E>
    where
        T: Send + 'static,
        E: Fault<Error: Send> + DeserializeOwned + 'static,
        F: Form<T>,
    {
        Streaming::new(Decoded::<T, E, F> { received: self, shapes, item: PhantomData, form: PhantomData })
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.inner.drop_receiver(self.at);
        // The stream may have been the last that needed it.
        self.connection = None;
    }
}

struct Decoded<T, E, F> {
    received: Received,
    shapes: ItemShapes,
    item: PhantomData<fn() -> (T, E)>,
    form: PhantomData<fn() -> F>,
}

impl<T, E, F> Stream for Decoded<T, E, F>
where
    E: Fault + DeserializeOwned,
    F: Form<T>,
{
    type Item = Reply<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.received.poll_item(cx));
        let Received { codec, method, reading, .. } = &self.received;
        let (codec, shapes) = (*codec, self.shapes);
        let undecodable = |what: &str, e: CodecError| {
            let error = RpcError::new(Code::Internal, format!("{what} cannot be decoded: {e}"));
            error.with_stage(Stage::Decode).with_method(method.as_str())
        };
        Poll::Ready(match item {
            Item::Item(bytes) => {
                Some(match decode::<Unformed<T, F>>(reading.as_ref().and_then(|r| r.item()), codec, &bytes, shapes.item) {
                    Ok(item) => Ok(item.0),
                    Err(e) => Err(undecodable("a stream item", e).into()),
                })
            }
            Item::End => None,
            Item::AppError(bytes) => Some(Err(match decode::<E>(reading.as_ref().and_then(|r| r.end()), codec, &bytes, shapes.error) {
                Ok(error) => error.lift(),
                Err(e) => undecodable("the stream's error", e).into(),
            })),
            Item::Failed(error) => Some(Err(error.with_method(method.as_str()).into())),
        })
    }
}
