//! One direction of a link: bytes that arrive later, in other pieces, or not at all.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes under way.
#[derive(Debug)]
pub struct Link {
    under_way: VecDeque<(u64, Bytes)>,
    len: usize,
    /// How much it takes before its reader has read.
    capacity: usize,
    /// When what is written last arrives: bytes do not overtake each other.
    last_at: u64,
}

impl Link {
    /// A link on which this many bytes may be under way.
    pub fn new(capacity: usize) -> Link {
        Link { under_way: VecDeque::new(), len: 0, capacity, last_at: 0 }
    }

    /// Bytes it takes now.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len)
    }

    /// Bytes under way.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sends as much of `bytes` as there is room for; says how much that is. It arrives at `at`.
    pub fn write(&mut self, bytes: &[u8], at: u64) -> usize {
        let n = bytes.len().min(self.room());
        if n > 0 {
            self.last_at = self.last_at.max(at);
            self.under_way.push_back((self.last_at, Bytes::copy_from_slice(&bytes[..n])));
            self.len += n;
        }
        n
    }

    /// Up to `n` bytes of what has arrived.
    pub fn read(&mut self, now: u64, mut n: usize, into: &mut BytesMut) {
        while n > 0
            && let Some((at, bytes)) = self.under_way.front_mut()
            && *at <= now
        {
            let some = bytes.split_to(n.min(bytes.len()));
            into.extend_from_slice(&some);
            (n, self.len) = (n - some.len(), self.len - some.len());
            if bytes.is_empty() {
                self.under_way.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_in_time_and_as_far_as_there_is_room() {
        let (mut link, mut read) = (Link::new(5), BytesMut::new());
        assert_eq!((link.write(b"abc", 10), link.write(b"defg", 3)), (3, 2));
        link.read(9, 100, &mut read);
        assert!(read.is_empty(), "nothing has arrived");
        link.read(10, 4, &mut read);
        assert_eq!((&read[..], link.len(), link.room()), (&b"abcd"[..], 1, 4));
    }
}
