//! What really happened, for comparing with what the sessions say: calls by the number that travels
//! in their bodies, and what was sent and read of their streams.

use std::sync::OnceLock;

use bytes::Bytes;
use farcall_core::Certainty;
use farcall_sim::Rng;

/// A call in the ledger.
pub(crate) type Key = u64;

/// Whom a session wakes. Streams are told by their call and whether they are its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Call(Key),
    Reader(Key, bool),
    Producer(Key, bool),
}

/// A stream's course.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Course {
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) read: u64,
    pub(crate) read_bytes: u64,
    /// How its producer ended it.
    pub(crate) ended: Option<u16>,
    /// How its reader saw it end.
    pub(crate) seen: Option<Seen>,
}

/// What a reader was told at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Seen {
    Whole,
    AppError,
    Failed,
    /// It went away before.
    Dropped,
}

#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) oneway: bool,
    pub(crate) deadline: bool,
    /// Times its handler ran.
    pub(crate) executed: usize,
    /// Its handler has answered, or was dropped.
    pub(crate) over: bool,
    /// Times its caller was woken.
    pub(crate) woken: usize,
    /// Its body left whole, as a Call.
    pub(crate) sent: bool,
    /// Bytes of its body.
    pub(crate) len: usize,
    /// The caller went away before it had an answer.
    pub(crate) cancelled: bool,
    /// Its caller was told this and may rely on it.
    pub(crate) promised: Option<Certainty>,
    pub(crate) ended: bool,
    pub(crate) args: Course,
    pub(crate) results: Course,
}

impl Record {
    pub(crate) fn course(&mut self, results: bool) -> &mut Course {
        if results { &mut self.results } else { &mut self.args }
    }
}

/// The largest piece of [`content`].
const CONTENT: usize = 512 << 10;

/// Bytes that are known again by where they begin.
fn content(tag: u64, len: usize) -> Bytes {
    static ALL: OnceLock<Bytes> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut rng = Rng(1);
        (0..CONTENT / 8 + (1 << 13)).flat_map(|_| rng.any().to_le_bytes()).collect::<Vec<u8>>().into()
    });
    let from = Rng(tag).below(1 << 16);
    all.slice(from..from + len)
}

/// A body that says whose it is.
pub(crate) fn body(key: Key, results: bool, len: usize) -> Bytes {
    let rest = content(key * 2 + u64::from(results), len.max(8) - 8);
    [&key.to_le_bytes()[..], &rest].concat().into()
}

/// Whose body it is, which must be whole.
pub(crate) fn key_of(bytes: &[u8], results: bool) -> Key {
    let key = begins_with(bytes);
    assert!(bytes[8..] == content(key * 2 + u64::from(results), bytes.len() - 8)[..], "the body of {key} is garbled");
    key
}

/// Whose body begins so.
pub(crate) fn begins_with(bytes: &[u8]) -> Key {
    u64::from_le_bytes(*bytes.first_chunk().expect("a body without its key"))
}

/// No item has more bytes.
pub(crate) const LARGEST: u64 = 150 << 10;

/// An item of a stream: most are small, in heavy runs some take several fragments.
pub(crate) fn item(key: Key, results: bool, n: u64, heavy: bool) -> Bytes {
    let tag = (key << 21) + (u64::from(results) << 20) + n;
    let mut rng = Rng(tag);
    let len = match (rng.below(12), heavy) {
        (0, _) => rng.below(3000),
        (1, true) => (15 << 10) + rng.below(4 << 10),
        (2, true) => rng.below(LARGEST as usize),
        _ => rng.below(60),
    };
    content(tag, len)
}
