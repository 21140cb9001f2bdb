//! Streams as their readers and senders see them: under the connection's lock, a moment at a time.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use bytes::Bytes;
use farcall_core::RpcError;
use farcall_wire::{Item, Receiver, Sendable, Sender};

use super::{Inner, RoomPlace};

/// Whether `new` must replace the waker in `place`, and does; the old one is in `new` then, to be
/// dropped without the lock.
fn replace(place: &mut Option<Waker>, new: &mut Option<Waker>, current: &Waker) -> bool {
    if place.as_ref().is_some_and(|w| w.will_wake(current)) {
        return true;
    }
    match new {
        Some(_) => {
            std::mem::swap(place, new);
            true
        }
        None => false,
    }
}

impl Inner {
    /// Whether an item may be sent in this flow; if not, `waker` is called when it may, or never may.
    pub(crate) fn poll_sendable(&self, to: Sender, room: &mut Option<RoomPlace>, waker: &Waker) -> Sendable {
        let mut new = None;
        loop {
            let mut placed = true;
            let mut shared = self.lock();
            let sendable = shared.outbound.poll_sendable(to, |place| placed = replace(place, &mut new, waker));
            let full = sendable == Sendable::Now && shared.outbound.queued() > self.limits.out_buffer;
            drop(shared);
            if placed {
                if full {
                    self.wait_for_room(room, waker, |shared| shared.outbound.queued() <= self.limits.out_buffer);
                    return Sendable::Later;
                }
                return sendable;
            }
            // Foreign code, which must not run under the lock.
            new = Some(waker.clone());
        }
    }

    /// Queues an item; whoever calls this tells the driver by [`write_soon`](Inner::write_soon). Says
    /// whether the next may follow at once.
    pub(crate) fn send_item(&self, to: Sender, head: &[u8], tail: &mut Bytes) -> Result<bool, RpcError> {
        let mut shared = self.lock();
        shared.outbound.send_item(to, head, tail)?;
        let more = shared.outbound.poll_sendable(to, |_| {}) == Sendable::Now;
        Ok(more && shared.outbound.queued() <= self.limits.out_buffer)
    }

    /// Queues the end of a stream; as [`send_item`](Inner::send_item).
    pub(crate) fn end_items(&self, to: Sender, how: u16, payload: Vec<u8>) {
        self.lock().outbound.end_items(to, how, payload);
    }

    /// Wakes the driver if there is something to write.
    pub(crate) fn write_soon(&self) {
        let mut shared = self.lock();
        let driver = if shared.outbound.has_output() { shared.wake_driver() } else { None };
        drop(shared);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// The next item of a stream from the peer, and in `more` what follows it; if there is none, `waker` is
    /// called when there is.
    pub(crate) fn poll_item(&self, at: Receiver, more: &mut VecDeque<Bytes>, waker: &Waker) -> Poll<Item> {
        let mut new = None;
        loop {
            let mut placed = true;
            let mut shared = self.lock();
            let item = shared.outbound.poll_item(at, |place| placed = replace(place, &mut new, waker));
            if matches!(item, Some(Item::Item(_))) {
                shared.outbound.take_items(at, more);
            }
            // To take an item may give the sender new credit.
            let driver = if shared.outbound.has_output() { shared.wake_driver() } else { None };
            drop(shared);
            if let Some(driver) = driver {
                driver.wake();
            }
            match item {
                Some(item) => return Poll::Ready(item),
                None if placed => return Poll::Pending,
                None => new = Some(waker.clone()),
            }
        }
    }

    /// Nobody reads this stream any more.
    pub(crate) fn drop_receiver(&self, at: Receiver) {
        let mut wake = Vec::new();
        self.lock().outbound.drop_receiver(at, &mut wake);
        wake.into_iter().for_each(Waker::wake);
        self.write_soon();
    }
}
