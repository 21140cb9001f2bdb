//! Every limit of a connection by name, with its default. Nothing in farcall grows without one.

use std::time::Duration;

/// The limits of one connection, per direction. Each side tells the other its own in the hello and
/// keeps to the other's.
///
/// ```
/// use farcall_core::Limits;
/// let small = Limits { body: 64 * 1024, ..Limits::default() };
/// assert_eq!(small.in_flight, 65_536);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request or reply body. Default 16 MiB. A larger one is refused as
    /// `ResourceExhausted` before anything is sent.
    pub body: usize,
    /// Bytes of all metadata of one call, keys and values. Default 64 KiB.
    pub metadata: usize,
    /// Calls in flight per connection and direction. Default 65 536, which is also the most that
    /// call numbers allow. One more is refused as `ResourceExhausted`, `NotSent`. A call whose caller
    /// gave up counts until its reply comes.
    pub in_flight: usize,
    /// Bytes waiting to be written on one connection before callers wait and dispatch stops.
    /// Default 1 MiB.
    pub out_buffer: usize,
    /// Rows of the method table one side may bind on a connection. Default 4 096.
    pub bound_methods: usize,
    /// The deadline of a call that sets none and inherits none. Default 10 s. `None` = no deadline.
    pub default_deadline: Option<Duration>,
    /// Time to connect and exchange hellos. Default 5 s.
    pub handshake: Duration,
    /// Connections one server accepts at a time. Default 10 000; further ones wait in the
    /// system's queue.
    pub connections: usize,
    /// Calls with an idempotency key that one server remembers. Default 10 000; further ones push the
    /// oldest out. If all of them still run, one more is refused as `ResourceExhausted`,
    /// `NotExecuted`. 0 = no keys are taken.
    pub keys: usize,
    /// Bytes of replies that one server keeps by key. Default 16 MiB; further ones push the oldest
    /// out. Of a reply above a sixteenth of it is kept only that there was one.
    pub key_bytes: usize,
    /// How long a server keeps the reply of a call with a key. Default 10 min.
    pub key_time: Duration,
}

/// The most calls in flight that call numbers can tell apart (16 bits of slot).
pub const MAX_IN_FLIGHT: usize = 1 << 16;
/// The largest frame before the peer's hello is known.
pub const FRAME_BEFORE_HELLO: usize = 64 << 10;
/// The largest error message on the wire, in bytes; a longer one is cut.
pub const ERROR_MESSAGE: usize = 8 << 10;
/// The longest idempotency key, in bytes.
pub const KEY: usize = 64;
/// What a frame may hold beside its body: header, options and their lengths.
pub const FRAME_OVERHEAD: usize = 1 << 10;

impl Limits {
    /// The largest frame that these limits allow.
    pub fn frame(&self) -> usize {
        self.body.saturating_add(self.metadata).saturating_add(FRAME_OVERHEAD)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body: 16 << 20,
            metadata: 64 << 10,
            in_flight: MAX_IN_FLIGHT,
            out_buffer: 1 << 20,
            bound_methods: 4096,
            default_deadline: Some(Duration::from_secs(10)),
            handshake: Duration::from_secs(5),
            connections: 10_000,
            keys: 10_000,
            key_bytes: 16 << 20,
            key_time: Duration::from_secs(600),
        }
    }
}
