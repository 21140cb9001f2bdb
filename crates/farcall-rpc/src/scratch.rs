//! Buffers that arguments are encoded into: one per thread, and large ones that come back.
//!
//! A large body is written from where it was encoded. Its buffer is lent until then, and had again
//! afterwards: to allocate one per call would make the allocator take memory from the system and
//! give it back all the time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use bytes::Bytes;

/// Buffers with more room than this are not kept.
const KEEP: usize = 256 << 10;
/// Lent buffers that are remembered per thread.
const REMEMBERED: usize = 16;

thread_local! {
    static OWN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static LENT: RefCell<VecDeque<Bytes>> = const { RefCell::new(VecDeque::new()) };
}

/// An empty buffer.
#[inline]
pub(crate) fn take() -> Vec<u8> {
    let own = OWN.take();
    if own.capacity() > 0 { own } else { returned().unwrap_or_default() }
}

/// Gives a buffer back.
#[inline]
pub(crate) fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() <= KEEP {
        buffer.clear();
        OWN.set(buffer);
    }
}

/// Turns a buffer into a body; it comes back when all that shares it is gone.
pub(crate) fn lend(buffer: Vec<u8>) -> Bytes {
    let keep = buffer.capacity() <= KEEP;
    let body = Bytes::from(buffer);
    if keep {
        LENT.with_borrow_mut(|lent| {
            if lent.len() == REMEMBERED {
                lent.pop_front();
            }
            lent.push_back(body.clone());
        });
    }
    body
}

fn returned() -> Option<Vec<u8>> {
    LENT.with_borrow_mut(|lent| {
        // The one lent longest ago is the likeliest to be free.
        let at = lent.iter().position(Bytes::is_unique)?;
        let mut buffer = Vec::from(lent.remove(at)?);
        buffer.clear();
        Some(buffer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lent_buffer_comes_back_when_nobody_holds_it() {
        let mut first = take();
        first.extend_from_slice(&[7; 100_000]);
        let place = first.as_ptr();
        let body = lend(first);
        let other = take();
        assert_ne!(other.as_ptr(), place);
        assert_eq!(&body[..], &[7; 100_000]);
        drop(body);
        let again = take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        give(again);
        let once_more = take();
        assert_eq!(once_more.as_ptr(), place);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        give(Vec::with_capacity(KEEP + 1));
        assert_eq!(take().capacity(), 0);
        let bodies: Vec<_> = (0..100).map(|_| lend(vec![1; 10])).collect();
        assert_eq!(LENT.with_borrow(|l| l.len()), REMEMBERED);
        drop(bodies);
    }
}
