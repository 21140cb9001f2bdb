//! The items of a stream on their way out through another protocol.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use bytes::Bytes;
use farcall_core::RpcError;

use super::OpenStream;
use crate::context::{Context as CallContext, Current, enter};
use crate::method::Outgoing;
use crate::skeleton::panicked;
use crate::stream::Produced;

/// A stream that a handler answered with. It is produced as it is polled: whoever does not poll it holds the producer
/// back. Dropped, it tells the producer to stop.
pub struct ForeignItems {
    outgoing: Outgoing,
    current: Current,
    over: bool,
    _open: OpenStream,
}

/// What comes next in a stream.
#[derive(Debug)]
pub enum ForeignItem {
    /// An item, which was appended to the buffer given.
    Item,
    /// Nothing more.
    End,
    /// The stream ended with the application's error, in the codec of the call.
    AppError(Bytes),
    /// It ended with a system error.
    Failed(RpcError),
}

impl ForeignItems {
    pub(super) fn new(outgoing: Outgoing, context: CallContext, open: OpenStream) -> ForeignItems {
        // The deadline was for the opening.
        let context = CallContext { expires: None, ..context };
        ForeignItems { outgoing, current: Current { context, ..Current::default() }, over: false, _open: open }
    }

    /// The next item, appended to `out` in the codec of the call. Once it was anything but an item it is
    /// [`End`](ForeignItem::End).
    pub fn poll_item(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<ForeignItem> {
        if self.over {
            return Poll::Ready(ForeignItem::End);
        }
        let (start, mut tail) = (out.len(), Bytes::new());
        let items = &mut self.outgoing.0;
        let polled = enter(&mut self.current, || catch_unwind(AssertUnwindSafe(|| items.poll_item(cx, out, &mut tail))));
        let item = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Produced::Item)) => {
                out.extend_from_slice(&tail);
                return Poll::Ready(ForeignItem::Item);
            }
            Ok(Poll::Ready(Produced::End)) => ForeignItem::End,
            Ok(Poll::Ready(Produced::AppError(bytes))) => ForeignItem::AppError(bytes.into()),
            Ok(Poll::Ready(Produced::Failed(error))) => ForeignItem::Failed(error),
            Err(payload) => ForeignItem::Failed(panicked(&*payload)),
        };
        out.truncate(start);
        self.over = true;
        Poll::Ready(item)
    }
}

impl std::fmt::Debug for ForeignItems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForeignItems").field("over", &self.over).finish_non_exhaustive()
    }
}
