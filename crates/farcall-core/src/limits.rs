//! Every limit by name, with its default. Nothing in farcall grows without one.

use std::time::Duration;

/// The limits of one connection, per direction, and of the channel or server that it belongs to. Each
/// side tells the other in the hello what concerns it, and keeps to the other's.
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
    /// The longest pause of a channel after its first failed attempt to connect; it doubles with each
    /// further one. The pause itself is a random share of it. Default 200 ms.
    pub reconnect_base: Duration,
    /// The longest pause after any number of failed attempts. Default 10 s.
    pub reconnect_cap: Duration,
    /// How long a call waits for such a pause to end, if its deadline allows. If it has longer to go,
    /// the call fails at once, as `Unavailable`, `NotSent`. Default 1 s.
    pub reconnect_wait: Duration,
    /// Connections one server accepts at a time. Default 10 000; further ones wait in the
    /// system's queue.
    pub connections: usize,
    /// Handlers that one server has waiting at a time, on all its connections, those whose callers
    /// are gone included. Default 65 536. A further call is refused as `ResourceExhausted`,
    /// `NotExecuted`. Connections on several threads may each go over it by one.
    pub server_in_flight: usize,
}

/// The most calls in flight that call numbers can tell apart (16 bits of slot).
pub const MAX_IN_FLIGHT: usize = 1 << 16;
/// The most connections that one channel keeps.
pub const MAX_CONNECTIONS: usize = 64;
/// The largest frame before the peer's hello is known.
pub const FRAME_BEFORE_HELLO: usize = 64 << 10;
/// The largest error message on the wire, in bytes; a longer one is cut.
pub const ERROR_MESSAGE: usize = 8 << 10;
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
            reconnect_base: Duration::from_millis(200),
            reconnect_cap: Duration::from_secs(10),
            reconnect_wait: Duration::from_secs(1),
            connections: 10_000,
            server_in_flight: MAX_IN_FLIGHT,
        }
    }
}
