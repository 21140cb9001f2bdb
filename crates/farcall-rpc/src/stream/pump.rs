//! The task that sends a stream: asks for an item when the reader has room for one, and not before.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use farcall_core::{Code, RpcError};
use farcall_wire::{Failure, Sendable, Sender, status};

use super::{Items, Produced};
use crate::connection::{Inner, RoomPlace};

/// Items sent in one turn before other tasks have theirs.
const TURN: usize = 128;
/// An encoding buffer with more room than this is given back.
const KEEP: usize = 64 << 10;

/// See the module's text.
pub(crate) struct Pump {
    inner: Arc<Inner>,
    to: Option<Sender>,
    items: Box<dyn Items>,
    head: Vec<u8>,
    room: Option<RoomPlace>,
}

impl Pump {
    pub(crate) fn new(inner: Arc<Inner>, to: Sender, items: Box<dyn Items>) -> Pump {
        Pump { inner, to: Some(to), items, head: Vec::new(), room: None }
    }

    /// Sends until the producer or the reader makes it wait; ready once the stream is over.
    fn turn(&mut self, to: Sender, cx: &mut Context<'_>) -> Poll<()> {
        let mut go_on = false;
        for _ in 0..TURN {
            if !go_on {
                match self.inner.poll_sendable(to, &mut self.room, cx.waker()) {
                    Sendable::Now => {}
                    Sendable::Later => return Poll::Pending,
                    Sendable::Never => return Poll::Ready(()),
                }
            }
            self.head.clear();
            let mut tail = Bytes::new();
            let produced = match self.items.poll_item(cx, &mut self.head, &mut tail) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(produced) => produced,
            };
            let sent = match produced {
                Produced::Item => self.inner.send_item(to, &self.head, &mut tail),
                Produced::End => return self.end(to, status::OK, Vec::new()),
                Produced::AppError(bytes) => return self.end(to, status::APP_ERROR, bytes),
                Produced::Failed(error) => Err(error),
            };
            go_on = match sent {
                Ok(go_on) => go_on,
                Err(error) => return self.fail(to, &error),
            };
            if self.head.capacity() > KEEP {
                self.head = Vec::new();
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&mut self, to: Sender, how: u16, payload: Vec<u8>) -> Poll<()> {
        self.inner.end_items(to, how, payload);
        Poll::Ready(())
    }

    fn fail(&mut self, to: Sender, error: &RpcError) -> Poll<()> {
        self.end(to, status::FAILURE, Failure::from_error(error).encode())
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        let Some(to) = me.to else { return Poll::Ready(()) };
        // A panic of the producer is the end of its stream, not of more.
        let turned = catch_unwind(AssertUnwindSafe(|| me.turn(to, cx)));
        let over = match turned {
            Ok(turned) => turned.is_ready(),
            Err(payload) => self.fail(to, &crate::skeleton::panicked(&*payload)).is_ready(),
        };
        // Whatever was sent in this turn leaves in one write.
        self.inner.write_soon();
        if over {
            self.to = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Pump {
    /// The task was dropped with its runtime.
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let _ = self.fail(to, &RpcError::new(Code::Cancelled, "the sender's runtime was shut down"));
            self.inner.write_soon();
        }
    }
}
