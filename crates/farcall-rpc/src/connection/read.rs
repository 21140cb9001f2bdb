//! The read buffer: frames are slices of it, so it is given away and must be had again.
//!
//! A frame's body may outlive the turn that read it. While one does, its buffer cannot be reused,
//! and a fresh one per read would make the allocator take memory from the system and give it back
//! all the time (measured: two thirds of the cost of a 64 KiB call). So a few buffers that were
//! given away are remembered and used again once nobody holds a piece of them.

use std::collections::VecDeque;

use bytes::BytesMut;
use farcall_wire::read_room;

/// Room of the first buffer; nothing of it is touched before there is something to read.
const FIRST: usize = 64 << 10;
/// Room of the buffers of a connection that gives them away.
const NEXT: usize = 256 << 10;
/// Buffers that are remembered.
const REMEMBERED: usize = 4;
/// A buffer with more room than this was for one large frame and is not kept.
const KEEP: usize = 1 << 20;

pub(super) struct ReadBuf {
    /// What was read and not handled yet, and room behind it.
    pub(super) buf: BytesMut,
    given_away: VecDeque<BytesMut>,
}

impl ReadBuf {
    /// Starts with what was read before.
    pub(super) fn new(first: BytesMut) -> ReadBuf {
        let mut buf = BytesMut::with_capacity(FIRST.max(first.len()));
        buf.extend_from_slice(&first);
        ReadBuf { buf, given_away: VecDeque::new() }
    }

    /// Makes room for the frame that is announced, or for a fair chunk.
    #[inline]
    pub(super) fn make_room(&mut self, max_frame: usize) {
        let room = read_room(&self.buf, max_frame);
        if self.buf.capacity() - self.buf.len() < room && !self.buf.try_reclaim(room) {
            self.change(room);
        }
    }

    /// Takes another buffer, the current one's bytes moved over.
    fn change(&mut self, room: usize) {
        let wanted = self.buf.len() + room;
        // The one given away longest ago is the likeliest to be free.
        let free = self.given_away.iter_mut().position(|old| old.try_reclaim(wanted));
        let mut next = match free.and_then(|i| self.given_away.remove(i)) {
            Some(old) => old,
            None => BytesMut::with_capacity(wanted.max(NEXT)),
        };
        next.extend_from_slice(&self.buf);
        let mut old = std::mem::replace(&mut self.buf, next);
        old.clear();
        if wanted <= KEEP {
            if self.given_away.len() == REMEMBERED {
                self.given_away.pop_front();
            }
            self.given_away.push_back(old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills the buffer as a read does, and gives away what was read.
    fn read_and_give(read: &mut ReadBuf, bytes: usize) -> bytes::Bytes {
        read.make_room(1 << 24);
        assert!(read.buf.capacity() - read.buf.len() >= bytes);
        read.buf.extend_from_slice(&vec![0xff; bytes]);
        read.buf.split().freeze()
    }

    #[test]
    fn bytes_survive_a_change_and_buffers_come_back() {
        let mut read = ReadBuf::new(BytesMut::from(&b"abc"[..]));
        assert_eq!(&read.buf[..], b"abc");
        // A frame of 100 bytes is announced; the first three bytes of its length are there.
        read.make_room(1000);
        assert_eq!(&read.buf[..], b"abc");
        read.buf.clear();
        let mut addresses = std::collections::HashSet::new();
        let mut held = VecDeque::new();
        for _ in 0..1000 {
            let given = read_and_give(&mut read, 60_000);
            addresses.insert(read.buf.as_ptr() as usize - read.buf.as_ptr() as usize % (64 << 10));
            held.push_back(given);
            if held.len() > 3 {
                held.pop_front();
            }
        }
        assert!(read.given_away.len() <= REMEMBERED);
        // A fresh buffer each time would have left many more addresses behind.
        assert!(addresses.len() < 64, "{} different places", addresses.len());
    }
}
