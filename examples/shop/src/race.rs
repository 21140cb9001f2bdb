//! Two futures of which the first to end wins. The whole of `select!` that the shop needs.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Which one it was.
pub(crate) enum Won<A, B> {
    First(A),
    Second(B),
}

/// Runs both until one has ended; the first goes first if both have.
pub(crate) async fn race<A: Future, B: Future>(first: A, second: B) -> Won<A::Output, B::Output> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Won::First(output)),
        Poll::Pending => second.as_mut().poll(cx).map(Won::Second),
    })
    .await
}
