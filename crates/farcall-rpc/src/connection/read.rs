//! The read buffer: frames are slices of it, so it is given away and must be had again.
//!
//! A frame's body may outlive the turn that read it. While one does, its buffer cannot be reused,
//! and a fresh one per read would make the allocator take memory from the system and give it back
//! all the time (measured: two thirds of the cost of a 64 KiB call). So a few buffers that were
//! given away are remembered and used again once nobody holds a piece of them.
//!
//! A connection on which little is said reads into little room: most connections of a large server are idle
//! (measured: with 64 KiB of untouched room each took 11.5 KiB of a server's memory, because what lay around that room
//! was spread over more pages).

use std::collections::VecDeque;

use bytes::BytesMut;
use farcall_wire::{read_room, rest_of_frame};

/// Room of the first buffer. The first read that fills it, and the first frame that does not fit, take a larger one.
const FIRST: usize = 1 << 10;
/// Less than this of the first buffer is not read into.
const LEAST: usize = FIRST / 4;
/// Room of the second buffer; nothing of it is touched before there is something to read.
const SECOND: usize = 64 << 10;
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
    /// Whether `buf` is still the first one.
    is_first: bool,
}

impl ReadBuf {
    /// Starts with what was read before.
    pub(super) fn new(first: BytesMut) -> ReadBuf {
        let mut buf = BytesMut::with_capacity(FIRST.max(first.len()));
        buf.extend_from_slice(&first);
        ReadBuf { buf, given_away: VecDeque::new(), is_first: true }
    }

    /// Makes room for the frame that is announced, or for a fair chunk.
    #[inline]
    pub(super) fn make_room(&mut self, max_frame: usize) {
        if self.is_first && self.first_is_enough(max_frame) {
            return;
        }
        let room = read_room(&self.buf, max_frame);
        if self.buf.capacity() - self.buf.len() < room && !self.buf.try_reclaim(room) {
            self.change(room);
        }
    }

    /// Whether the first buffer has room for what is to come; false for good once it had not.
    fn first_is_enough(&mut self, max_frame: usize) -> bool {
        let room = rest_of_frame(&self.buf, max_frame).max(LEAST);
        let spare = self.buf.capacity() - self.buf.len();
        // With no room left at all, the last read filled it: there is more to come.
        self.is_first = spare >= room || (spare > 0 && self.buf.len() + room <= FIRST && self.buf.try_reclaim(room));
        if !self.is_first {
            let mut next = BytesMut::with_capacity(SECOND + self.buf.len());
            next.extend_from_slice(&self.buf);
            self.buf = next;
        }
        self.is_first
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

    /// Fills all the room there is.
    fn fill(read: &mut ReadBuf) {
        let room = read.buf.capacity() - read.buf.len();
        read.buf.extend_from_slice(&vec![0xff; room]);
    }

    #[test]
    fn little_is_read_into_little_room() {
        let mut read = ReadBuf::new(BytesMut::new());
        let mut held = None;
        for _ in 0..1000 {
            read.make_room(1 << 24);
            assert!(read.buf.capacity() <= FIRST);
            read.buf.extend_from_slice(&[0xff; 50]);
            // A handler still holds the last frame when the next one is read.
            drop(held.replace(read.buf.split()));
            if read.buf.capacity() < LEAST {
                held = None;
            }
        }
    }

    #[test]
    fn much_is_read_into_much_room() {
        // By a read that fills it, by a frame that does not fit, by a piece that is held too long.
        let filled = |read: &mut ReadBuf| fill(read);
        let announced = |read: &mut ReadBuf| read.buf.extend_from_slice(&(FIRST as u32).to_le_bytes());
        let held = |read: &mut ReadBuf| {
            let spare = read.buf.capacity() - LEAST + 1;
            read.buf.extend_from_slice(&vec![0xff; spare]);
            std::mem::forget(read.buf.split());
        };
        for grow in [&filled as &dyn Fn(&mut ReadBuf), &announced, &held] {
            let mut read = ReadBuf::new(BytesMut::new());
            read.make_room(1 << 24);
            grow(&mut read);
            let before = read.buf.clone();
            read.make_room(1 << 24);
            assert!(read.buf.capacity() - read.buf.len() >= SECOND);
            assert_eq!(read.buf, before);
        }
    }

    #[test]
    fn bytes_survive_a_change_and_buffers_come_back() {
        let mut read = ReadBuf::new(BytesMut::from(&b"abc"[..]));
        assert_eq!(&read.buf[..], b"abc");
        fill(&mut read);
        read.make_room(1000);
        assert_eq!(&read.buf[..3], b"abc");
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
