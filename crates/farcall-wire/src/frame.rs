//! Frame headers and the preface: the first things on a link and around everything else.

use bytes::{Buf, Bytes, BytesMut};

/// Protocol version of this implementation.
pub const VERSION: u8 = 1;
/// The first seven bytes of a link, before the version byte.
pub const PREFACE: &[u8; 7] = b"farcall";
/// Bytes of the preface with its version.
pub const PREFACE_LEN: usize = 8;
/// Bytes of a frame header.
pub const HEADER: usize = 12;
/// A body or item of more bytes is sent in fragments.
pub const WHOLE: usize = 128 << 10;
/// Bytes of one fragment: what a small frame waits for at most behind a large body.
pub const FRAGMENT: usize = 64 << 10;
/// The largest payload of a frame that is not a carrier of bodies: nobody needs more, and what is
/// decoded from it takes up to sixteen times the space.
pub(crate) const CONTROL: usize = 1 << 20;
/// Bytes to make room for before a read that is not known to need more.
const READ_CHUNK: usize = 64 << 10;
/// Bytes set aside at most on the word of a header alone; beyond it, room grows with what arrives.
const READ_TRUST: usize = 1 << 20;

/// What a frame is. Numbers are part of the protocol; see `docs/protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A call withdrawn before it was written; the receiver skips it.
    Void = 0x00,
    /// Who I am and what I take: the first frame of a link.
    Hello = 0x01,
    /// Rows of my method table.
    Bind = 0x02,
    /// What you make of them.
    Bound = 0x03,
    /// What I write in a row on which we differ.
    Schema = 0x04,
    /// I can read you on this row, or why I cannot.
    Ready = 0x05,
    /// A call.
    Call = 0x10,
    /// Its one answer.
    Reply = 0x11,
    /// The caller is gone.
    Cancel = 0x12,
    /// A stream item, or a piece of one or of a body.
    Data = 0x20,
    /// You may send more.
    Credit = 0x21,
    /// A stream is over.
    End = 0x22,
    /// A stream broken off.
    Reset = 0x23,
    /// How many sequenced frames arrived. Not built yet.
    Ack = 0x30,
    /// Are you there?
    Ping = 0x31,
    /// Yes.
    Pong = 0x32,
    /// I take no further calls.
    GoAway = 0x33,
    /// References I no longer hold. Not built yet.
    Release = 0x40,
    /// References that are gone. Not built yet.
    Revoked = 0x41,
    /// Go on with an earlier session. Not built yet.
    Resume = 0x42,
}

impl Kind {
    /// The kind of this number.
    pub fn from_u8(n: u8) -> Option<Kind> {
        use Kind::*;
        Some(match n {
            0x00 => Void,
            0x01 => Hello,
            0x02 => Bind,
            0x03 => Bound,
            0x04 => Schema,
            0x05 => Ready,
            0x10 => Call,
            0x11 => Reply,
            0x12 => Cancel,
            0x20 => Data,
            0x21 => Credit,
            0x22 => End,
            0x23 => Reset,
            0x30 => Ack,
            0x31 => Ping,
            0x32 => Pong,
            0x33 => GoAway,
            0x40 => Release,
            0x41 => Revoked,
            0x42 => Resume,
            _ => return None,
        })
    }
}

/// Bits of a header's flags.
pub mod flags {
    /// An options block stands before the body.
    pub const OPTIONS: u8 = 0x01;
    /// The body or item goes on in the next Data frame.
    pub const MORE: u8 = 0x02;
    /// No reply is wanted.
    pub const ONEWAY: u8 = 0x04;
    /// Items follow in Data frames.
    pub const STREAM: u8 = 0x08;
    /// The frame is about the results of a call, not its arguments: Data, Credit, End, Reset.
    pub const RESULTS: u8 = 0x10;
    /// The binding was made by the receiver of the frame: Schema, Ready.
    pub const THEIRS: u8 = 0x10;
    /// All that a Call may have.
    pub(crate) const CALL: u8 = OPTIONS | MORE | ONEWAY | STREAM | TARGET;
    /// Two bits: what a call is addressed to.
    pub const TARGET: u8 = 0x30;
    /// Target: a row of the method table.
    pub const TARGET_METHOD: u8 = 0x00;
    /// Target: an exported object. Not built yet.
    pub const TARGET_OBJECT: u8 = 0x10;
    /// Target: the result of a call not yet answered. Not built yet.
    pub const TARGET_ANSWER: u8 = 0x20;
}

/// The `aux` field of a Reply.
pub mod status {
    /// The body is the result.
    pub const OK: u16 = 0;
    /// The body is the application's error.
    pub const APP_ERROR: u16 = 1;
    /// The body is a [`Failure`](crate::Failure).
    pub const FAILURE: u16 = 2;
}

/// The twelve bytes before every payload: `len u32 | kind u8 | flags u8 | aux u16 | id u32`,
/// little-endian; `len` counts what follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload.
    pub len: u32,
    /// What it is.
    pub kind: Kind,
    /// See [`flags`].
    pub flags: u8,
    /// Row, status or number, by kind.
    pub aux: u16,
    /// Call, binding or token, by kind.
    pub id: u32,
}

impl Header {
    /// A header whose length is to be patched.
    pub fn new(kind: Kind, flags: u8, aux: u16, id: u32) -> Header {
        Header { len: 0, kind, flags, aux, id }
    }

    /// The wire form.
    #[inline]
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        b[..4].copy_from_slice(&self.len.to_le_bytes());
        b[4] = self.kind as u8;
        b[5] = self.flags;
        b[6..8].copy_from_slice(&self.aux.to_le_bytes());
        b[8..].copy_from_slice(&self.id.to_le_bytes());
        b
    }
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// What followed.
    pub payload: Bytes,
}

/// The peer broke the protocol; the link cannot go on. The text says how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// Takes one whole frame off the front of `buf`; `None` if there is none yet. A frame above `max`
/// payload bytes or of an unknown kind is refused by its header alone.
#[inline]
pub fn get_frame(buf: &mut BytesMut, max: usize) -> Result<Option<Frame>, Violation> {
    let Some(head) = buf.first_chunk::<HEADER>() else { return Ok(None) };
    let &[l0, l1, l2, l3, kind, flags, a0, a1, i0, i1, i2, i3] = head;
    let len = u32::from_le_bytes([l0, l1, l2, l3]);
    if len as usize > max.min(CONTROL) {
        check_large(len, max, kind)?;
    }
    let Some(kind) = Kind::from_u8(kind) else { return Err(unknown_kind(kind)) };
    if buf.len() - HEADER < len as usize {
        return Ok(None);
    }
    let header = Header { len, kind, flags, aux: u16::from_le_bytes([a0, a1]), id: u32::from_le_bytes([i0, i1, i2, i3]) };
    buf.advance(HEADER);
    Ok(Some(Frame { header, payload: buf.split_to(len as usize).freeze() }))
}

fn check_large(len: u32, max: usize, kind: u8) -> Result<(), Violation> {
    let known = Kind::from_u8(kind);
    let (max, advice) = match known {
        Some(Kind::Void | Kind::Call | Kind::Reply | Kind::Data) => (max, ": send smaller bodies or raise the limit `body`"),
        _ => (max.min(CONTROL), ""),
    };
    if len as usize <= max {
        return Ok(());
    }
    let kind = known.map_or(format!("0x{kind:02x}"), |k| format!("{k:?}"));
    Err(Violation(format!("a {kind} frame of {len} bytes is announced, the limit is {max}{advice}")))
}

#[cold]
fn unknown_kind(kind: u8) -> Violation {
    Violation(format!("frame kind 0x{kind:02x} is not in protocol version {VERSION}"))
}

/// Room to make in `buf` before the next read: the rest of an announced frame, else a fair chunk.
/// What is only announced, not sent, gets a mebibyte; then the room doubles with what has come.
#[inline]
pub fn read_room(buf: &BytesMut, max: usize) -> usize {
    rest_of_frame(buf, max).max(READ_CHUNK)
}

/// Room for the rest of the frame that is announced at the beginning of `buf`, with the same trust; 0 if none is.
#[inline]
pub fn rest_of_frame(buf: &BytesMut, max: usize) -> usize {
    let announced = buf.first_chunk::<4>().map_or(0, |l| (u32::from_le_bytes(*l) as usize).min(max).saturating_add(HEADER));
    announced.saturating_sub(buf.len()).min(READ_TRUST.max(buf.len()))
}

/// What the first bytes of a link say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preface {
    /// So far so good, more bytes needed.
    Partial,
    /// farcall, in this version.
    Farcall(u8),
    /// Something else.
    Foreign,
}

impl Preface {
    /// Looks at the first bytes of a link.
    pub fn parse(first: &[u8]) -> Preface {
        let n = first.len().min(PREFACE.len());
        match (first[..n] == PREFACE[..n], first.get(PREFACE.len())) {
            (false, _) => Preface::Foreign,
            (true, Some(version)) => Preface::Farcall(*version),
            (true, None) => Preface::Partial,
        }
    }

    /// Our own.
    pub fn ours() -> [u8; PREFACE_LEN] {
        let mut out = [VERSION; PREFACE_LEN];
        out[..PREFACE.len()].copy_from_slice(PREFACE);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_keeps_its_number() {
        let known: Vec<u8> = (0..=255).filter(|&n| Kind::from_u8(n).is_some_and(|k| k as u8 == n)).collect();
        assert_eq!(known, [0, 1, 2, 3, 4, 5, 0x10, 0x11, 0x12, 0x20, 0x21, 0x22, 0x23, 0x30, 0x31, 0x32, 0x33, 0x40, 0x41, 0x42]);
    }

    #[test]
    fn a_frame_comes_whole_or_not_at_all() {
        let mut wire = Header { len: 3, ..Header::new(Kind::Ping, 0, 7, 9) }.to_bytes().to_vec();
        wire.extend_from_slice(b"abc");
        for cut in 0..wire.len() {
            assert_eq!(get_frame(&mut BytesMut::from(&wire[..cut]), 64).unwrap(), None);
        }
        let frame = get_frame(&mut BytesMut::from(&wire[..]), 64).unwrap().unwrap();
        assert_eq!((frame.header.kind, frame.header.aux, frame.header.id, &frame.payload[..]), (Kind::Ping, 7, 9, &b"abc"[..]));
    }

    #[test]
    fn a_frame_too_large_is_refused_by_its_header() {
        let wire = Header { len: u32::MAX, ..Header::new(Kind::Call, 0, 0, 0) }.to_bytes();
        let e = get_frame(&mut BytesMut::from(&wire[..]), 1000).unwrap_err();
        assert!(e.0.contains("4294967295") && e.0.contains("1000"), "{e}");
        assert!(read_room(&BytesMut::from(&wire[..]), 1000) <= READ_CHUNK);
    }

    #[test]
    fn only_frames_that_carry_bodies_may_be_large() {
        let check = |kind: Kind, len: usize, fits: bool| {
            let wire = Header { len: len as u32, ..Header::new(kind, 0, 0, 0) }.to_bytes();
            assert_eq!(get_frame(&mut BytesMut::from(&wire[..]), 16 << 20).is_ok(), fits, "{kind:?} of {len}");
        };
        check(Kind::Call, 16 << 20, true);
        check(Kind::Void, 16 << 20, true);
        check(Kind::Reply, (16 << 20) + 1, false);
        check(Kind::Bind, CONTROL, true);
        for kind in [Kind::Bind, Kind::Bound, Kind::GoAway, Kind::Ping, Kind::Hello] {
            check(kind, CONTROL + 1, false);
        }
    }

    #[test]
    fn room_is_made_for_what_has_come_not_for_what_is_claimed() {
        let mut buf = BytesMut::from(&Header { len: 16 << 20, ..Header::new(Kind::Call, 0, 0, 0) }.to_bytes()[..]);
        let (mut reads, whole) = (0, HEADER + (16 << 20));
        while buf.len() < whole {
            let room = read_room(&buf, 16 << 20);
            assert!(room <= READ_TRUST.max(buf.len()), "{room} bytes of room after {} came", buf.len());
            buf.resize((buf.len() + room).min(whole), 0);
            reads += 1;
        }
        assert!(reads < 10, "{reads} reads");
    }

    #[test]
    fn the_preface_tells_farcall_from_others() {
        assert_eq!(Preface::parse(b""), Preface::Partial);
        assert_eq!(Preface::parse(b"farc"), Preface::Partial);
        assert_eq!(Preface::parse(&Preface::ours()), Preface::Farcall(VERSION));
        assert_eq!(Preface::parse(b"farcall\x09"), Preface::Farcall(9));
        assert_eq!(Preface::parse(b"GET / HTTP/1.1"), Preface::Foreign);
    }
}
