//! The limits that only HTTP has.

use std::time::Duration;

/// The limits of the HTTP door that farcall's own protocol has no use for. What both have (`body`, `metadata`, `held`,
/// `streams`, `connections`, `server_in_flight`, `handshake`, `default_deadline`) is in the server's
/// [`Limits`](farcall_core::Limits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Headers of one request. Default 100. More are answered with 431.
    pub headers: usize,
    /// Bytes of a request's line and headers. Default 32 KiB, at least 8 KiB. More are answered with 431.
    pub header_bytes: usize,
    /// Requests of one HTTP/2 connection under way at a time. Default 256. A further one is reset, and may be made again.
    pub requests: u32,
    /// How long a connection may take for the head of its next request, and so how long an idle one is kept.
    /// Default 30 s.
    pub idle: Duration,
    /// How long the rest of a request, or the client's reading of a response, may stand still, or take for each 16 KiB.
    /// Default 10 s. Then the request is answered with 408, or the connection is closed.
    pub stall: Duration,
    /// Silence of an event stream after which a comment is sent, so that proxies keep the connection and a client
    /// that is gone is noticed. Default 15 s.
    pub event_silence: Duration,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            headers: 100,
            header_bytes: 32 << 10,
            requests: 256,
            idle: Duration::from_secs(30),
            stall: Duration::from_secs(10),
            event_silence: Duration::from_secs(15),
        }
    }
}
