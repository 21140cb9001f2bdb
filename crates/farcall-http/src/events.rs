//! A stream of results as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! An item is an event without a name; the stream's end is the event `end`, since a browser that only sees the
//! connection end connects again; an error that ends it is the event `error`. There are no ids: nothing can be resumed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use farcall_rpc::{ForeignItem, ForeignItems};
use tokio::time::{Instant, Sleep};

use crate::refusal;
use crate::serve::Busy;

/// Text that is given to the connection at a time, unless one item is larger.
const CHUNK: usize = 16 << 10;
/// Items between two looks at what else there is to do.
const TURN: usize = 128;

/// See the module's text. It asks for items as the connection asks for text.
pub(crate) struct Events {
    items: ForeignItems,
    text: Vec<u8>,
    over: bool,
    silence: Duration,
    alarm: Pin<Box<Sleep>>,
    _busy: Busy,
}

impl Events {
    pub(crate) fn new(items: ForeignItems, silence: Duration, busy: Busy) -> Events {
        Events { items, text: Vec::new(), over: false, silence, alarm: Box::pin(tokio::time::sleep(silence)), _busy: busy }
    }

    /// The next piece of text; `None` at the end.
    pub(crate) fn poll_text(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut waits = false;
        for _ in 0..TURN {
            if self.over || waits || self.text.len() >= CHUNK {
                break;
            }
            waits = self.poll_event(cx).is_pending();
        }
        if self.text.is_empty() {
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.text.extend_from_slice(b":\n\n");
        }
        let next = Instant::now() + self.silence;
        self.alarm.as_mut().reset(next);
        Poll::Ready(Some(std::mem::take(&mut self.text).into()))
    }

    /// Appends the next event.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let start = self.text.len();
        self.text.extend_from_slice(b"data: ");
        let item = match self.items.poll_item(cx, &mut self.text) {
            Poll::Ready(item) => item,
            Poll::Pending => {
                self.text.truncate(start);
                return Poll::Pending;
            }
        };
        if !matches!(item, ForeignItem::Item) {
            self.text.truncate(start);
            self.over = true;
        }
        match item {
            ForeignItem::Item => self.text.extend_from_slice(b"\n\n"),
            ForeignItem::End => self.last("end", b"null"),
            ForeignItem::AppError(error) => self.last("error", &refusal::app_body(&error)),
            ForeignItem::Failed(error) => self.last("error", &refusal::body(&error)),
        }
        Poll::Ready(())
    }

    /// JSON has no line breaks, so one line of data is enough.
    fn last(&mut self, event: &str, data: &[u8]) {
        self.text.extend_from_slice(format!("event: {event}\ndata: ").as_bytes());
        self.text.extend_from_slice(data);
        self.text.extend_from_slice(b"\n\n");
    }
}
