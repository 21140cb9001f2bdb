//! Bytes on their way out: small frames in one buffer, large bodies beside it by reference.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::frame::{HEADER, Header};

/// A buffer that grew beyond this is given back once it is empty and mostly unused.
const KEEP: usize = 1 << 20;
/// Written bytes that are kept before the rest is moved to the front.
const COMPACT: usize = 64 << 10;

/// Frames to be written, in order. Small ones are copied into one buffer; a large body stays where
/// it is and is written by reference.
#[derive(Debug, Default)]
pub struct OutBuf {
    small: Vec<u8>,
    /// How much of `small` is written.
    pos: usize,
    /// Bodies that belong into the stream before `small[at]`.
    large: VecDeque<(usize, Bytes)>,
    large_len: usize,
}

impl OutBuf {
    /// Bytes still to be written.
    #[inline]
    pub fn len(&self) -> usize {
        self.small.len() - self.pos + self.large_len
    }

    /// Whether all is written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.small.len() == self.pos && self.large.is_empty()
    }

    /// Appends a frame whose parts are at hand.
    #[inline]
    pub fn frame(&mut self, header: Header, parts: &[&[u8]]) {
        let len = parts.iter().map(|p| p.len()).sum::<usize>() as u32;
        self.small.extend_from_slice(&Header { len, ..header }.to_bytes());
        parts.iter().for_each(|p| self.small.extend_from_slice(p));
    }

    /// Appends a frame whose last part is large and stays where it is.
    pub fn frame_with_segment(&mut self, header: Header, parts: &[&[u8]], body: Bytes) {
        if body.is_empty() {
            return self.frame(header, parts);
        }
        let start = self.small.len();
        self.frame(header, parts);
        let len = (self.small.len() - start - HEADER + body.len()) as u32;
        self.small[start..start + 4].copy_from_slice(&len.to_le_bytes());
        self.large_len += body.len();
        self.large.push_back((self.small.len(), body));
    }

    /// The buffer of small frames, to append to. Only whole frames may be left in it.
    #[inline]
    pub fn small(&mut self) -> &mut Vec<u8> {
        &mut self.small
    }

    /// Changes a byte of the small frames, counted as [`small_len`](OutBuf::small_len) counts.
    pub(crate) fn patch(&mut self, at: usize, byte: u8) {
        self.small[at] = byte;
    }

    /// Bytes of small frames, written ones included.
    pub(crate) fn small_len(&self) -> usize {
        self.small.len()
    }

    /// The one contiguous rest, if no large body is waiting.
    #[inline]
    pub fn contiguous(&self) -> Option<&[u8]> {
        self.large.is_empty().then(|| &self.small[self.pos..])
    }

    /// Fills `out` with what is to be written next, for a vectored write; says how many are set.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        let mut pos = self.pos;
        for (at, body) in &self.large {
            if *at > pos && n < out.len() {
                out[n] = IoSlice::new(&self.small[pos..*at]);
                n += 1;
            }
            pos = pos.max(*at);
            if n == out.len() {
                return n;
            }
            out[n] = IoSlice::new(body);
            n += 1;
        }
        if pos < self.small.len() && n < out.len() {
            out[n] = IoSlice::new(&self.small[pos..]);
            n += 1;
        }
        n
    }

    /// Marks `n` bytes as written.
    #[inline]
    pub fn advance(&mut self, mut n: usize) {
        while let Some((at, body)) = self.large.front_mut() {
            let before = (*at - self.pos).min(n);
            self.pos += before;
            n -= before;
            if n < body.len() {
                self.large_len -= n;
                let _ = body.split_to(n);
                n = 0;
                break;
            }
            n -= body.len();
            self.large_len -= body.len();
            self.large.pop_front();
            if n == 0 {
                break;
            }
        }
        self.pos += n;
        if self.is_empty() {
            self.clear();
        } else if self.pos >= COMPACT && self.pos >= self.small.len() / 2 {
            self.forget_written();
        }
    }

    /// Moves the rest to the front: a peer that never reads quite everything must not make us keep
    /// all that was ever written.
    #[cold]
    fn forget_written(&mut self) {
        self.small.drain(..self.pos);
        self.large.iter_mut().for_each(|(at, _)| *at -= self.pos);
        self.pos = 0;
    }

    fn clear(&mut self) {
        self.pos = 0;
        match self.small.capacity() > KEEP && self.small.len() < self.small.capacity() / 4 {
            true => self.small = Vec::new(),
            false => self.small.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    /// Writes everything, `step` bytes at a time, through `slices`.
    fn drain(out: &mut OutBuf, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !out.is_empty() {
            let mut io = [IoSlice::new(&[]); 3];
            let n = out.slices(&mut io);
            let flat: Vec<u8> = io[..n].iter().flat_map(|s| s.to_vec()).take(step).collect();
            assert!(!flat.is_empty(), "nothing offered although not empty");
            all.extend_from_slice(&flat);
            out.advance(flat.len());
        }
        all
    }

    #[test]
    fn order_is_kept_however_it_is_cut() {
        let fill = || {
            let mut out = OutBuf::default();
            out.frame(Header::new(Kind::Ping, 0, 0, 1), &[b"ab", b"c"]);
            out.frame_with_segment(Header::new(Kind::Call, 0, 0, 2), &[b"d"], Bytes::from(vec![b'x'; 50]));
            out.frame_with_segment(Header::new(Kind::Call, 0, 0, 3), &[], Bytes::from(vec![b'y'; 20]));
            out.frame(Header::new(Kind::Pong, 0, 0, 4), &[]);
            out
        };
        let whole = drain(&mut fill(), usize::MAX);
        assert_eq!(whole.len(), 4 * HEADER + 3 + 1 + 50 + 20);
        assert_eq!(fill().len(), whole.len());
        for step in 1..whole.len() {
            assert_eq!(drain(&mut fill(), step), whole, "step {step}");
        }
        let mut frames = bytes::BytesMut::from(&whole[..]);
        let mut lens = Vec::new();
        while let Some(f) = crate::get_frame(&mut frames, 1000).unwrap() {
            lens.push(f.payload.len());
        }
        assert_eq!(lens, [3, 51, 20, 0]);
    }

    #[test]
    fn what_is_written_is_forgotten() {
        // A last frame with a large body, and an empty one: both leave nothing behind.
        for body in [Bytes::from(vec![b'x'; 50]), Bytes::new()] {
            let mut out = OutBuf::default();
            for _ in 0..100 {
                out.frame_with_segment(Header::new(Kind::Call, 0, 0, 2), &[b"d"], body.clone());
                assert!(out.slices(&mut [IoSlice::new(&[]); 3]) <= 2);
                drain(&mut out, usize::MAX);
                assert_eq!(out.small_len(), 0);
            }
        }
        // A peer that never takes quite all.
        let mut out = OutBuf::default();
        for _ in 0..10_000 {
            out.frame(Header::new(Kind::Pong, 0, 0, 4), &[&[7; 88]]);
            out.frame_with_segment(Header::new(Kind::Call, 0, 0, 2), &[], Bytes::from_static(b"segment"));
            out.advance(out.len() - 10);
            assert!(out.small_len() <= COMPACT + 1000, "{} bytes kept for {} unwritten", out.small_len(), out.len());
        }
        assert_eq!(drain(&mut out, 1).len(), 10);
    }
}
