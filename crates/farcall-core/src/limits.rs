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
    /// Bytes of one request or reply body, and of one stream item. Default 16 MiB. A larger one is
    /// refused as `ResourceExhausted` before anything is sent.
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
    /// Open streams per connection and direction of calling. Default 1 024. One more is refused as
    /// `ResourceExhausted` before its handler starts. Beside its window a stream costs its sender up to
    /// one item of `body` bytes that waits for credit.
    pub streams: usize,
    /// Bytes that a peer's schemas may take on a connection: as they come, as they are compared, and what is made of
    /// them. Default 2 MiB, some thousand methods whose types differ. A method beyond it is refused as
    /// `ResourceExhausted`. 0 = types that differ are not resolved but refused, as by a peer that cannot.
    pub schemas: usize,
    /// Bytes of requests that the peer may have on their way to their handlers: while dispatch stops,
    /// this much is kept. Default 16 MiB, at least 1 MiB.
    pub credit: usize,
    /// Bytes of a stream that may be on their way or wait for their reader, also of a body in
    /// fragments. Default 256 KiB, at least 64 KiB. Costs that much memory per stream with a slow
    /// reader; a stream's throughput is at most this much per round trip.
    pub stream_bytes: usize,
    /// Items of a stream that may be on their way or wait for their reader, beside at most 32 small ones that
    /// it has taken ahead. Default 1 024, at least 16.
    pub stream_items: usize,
    /// Bytes of arguments that are held on one connection by calls that have not ended: bodies being
    /// put together, and handlers that wait; also bytes of large bodies that wait to be sent. Default
    /// 64 MiB, at least `body`. A call that would need
    /// more is shed as `ResourceExhausted`, not executed.
    pub held: usize,
    /// The deadline of a call that sets none and inherits none. Default 10 s. `None` = no deadline.
    pub default_deadline: Option<Duration>,
    /// Silence after which the peer is asked whether it lives; after as much again without an answer the
    /// connection is given up as lost. Default 10 s, at least 10 ms. A handler that blocks its connection's
    /// task for longer (computes, or sleeps the thread) costs the link, too: write a plain `fn`, or use
    /// `farcall::spawn_blocking`. `None` = a link that was cut without a word (a
    /// pulled cable) is only noticed when something is sent.
    pub heartbeat: Option<Duration>,
    /// How long a connection may look at its socket before it goes to sleep, while calls are under way
    /// and as long as that proves to be of use (`docs/performance.md`). Default 50 us. Zero switches it
    /// off.
    pub spin: Duration,
    /// Time to connect and exchange hellos. Default 5 s.
    pub handshake: Duration,
    /// Time for a server's authenticators to find out who a caller is, a part of `handshake`. Default 2 s. The
    /// caller is then refused as `Unavailable`, not executed.
    pub verify: Duration,
    /// Callers that a server's authenticators judge at a time; others wait for it, within `verify`. Default 64.
    pub verifying: usize,
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
    /// Connections of one host (of IPv6: of one /64 network) at one server. Default 5 000, so that no host takes all
    /// of `connections`. One more is told so and closed. Unix sockets and memory are not counted. Behind a proxy or
    /// a translator of addresses all clients are one host: raise it there.
    pub connections_per_host: usize,
    /// Links of one server that have not said a hello that it accepts, in TLS or after it; of another protocol, that have
    /// not made a call that they may make. Default 1 024. One more pushes one out: of the host that has the most of
    /// them, the one that came first.
    pub half_open: usize,
    /// Handlers that one server has waiting at a time, on all its connections, those whose callers
    /// are gone included. Default 65 536. A further call is refused as `ResourceExhausted`,
    /// `NotExecuted`. Connections on several threads may each go over it by one.
    pub server_in_flight: usize,
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
/// The most connections that one channel keeps.
pub const MAX_CONNECTIONS: usize = 64;
/// The largest frame before the peer's hello is known.
pub const FRAME_BEFORE_HELLO: usize = 64 << 10;
/// The largest error message on the wire, in bytes; a longer one is cut.
pub const ERROR_MESSAGE: usize = 8 << 10;
/// The longest idempotency key, in bytes.
pub const KEY: usize = 64;
/// The most bytes of credentials.
pub const CREDENTIALS: usize = 16 << 10;
/// Bytes of plans that a server or a channel keeps for further connections, roughly.
pub const READINGS: usize = 4 << 20;
/// What a frame may hold beside its body: header, options and their lengths.
pub const FRAME_OVERHEAD: usize = 1 << 10;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body: 16 << 20,
            metadata: 64 << 10,
            in_flight: MAX_IN_FLIGHT,
            out_buffer: 1 << 20,
            bound_methods: 4096,
            streams: 1024,
            schemas: 2 << 20,
            credit: 16 << 20,
            stream_bytes: 256 << 10,
            stream_items: 1024,
            held: 64 << 20,
            default_deadline: Some(Duration::from_secs(10)),
            heartbeat: Some(Duration::from_secs(10)),
            spin: Duration::from_micros(50),
            handshake: Duration::from_secs(5),
            verify: Duration::from_secs(2),
            verifying: 64,
            reconnect_base: Duration::from_millis(200),
            reconnect_cap: Duration::from_secs(10),
            reconnect_wait: Duration::from_secs(1),
            connections: 10_000,
            connections_per_host: 5_000,
            half_open: 1024,
            server_in_flight: MAX_IN_FLIGHT,
            keys: 10_000,
            key_bytes: 16 << 20,
            key_time: Duration::from_secs(600),
        }
    }
}
