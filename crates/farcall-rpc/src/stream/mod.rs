//! Streams: many values in one direction of a call, one after the other, as fast as their reader
//! takes them.

mod items;
mod pump;
mod received;

use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use farcall_core::{Code, Fault, Never, Reply, RpcError};
use futures_core::Stream;
use tokio::sync::mpsc;

use crate::context::{Context as CallContext, Current, enter};
use crate::runtime;
use crate::skeleton::panicked;
pub(crate) use items::{Encoded, Items, Produced};
pub(crate) use pump::Pump;
pub use received::Received;

/// A stream of `T`, as a parameter (the caller sends, the provider reads) or as the result (the other
/// way round). Each item is a [`Reply`]: `Ok(item)`, or the error with which the stream ends. For
/// errors that concern one item only, send `Result<T, E>` as the item.
///
/// The sender is held back when the reader is slow: at most `stream_items` items and `stream_bytes`
/// bytes ([`Limits`](farcall_core::Limits)) are on their way or wait for the reader. Dropping it tells
/// the sender to stop; a lost connection ends it with an error.
///
/// It is a [`Stream`], so the adapters of the `futures` crates take it; [`next`](Streaming::next)
/// needs none of them.
///
/// ```
/// # use farcall_rpc::{Streaming, block_on};
/// let mut numbers: Streaming<u32> = Streaming::items([1, 2, 3]);
/// assert_eq!(numbers.next().wait().unwrap().unwrap(), 1);
/// let rest = block_on(async move {
///     let mut sum = 0;
///     while let Some(n) = numbers.next().await {
///         sum += n?;
///     }
///     Ok::<u32, farcall_rpc::RpcError>(sum)
/// });
/// assert_eq!(rest.unwrap().unwrap(), 5);
/// ```
#[must_use = "a stream that is dropped tells its sender to stop"]
pub struct Streaming<T, E: Fault = Never>(Option<Source<T, E>>);

type Source<T, E> = Pin<Box<dyn Stream<Item = Reply<T, E>> + Send>>;

impl<T: Send + 'static, E: Fault<Error: Send> + 'static> Streaming<T, E> {
    /// What `stream` yields. It is over with the first error, if there is one.
    pub fn new(stream: impl Stream<Item = Reply<T, E>> + Send + 'static) -> Self {
        Streaming(Some(Box::pin(stream)))
    }

    /// What `items` yields.
    pub fn items<I>(items: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
    {
        Streaming::new(FromIter(items.into_iter(), PhantomData))
    }

    /// What others send: a sender, and the stream of what is sent. At most `capacity` items (at least
    /// one) wait in between. The stream is over when all senders are gone, also if they are dropped by a
    /// panic of their task: [`produce`](Streaming::produce) tells the reader. A task that was started by
    /// [`spawn`](crate::spawn) keeps the deadline of the stream's opening for its own calls; a producer does not.
    pub fn channel(capacity: usize) -> (StreamSender<T, E>, Self) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (StreamSender(sender), Streaming::new(FromChannel(receiver)))
    }

    /// What `produce` sends, which runs as the stream is read. The stream ends with what it returns.
    ///
    /// ```
    /// # use farcall_rpc::{RpcError, Streaming, block_on};
    /// let mut squares: Streaming<u64> = Streaming::produce(|out| async move {
    ///     for n in 1..=3 {
    ///         out.send(n * n).await?;
    ///     }
    ///     Ok(())
    /// });
    /// assert_eq!(squares.next().wait().unwrap().unwrap(), 1);
    /// ```
    pub fn produce<F, Fut>(produce: F) -> Self
    where
        F: FnOnce(StreamSender<T, E>) -> Fut,
        Fut: Future<Output = Reply<(), E>> + Send + 'static,
    {
        // One item: a producer is not ahead of its reader by more.
        let (sender, receiver) = mpsc::channel(1);
        let producing = Box::pin(produce(StreamSender(sender)));
        Streaming::new(Producing { producing: Some(producing), receiver, last: None })
    }

    /// The same for a reader in this process: produced inside `context`, and with a panic of the producer
    /// as an error.
    pub(crate) fn produced_in(self, context: CallContext) -> Self {
        // The deadline was for the opening.
        let context = CallContext { expires: None, ..context };
        Streaming::new(Guarded { stream: self, current: Current { context, ..Current::default() } })
    }

    /// The next item; `None` once the stream is over. Await it, or `wait()` for it without a runtime.
    // The name that every stream's users know; an iterator it is not.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Next<'_, T, E> {
        Next(self)
    }
}

impl<T, E: Fault> Stream for Streaming<T, E> {
    type Item = Reply<T, E>;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(source) = &mut self.0 else { return Poll::Ready(None) };
        let item = ready!(source.as_mut().poll_next(cx));
        if !matches!(item, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(item)
    }
}

impl<T, E: Fault> std::fmt::Debug for Streaming<T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Streaming<{}>", std::any::type_name::<T>())
    }
}

/// The next item of a stream, from [`Streaming::next`]. Dropped before it is done, it has taken none.
#[must_use = "it does nothing until it is awaited or waited for"]
pub struct Next<'a, T, E: Fault>(&'a mut Streaming<T, E>);

impl<T, E: Fault> Next<'_, T, E> {
    /// Blocks until it is here. Inside an async runtime that is an error, and the stream goes on.
    pub fn wait(self) -> Option<Reply<T, E>> {
        runtime::wait(self).unwrap_or_else(|e| Some(Err(e.into())))
    }
}

impl<T, E: Fault> Future for Next<'_, T, E> {
    type Output = Option<Reply<T, E>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut *self.0).poll_next(cx)
    }
}

/// The sending end of [`Streaming::channel`]. Cheap to clone.
pub struct StreamSender<T, E: Fault = Never>(mpsc::Sender<Reply<T, E>>);

impl<T, E: Fault> Clone for StreamSender<T, E> {
    fn clone(&self) -> Self {
        StreamSender(self.0.clone())
    }
}

impl<T, E: Fault> StreamSender<T, E> {
    /// Sends an item, once there is room for it. It fails with [`Code::Cancelled`] if nobody reads the
    /// stream any more.
    pub async fn send(&self, item: T) -> Result<(), RpcError> {
        self.0.send(Ok(item)).await.map_err(|_| unread())
    }

    /// As [`send`](StreamSender::send), blocking this thread; inside an async runtime it is an error.
    pub fn send_wait(&self, item: T) -> Result<(), RpcError> {
        runtime::wait(self.send(item)).and_then(|sent| sent)
    }

    /// Ends the stream with an error.
    pub async fn fail(self, error: E::Error) -> Result<(), RpcError> {
        self.0.send(Err(error)).await.map_err(|_| unread())
    }

    /// Until nobody reads the stream any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

fn unread() -> RpcError {
    RpcError::not_sent(Code::Cancelled, "nobody reads this stream any more")
}

/// The items of an iterator.
struct FromIter<I, X>(I, PhantomData<fn() -> X>);

// An iterator is not pinned.
impl<I, X> Unpin for FromIter<I, X> {}

impl<I: Iterator, X> Stream for FromIter<I, X> {
    type Item = Result<I::Item, X>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

/// What comes through a channel.
struct FromChannel<T, X>(mpsc::Receiver<Result<T, X>>);

impl<T, X> Stream for FromChannel<T, X> {
    type Item = Result<T, X>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// A future that sends, and may end with an error.
type Ends<X> = Pin<Box<dyn Future<Output = Result<(), X>> + Send>>;

/// What a future sends, and how it ends.
struct Producing<T, X> {
    producing: Option<Ends<X>>,
    receiver: mpsc::Receiver<Result<T, X>>,
    /// The error it ended with, behind the items that were sent before.
    last: Option<X>,
}

impl<T, X> Unpin for Producing<T, X> {}

impl<T, X: From<RpcError>> Stream for Producing<T, X> {
    type Item = Result<T, X>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let me = &mut *self;
        if let Some(producing) = &mut me.producing {
            // A panic comes behind what was sent before, like any other end.
            let polled = catch_unwind(AssertUnwindSafe(|| producing.as_mut().poll(cx)));
            let polled = polled.unwrap_or_else(|payload| Poll::Ready(Err(panicked(&*payload).into())));
            if let Poll::Ready(end) = polled {
                (me.producing, me.last) = (None, end.err());
            }
        }
        match me.receiver.poll_recv(cx) {
            Poll::Ready(Some(item)) => Poll::Ready(Some(item)),
            Poll::Ready(None) => Poll::Ready(me.last.take().map(Err)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A stream that is read where it is produced.
struct Guarded<T, E: Fault> {
    stream: Streaming<T, E>,
    current: Current,
}

impl<T, E: Fault> Stream for Guarded<T, E> {
    type Item = Reply<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Guarded { stream, current } = &mut *self;
        let polled = enter(current, || catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *stream).poll_next(cx))));
        polled.unwrap_or_else(|payload| Poll::Ready(Some(Err(panicked(&*payload).into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;

    fn all<T: Send + 'static>(mut stream: Streaming<T>) -> (Vec<T>, Option<RpcError>) {
        let mut items = Vec::new();
        loop {
            match stream.next().wait() {
                Some(Ok(item)) => items.push(item),
                Some(Err(e)) => return (items, Some(e)),
                None => return (items, None),
            }
        }
    }

    #[test]
    fn a_stream_is_over_with_its_first_error() {
        let broken = |text: &str| RpcError::new(Code::Aborted, text);
        let items: Vec<Reply<u32>> = vec![Ok(1), Err(broken("first")), Ok(2), Err(broken("second"))];
        let (sender, receiver) = mpsc::channel(4);
        items.into_iter().for_each(|item| sender.try_send(item).unwrap());
        let mut stream: Streaming<u32> = Streaming::new(FromChannel(receiver));
        assert_eq!(stream.next().wait().unwrap().unwrap(), 1);
        assert_eq!(stream.next().wait().unwrap().unwrap_err().message(), "first");
        assert!(stream.next().wait().is_none());
    }

    #[test]
    fn a_producer_runs_as_it_is_read_and_its_error_comes_last() {
        let (items, end) = all(Streaming::produce(|out| async move {
            for n in 0..100 {
                out.send(n).await?;
            }
            Err(RpcError::new(Code::Aborted, "enough"))
        }));
        assert_eq!(items, (0..100).collect::<Vec<_>>());
        assert_eq!(end.unwrap().message(), "enough");
    }

    #[test]
    fn a_producer_that_panics_loses_nothing_that_it_sent() {
        let (items, end) = all(Streaming::produce(|out| async move {
            for n in 0..3 {
                out.send(n).await?;
            }
            panic!("the producer's own fault")
        }));
        assert_eq!(items, [0, 1, 2]);
        assert!(end.unwrap().message().contains("the producer's own fault"));
    }

    #[test]
    fn a_sender_learns_that_nobody_reads() {
        let (sender, stream) = Streaming::<u32>::channel(1);
        sender.send_wait(1).unwrap();
        drop(stream);
        assert_eq!(sender.send_wait(2).unwrap_err().code(), Code::Cancelled);
        block_on(sender.closed()).unwrap();
    }

    #[test]
    fn what_is_sent_before_the_end_is_read_before_it() {
        let (sender, stream) = Streaming::<u32>::channel(4);
        let reader = std::thread::spawn(|| all(stream));
        for n in 0..50 {
            sender.send_wait(n).unwrap();
        }
        block_on(sender.fail(RpcError::new(Code::Aborted, "broken"))).unwrap().unwrap();
        let (items, end) = reader.join().unwrap();
        assert_eq!((items.len(), end.unwrap().message()), (50, "broken"));
    }
}
